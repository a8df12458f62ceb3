-- Highest bid: of every ten seconds.

CREATE MATERIALIZED VIEW q7 AS
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM bid AS b
JOIN (
  SELECT max(price) AS maxprice, window_end AS date_time
  FROM TUMBLE(bid, date_time, INTERVAL '10' SECOND)
  GROUP BY window_start, window_end
) AS highest
ON b.price = highest.maxprice
WHERE b.date_time BETWEEN highest.date_time - INTERVAL '10' SECOND AND highest.date_time;
