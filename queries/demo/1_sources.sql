-- The two topics of a small online shop, declared as sources.
--
-- A source is only a description: nothing is read until a query asks for it, and
-- then only the columns that the query uses. A record that can't be decoded goes
-- to a table beside the source (orders__dead_letters) with its raw bytes, its
-- position in the topic and the reason.

CREATE SOURCE orders (
  order_id       BIGINT NOT NULL,
  user_id        BIGINT,
  product_id     BIGINT,
  quantity       INT,
  amount         DECIMAL(12, 2),
  currency       VARCHAR,
  status         VARCHAR,
  country        VARCHAR,
  payment_method VARCHAR,
  ordered_at     TIMESTAMP
) WITH (
  connector = 'kafka',
  topic = 'orders',
  'bootstrap.servers' = 'localhost:9092',
  format = 'json',
  on_error = 'dead_letter'
);

CREATE SOURCE page_views (
  view_id    BIGINT NOT NULL,
  user_id    BIGINT,
  product_id BIGINT,
  url        VARCHAR,
  referrer   VARCHAR,
  device     VARCHAR,
  viewed_at  TIMESTAMP
) WITH (
  connector = 'kafka',
  topic = 'page_views',
  'bootstrap.servers' = 'localhost:9092',
  format = 'json',
  on_error = 'dead_letter'
);
