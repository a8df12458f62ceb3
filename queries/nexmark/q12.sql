-- Processing-time windows: how many bids a bidder makes in ten seconds of the time at which they
-- arrive. That is the record's own timestamp, and not the clock when it is read: read again,
-- it gives the same windows.

CREATE MATERIALIZED VIEW q12 AS
SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime
FROM TUMBLE(bid, arrived_at, INTERVAL '10' SECOND)
GROUP BY bidder, window_start, window_end;
