-- Two streams in one: what every user did, whether looking or buying.

CREATE MATERIALIZED VIEW activity
AS
SELECT user_id, 'viewed' AS what, product_id, device AS via, viewed_at AS happened_at
FROM page_views
UNION ALL
SELECT user_id, 'ordered' AS what, product_id, payment_method AS via, ordered_at AS happened_at
FROM orders;
