//! The README's tour: its files are written, its commands run, and what it says that they
//! print they print.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::program::Program;

/// A fenced block.
#[derive(Debug)]
struct Block {
    language: String,
    text: String,
    /// The last `….sql` that was named before it.
    file: Option<String>,
}

/// The blocks between two headings.
fn blocks(readme: &str, from: &str, to: &str) -> Vec<Block> {
    let lines = readme.lines().skip_while(|line| *line != from).take_while(|line| *line != to);
    let (mut found, mut file, mut open) = (Vec::new(), None, None::<Block>);
    for line in lines {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => found.push(block),
            (Some(language), None) => {
                let (language, text) = (language.to_owned(), String::new());
                open = Some(Block { language, text, file: file.take() });
            }
            (None, Some(mut block)) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {
                let named = line.split('`').skip(1).step_by(2);
                let named = named.filter(|name| name.ends_with(".sql") && !name.contains(' '));
                file = named.last().map(str::to_owned).or(file);
            }
        }
    }
    found
}

/// Runs a block of commands with the program in the path; answers what they print.
fn run(program: &Program, commands: &str) -> String {
    let built = Path::new(env!("CARGO_BIN_EXE_tidemill")).parent().unwrap();
    let path = std::env::join_paths(
        [built.to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var("PATH").unwrap())),
    );
    let output = Command::new("sh")
        .args(["-euc", commands])
        .current_dir(program.folder.path())
        .env("PATH", path.unwrap())
        .env("HOME", program.folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}{talk}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_tour_prints_what_it_says() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let program = Program::new();
    let (mut printed, mut compared) = (String::new(), 0);
    for block in blocks(&readme, "## A tour", "### A server") {
        match (block.language.as_str(), &block.file) {
            ("sql", Some(file)) => {
                program.write(file, &block.text);
            }
            ("sh", _) => printed = run(&program, &block.text),
            ("text", _) => {
                compared += 1;
                assert!(printed.contains(&block.text), "{}\nis not in\n{printed}", block.text);
            }
            _ => panic!("what is {block:?} for?"),
        }
    }
    assert_eq!(compared, 3, "blocks of output in the tour");
}
