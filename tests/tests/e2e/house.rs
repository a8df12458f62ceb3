//! A warehouse, and the built `tidemill` program on it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;

use crate::s3::S3;

/// The `tidemill` program beside this test's executable.
fn program() -> PathBuf {
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
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Reads the log of the view's table: every `txn` version stands in one commit.
    /// Answers how many.
    pub async fn each_epoch_once(&self) -> usize {
        let mut seen = BTreeSet::new();
        let mut objects = self.store.list(None);
        while let Some(object) = objects.try_next().await.unwrap() {
            let path = object.location.to_string();
            let commit = path.contains("_delta_log/") && path.ends_with(".json");
            if !path.starts_with("kept") || !commit {
                continue;
            }
            let bytes = self.store.get(&object.location).await.unwrap().bytes().await.unwrap();
            for line in std::str::from_utf8(&bytes).unwrap().lines() {
                let action: serde_json::Value = serde_json::from_str(line).unwrap();
                if let Some(version) = action["txn"]["version"].as_u64() {
                    assert!(seen.insert(version), "epoch {version} was committed twice");
                }
            }
        }
        assert!(!seen.is_empty());
        seen.len()
    }
}
