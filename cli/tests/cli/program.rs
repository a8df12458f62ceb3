//! Starts the built program in a folder of its own, away from the caller's settings.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use tempfile::TempDir;

/// A folder, and the program to run in it.
pub struct Program {
    pub folder: TempDir,
    environment: Vec<(&'static str, String)>,
}

/// What a run left.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    pub fn with_env(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_string()));
        self
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(args).current_dir(self.folder.path());
        for (name, _) in std::env::vars() {
            if name.starts_with("TIDEMILL_") || name == "RUST_LOG" || name == "PAGER" {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.folder.path());
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command
    }

    /// Runs to the end, with nothing on stdin.
    pub fn run(&self, args: &[&str]) -> Outcome {
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs to the end with that on stdin.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Outcome {
        let mut running = self.start(args);
        running.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        running.finish()
    }

    /// Runs, and expects that all goes well; answers stdout.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let outcome = self.run(args);
        assert_eq!(outcome.code, Some(0), "{args:?}\n{}", outcome.stderr);
        outcome.stdout
    }

    /// Runs, and expects that it is refused; answers stderr.
    #[track_caller]
    pub fn refused(&self, args: &[&str]) -> String {
        let outcome = self.run(args);
        assert!(matches!(outcome.code, Some(1 | 2)), "{args:?}: {outcome:?}");
        outcome.stderr
    }

    pub fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Running {
            stdin: child.stdin.take(),
            stderr: BufReader::new(Box::new(child.stderr.take().unwrap())),
            child,
            said: String::new(),
        }
    }
}

/// A program that runs; killed if a test fails while it does.
pub struct Running {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    stderr: BufReader<Box<dyn Read>>,
    said: String,
}

impl Running {
    /// Reads stderr until a line holds that; answers the line.
    #[track_caller]
    pub fn wait_for(&mut self, part: &str) -> String {
        let mut line = String::new();
        while self.stderr.read_line(&mut line).unwrap() > 0 {
            self.said.push_str(&line);
            if line.contains(part) {
                return line.trim_end().to_string();
            }
            line.clear();
        }
        panic!("\"{part}\" was never said; this was:\n{}", self.said);
    }

    /// Sends a signal: `INT`, `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.child.wait().unwrap()
    }

    /// Reads everything and waits for the end.
    pub fn finish(mut self) -> Outcome {
        drop(self.stdin.take());
        let mut out = self.child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut stdout = String::new();
            out.read_to_string(&mut stdout).unwrap();
            stdout
        });
        self.stderr.read_to_string(&mut self.said).unwrap();
        let code = self.child.wait().unwrap().code();
        Outcome { code, stdout: reader.join().unwrap(), stderr: std::mem::take(&mut self.said) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
