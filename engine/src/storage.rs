//! The warehouse: a folder or URL that holds the tables and the engine's files.
//!
//! ```text
//! <warehouse>/
//!   <table>/                      one Delta table each
//!   _tidemill/catalog/            versions of the catalog
//!   _tidemill/lease/              fencing tokens
//!   _tidemill/queries/<id>/       recorded epoch plans
//!   _tidemill/sources/<id>/       file logs
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use url::Url;

use crate::error::{Error, Result};

/// An object store rooted at the warehouse.
#[derive(Debug, Clone)]
pub struct Warehouse {
    url: Url,
    options: HashMap<String, String>,
    store: Arc<dyn ObjectStore>,
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
        register_stores();
        let (root, path) = object_store::parse_url_opts(&url, &options)?;
        let store = Arc::new(PrefixStore::new(Arc::<dyn ObjectStore>::from(root), path));
        Ok(Self { url, options, store })
    }

    /// A warehouse over a store of the caller's, for tests that break storage.
    pub fn with_store(url: Url, store: Arc<dyn ObjectStore>) -> Self {
        Self { url, options: HashMap::new(), store }
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
    pub fn table_url(&self, name: &str) -> Result<Url> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| Error::invalid(format!("{} can't hold tables", self.url)))?
            .pop_if_empty()
            .push(name);
        Ok(url)
    }

    /// Path of one of the engine's own files.
    pub fn internal(parts: &[&str]) -> Path {
        Path::from_iter(std::iter::once("_tidemill").chain(parts.iter().copied()))
    }
}

/// A local path or a URL as a URL; local paths become absolute.
pub fn parse_location(location: &str) -> Result<Url> {
    deltalake::ensure_table_uri(location).or_else(|_| {
        let path = std::path::absolute(location)
            .map_err(|error| Error::invalid(format!("\"{location}\" is no path: {error}")))?;
        Url::from_directory_path(&path)
            .map_err(|()| Error::invalid(format!("\"{location}\" is neither a path nor a URL")))
    })
}

/// Teaches delta-rs the object stores that this build has.
pub fn register_stores() {}
