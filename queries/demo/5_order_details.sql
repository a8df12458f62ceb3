-- A stream joined with a lake table: every order with what was ordered.
--
-- The join sees the products as they are when an epoch runs: a product whose price
-- changes tomorrow changes tomorrow's orders, not those that are written already.

CREATE MATERIALIZED VIEW order_details
AS
SELECT
  o.order_id,
  o.user_id,
  p.name AS product,
  p.category,
  o.quantity,
  o.amount,
  p.price AS list_price,
  o.ordered_at
FROM orders AS o
JOIN products AS p ON o.product_id = p.product_id;
