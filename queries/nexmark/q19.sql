-- Auction top ten: the ten highest bids on every auction.

CREATE MATERIALIZED VIEW q19 AS
SELECT *
FROM (
  SELECT
    auction, bidder, price, channel, url, date_time, extra,
    row_number() OVER (
      PARTITION BY auction ORDER BY price DESC, date_time, bidder, extra, url
    ) AS rank_number
  FROM bid
)
WHERE rank_number <= 10;
