//! What holds the house together: layers, headers, one version of what must be one.

use std::fs;
use std::path::{Path, PathBuf};

const MOST_LINES: usize = 800;
const WISHED_LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The workspace's own files with one of these endings.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let ours = !matches!(name.as_str(), "target" | ".git" | "node_modules" | ".venv");
            if path.is_dir() && ours {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The crates of ours that a package names in its manifest.
fn own_dependencies(package: &str) -> Vec<String> {
    let manifest = read(&root().join(package).join("Cargo.toml"));
    let names = manifest.lines().filter_map(|line| line.split(['=', '.', ' ']).next());
    let own = names.filter_map(|name| name.trim().strip_prefix("tidemill-"));
    own.map(str::to_owned).collect()
}

#[test]
fn dependencies_point_one_way() {
    let layers = ["engine", "sql", "flight-server", "cli"];
    for (height, package) in layers.iter().enumerate() {
        for dependency in own_dependencies(package) {
            assert!(
                layers[..height].contains(&dependency.as_str()),
                "{package} depends on {dependency}, which does not lie below it"
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<_> = files(&[".rs"])
        .iter()
        .filter(|path| !read(path).starts_with("//! "))
        .map(|path| relative(path))
        .collect();
    assert!(silent.is_empty(), "no //! header: {silent:#?}");
}

#[test]
fn every_script_says_what_it_is() {
    let silent: Vec<_> = files(&[".slt"])
        .iter()
        .filter(|path| !read(path).starts_with("# "))
        .map(|path| relative(path))
        .collect();
    assert!(silent.is_empty(), "no comment at the top: {silent:#?}");
}

#[test]
fn no_folder_module_is_called_mod() {
    let found: Vec<_> =
        files(&["mod.rs"]).iter().filter(|p| p.ends_with("mod.rs")).map(|p| relative(p)).collect();
    assert!(found.is_empty(), "name the module's file after it: {found:#?}");
}

#[test]
fn files_stay_short() {
    let mut long = Vec::new();
    for path in files(&[".rs"]) {
        let lines = read(&path).lines().count();
        if lines > WISHED_LINES {
            println!("{}: {lines} lines, wants splitting", relative(&path));
        }
        if lines > MOST_LINES {
            long.push(format!("{}: {lines} lines", relative(&path)));
        }
    }
    assert!(long.is_empty(), "longer than {MOST_LINES} lines: {long:#?}");
}

#[test]
fn there_is_one_version_of_what_must_be_one() {
    let lock = read(&root().join("Cargo.lock"));
    let names = |wanted: &str| {
        let line = format!("name = \"{wanted}\"");
        lock.lines().filter(|l| *l == line).count()
    };
    for package in [
        "arrow",
        "arrow-array",
        "arrow-flight",
        "arrow-schema",
        "datafusion",
        "datafusion-common",
        "deltalake-core",
        "object_store",
        "parquet",
        "prost",
        "rdkafka",
        "sqlparser",
        "tonic",
    ] {
        assert_eq!(names(package), 1, "versions of {package} in Cargo.lock");
    }
    assert!(!lock.contains("git+"), "a dependency comes from git");
}

#[test]
fn nothing_is_left_undone() {
    // Put together here, so that this file does not find itself.
    let marks = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    let ignored = format!("#[{}", "ignore");
    for path in files(&[".rs"]) {
        let text = read(&path);
        for mark in marks.iter().chain([&ignored]) {
            assert!(!text.contains(mark.as_str()), "{} has {mark}", relative(&path));
        }
    }
}

#[test]
fn nothing_knows_the_machine_it_was_written_on() {
    let places = ["work", "root", "Users"].map(|name| format!("/{name}/"));
    for path in files(&[".rs", ".toml", ".md", ".sh", ".sql", ".slt", ".yml", ".py", ".lock"]) {
        let text = read(&path);
        for place in &places {
            let found = text.lines().find(|line| starts_a_path(line, place));
            assert_eq!(found, None, "{} names a place of one machine", relative(&path));
        }
    }
}

/// Whether `place` stands in `line` as the beginning of a path.
fn starts_a_path(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before
            .is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '/' | '.' | '_' | '-' | '}' | '*'))
    })
}
