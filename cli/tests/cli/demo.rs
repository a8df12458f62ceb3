//! `demo --headless`: the whole of it, checked by itself.

use crate::program::Program;

#[test]
fn every_event_arrives_exactly_once() {
    let program = Program::new();
    let args = ["demo", "--headless", "--for", "3s", "--rate", "1000/s", "--warehouse", "mill"];
    let outcome = program.run(&args);
    assert_eq!(outcome.code, Some(0), "{}\n{}", outcome.stdout, outcome.stderr);
    for part in ["produced ", "paid_orders: ", "activity: ", "order_details: ", "dead letters: "] {
        assert!(outcome.stdout.contains(part), "{part} is missing in\n{}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains("WRONG"), "{}", outcome.stdout);
    // What it left can be read by others.
    let sql = "SELECT count(*) > 0 AS some FROM paid_orders";
    let left = program.ok(&["sql", "--warehouse", "mill", "--format", "csv", "-c", sql]);
    assert_eq!(left, "some\ntrue\n");
    let error = program.refused(&["demo", "--headless", "--for", "1s", "--warehouse", "mill"]);
    assert!(error.contains("is not empty"), "{error}");
}

#[test]
fn what_the_demo_can_not_do_is_refused() {
    let program = Program::new();
    let error = program.refused(&["demo", "--rate", "1M/s", "--headless"]);
    assert!(error.contains("--rate"), "{error}");
    let error = program.refused(&["demo", "--for", "ever", "--headless"]);
    assert!(error.contains("--for"), "{error}");
}
