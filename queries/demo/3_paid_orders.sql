-- Filter and projection, partitioned by day.
--
-- A materialized view is a continuous query whose result is kept in a Delta table:
-- any lake engine can read it, and it holds every order exactly once, also after
-- a crash. Its files lie in one folder a day.

CREATE MATERIALIZED VIEW paid_orders
PARTITIONED BY (day)
AS
SELECT
  order_id,
  user_id,
  product_id,
  quantity,
  amount,
  currency,
  country,
  upper(payment_method) AS payment_method,
  ordered_at,
  CAST(ordered_at AS DATE) AS day
FROM orders
WHERE status = 'paid';
