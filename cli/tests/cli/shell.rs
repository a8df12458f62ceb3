//! `sql`: scripts, errors, pipes, and the prompt itself through a pseudo-terminal.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::program::Program;

#[test]
fn statements_come_from_files_stdin_and_flags_in_this_order() {
    let program = Program::new();
    program.write("a.sql", "SELECT 1 AS a; -- one\nSELECT 2 AS b;");
    let stdout = program.ok(&["sql", "-c", "SELECT 3 AS c", "-f", "a.sql", "--format", "csv"]);
    assert_eq!(stdout, "a\n1\nb\n2\nc\n3\n");
    for args in [&["sql", "--format", "csv", "-f", "-"][..], &["sql", "--format", "csv"]] {
        let outcome = program.run_with_input(args, "SELECT 4 AS d");
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (Some(0), "d\n4\n"),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn meta_commands_work_in_scripts() {
    let program = Program::new();
    let script = "CREATE TABLE notes (id BIGINT, note VARCHAR);\n\
                  INSERT INTO notes VALUES (1, 'x');\n\
                  \\format csv\n\\dt\n\\d notes\n\\o out.csv\nSELECT * FROM notes;\n\\o\n\\q\nSELECT nonsense;";
    let outcome = program.run_with_input(&["sql"], script);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("notes,"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("note,"), "{}", outcome.stdout);
    let written = std::fs::read_to_string(program.folder.path().join("out.csv")).unwrap();
    assert_eq!(written, "id,note\n1,x\n");
    let outcome = program.run(&["sql", "-c", "\\dx"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("no command \\dx"), "{}", outcome.stderr);
}

#[test]
fn an_error_points_at_its_place_and_stops_the_script() {
    let program = Program::new();
    let outcome = program.run(&["sql", "-c", "SELECT 1 AS one; SELECT 1 FROM nowhere; SELECT 2"]);
    assert_eq!(outcome.code, Some(1));
    assert_eq!(outcome.stdout, " one\n-----\n   1\n(1 row)\n");
    assert!(
        outcome.stderr.contains("nowhere") && outcome.stderr.contains("^"),
        "{}",
        outcome.stderr
    );
    let outcome = program.run(&["sql", "-c", "SELEC 1"]);
    assert!(outcome.stderr.starts_with("error: "), "{}", outcome.stderr);
    let outcome = program.run(&["sql", "-c", "SELECT 1", "--format", "xml"]);
    assert!(outcome.stderr.contains("\"xml\" is not a format"), "{}", outcome.stderr);
}

#[test]
fn a_statement_may_start_with_a_comment_and_a_file_with_a_byte_order_mark() {
    let program = Program::new();
    program.write("marked.sql", "\u{FEFF}SELECT 1 AS a;");
    let args = ["sql", "--format", "csv", "-f", "marked.sql", "-c", "-- hi\nSELECT 2 AS b"];
    assert_eq!(program.ok(&args), "a\n1\nb\n2\n");
}

#[test]
fn records_that_a_query_leaves_out_are_told() {
    let program = Program::new();
    let path = program.write("in.ndjson", "{\"n\": 1}\n\noops\n{\"n\": \"two\"}\n");
    let source = format!(
        "CREATE SOURCE f (n BIGINT) WITH (connector = 'files', path = '{}')",
        path.display()
    );
    program.ok(&["sql", "-c", &source]);
    let outcome = program.run(&["sql", "--format", "csv", "-c", "SELECT n FROM f"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "n\n1\n"));
    let told = "note: 2 records of \"f\" could not be decoded and are left out\n";
    assert_eq!(outcome.stderr, told);
    program.ok(&["sql", "-c", "CREATE TABLE t (n BIGINT)"]);
    let outcome = program.run(&["sql", "-c", "INSERT INTO t SELECT n FROM f"]);
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
}

#[test]
fn nothing_is_coloured_in_a_pipe() {
    let program = Program::new();
    let outcome = program.run(&["sql", "-c", "SELECT 'x' AS x; SELECT nonsense"]);
    assert!(!outcome.stdout.contains('\x1b') && !outcome.stderr.contains('\x1b'), "{outcome:?}");
}

#[test]
fn a_reader_who_leaves_early_is_no_error() {
    let program = Program::new();
    for format in ["csv", "ndjson", "json", "table"] {
        let sql = "SELECT value, 'a text to fill the pipe with' AS text FROM range(1, 3000000)";
        let mut child = program
            .command(&["sql", "-c", sql, "--format", format])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{format}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{format}");
    }
}

#[test]
fn a_warehouse_and_a_server_exclude_each_other() {
    let program = Program::new();
    let error = program.refused(&[
        "sql",
        "-c",
        "SELECT 1",
        "--warehouse",
        "x",
        "--connect",
        "grpc://127.0.0.1:1",
    ]);
    assert!(error.contains("exclude each other"), "{error}");
    let error = program.refused(&["sql", "-c", "SELECT 1", "--connect", "grpc://127.0.0.1:1"]);
    assert!(error.contains("can't connect to grpc://127.0.0.1:1"), "{error}");
}

/// What a terminal shows.
struct Screen {
    output: ChildStdout,
    seen: String,
}

impl Screen {
    /// Reads on until that is shown.
    #[track_caller]
    fn until(&mut self, part: &str) {
        let mut shown = Vec::new();
        let mut byte = [0];
        while self.output.read(&mut byte).unwrap() > 0 {
            shown.push(byte[0]);
            if shown.ends_with(part.as_bytes()) {
                self.seen.push_str(&String::from_utf8_lossy(&shown));
                return;
            }
        }
        panic!(
            "\"{part}\" was not shown; this was:\n{}{}",
            self.seen,
            String::from_utf8_lossy(&shown)
        );
    }
}

/// The program with a terminal.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Screen,
}

impl Terminal {
    /// Through `script`; `None` where there is none, and the test is skipped.
    fn open(program: &Program) -> Option<Self> {
        if Command::new("script").arg("--version").output().is_err() {
            let required = std::env::var("TIDEMILL_REQUIRE_ALL").is_ok_and(|value| value == "1");
            assert!(!required, "script (of util-linux) is required here, and missing");
            eprintln!("SKIPPED: util-linux's script is not installed");
            return None;
        }
        let mut command = Command::new("script");
        // `exec`: a shell in between would take Ctrl-C for its own.
        let line = format!("exec {} sql --no-pager", env!("CARGO_BIN_EXE_tidemill"));
        command.args(["-q", "-e", "-c", &line, "/dev/null"]);
        command
            .current_dir(program.folder.path())
            .env("HOME", program.folder.path())
            .env("TERM", "xterm");
        command.env("NO_COLOR", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let keys = child.stdin.take().unwrap();
        let mut screen = Screen { output: child.stdout.take().unwrap(), seen: String::new() };
        screen.until(PROMPT);
        Some(Self { child, keys, screen })
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// The program ends by itself, and all was well.
    #[track_caller]
    fn leaves(&mut self) {
        let mut rest = Vec::new();
        self.screen.output.read_to_end(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert!(
            status.success(),
            "{status}:\n{}{}",
            self.screen.seen,
            String::from_utf8_lossy(&rest)
        );
    }
}

const PROMPT: &str = "tidemill> ";
const CTRL_C: &[u8] = b"\x03";

#[test]
fn the_prompt_takes_statements_over_lines() {
    let program = Program::new();
    let Some(mut terminal) = Terminal::open(&program) else { return };
    // A wrong statement leaves the shell alive; a right one may span lines.
    terminal.press(b"SELECT nonsense;\r");
    terminal.screen.until("error: ");
    terminal.screen.until(PROMPT);
    terminal.press(b"SELECT 40 + 2\r AS answer;\r");
    terminal.screen.until("42");
    terminal.screen.until("(1 row)");
    terminal.screen.until(PROMPT);
    terminal.press(b"help\r");
    terminal.screen.until("Statements end with ;");
    terminal.screen.until(PROMPT);
    terminal.press(b"quit\r");
    terminal.leaves();
    let history = std::fs::read_to_string(program.folder.path().join(".tidemill_history")).unwrap();
    assert!(history.contains("40 + 2"), "{history}");
}

/// More rows than could be read in the time of a test.
#[test]
fn ctrl_c_stops_rows_while_they_are_printed() {
    let program = Program::new();
    let Some(mut terminal) = Terminal::open(&program) else { return };
    let source = "CREATE SOURCE clicks (id BIGINT) WITH (connector = 'generator', \
                  rows_per_second = 1000000);\r";
    terminal.press(source.as_bytes());
    terminal.screen.until("CREATE SOURCE");
    terminal.screen.until(PROMPT);
    for statement in ["SELECT value FROM range(1, 1000000000000);\r", "SUBSCRIBE TO clicks;\r"] {
        terminal.press(statement.as_bytes());
        terminal.screen.until("----");
        terminal.screen.until("1\r\n");
        terminal.press(CTRL_C);
        terminal.screen.until("Cancelled.");
        terminal.screen.until(PROMPT);
    }
    terminal.press(b"\\q\r");
    terminal.leaves();
}
