"""Renders what the long tests found into the table of RESULTS.md.

    python3 scripts/results.py RESULTS.ndjson CARGO_TEST_OUTPUT CARGO_TEST_LIST RESULTS.md

Rows are keyed by the test's name: those of tests that ran are replaced, others stay, so one test can be run again
without the rest; rows of tests that there are no more go. A test that failed before it could report is taken from the
output of cargo test.
"""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

BEGIN, END = "<!-- long tests: begin -->", "<!-- long tests: end -->"
HEADER = ["Test", "Outcome", "What it does", "Figures", "Seconds", "Date", "Commit", "Machine"]
RESERVED = {"name", "ok", "what", "seconds"}
PAGE = f"""# Results of the long tests

Written by `scripts/long.sh`: the end-to-end tests on real Apache Kafka in their long forms.

{BEGIN}
{END}
"""


def command(*words):
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "?"


def machine():
    cpu = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GiB, {platform.system()} {platform.release().split('-')[0]}"


def commit():
    changed = command("git", "status", "--porcelain", "--untracked-files=no")
    return command("git", "rev-parse", "--short", "HEAD") + (" and changes" if changed else "")


def reported(path):
    """The tests' own lines, by name; of several of one name the last, unless an earlier one failed."""
    results = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            result = json.loads(line)
            name = result["name"]
        except (ValueError, KeyError, TypeError):
            sys.exit(f"{path}:{number}: not a JSON object with a `name`: {line}")
        if results.get(name, {}).get("ok", True):
            results[name] = result
    return results


def failures(output):
    """Names in the closing list of cargo test."""
    closing = output.rsplit("\nfailures:\n", 1)
    return re.findall(r"^    (\S+)$", closing[1], re.MULTILINE) if len(closing) == 2 else []


def listed(output):
    """Names of all tests that there are, from `cargo test -- --list`."""
    return {name.rsplit("::", 1)[-1] for name in re.findall(r"^(\S+): test$", output, re.MULTILINE)}


def figure(key, value):
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, float):
        text = f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    else:
        text = str(value)
    return f"{key.replace('_', ' ')}: {text}"


def cell(text):
    return " ".join(str(text).split()).replace("|", "\\|")


def row(result, when):
    figures = ", ".join(figure(key, value) for key, value in result.items() if key not in RESERVED)
    seconds = result.get("seconds")
    return [
        f"`{result['name']}`",
        "passed" if result.get("ok") else "**FAILED**",
        result.get("what", ""),
        figures,
        "" if seconds is None else f"{seconds:,.1f}",
        *when,
    ]


def old_rows(table):
    rows = {}
    for line in table.splitlines():
        cells = [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == len(HEADER) and cells[0].startswith("`"):
            rows[cells[0].strip("`")] = line
    return rows


def main(ndjson, output, tests, page):
    results = reported(Path(ndjson))
    known = listed(Path(tests).read_text())
    if unknown := sorted(set(results) - known):
        sys.exit(f"{ndjson}: there is no test of the name {', '.join(unknown)}: a test reports under its function's name")
    for failed in failures(Path(output).read_text(errors="replace")):
        name = failed.rsplit("::", 1)[-1]
        results[name] = {**results.get(name, {"name": name}), "ok": False}
    if not results:
        print("results.py: no test reported anything; the page stays as it is", file=sys.stderr)
        return
    page = Path(page)
    text = page.read_text() if page.exists() else PAGE
    if BEGIN not in text or END not in text:
        sys.exit(f"{page}: the lines `{BEGIN}` and `{END}` are missing: the table goes between them")
    before, rest = text.split(BEGIN, 1)
    table, after = rest.split(END, 1)
    rows = {name: row for name, row in old_rows(table).items() if name in known}
    when = [datetime.date.today().isoformat(), commit(), machine()]
    for name, result in results.items():
        rows[name] = "| " + " | ".join(cell(part) for part in row(result, when)) + " |"
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER), *(rows[name] for name in sorted(rows))]
    page.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")
    print(f"results.py: {len(results)} results written to {page}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
