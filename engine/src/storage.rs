//! The warehouse: a folder or URL that holds the tables and the engine's files.
//!
//! ```text
//! <warehouse>/
//!   <table>/                      one Delta table each
//!   _tidemill/catalog/            versions of the catalog
//!   _tidemill/lease/              fencing tokens
//!   _tidemill/queries/<id>/       recorded epoch plans, snapshots of state
//!   _tidemill/sources/<id>/       file logs
//! ```
//!
//! Every object store of the engine is made here and handed on: whoever wraps
//! the store of a warehouse ([`Warehouse::with_store`]) sees every access, that
//! of the Delta tables included.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use parking_lot::Mutex;
use url::Url;

use crate::error::{Error, Result};

/// The folder of the engine's own files.
const INTERNAL: &str = "_tidemill";

/// Schemes of locations.
const SCHEMES: [&str; 10] =
    ["file", "memory", "s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"];

/// An object store rooted at the warehouse.
#[derive(Debug, Clone)]
pub struct Warehouse {
    url: Url,
    options: HashMap<String, String>,
    /// Rooted at the URL's scheme and host.
    root: RootStore,
    /// Rooted at the warehouse.
    store: Arc<dyn ObjectStore>,
    /// Root stores of other places that tables lie in.
    others: Arc<Mutex<BTreeMap<String, RootStore>>>,
}

/// An object store with "/" at the root of a URL's scheme and host.
#[derive(Debug, Clone)]
pub(crate) struct RootStore {
    pub store: Arc<dyn ObjectStore>,
    /// Given by the caller of [`Warehouse::with_store`], or in memory: DataFusion must
    /// read through this one, even where it knows a store for the scheme already.
    pub injected: bool,
}

impl RootStore {
    fn new(url: &Url, options: &HashMap<String, String>) -> Result<Self> {
        Ok(Self { store: root_store(url, options)?, injected: url.scheme() == "memory" })
    }
}

impl Warehouse {
    /// Opens `location`, a local folder (made if it isn't there) or a URL.
    pub fn open(location: &str, options: HashMap<String, String>) -> Result<Self> {
        let url = parse_location(location)?;
        if let Ok(path) = url.to_file_path() {
            std::fs::create_dir_all(&path).map_err(|error| {
                Error::invalid_hint(
                    format!("can't open the warehouse {}: {error}", path.display()),
                    "name a folder that you may write to with --warehouse",
                )
            })?;
        }
        let root = RootStore::new(&url, &options)?;
        Ok(Self::over(url, options, root))
    }

    /// A warehouse at `url` over a store of the caller's, for tests that break
    /// storage. The store's root is that of the URL, so `memory:///house` lies
    /// under `house/`. Two warehouses over one store are the same warehouse.
    pub fn with_store(url: Url, store: Arc<dyn ObjectStore>) -> Self {
        Self::over(url, HashMap::new(), RootStore { store, injected: true })
    }

    fn over(url: Url, options: HashMap<String, String>, root: RootStore) -> Self {
        let path = Path::from_url_path(url.path()).unwrap_or_else(|_| Path::from(url.path()));
        let store = Arc::new(PrefixStore::new(root.store.clone(), path));
        Self { url, options, root, store, others: Arc::default() }
    }

    /// A warehouse that is gone when it is dropped.
    pub fn in_memory() -> Result<Self> {
        let url = Url::parse("memory:///")
            .map_err(|error| Error::internal(format!("no URL for memory: {error}")))?;
        Ok(Self::with_store(url, Arc::new(object_store::memory::InMemory::new())))
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn options(&self) -> &HashMap<String, String> {
        &self.options
    }

    /// Objects are named relative to the warehouse.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Where the managed table `name` lives.
    ///
    /// # Errors
    /// If the name can't be that of a folder.
    pub fn table_url(&self, name: &str) -> Result<Url> {
        let reserved = matches!(name, "" | "." | ".." | INTERNAL);
        // Log readers decode a "%" in a folder's name once too often.
        if reserved || name.contains(['/', '\\', '%']) || name.contains(char::is_control) {
            return Err(Error::invalid_hint(
                format!("a table in the warehouse can't be named \"{name}\""),
                "its name is that of its folder: choose one without slashes and percent signs",
            ));
        }
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| Error::invalid(format!("{} can't hold tables", self.url)))?
            .pop_if_empty()
            .push(name);
        Ok(url)
    }

    /// Path of one of the engine's own files.
    pub fn internal(parts: &[&str]) -> Path {
        Path::from_iter(std::iter::once(INTERNAL).chain(parts.iter().copied()))
    }

    /// The root store of `url`: the warehouse's own where `url` lies beside it
    /// and brings no options of its own.
    pub(crate) fn root_of(
        &self,
        url: &Url,
        options: &HashMap<String, String>,
    ) -> Result<RootStore> {
        let own = store_root(url) == store_root(&self.url);
        if own && (options.is_empty() || *options == self.options) {
            return Ok(self.root.clone());
        }
        let sorted: BTreeMap<_, _> = options.iter().collect();
        let key = format!("{} {sorted:?}", store_root(url));
        if let Some(known) = self.others.lock().get(&key) {
            return Ok(known.clone());
        }
        let made = RootStore::new(url, options)?;
        self.others.lock().insert(key, made.clone());
        Ok(made)
    }
}

/// Scheme, user and host of a URL: what an object store serves.
fn store_root(url: &Url) -> &str {
    &url[..url::Position::BeforePath]
}

/// A local path or a URL as a URL. Local paths become absolute; nothing is
/// contacted and nothing is made.
pub fn parse_location(location: &str) -> Result<Url> {
    let location = location.trim();
    if location.is_empty() {
        return Err(Error::invalid("a location is empty"));
    }
    if location.contains("://") || location.starts_with("file:") {
        let url = Url::parse(location)
            .map_err(|error| Error::invalid(format!("\"{location}\" is no URL: {error}")))?;
        check_scheme(&url)?;
        return Ok(url);
    }
    let path = std::path::absolute(expand_home(location))
        .map_err(|error| Error::invalid(format!("\"{location}\" is no path: {error}")))?;
    Url::from_directory_path(without_dots(path))
        .map_err(|()| Error::invalid(format!("\"{location}\" is neither a path nor a URL")))
}

fn check_scheme(url: &Url) -> Result<()> {
    let scheme = url.scheme();
    if !SCHEMES.contains(&scheme) {
        return Err(Error::invalid_hint(
            format!("{url}: unknown kind of location \"{scheme}\""),
            format!("a local path, or a URL with one of {}", SCHEMES.join(", ")),
        ));
    }
    let local = matches!(scheme, "file" | "memory");
    if local && url.has_host() && url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err(Error::invalid_hint(
            format!("{url}: a {scheme} URL has no host"),
            format!("write three slashes: {scheme}:///path"),
        ));
    }
    if !local && url.host_str().is_none() {
        return Err(Error::invalid_hint(
            format!("{url} names no bucket"),
            format!("write {scheme}://bucket/path"),
        ));
    }
    Ok(())
}

fn expand_home(location: &str) -> PathBuf {
    let below = match location.strip_prefix('~') {
        Some("") => Some(""),
        Some(rest) => rest.strip_prefix('/'),
        None => None,
    };
    match (below, std::env::home_dir()) {
        (Some(below), Some(home)) => home.join(below),
        _ => PathBuf::from(location),
    }
}

/// Takes `.` and `..` out of an absolute path, by its words alone.
fn without_dots(path: PathBuf) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

/// The one place where object stores are made.
pub(crate) fn root_store(
    url: &Url,
    options: &HashMap<String, String>,
) -> Result<Arc<dyn ObjectStore>> {
    check_scheme(url)?;
    let (store, _) = object_store::parse_url_opts(url, with_environment(url, options))?;
    Ok(Arc::from(store))
}

/// The given options over what the environment says (`AWS_ACCESS_KEY_ID`, ...),
/// as the clouds' own tools read it.
fn with_environment(url: &Url, options: &HashMap<String, String>) -> BTreeMap<String, String> {
    let prefix = match url.scheme() {
        "s3" | "s3a" => "aws_",
        "gs" => "google_",
        "file" | "memory" => return BTreeMap::new(),
        _ => "azure_",
    };
    let environment = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .map(|(key, value)| (key.to_lowercase(), value))
        .filter(|(key, _)| key.starts_with(prefix));
    let given = options.iter().map(|(key, value)| (key.to_lowercase(), value.clone()));
    environment.chain(given).collect()
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn local_paths_become_urls_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("not/there/../yet");
        let url = parse_location(below.to_str().unwrap()).unwrap();
        assert_eq!(url.to_file_path().unwrap(), dir.path().join("not/yet"));
        assert!(!dir.path().join("not").exists());

        let relative = parse_location("./some where").unwrap();
        let expected = std::env::current_dir().unwrap().join("some where");
        assert_eq!(relative.to_file_path().unwrap(), expected);
    }

    #[test]
    fn locations_that_cannot_be_say_what_to_write() {
        let message = |location: &str| {
            let error = parse_location(location).unwrap_err();
            format!("{error} / {}", error.hint().unwrap_or_default())
        };
        assert!(message("ftp://host/x").contains("s3"));
        assert!(message("memory://host/x").contains("memory:///path"));
        assert!(message("").contains("empty"));
        assert!(message("s3:///x").contains("s3://bucket/path"));
    }

    #[test]
    fn tables_lie_below_the_warehouse() {
        let url = Url::parse("memory:///house/").unwrap();
        let house = Warehouse::with_store(url, Arc::new(InMemory::new()));
        assert_eq!(house.table_url("a b").unwrap().as_str(), "memory:///house/a%20b");
        for name in ["", "..", "_tidemill", "a/b", "a%20b", "a\nb"] {
            assert!(house.table_url(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn tables_beside_the_warehouse_share_its_store() {
        let url = Url::parse("memory:///house").unwrap();
        let house = Warehouse::with_store(url, Arc::new(InMemory::new()));
        let beside = Url::parse("memory:///elsewhere").unwrap();
        assert!(house.root_of(&beside, &HashMap::new()).unwrap().injected);
        let local = parse_location("/tmp/x").unwrap();
        assert!(!house.root_of(&local, &HashMap::new()).unwrap().injected);
    }
}
