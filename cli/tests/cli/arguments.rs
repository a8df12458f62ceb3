//! Help, configuration, and what is not understood.

use crate::program::Program;

const VERBS: [&str; 9] =
    ["demo", "sql", "run", "serve", "submit", "status", "check", "generate", "config"];

#[test]
fn every_verb_has_help_with_examples() {
    let program = Program::new();
    let all = program.ok(&["--help"]);
    for verb in VERBS {
        assert!(all.contains(&format!("  {verb} ")), "{verb} is missing in\n{all}");
        let help = program.ok(&[verb, "--help"]);
        assert!(help.contains("Examples:") && help.contains(&format!("tidemill {verb}")), "{help}");
    }
}

#[test]
fn what_is_not_understood_goes_to_stderr_with_usage() {
    let program = Program::new();
    for args in [&["dmeo"][..], &["run", "--onec"], &["generate"], &["sql", "--format"], &[]] {
        let outcome = program.run(args);
        assert_eq!(outcome.code, Some(2), "{args:?}");
        assert_eq!(outcome.stdout, "", "{args:?}");
        assert!(outcome.stderr.contains("Usage:") || outcome.stderr.contains("--help"), "{args:?}");
    }
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let program = Program::new()
        .with_env("TIDEMILL_WAREHOUSE", "from-env")
        .with_env("TIDEMILL_LISTEN", "127.0.0.1:2");
    program.write("tidemill.toml", "warehouse = 'from-file'\nlisten = 'x:1'\nepoch_bytes = '1MiB'");
    let shown = program.ok(&["config", "--warehouse", "from-flag"]);
    let line = |key: &str| {
        let start = format!("{key} = ");
        shown.lines().find(|line| line.starts_with(&start)).unwrap_or_default().to_string()
    };
    assert!(
        line("warehouse").contains("\"from-flag\"") && line("warehouse").contains("(--warehouse)")
    );
    assert!(line("listen").contains("(TIDEMILL_LISTEN)"), "{shown}");
    assert!(line("epoch_bytes").contains("(tidemill.toml)"), "{shown}");
    assert!(line("trigger_interval").contains("(default)"), "{shown}");
}

#[test]
fn what_config_prints_is_a_configuration_that_says_the_same() {
    let program = Program::new();
    let shown = program.ok(&["config", "--trigger-interval", "250ms"]);
    program.write("tidemill.toml", &shown);
    let again = program.ok(&["config"]);
    assert!(again.contains("trigger_interval = \"250ms\""), "{again}");
    assert!(again.contains("(tidemill.toml)"), "{again}");
}

#[test]
fn a_secret_is_never_shown() {
    let program = Program::new().with_env("TIDEMILL_PASSWORD", "hunter2");
    let shown = program.ok(&["config", "--user", "ann"]);
    assert!(shown.contains("TIDEMILL_PASSWORD") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_setting_that_is_wrong_is_named_with_its_place() {
    let program = Program::new();
    program.write("tidemill.toml", "trigger_intervall = '1s'");
    let error = program.refused(&["config"]);
    assert!(error.contains("tidemill.toml") && error.contains("\"trigger_interval\""), "{error}");
    program.write("tidemill.toml", "trigger_interval = 'often'");
    let error = program.refused(&["config"]);
    assert!(error.contains("trigger_interval (tidemill.toml)"), "{error}");
    program.write("tidemill.toml", "warehouse = ");
    let error = program.refused(&["config"]);
    assert!(error.contains("tidemill.toml"), "{error}");
    let error = program.refused(&["config", "--config", "nowhere.toml"]);
    assert!(error.contains("nowhere.toml"), "{error}");
    program.write("tidemill.toml", "");
    let error = program.refused(&["run", "--storage-option", "novalue"]);
    assert!(error.contains("KEY=VALUE"), "{error}");
    let error = program.refused(&["sql", "-c", "SELECT 1", "--log-level", "loud=nonsense=1"]);
    assert!(error.contains("log level"), "{error}");
}

#[test]
fn a_variable_that_is_almost_a_setting_is_told() {
    let program = Program::new().with_env("TIDEMILL_WAREHOSE", "x");
    let outcome = program.run(&["config"]);
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.stderr.contains("\"warehouse\""), "{}", outcome.stderr);
}
