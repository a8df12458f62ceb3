-- What the client scripts expect to find: run these through a session before them.
CREATE TABLE items (id BIGINT, name VARCHAR, price DECIMAL(12,2), sold BOOLEAN, at TIMESTAMP);
INSERT INTO items VALUES
  (1, 'anchor', 12.50, true, TIMESTAMP '2024-01-02 03:04:05.678901'),
  (2, 'Böe', 0.99, false, TIMESTAMP '1969-12-31 23:59:59.999999'),
  (3, NULL, NULL, NULL, NULL),
  (4, 'a "rope", it''s long', 9999999999.99, true, TIMESTAMP '2024-02-29 12:00:00'),
  (5, '', -0.01, NULL, TIMESTAMP '2199-12-31 23:59:59');
