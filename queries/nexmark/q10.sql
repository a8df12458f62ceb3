-- Log to the file system: every bid into a table partitioned by day and minute.

CREATE MATERIALIZED VIEW q10 PARTITIONED BY (dt, hm) AS
SELECT
  auction, bidder, price, date_time, extra,
  to_char(date_time, '%Y-%m-%d') AS dt,
  to_char(date_time, '%H:%M') AS hm
FROM bid;
