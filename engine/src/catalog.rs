//! What is declared in a warehouse: sources, tables, views and queries, kept as SQL.
//!
//! The whole content is written anew at each change, as one object whose name is
//! the next version. The object must not exist yet: of two engines that change
//! the catalog at once, one is told to try again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::storage::Warehouse;

/// Format of the objects that this version writes and reads.
const FORMAT: u32 = 1;
/// Versions that are kept, the newest included.
const KEPT: u64 = 10;

/// One declared thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub id: Uuid,
    /// Names compare exactly; folding case is SQL's business.
    pub name: String,
    pub kind: EntryKind,
    /// The statement that declares it.
    pub definition: String,
    /// Microseconds since 1970-01-01 UTC.
    pub created_at_us: i64,
    #[serde(default)]
    pub paused: bool,
    /// Where its table lies, if it has one.
    #[serde(default)]
    pub location: Option<String>,
    /// Names of the entries that its definition speaks of.
    #[serde(default)]
    pub depends_on: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    Source,
    Table,
    View,
    MaterializedView,
    Sink,
    /// A continuous `INSERT INTO`.
    Insert,
}

/// A step of a new version.
#[derive(Debug, Clone)]
pub enum Change {
    /// Adds the entry, or puts it in the place of the one of the same name.
    Put(Entry),
    Remove(String),
}

/// The catalog of a warehouse.
#[derive(Debug)]
pub struct Catalog {
    store: Arc<dyn ObjectStore>,
    state: RwLock<State>,
    /// Held while a version is written.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Default)]
struct State {
    version: u64,
    entries: Arc<Vec<Entry>>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    format: u32,
    /// Tells a version that we wrote from one of somebody else's.
    change: Uuid,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Catalog {
    /// Reads the newest version; a warehouse without one has an empty catalog.
    pub async fn open(warehouse: &Warehouse) -> Result<Self> {
        let store = warehouse.store().clone();
        let state = newest(store.as_ref()).await?;
        Ok(Self { store, state: RwLock::new(state), writing: tokio::sync::Mutex::new(()) })
    }

    /// 0 before the first change.
    pub fn version(&self) -> u64 {
        self.state.read().version
    }

    /// All entries in the order of their creation, but none before what it depends on.
    pub fn entries(&self) -> Vec<Entry> {
        dependencies_first(&self.state.read().entries)
    }

    pub fn get(&self, name: &str) -> Option<Entry> {
        self.state.read().entries.iter().find(|entry| entry.name == name).cloned()
    }

    /// Reads what others may have changed.
    pub async fn reload(&self) -> Result<u64> {
        let _writing = self.writing.lock().await;
        self.take_newest().await
    }

    async fn take_newest(&self) -> Result<u64> {
        let state = newest(self.store.as_ref()).await?;
        let version = state.version;
        *self.state.write() = state;
        Ok(version)
    }

    /// Makes one new version with all `changes`; answers its number.
    ///
    /// # Errors
    /// If a name to be removed isn't there, or somebody else changed the catalog
    /// meanwhile: it is then read again, so that the statement can be repeated.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<u64> {
        let _writing = self.writing.lock().await;
        let State { version, entries } = self.state.read().clone();
        let entries = changed(entries.as_ref().clone(), changes)?;
        let version = version + 1;
        let change = Uuid::new_v4();
        if !self
            .write(version, Content { format: FORMAT, change, entries: entries.clone() })
            .await?
        {
            self.take_newest().await?;
            return Err(Error::invalid_hint(
                "the catalog was changed by somebody else at the same time",
                "run the statement again",
            ));
        }
        *self.state.write() = State { version, entries: Arc::new(entries) };
        if let Some(old) = version.checked_sub(KEPT).filter(|old| *old > 0)
            && let Err(error) = self.store.delete(&path(old)).await
        {
            tracing::debug!(version = old, %error, "an old version of the catalog stays");
        }
        Ok(version)
    }

    /// Whether `version` holds `content` now; false if it holds somebody else's.
    async fn write(&self, version: u64, content: Content) -> Result<bool> {
        let bytes = serde_json::to_vec_pretty(&content)
            .map_err(|error| Error::internal(format!("catalog: {error}")))?;
        let options = PutOptions::from(PutMode::Create);
        let Err(error) = self.store.put_opts(&path(version), bytes.into(), options).await else {
            return Ok(true);
        };
        // A lost answer looks like a failure, a repeated request like a loser: look.
        match read(self.store.as_ref(), version).await? {
            Some(found) => Ok(found.change == content.change),
            None => Err(error.into()),
        }
    }
}

fn changed(mut entries: Vec<Entry>, changes: Vec<Change>) -> Result<Vec<Entry>> {
    for change in changes {
        match change {
            Change::Put(entry) => match entries.iter_mut().find(|known| known.name == entry.name) {
                Some(known) => *known = entry,
                None => entries.push(entry),
            },
            Change::Remove(name) => {
                let Some(index) = entries.iter().position(|known| known.name == name) else {
                    return Err(Error::NotFound { kind: "object", name });
                };
                entries.remove(index);
            }
        }
    }
    Ok(entries)
}

/// Keeps the order, but moves an entry behind those that it depends on: one that
/// was replaced may depend on a younger one.
fn dependencies_first(entries: &[Entry]) -> Vec<Entry> {
    fn visit<'a>(
        entry: &'a Entry,
        by_name: &HashMap<&str, &'a Entry>,
        seen: &mut HashSet<&'a str>,
        ordered: &mut Vec<Entry>,
    ) {
        if !seen.insert(&entry.name) {
            return;
        }
        for name in &entry.depends_on {
            if let Some(dependency) = by_name.get(name.as_str()) {
                visit(dependency, by_name, seen, ordered);
            }
        }
        ordered.push(entry.clone());
    }
    let by_name = entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let (mut seen, mut ordered) = (HashSet::new(), Vec::with_capacity(entries.len()));
    for entry in entries {
        visit(entry, &by_name, &mut seen, &mut ordered);
    }
    ordered
}

fn path(version: u64) -> Path {
    Warehouse::internal(&["catalog", &format!("{version:020}.json")])
}

async fn newest(store: &dyn ObjectStore) -> Result<State> {
    let folder = Warehouse::internal(&["catalog"]);
    let found: Vec<_> = store.list(Some(&folder)).try_collect().await?;
    let versions: BTreeMap<u64, ()> = found
        .iter()
        .filter_map(|meta| meta.location.filename()?.strip_suffix(".json")?.parse().ok())
        .map(|version| (version, ()))
        .collect();
    let Some((version, ())) = versions.last_key_value() else { return Ok(State::default()) };
    match read(store, *version).await? {
        Some(content) => Ok(State { version: *version, entries: Arc::new(content.entries) }),
        None => Err(Error::Corrupt {
            path: path(*version).to_string(),
            message: "it was deleted while it was read".into(),
        }),
    }
}

async fn read(store: &dyn ObjectStore, version: u64) -> Result<Option<Content>> {
    let path = path(version);
    let bytes = match store.get(&path).await {
        Ok(found) => found.bytes().await?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let corrupt = |message: String| Error::Corrupt { path: path.to_string(), message };
    let broken = |error: serde_json::Error| {
        corrupt(format!("{error}; delete this version to fall back to the one before"))
    };
    let FormatOnly { format } = serde_json::from_slice(&bytes).map_err(broken)?;
    if format != FORMAT {
        return Err(corrupt(format!(
            "it has format {format}, this Tidemill reads {FORMAT}; \
             open the warehouse with the version of Tidemill that wrote it, or a newer one"
        )));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(broken)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use url::Url;

    use super::*;

    fn warehouse() -> Warehouse {
        let url = Url::parse("memory:///house").unwrap();
        Warehouse::with_store(url, Arc::new(InMemory::new()))
    }

    fn entry(name: &str, depends_on: &[&str]) -> Entry {
        Entry {
            id: Uuid::new_v4(),
            name: name.into(),
            kind: EntryKind::View,
            definition: format!("CREATE VIEW {name} AS SELECT 1"),
            created_at_us: 1,
            paused: false,
            location: None,
            depends_on: depends_on.iter().map(ToString::to_string).collect(),
        }
    }

    fn names(catalog: &Catalog) -> Vec<String> {
        catalog.entries().into_iter().map(|entry| entry.name).collect()
    }

    #[tokio::test]
    async fn what_was_put_is_there_after_a_restart() {
        let house = warehouse();
        let catalog = Catalog::open(&house).await.unwrap();
        assert_eq!(catalog.version(), 0);
        catalog
            .apply(vec![Change::Put(entry("b", &[])), Change::Put(entry("a", &["b"]))])
            .await
            .unwrap();
        catalog.apply(vec![Change::Remove("b".into())]).await.unwrap();
        let missing = catalog.apply(vec![Change::Remove("b".into())]).await.unwrap_err();
        assert!(matches!(missing, Error::NotFound { .. }), "{missing}");

        let again = Catalog::open(&house).await.unwrap();
        assert_eq!(again.version(), 2);
        assert_eq!(again.get("a"), catalog.get("a"));
        assert_eq!(again.get("A"), None);
    }

    #[tokio::test]
    async fn dependencies_come_first_even_if_younger() {
        let catalog = Catalog::open(&warehouse()).await.unwrap();
        let puts = ["a", "b", "c"].map(|name| Change::Put(entry(name, &[])));
        catalog.apply(puts.to_vec()).await.unwrap();
        catalog.apply(vec![Change::Put(entry("a", &["c", "gone"]))]).await.unwrap();
        assert_eq!(names(&catalog), ["c", "a", "b"]);
    }

    #[tokio::test]
    async fn of_two_writers_one_is_told_and_sees_the_other() {
        let house = warehouse();
        let (first, second) =
            (Catalog::open(&house).await.unwrap(), Catalog::open(&house).await.unwrap());
        first.apply(vec![Change::Put(entry("a", &[]))]).await.unwrap();
        let lost = second.apply(vec![Change::Put(entry("b", &[]))]).await.unwrap_err();
        assert!(lost.hint().unwrap().contains("again"));
        assert_eq!(names(&second), ["a"]);
        second.apply(vec![Change::Put(entry("b", &[]))]).await.unwrap();
        first.reload().await.unwrap();
        assert_eq!(names(&first), ["a", "b"]);
    }

    #[tokio::test]
    async fn old_versions_go() {
        let house = warehouse();
        let catalog = Catalog::open(&house).await.unwrap();
        for n in 0..15 {
            catalog.apply(vec![Change::Put(entry(&format!("v{n}"), &[]))]).await.unwrap();
        }
        let folder = Warehouse::internal(&["catalog"]);
        let left: Vec<_> = house.store().list(Some(&folder)).try_collect().await.unwrap();
        assert_eq!(left.len() as u64, KEPT);
        assert_eq!(Catalog::open(&house).await.unwrap().entries().len(), 15);
    }

    #[tokio::test]
    async fn an_unknown_format_is_refused_with_what_to_do() {
        let house = warehouse();
        let newer = br#"{"format": 9, "entries": "who knows"}"#.to_vec();
        house.store().put(&path(1), newer.into()).await.unwrap();
        let error = Catalog::open(&house).await.unwrap_err().to_string();
        assert!(error.contains("format 9") && error.contains("newer"), "{error}");
    }
}
