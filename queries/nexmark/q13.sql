-- Bounded side input: every bid with a value from a lake table (side_input.sql).

CREATE MATERIALIZED VIEW q13 AS
SELECT b.auction, b.bidder, b.price, b.date_time, s.value
FROM bid AS b
JOIN side_input FOR SYSTEM_TIME AS OF now() AS s ON b.auction % 10000 = s.key;
