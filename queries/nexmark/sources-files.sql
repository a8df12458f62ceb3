-- Nexmark's three streams from JSON lines, as `tidemill generate nexmark --to nexmark` writes
-- them into the folder nexmark: a series of files for each stream.
--
-- Files say nothing about when an event arrived, so that is taken to be when it happened.

CREATE SOURCE bid (
  auction    BIGINT NOT NULL,
  bidder     BIGINT NOT NULL,
  price      BIGINT NOT NULL,
  channel    VARCHAR,
  url        VARCHAR,
  date_time  TIMESTAMP NOT NULL,
  extra      VARCHAR,
  arrived_at TIMESTAMP AS (date_time),
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH (connector = 'files', path = 'nexmark/bid/*.ndjson', format = 'json');

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
) WITH (connector = 'files', path = 'nexmark/auction/*.ndjson', format = 'json');

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
) WITH (connector = 'files', path = 'nexmark/person/*.ndjson', format = 'json');
