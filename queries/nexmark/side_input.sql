-- The side input of q13: a small lake table that bids are joined with.

CREATE TABLE side_input (key BIGINT, value VARCHAR);

INSERT INTO side_input SELECT value, 'value-' || value FROM generate_series(0, 9999);
