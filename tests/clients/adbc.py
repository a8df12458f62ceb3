"""Checks a Tidemill Flight SQL server through ADBC's Flight SQL driver, as a Python program would use it.

    python adbc.py grpc://127.0.0.1:50051 [--user U --password P] [CHECK]...

The server must hold the objects of setup.sql. Checks may run in any order and any number of times.
"""

import threading

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
from adbc_driver_flightsql import DatabaseOptions, StatementOptions
from adbc_driver_manager import DatabaseOptions as CommonOptions

from checks import CATALOG, COLUMNS, ITEMS, SCHEMA, clean_error, equal, eventually, holds, main

ITEMS_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("price", pa.decimal128(12, 2)),
        ("sold", pa.bool_()),
        ("at", pa.timestamp("us")),
    ]
)


def types(schema):
    return [(field.name, str(field.type)) for field in schema]


def ask(connection, sql, parameters=None):
    """The rows of one statement."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def update(connection, sql):
    """Runs one statement as CommandStatementUpdate (ask() sends a prepared one)."""
    with connection.cursor() as cursor:
        cursor.executescript(sql)


def without(connection, *drops):
    """Makes sure that what a check is about to create is not there from an earlier run."""
    for kind, name in drops:
        update(connection, f"DROP {kind} IF EXISTS {name}")


# ---- checks ------------------------------------------------------------------


def check_handshake(connect):
    with connect() as connection:
        equal(ask(connection, "SELECT 1 AS one"), [(1,)], "the first query")
    if connect.user is not None:
        with_wrong = lambda: connect(password=connect.password + "x")  # noqa: E731
        clean_error(with_wrong, flightsql.Error, "password")
        clean_error(lambda: ask(connect(user=None, password=None), "SELECT 1"), flightsql.Error)


def check_info(connect):
    with connect() as connection:
        info = connection.adbc_get_info()
        equal(info["vendor_name"].lower(), "tidemill", "vendor_name")
        holds(info["vendor_version"][:1].isdigit(), f"vendor_version: {info['vendor_version']!r}")
        holds(info["vendor_arrow_version"], "vendor_arrow_version is empty")


def check_objects(connect):
    with connect() as connection:
        catalogs = connection.adbc_get_objects(table_name_filter="items").read_all().to_pylist()
        tables = {
            (catalog["catalog_name"], schema["db_schema_name"]): schema["db_schema_tables"]
            for catalog in catalogs
            for schema in catalog["catalog_db_schemas"]
            if schema["db_schema_tables"]
        }
        equal(list(tables), [(CATALOG, SCHEMA)], "where `items` is")
        (table,) = tables[CATALOG, SCHEMA]
        equal(table["table_name"], "items", "table_name")
        columns = [column["column_name"] for column in table["table_columns"]]
        equal(columns, COLUMNS, "columns of `items`")

        names = table_names(connection, table_types_filter=["TABLE"])
        holds("items" in names, f"`items` is not among the TABLEs: {names}")
        equal(table_names(connection, table_name_filter="no_such_table"), [], "tables named no_such_table")
        equal(table_names(connection, table_name_filter="it%"), ["items"], "tables LIKE it%")
        equal(table_names(connection, catalog_filter="no_such_catalog"), [], "tables of no_such_catalog")
        listed = connection.adbc_get_objects(depth="catalogs").read_all().to_pylist()
        equal([catalog["catalog_name"] for catalog in listed], [CATALOG], "catalogs")


def table_names(connection, **filters):
    objects = connection.adbc_get_objects(depth="tables", **filters).read_all().to_pylist()
    return [
        table["table_name"]
        for catalog in objects
        for schema in catalog["catalog_db_schemas"] or []
        for table in schema["db_schema_tables"] or []
    ]


def check_table_schema(connect):
    with connect() as connection:
        equal(types(connection.adbc_get_table_schema("items")), types(ITEMS_SCHEMA), "schema of `items`")
        schema = connection.adbc_get_table_schema("items", catalog_filter=CATALOG, db_schema_filter=SCHEMA)
        equal(types(schema), types(ITEMS_SCHEMA), "schema of tidemill.public.items")
        clean_error(lambda: connection.adbc_get_table_schema("no_such_table"), flightsql.Error)


def check_table_types(connect):
    with connect() as connection:
        kinds = connection.adbc_get_table_types()
        holds("TABLE" in kinds and "VIEW" in kinds, f"table types: {kinds}")


def check_query(connect):
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM items ORDER BY id")
        equal([column[0] for column in cursor.description], COLUMNS, "names in the description")
        equal(cursor.fetchall(), ITEMS, "rows of `items`")

        cursor.execute("SELECT * FROM items ORDER BY id")
        table = cursor.fetch_arrow_table()
        equal(types(table.schema), types(ITEMS_SCHEMA), "types of the result")
        equal(table.num_rows, len(ITEMS), "number of rows")

        rows = ask(connection, "SELECT count(*), count(name), sum(price), sum(id) FROM items WHERE id > 1")
        equal(rows, [(4, 3, ITEMS[1][2] + ITEMS[3][2] + ITEMS[4][2], 14)], "counts and sums")


def check_types(connect):
    """No view, large or dictionary types on the wire, whatever the expression makes inside."""
    sql = """SELECT id, upper(name) AS upper, name || '!' AS joined, cast(price AS DOUBLE) AS double,
        cast(id AS INT) AS int, date_trunc('day', at) AS day, cast(at AS DATE) AS date, id % 2 = 1 AS odd,
        concat('a', substr(name, 2)) AS concat, NULL AS nothing, 'word' AS word
        FROM items WHERE id = 1"""
    expected = [
        ("id", "int64"),
        ("upper", "string"),
        ("joined", "string"),
        ("double", "double"),
        ("int", "int32"),
        ("day", "timestamp[us]"),
        ("date", "date32[day]"),
        ("odd", "bool"),
        ("concat", "string"),
        ("nothing", "null"),
        ("word", "string"),
    ]
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        table = cursor.fetch_arrow_table()
        equal(types(table.schema), expected, "types")
        equal(table.column("upper").to_pylist(), ["ANCHOR"], "upper(name)")


def check_empty(connect):
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM items WHERE id < 0")
        table = cursor.fetch_arrow_table()
        equal((types(table.schema), table.num_rows), (types(ITEMS_SCHEMA), 0), "a result without rows")


def check_large(connect):
    """More than one batch, more than one gRPC message, and a wide one."""
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT value, repeat('x', 200) AS pad FROM generate_series(1, 200000)")
        rows = total = 0
        for batch in cursor.fetch_record_batch():
            rows += batch.num_rows
            total += sum(batch.column(0).to_pylist())
        equal((rows, total), (200_000, 200_000 * 200_001 // 2), "rows and sum of a 40 MB result")
        cursor.execute("SELECT repeat('x', 8000000) AS wide")
        equal(len(cursor.fetchone()[0]), 8_000_000, "length of an 8 MB value")


def check_abandoned(connect):
    """A result that nobody reads to its end leaves the connection usable."""
    with connect() as connection:
        for _ in range(20):
            with connection.cursor() as cursor:
                cursor.execute("SELECT value FROM generate_series(1, 10000000)")
                cursor.fetchone()
        equal(ask(connection, "SELECT 1"), [(1,)], "the query after it")


def check_execute_schema(connect):
    with connect() as connection, connection.cursor() as cursor:
        schema = cursor.adbc_execute_schema("SELECT id, name FROM items")
        equal(types(schema), [("id", "int64"), ("name", "string")], "schema without execution")


def check_prepared(connect):
    with connect() as connection, connection.cursor() as cursor:
        sql = "SELECT name FROM items WHERE id >= ? AND name <> ? ORDER BY id"
        parameters = cursor.adbc_prepare(sql)
        equal(None if parameters is None else len(parameters), 2, "number of parameters")
        cursor.execute(sql, (1, "anchor"))
        equal(cursor.fetchall(), [("Böe",), (ITEMS[3][1],), ("",)], "first parameters")
        cursor.execute(sql, (5, "x"))
        equal(cursor.fetchall(), [("",)], "second parameters, same statement")

        equal(ask(connection, "SELECT id FROM items WHERE price = ?", (ITEMS[0][2],)), [(1,)], "a decimal")
        equal(ask(connection, "SELECT id FROM items WHERE at = ?", (ITEMS[0][4],)), [(1,)], "a timestamp")
        equal(ask(connection, "SELECT id FROM items WHERE sold = ? ORDER BY id", (True,)), [(1,), (4,)], "a boolean")
        equal(ask(connection, "SELECT id FROM items WHERE name = ?", (None,)), [], "NULL equals nothing")
        equal(ask(connection, "SELECT id FROM items WHERE id > $1 AND id < $2", (1, 3)), [(2,)], "$n")
        equal(ask(connection, "SELECT name || '?' FROM items WHERE id = ?", (1,)), [("anchor?",)], "? in a string")


def check_many_parameters(connect):
    """Parameters keep their order past the ninth."""
    sql = "SELECT " + ", ".join(f"CAST(? AS BIGINT) AS c{n}" for n in range(12))
    with connect() as connection:
        equal(ask(connection, sql, tuple(range(100, 112))), [tuple(range(100, 112))], "twelve parameters")


def check_prepared_insert(connect):
    with connect() as connection:
        without(connection, ("TABLE", "adbc_prepared"))
        update(connection, "CREATE TABLE adbc_prepared (id BIGINT, note VARCHAR)")
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO adbc_prepared VALUES (?, ?)", [(1, "one"), (2, None), (3, "three")])
            equal(cursor.rowcount, 3, "rows inserted")
        rows = ask(connection, "SELECT * FROM adbc_prepared ORDER BY id")
        equal(rows, [(1, "one"), (2, None), (3, "three")], "what was inserted")
        update(connection, "DROP TABLE adbc_prepared")


def check_ddl(connect):
    """By execute(), as every Python program writes it."""
    with connect() as connection, connection.cursor() as cursor:
        without(connection, ("TABLE", "adbc_notes"))
        cursor.execute("CREATE TABLE adbc_notes (id BIGINT, note VARCHAR)")
        cursor.execute("INSERT INTO adbc_notes VALUES (1, 'x'), (2, 'y')")
        inserted(cursor, 2)
        equal(ask(connection, "SELECT count(*) FROM adbc_notes"), [(2,)], "rows after INSERT")
        cursor.execute("INSERT INTO adbc_notes SELECT id + 10, name FROM items")
        inserted(cursor, 5)
        equal(ask(connection, "SELECT count(*), max(id) FROM adbc_notes"), [(7, 15)], "rows after INSERT SELECT")
        cursor.execute("DROP TABLE adbc_notes")
        clean_error(lambda: ask(connection, "SELECT * FROM adbc_notes"), flightsql.Error, "adbc_notes")


def inserted(cursor, count):
    """The count of an INSERT comes as the rowcount or, where the driver asked for rows, as the only row."""
    if cursor.rowcount != count:
        equal(cursor.fetchall(), [(count,)], f"count of the INSERT (rowcount is {cursor.rowcount})")


def check_update(connect):
    """By CommandStatementUpdate."""
    with connect() as connection:
        without(connection, ("TABLE", "adbc_update"))
        update(connection, "CREATE TABLE adbc_update (id BIGINT)")
        with connection.cursor() as cursor:
            cursor.adbc_statement.set_sql_query("INSERT INTO adbc_update VALUES (1), (2), (3)")
            equal(cursor.adbc_statement.execute_update(), 3, "rows inserted")
        equal(ask(connection, "SELECT sum(id) FROM adbc_update"), [(6,)], "what was inserted")
        update(connection, "DROP TABLE adbc_update")


def check_materialized_view(connect):
    with connect() as connection:
        without(connection, ("MATERIALIZED VIEW", "adbc_even"), ("SOURCE", "adbc_ticks"))
        source = "'generator', number_of_rows = '1000', rows_per_second = '100000', seed = '7'"
        update(connection, f"CREATE SOURCE adbc_ticks (id BIGINT, amount DOUBLE) WITH (connector = {source})")
        update(
            connection,
            "CREATE MATERIALIZED VIEW adbc_even WITH (trigger_interval = '50 milliseconds') "
            "AS SELECT id, amount * 2 AS twice, 'even' AS word FROM adbc_ticks",
        )
        eventually(lambda: ask(connection, "SELECT count(*) FROM adbc_even"), [(1000,)], "rows of the view")
        schema = connection.adbc_get_table_schema("adbc_even")
        expected = [("id", "int64"), ("twice", "double"), ("word", "string")]
        equal(types(schema), expected, "schema of the view")
        update(connection, "DROP MATERIALIZED VIEW adbc_even")
        update(connection, "DROP SOURCE adbc_ticks")
        equal(table_names(connection, table_name_filter="adbc_even"), [], "tables after DROP")


def check_errors(connect):
    with connect() as connection:
        clean_error(lambda: ask(connection, "SELEC 1"), flightsql.Error, "line 1", "column 1")
        unknown_column = "SELECT id,\n       nonsense\nFROM items"
        clean_error(lambda: ask(connection, unknown_column), flightsql.Error, "nonsense", "line 2", "column 8")
        clean_error(lambda: ask(connection, "SELECT * FROM no_such_table"), flightsql.Error, "no_such_table")
        clean_error(lambda: ask(connection, "SELECT 1 / (id - id) FROM items"), flightsql.Error, "zero")
        clean_error(lambda: ask(connection, "SELECT cast(name AS BIGINT) FROM items"), flightsql.Error, "anchor")
        clean_error(lambda: ask(connection, ""), flightsql.Error)
        clean_error(lambda: ask(connection, "SELECT ? + 1", (1, 2)), flightsql.Error)
        clean_error(lambda: update(connection, "CREATE TABLE items (id BIGINT)"), flightsql.Error, "items", "exists")
        equal(ask(connection, "SELECT count(*) FROM items"), [(5,)], "the query after the errors")


def check_current_catalog(connect):
    with connect() as connection:
        equal(connection.adbc_current_catalog, CATALOG, "current catalog")
        equal(connection.adbc_current_db_schema, SCHEMA, "current schema")
        connection.adbc_current_catalog = CATALOG
        clean_error(lambda: set_catalog(connection, "no_such_catalog"), flightsql.Error)
        equal(ask(connection, "SELECT count(*) FROM tidemill.public.items"), [(5,)], "a full name")


def set_catalog(connection, name):
    connection.adbc_current_catalog = name


def check_timeout(connect):
    """A query past its deadline ends with an error, and the connection lives on."""
    with connect() as connection:
        with connection.cursor() as cursor:
            limits = {StatementOptions.TIMEOUT_QUERY.value: "1", StatementOptions.TIMEOUT_FETCH.value: "1"}
            cursor.adbc_statement.set_options(**limits)
            sql = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b"
            clean_error(lambda: cursor.execute(sql).fetchall(), flightsql.Error, "deadline")
        equal(ask(connection, "SELECT 1"), [(1,)], "the query after it")


def check_concurrent(connect):
    """Several clients at once."""
    wrong = []

    def client():
        try:
            with connect() as connection:
                for _ in range(10):
                    equal(ask(connection, "SELECT * FROM items ORDER BY id"), ITEMS, "rows of `items`")
        except Exception as error:  # A thread's exception would only be printed.
            wrong.append(error)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


class Connect:
    """Opens connections with the command line's address and credentials, or with others."""

    def __init__(self, arguments):
        self.uri, self.user, self.password = arguments.uri, arguments.user, arguments.password

    def __call__(self, **other):
        options = {DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value: "true"}
        user, password = other.get("user", self.user), other.get("password", self.password)
        if user is not None:
            options[CommonOptions.USERNAME.value] = user
            options[CommonOptions.PASSWORD.value] = password
        return flightsql.connect(self.uri, db_kwargs=options, autocommit=True)


CHECKS = {name.removeprefix("check_"): check for name, check in globals().items() if name.startswith("check_")}

if __name__ == "__main__":
    main(CHECKS, Connect, __doc__)
