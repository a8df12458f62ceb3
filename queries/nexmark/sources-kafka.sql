-- Nexmark's three streams from Kafka, a topic each, as
-- `tidemill generate nexmark --to kafka://localhost:9092/nexmark` fills them.

CREATE SOURCE bid (
  auction    BIGINT NOT NULL,
  bidder     BIGINT NOT NULL,
  price      BIGINT NOT NULL,
  channel    VARCHAR,
  url        VARCHAR,
  date_time  TIMESTAMP NOT NULL,
  extra      VARCHAR,
  arrived_at TIMESTAMP METADATA FROM 'timestamp',
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH (
  connector = 'kafka', topic = 'nexmark-bid', 'bootstrap.servers' = 'localhost:9092',
  'scan.startup.mode' = 'earliest', format = 'json'
);

CREATE SOURCE auction (
  id          BIGINT NOT NULL,
  item_name   VARCHAR,
  description VARCHAR,
  initial_bid BIGINT,
  reserve     BIGINT,
  date_time   TIMESTAMP NOT NULL,
  expires     TIMESTAMP NOT NULL,
  seller      BIGINT NOT NULL,
  category    BIGINT NOT NULL,
  extra       VARCHAR,
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH (
  connector = 'kafka', topic = 'nexmark-auction', 'bootstrap.servers' = 'localhost:9092',
  'scan.startup.mode' = 'earliest', format = 'json'
);

CREATE SOURCE person (
  id            BIGINT NOT NULL,
  name          VARCHAR,
  email_address VARCHAR,
  credit_card   VARCHAR,
  city          VARCHAR,
  state         VARCHAR,
  date_time     TIMESTAMP NOT NULL,
  extra         VARCHAR,
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH (
  connector = 'kafka', topic = 'nexmark-person', 'bootstrap.servers' = 'localhost:9092',
  'scan.startup.mode' = 'earliest', format = 'json'
);
