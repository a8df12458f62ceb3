//! A warehouse, and the built `tidemill` program on it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tempfile::TempDir;
use tidemill_engine::config::EngineConfig;
use tidemill_sql::{Access, Database};
use tidemill_tests::delta_log;

use crate::s3::S3;

/// The `tidemill` program beside this test's executable.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("tidemill");
    assert!(path.exists(), "{} is missing: cargo build --bin tidemill", path.display());
    path
}

/// A warehouse that the program runs on.
pub struct House {
    pub location: String,
    environment: Vec<(&'static str, String)>,
    /// What lies in it.
    store: Arc<dyn ObjectStore>,
}

impl House {
    pub fn local(folder: &TempDir) -> Self {
        let path = folder.path().join("warehouse");
        std::fs::create_dir(&path).unwrap();
        Self {
            location: path.to_str().unwrap().to_owned(),
            environment: Vec::new(),
            store: Arc::new(LocalFileSystem::new_with_prefix(path).unwrap()),
        }
    }

    pub fn s3(server: &S3) -> Self {
        let (location, environment) = (server.url(), server.environment());
        Self { location, environment, store: server.store() }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).args(["--warehouse", &self.location]).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    pub fn sql(&self, statement: &str) -> String {
        let output = self.command(&["sql", "--format", "csv", "-c", statement]).output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}: {out}{talk}");
        out
    }

    pub fn run(&self, file: &Path, more: &[&str]) -> Child {
        let mut command = self.command(&[&["run", file.to_str().unwrap()], more].concat());
        // Often enough that some recoveries begin from saved state, and some from nothing.
        command.env("TIDEMILL_SNAPSHOT_INTERVAL", "300ms");
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Opens it in this process, for reading.
    pub async fn open(&self) -> Arc<Database> {
        let option = |(key, value): &(&str, String)| (key.to_lowercase(), value.clone());
        let config = EngineConfig {
            warehouse: self.location.clone(),
            storage_options: self.environment.iter().map(option).collect(),
            ..EngineConfig::default()
        };
        Database::open(config, Access::ReadOnly).await.unwrap()
    }

    /// Reads the logs of all tables: every `txn` version stands in one commit, and none
    /// is missing. Answers how many there are.
    pub async fn each_epoch_once(&self) -> usize {
        delta_log::check_epochs(&self.store).await.unwrap();
        let tables = delta_log::epochs(&self.store).await.unwrap();
        let epochs = tables.values().flat_map(|apps| apps.values()).map(Vec::len).sum();
        assert!(epochs > 0, "nothing was committed");
        epochs
    }
}
