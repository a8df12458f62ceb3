//! `generate`: events to stdout and to files.

use serde_json::Value;

use crate::program::Program;

#[test]
fn the_same_seed_makes_the_same_events() {
    let program = Program::new();
    let events = |seed: &str| program.ok(&["generate", "orders", "--rows", "1k", "--seed", seed]);
    assert_eq!(events("7"), events("7"));
    assert_ne!(events("7"), events("8"));
    let rows: Vec<Value> =
        events("7").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 1_000);
    assert!(rows.iter().all(|row| row["order_id"].is_i64()), "{}", rows[0]);
}

#[test]
fn a_share_is_broken_and_a_file_can_be_written() {
    let program = Program::new();
    let args =
        ["generate", "page_views", "--rows", "5000", "--broken", "10%", "--to", "views.ndjson"];
    let outcome = program.run(&args);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("5,000 events to views.ndjson"), "{}", outcome.stderr);
    let text = std::fs::read(program.folder.path().join("views.ndjson")).unwrap();
    assert!(text.split(|byte| *byte == b'\n').count() >= 5_000);
    let whole = |line: &&[u8]| {
        serde_json::from_slice::<Value>(line).is_ok_and(|row| row["user_id"].is_i64())
    };
    let whole = text.split(|byte| *byte == b'\n').filter(whole).count();
    assert!((4_000..4_999).contains(&whole), "{whole} of 5000 are whole");
}

#[test]
fn nexmark_is_three_series_of_files() {
    let program = Program::new();
    let outcome = program.run(&["generate", "nexmark", "--rows", "2000", "--to", "nx"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let lines = |path: &str| {
        let text = std::fs::read_to_string(program.folder.path().join("nx").join(path)).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        (text.lines().count(), last)
    };
    let (bids, last) = lines("bid/000000.ndjson");
    assert!(bids == 1_840 && last["price"].is_i64(), "{bids} {last}");
    assert_eq!(lines("auction/000000.ndjson").0, 120);
    let (persons, last) = lines("person/000000.ndjson");
    assert_eq!((persons, last["id"].as_i64()), (40, Some(1_039)));
    let error = program.refused(&["generate", "nexmark", "--rows", "10"]);
    assert!(error.contains("three streams"), "{error}");
}

#[test]
fn templates_are_listed_and_what_is_wrong_is_named() {
    let program = Program::new();
    let list = program.ok(&["generate", "list"]);
    assert!(list.contains("orders") && list.contains("page_views"), "{list}");
    for (args, part) in [
        (&["generate", "oders", "--rows", "1"][..], "oders"),
        (&["generate", "orders", "--rate", "quick"], "--rate"),
        (&["generate", "orders", "--rows", "some"], "--rows"),
        (&["generate", "orders", "--late", "200%"], "--late"),
        (&["generate", "orders", "--to", "kafka://somewhere"], "kafka://HOST:PORT/TOPIC"),
        (&["generate", "orders", "--to", "no/such/folder/file"], "no/such/folder/file"),
        (&["generate", "orders", "--rows", "1", "--property", "a=b"], "--property"),
    ] {
        let error = program.refused(args);
        assert!(error.contains(part), "{args:?}: {error}");
    }
}
