//! Which files a path names: one file, a folder with all below it, or a glob.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::error::{Error, Result};
use crate::storage::{parse_location, root_store};

const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Where the files are.
#[derive(Debug)]
pub(super) struct Place {
    store: Arc<dyn ObjectStore>,
    /// In the store: the file, or the folder above everything that can match.
    prefix: Path,
    /// `prefix` as the user wrote it.
    base: String,
    /// What the rest of a path must match.
    pattern: Option<Pattern>,
}

impl Place {
    /// Takes the options `path` and `storage.*`.
    pub fn from_options(options: &BTreeMap<String, String>) -> Result<Self> {
        let path = options.get("path").ok_or_else(|| {
            Error::invalid_hint(
                "connector 'files' needs a path",
                "add path = '…', a file, a folder or a glob",
            )
        })?;
        let storage = options.iter().filter_map(|(name, value)| {
            Some((name.strip_prefix("storage.")?.to_string(), value.clone()))
        });
        Self::open(path, storage.collect())
    }

    fn open(path: &str, storage: HashMap<String, String>) -> Result<Self> {
        let (base, pattern) = split_glob(path);
        let pattern = match pattern.map(Pattern::new) {
            None => None,
            Some(Ok(pattern)) => Some(pattern),
            Some(Err(error)) => {
                return Err(Error::invalid(format!("path \"{path}\" is no glob: {error}")));
            }
        };
        let url = parse_location(if base.is_empty() { "." } else { base })?;
        let store = root_store(&url, &storage)?;
        let prefix = Path::from_url_path(url.path())
            .map_err(|error| Error::invalid(format!("path \"{path}\": {error}")))?;
        let shown = match url.to_file_path() {
            Ok(path) => path.to_string_lossy().into_owned(),
            Err(()) => base.to_string(),
        };
        Ok(Self { store, prefix, base: shown.trim_end_matches('/').to_string(), pattern })
    }

    /// Whether listing costs next to nothing.
    pub fn is_local(&self) -> bool {
        !self.base.contains("://")
    }

    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The path for messages.
    pub fn shown(&self) -> String {
        match &self.pattern {
            None => self.base.clone(),
            Some(pattern) => format!("{}/{pattern}", self.base),
        }
    }

    /// A file as the user would name it.
    pub fn display(&self, location: &Path) -> String {
        match self.relative(location) {
            None => location.to_string(),
            Some(rest) if rest.is_empty() => self.base.clone(),
            Some(rest) => format!("{}/{rest}", self.base),
        }
    }

    fn relative(&self, location: &Path) -> Option<String> {
        let parts = location.prefix_match(&self.prefix)?;
        Some(parts.map(|part| part.as_ref().to_string()).collect::<Vec<_>>().join("/"))
    }

    /// All files that match now, in no particular order.
    pub async fn list(&self) -> Result<Vec<ObjectMeta>> {
        if self.pattern.is_none() {
            match self.store.head(&self.prefix).await {
                Ok(file) => return Ok(vec![file]),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let all: Vec<ObjectMeta> = self.store.list(Some(&self.prefix)).try_collect().await?;
        Ok(all.into_iter().filter(|file| self.matches(&file.location)).collect())
    }

    fn matches(&self, location: &Path) -> bool {
        let Some(rest) = self.relative(location) else { return false };
        let passed_over = |part: &str| part.starts_with(['.', '_']) || part.ends_with(".tmp");
        match &self.pattern {
            Some(pattern) => pattern.matches_with(&rest, MATCHING) && !rest.ends_with(".tmp"),
            None => !rest.split('/').any(passed_over),
        }
    }
}

/// The part of a path before its first wildcard, up to a slash, and the rest.
fn split_glob(path: &str) -> (&str, Option<&str>) {
    let path = path.strip_prefix("file://").unwrap_or(path);
    match path.find(['*', '?', '[']) {
        None => (path, None),
        Some(at) => match path[..at].rfind('/') {
            Some(0) => ("/", Some(&path[1..])),
            Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
            None => ("", Some(path)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_split_off_at_a_slash() {
        for (path, wanted) in [
            ("/data/a.json", ("/data/a.json", None)),
            ("/data/*.json", ("/data", Some("*.json"))),
            ("/data/2024-*/x/*.json", ("/data", Some("2024-*/x/*.json"))),
            ("*.csv", ("", Some("*.csv"))),
            ("/*.csv", ("/", Some("*.csv"))),
            ("file:///data/x", ("/data/x", None)),
            ("s3://bucket/dir/**/*.parquet", ("s3://bucket/dir", Some("**/*.parquet"))),
        ] {
            assert_eq!(split_glob(path), wanted);
        }
    }

    #[tokio::test]
    async fn a_file_a_folder_and_a_glob() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["a.json", "b.csv", "sub/c.json", ".hidden.json", "_staging/d.json", "e.json.tmp"]
        {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        let list = async |rest: &str| {
            let path = format!("{}{rest}", folder.path().display());
            let place = Place::open(&path, HashMap::new()).unwrap();
            let files = place.list().await.unwrap();
            let base = format!("{}/", folder.path().display());
            let mut names: Vec<String> =
                files.iter().map(|f| place.display(&f.location).replace(&base, "")).collect();
            names.sort();
            names
        };
        assert_eq!(list("").await, ["a.json", "b.csv", "sub/c.json"]);
        assert_eq!(list("/").await, ["a.json", "b.csv", "sub/c.json"]);
        assert_eq!(list("/a.json").await, ["a.json"]);
        assert_eq!(list("/*.json").await, ["a.json"]);
        assert_eq!(list("/**/*.json").await, ["_staging/d.json", "a.json", "sub/c.json"]);
        assert_eq!(list("/nothing").await, Vec::<String>::new());
    }
}
