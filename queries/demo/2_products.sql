-- A lake table that streams are joined with.
--
-- A table without options is a Delta table in the warehouse, written by INSERT.
-- An INSERT whose input is bounded runs once, in one commit. Here the input is a
-- generator that makes the shop's thousand products and ends.

CREATE TABLE products (
  product_id BIGINT NOT NULL,
  name       VARCHAR,
  category   VARCHAR,
  price      DECIMAL(12, 2)
);

CREATE SOURCE product_list (
  product_id BIGINT,
  name       VARCHAR,
  category   VARCHAR,
  price      DECIMAL(12, 2)
) WITH (connector = 'generator', template = 'products', number_of_rows = 1000);

-- Only what is not there yet, so that running this file again adds nothing.
INSERT INTO products
SELECT product_id, name, category, price
FROM product_list
WHERE product_id NOT IN (SELECT product_id FROM products);
