"""What the client scripts share: the expected rows of setup.sql, and how checks are named, run and reported.

A check is a function that takes the script's connection factory. It passes by returning; it fails by raising.
Each passed check prints `ok <check>`; the exit code is 1 if any failed.
"""

import argparse
import datetime
import difflib
import pprint
import sys
import time
import traceback
from decimal import Decimal
from pathlib import Path

CATALOG = "tidemill"
SCHEMA = "public"

# The rows of setup.sql in order of id: id, name, price, sold, at.
ITEMS = [
    (1, "anchor", Decimal("12.50"), True, datetime.datetime(2024, 1, 2, 3, 4, 5, 678901)),
    (2, "Böe", Decimal("0.99"), False, datetime.datetime(1969, 12, 31, 23, 59, 59, 999999)),
    (3, None, None, None, None),
    (4, 'a "rope", it\'s long', Decimal("9999999999.99"), True, datetime.datetime(2024, 2, 29, 12)),
    (5, "", Decimal("-0.01"), None, datetime.datetime(2199, 12, 31, 23, 59, 59)),
]
COLUMNS = ["id", "name", "price", "sold", "at"]

# Words that only the inside of a program says: none of them belongs in a message to a client.
INTERNALS = ["DataFusionError", "ArrowError", "Status {", "Some(", "panicked", "unwrap()", "stack backtrace", ".rs:"]


class Mismatch(AssertionError):
    """Something is not what it should be."""


def equal(actual, expected, what):
    """Fails with a diff unless both are equal and of the same types."""
    if actual == expected and repr(actual) == repr(expected):
        return
    diff = difflib.unified_diff(
        pprint.pformat(expected, width=100).splitlines(),
        pprint.pformat(actual, width=100).splitlines(),
        "expected",
        "actual",
        lineterm="",
    )
    raise Mismatch(f"{what}:\n" + "\n".join(diff))


def holds(condition, what):
    if not condition:
        raise Mismatch(what)


def clean_error(action, kind, *words):
    """Runs `action`, which must raise `kind` with a message made for people that has all of `words` in it."""
    try:
        result = action()
    except kind as error:
        message = str(error)
    else:
        raise Mismatch(f"expected an error with {words}, but it went through: {result!r}")
    for word in words:
        holds(word.lower() in message.lower(), f"the message lacks `{word}`: {message}")
    for word in INTERNALS:
        holds(word not in message, f"the message shows the program's inside (`{word}`): {message}")
    return message


def eventually(get, expected, what, seconds=60):
    """Asks again until the answer is `expected`: continuous queries take their time."""
    end = time.monotonic() + seconds
    while (actual := get()) != expected and time.monotonic() < end:
        time.sleep(0.05)
    equal(actual, expected, what)


def place(error):
    """The last line of the check that an unexpected error came through; the client's own frames help nobody."""
    folder = Path(__file__).resolve().parent
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).resolve().parent == folder]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}: {ours[-1].line}"


def address(uri):
    """(host, port) of grpc://host:port."""
    host, _, port = uri.split("://", 1)[-1].rstrip("/").rpartition(":")
    return host, int(port)


def main(checks, connect_factory, description):
    """Parses the command line, runs the named checks (all by default), exits."""
    parser = argparse.ArgumentParser(description=description, epilog="Checks: " + " ".join(checks))
    parser.add_argument("uri", help="grpc://HOST:PORT of the server")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("check", nargs="*", help="names of checks (default: all)")
    arguments = parser.parse_intermixed_args()
    unknown = [name for name in arguments.check if name not in checks]
    if unknown:
        parser.error(f"no check {', '.join(unknown)}; there are: {' '.join(checks)}")
    failed = False
    for name in arguments.check or checks:
        try:
            checks[name](connect_factory(arguments))
            print(f"ok {name}", flush=True)
        except Mismatch as mismatch:
            failed = True
            print(f"FAILED {name}: {mismatch}", flush=True)
        except Exception as error:
            failed = True
            print(f"FAILED {name}: {place(error)}: {type(error).__name__}: {error}", flush=True)
    sys.exit(1 if failed else 0)
