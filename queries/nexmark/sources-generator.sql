-- Nexmark's three streams from the built-in generator: an auction site.
--
-- The three are parts of one sequence of events (92 bids, 6 auctions and 2 persons of a
-- hundred), so they take the same options: number_of_rows and rows_per_second speak of the
-- whole sequence. With number_of_rows alone everything is there at once; event time still
-- passes at 10,000 events a second.

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
) WITH (connector = 'generator', template = 'nexmark.bid', number_of_rows = 10000000);

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
) WITH (connector = 'generator', template = 'nexmark.auction', number_of_rows = 10000000);

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
) WITH (connector = 'generator', template = 'nexmark.person', number_of_rows = 10000000);
