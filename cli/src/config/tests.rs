//! Precedence, and the messages for what is wrong.

use super::*;

fn environment(list: &[(&str, &str)]) -> Environment {
    list.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tidemill-{}-{name}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let path = file("precedence", "warehouse = 'f'\nlisten = 'f:1'\ntrigger_interval = '3s'");
    let mut flags = Flags::default();
    flags.set("warehouse", &Some("flag".into()));
    let env = environment(&[("TIDEMILL_WAREHOUSE", "e"), ("TIDEMILL_LISTEN", "e:2")]);
    let settings = Settings::load(flags, Some(path), &env).unwrap();
    let config = Config::from_settings(&settings).unwrap();
    assert_eq!(config.engine.warehouse, "flag");
    assert_eq!(config.listen, "e:2");
    assert_eq!(config.engine.trigger_interval, Duration::from_secs(3));
    assert_eq!(config.engine.epoch_bytes, EngineConfig::default().epoch_bytes);
}

#[test]
fn defaults_are_those_of_the_engine() {
    let path = file("empty", "");
    let settings = Settings::load(Flags::default(), Some(path), &Vec::new()).unwrap();
    let config = Config::from_settings(&settings).unwrap();
    assert_eq!(config.engine, EngineConfig::default());
}

#[test]
fn an_unknown_setting_names_the_nearest() {
    let path = file("unknown", "warehose = 'x'");
    let error = Settings::load(Flags::default(), Some(path), &Vec::new()).unwrap_err();
    assert!(error.to_string().contains("did you mean \"warehouse\""), "{error}");
    let env = environment(&[("TIDEMILL_LISTN", "x")]);
    let settings = Settings::load(Flags::default(), Some(file("e", "")), &env).unwrap();
    let notes: Vec<String> = settings.notes.iter().map(ToString::to_string).collect();
    assert!(notes[0].starts_with("TIDEMILL_LISTN") && notes[0].contains("\"listen\""), "{notes:?}");
}

#[test]
fn variables_of_the_test_scripts_are_no_settings() {
    let names = ["TIDEMILL_CACHE", "TIDEMILL_REQUIRE_ALL", "TIDEMILL_LONG", "TIDEMILL_RESULTS"];
    let env = environment(&names.map(|name| (name, "1")));
    let settings = Settings::load(Flags::default(), Some(file("others", "")), &env).unwrap();
    assert!(settings.notes.is_empty(), "{:?}", settings.notes);
}

#[test]
fn a_bad_value_is_blamed_on_its_place() {
    let env = environment(&[("TIDEMILL_TRIGGER_INTERVAL", "soon")]);
    let settings = Settings::load(Flags::default(), Some(file("bad", "")), &env).unwrap();
    let error = Config::from_settings(&settings).unwrap_err().to_string();
    assert!(error.contains("trigger_interval (TIDEMILL_TRIGGER_INTERVAL)"), "{error}");
    assert!(error.contains("write 100ms"), "{error}");
}

#[test]
fn a_warehouse_flag_beats_a_server_in_the_environment() {
    let env = environment(&[("TIDEMILL_CONNECT", "grpc://x:1")]);
    let mut flags = Flags::default();
    flags.set("warehouse", &Some("here".into()));
    let settings = Settings::load(flags, Some(file("beats", "")), &env).unwrap();
    assert_eq!(Config::from_settings(&settings).unwrap().connect, None);
    let settings = Settings::load(Flags::default(), Some(file("beats2", "")), &env).unwrap();
    assert_eq!(Config::from_settings(&settings).unwrap().connect.as_deref(), Some("grpc://x:1"));
}

#[test]
fn storage_options_come_from_every_place() {
    let path = file("storage", "[storage]\naws_region = 'a'\naws_endpoint = 'f'");
    let env = environment(&[("TIDEMILL_STORAGE_AWS_ENDPOINT", "e")]);
    let flags = Flags { storage: vec!["AWS_REGION=flag".into()], ..Flags::default() };
    let settings = Settings::load(flags, Some(path), &env).unwrap();
    let options = Config::from_settings(&settings).unwrap().engine.storage_options;
    assert_eq!(options["aws_region"], "flag");
    assert_eq!(options["aws_endpoint"], "e");
}

#[test]
fn the_stores_own_variables_count_where_the_warehouse_lies_there() {
    let env = environment(&[("AWS_REGION", "eu-west-1"), ("GOOGLE_X", "y")]);
    let options = |warehouse: &str| {
        let mut flags = Flags::default();
        flags.set("warehouse", &Some(warehouse.into()));
        let settings = Settings::load(flags, Some(file("stores", "")), &env).unwrap();
        Config::from_settings(&settings).unwrap().engine.storage_options
    };
    assert!(options("./here").is_empty());
    let s3 = options("s3://bucket/mill");
    assert_eq!((s3.len(), s3["aws_region"].as_str()), (1, "eu-west-1"));
}

#[test]
fn a_secret_is_not_in_debug_output() {
    let env = environment(&[("TIDEMILL_USER", "u"), ("TIDEMILL_PASSWORD", "hunter2")]);
    let settings = Settings::load(Flags::default(), Some(file("secret", "")), &env).unwrap();
    let config = Config::from_settings(&settings).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.login().unwrap(), Some(("u".into(), "hunter2".into())));
}
