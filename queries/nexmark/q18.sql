-- Last bid: of every bidder on every auction.
--
-- The published query orders by date_time alone; many bids share a millisecond, so the rest of
-- the row decides between them.

CREATE MATERIALIZED VIEW q18 AS
SELECT auction, bidder, price, channel, url, date_time, extra
FROM (
  SELECT
    *,
    row_number() OVER (
      PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC, extra, url
    ) AS place
  FROM bid
)
WHERE place <= 1;
