"""Checks a Tidemill Flight SQL server through flightsql-dbapi and SQLAlchemy, as Superset would use it.

    python dbapi.py grpc://127.0.0.1:50051 [--user U --password P] [CHECK]...

The server must hold the objects of setup.sql. Checks may run in any order and any number of times.
"""

import flightsql
import flightsql.sqlalchemy  # noqa: F401  registers datafusion+flightsql://
import pyarrow as pa
import sqlalchemy
from flightsql.client import FlightSQLClient

from checks import COLUMNS, ITEMS, SCHEMA, address, clean_error, equal, holds, main


def plain(rows):
    """The client reads through pandas: its NaT and Timestamp become None and datetime."""
    return [tuple(plain_value(value) for value in row) for row in rows]


def plain_value(value):
    if value is None or value != value:
        return None
    return value.to_pydatetime() if hasattr(value, "to_pydatetime") else value


# ---- SQLAlchemy ----------------------------------------------------------------


def check_schema_names(connect):
    names = sqlalchemy.inspect(connect.engine()).get_schema_names()
    holds(SCHEMA in names and "information_schema" in names, f"schemas: {names}")


def check_table_names(connect):
    inspector = sqlalchemy.inspect(connect.engine())
    holds("items" in inspector.get_table_names(schema=SCHEMA), f"tables: {inspector.get_table_names(schema=SCHEMA)}")
    holds("items" in inspector.get_table_names(), "no `items` among the tables of every schema")
    equal(inspector.get_table_names(schema="no_such_schema"), [], "tables of no_such_schema")
    holds(inspector.has_table("items", schema=SCHEMA), "has_table('items') is false")


def check_columns(connect):
    columns = sqlalchemy.inspect(connect.engine()).get_columns("items", schema=SCHEMA)
    actual = [(column["name"], type(column["type"]).__name__) for column in columns]
    equal(actual, list(zip(COLUMNS, ["BIGINT", "TEXT", "DECIMAL", "BOOLEAN", "TIMESTAMP"])), "columns of `items`")


def check_similar_names(connect):
    """The client reads the first table that the pattern matches, and `_` matches any letter."""
    client = connect.client()
    tables = {"dbapi_a1b": "other", "dbapi_a_b": "wanted"}
    for table, column in tables.items():
        client.execute_update(f"DROP TABLE IF EXISTS {table}")
        client.execute_update(f"CREATE TABLE {table} ({column} BIGINT)")
    columns = sqlalchemy.inspect(connect.engine()).get_columns("dbapi_a_b", schema=SCHEMA)
    equal([column["name"] for column in columns], ["wanted"], "columns of dbapi_a_b")
    for table in tables:
        client.execute_update(f"DROP TABLE {table}")


def check_query(connect):
    with connect.engine().connect() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT * FROM items ORDER BY id")).fetchall()
        equal(plain(rows), ITEMS, "rows of `items`")
        total = connection.execute(sqlalchemy.text("SELECT count(*), sum(price) FROM items")).fetchone()
        equal(tuple(total), (5, sum(row[2] for row in ITEMS if row[2] is not None)), "count and sum")


def check_expression(connect):
    """A statement that SQLAlchemy writes: quoted names, literals in place of parameters, LIMIT."""
    engine = connect.engine()
    items = sqlalchemy.table("items", *[sqlalchemy.column(name) for name in COLUMNS], schema=SCHEMA)
    statement = (
        sqlalchemy.select(items.c.name, sqlalchemy.func.count().label("Number of Rows"))
        .where(items.c.name != "anchor", items.c.id > 1)
        .group_by(items.c.name)
        .order_by(items.c.name)
        .limit(2)
    )
    with engine.connect() as connection:
        result = connection.execute(statement)
        equal(list(result.keys()), ["name", "Number of Rows"], "names of the result")
        equal([tuple(row) for row in result], [("", 1), ("Böe", 1)], "rows")


def check_prepared(connect):
    """The client sends each parameter as a dense union."""
    engine = connect.engine("&feature-sqlalchemy-prepared-statements=on")
    items = sqlalchemy.table("items", *[sqlalchemy.column(name) for name in COLUMNS], schema=SCHEMA)
    with engine.connect() as connection:
        for text, least, expected in [("anchor", 1, [2, 4, 5]), ("", 2, [2, 4])]:
            statement = sqlalchemy.select(items.c.id).where(items.c.name != text, items.c.id >= least)
            ids = [row[0] for row in connection.execute(statement.order_by(items.c.id))]
            equal(ids, expected, f"ids where name <> {text!r} and id >= {least}")


def check_errors(connect):
    with connect.engine().connect() as connection:
        ask = lambda sql: connection.execute(sqlalchemy.text(sql)).fetchall()  # noqa: E731
        errors = (pa.ArrowException, pa.flight.FlightError, sqlalchemy.exc.SQLAlchemyError, flightsql.exceptions.Error)
        clean_error(lambda: ask("SELEC 1"), errors, "line 1", "column 1")
        clean_error(lambda: ask("SELECT id,\n  nonsense\nFROM items"), errors, "nonsense", "line 2", "column 3")
        equal([tuple(row) for row in ask("SELECT count(*) FROM items")], [(5,)], "the query after the errors")


# ---- the DB-API below it ---------------------------------------------------------


def check_cursor(connect):
    connection = flightsql.connect(connect.client())
    cursor = connection.cursor()
    cursor.execute("SELECT id, name FROM items WHERE id = ?", [4])
    equal(cursor.fetchall(), [[4, ITEMS[3][1]]], "one parameter")
    cursor.execute("SELECT id FROM items WHERE sold = ? AND name <> ? ORDER BY id", [True, "anchor"])
    equal(cursor.fetchall(), [[4]], "two parameters")
    cursor.execute("SELECT at FROM items WHERE id = 1")
    equal(plain(cursor.fetchall()), [(ITEMS[0][4],)], "a timestamp to the microsecond")
    connection.close()


def check_update(connect):
    client = connect.client()
    client.execute_update("DROP TABLE IF EXISTS dbapi_notes")
    client.execute_update("CREATE TABLE dbapi_notes (id BIGINT, note VARCHAR)")
    equal(client.execute_update("INSERT INTO dbapi_notes VALUES (1, 'x'), (2, NULL)"), 2, "rows inserted")
    cursor = flightsql.connect(client).cursor()
    cursor.execute("SELECT * FROM dbapi_notes ORDER BY id")
    equal(plain(cursor.fetchall()), [(1, "x"), (2, None)], "what was inserted")
    client.execute_update("DROP TABLE dbapi_notes")


def check_sql_info(connect):
    info = flightsql.connect(connect.client()).flightsql_get_sql_info([0, 2, 3, 504])
    equal(sorted(info), [0, 2, 3, 504], "codes answered")
    equal((info[0].lower(), info[504]), ("tidemill", '"'), "server name, quote character")


def check_handshake(connect):
    equal(flightsql.connect(connect.client()).execute("SELECT 1").fetchall(), [[1]], "the first query")
    if connect.user is not None:
        refused = (pa.flight.FlightError, pa.ArrowException)
        clean_error(lambda: connect.client(password=connect.password + "x"), refused, "password")
        clean_error(lambda: connect.client(user=None, password=None).execute("SELECT 1"), refused)


class Connect:
    """Opens engines and clients with the command line's address and credentials, or with others."""

    def __init__(self, arguments):
        self.host, self.port = address(arguments.uri)
        self.user, self.password = arguments.user, arguments.password

    def engine(self, more=""):
        login = "" if self.user is None else f"{self.user}:{self.password}@"
        return sqlalchemy.create_engine(f"datafusion+flightsql://{login}{self.host}:{self.port}?insecure=true{more}")

    def client(self, **other):
        return FlightSQLClient(
            host=self.host,
            port=self.port,
            user=other.get("user", self.user),
            password=other.get("password", self.password),
            insecure=True,
        )


CHECKS = {name.removeprefix("check_"): check for name, check in globals().items() if name.startswith("check_")}

if __name__ == "__main__":
    main(CHECKS, Connect, __doc__)
