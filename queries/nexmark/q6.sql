-- Average price by seller: of the winning bids of a seller's last ten auctions.
--
-- Bids of the same price, and auctions won in the same millisecond, are told apart by more
-- columns than the published query names: its answer would depend on chance otherwise.

CREATE MATERIALIZED VIEW q6 AS
SELECT
  w.id,
  w.seller,
  avg(w.final) OVER (
    PARTITION BY w.seller ORDER BY w.date_time, w.id
    ROWS BETWEEN 10 PRECEDING AND CURRENT ROW
  ) AS average
FROM (
  SELECT
    a.id, a.seller, b.price AS final, b.date_time,
    row_number() OVER (
      PARTITION BY a.id, a.seller ORDER BY b.price DESC, b.date_time, b.bidder
    ) AS place
  FROM auction AS a
  JOIN bid AS b ON a.id = b.auction
  WHERE b.date_time BETWEEN a.date_time AND a.expires
) AS w
WHERE w.place <= 1;
