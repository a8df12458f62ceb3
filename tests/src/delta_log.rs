//! What the Delta logs of a warehouse must hold: each epoch once, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;

use crate::error::{Error, Result};

/// The `txn` versions in a table's log in the order of its commits, by application.
pub type Epochs = BTreeMap<String, Vec<i64>>;

/// The epochs of every table, by its folder. Reads the JSON of the logs itself:
/// what stands there is what other engines see.
pub async fn epochs(store: &Arc<dyn ObjectStore>) -> Result<BTreeMap<String, Epochs>> {
    let mut entries: Vec<Path> =
        store.list(None).map_ok(|meta| meta.location).try_collect().await?;
    entries.retain(|path| path.as_ref().contains("/_delta_log/") && is_commit(path));
    entries.sort();
    let mut tables: BTreeMap<String, Epochs> = BTreeMap::new();
    for path in entries {
        let table = path.as_ref().split("/_delta_log/").next().unwrap_or_default().to_owned();
        let bytes = store.get(&path).await?.bytes().await?;
        let found = tables.entry(table).or_default();
        for (app, version) in txns(&path, &bytes)? {
            found.entry(app).or_default().push(version);
        }
    }
    Ok(tables)
}

fn is_commit(path: &Path) -> bool {
    let name = path.filename().unwrap_or_default();
    let number = name.strip_suffix(".json").unwrap_or_default();
    number.len() == 20 && number.bytes().all(|b| b.is_ascii_digit())
}

fn txns(path: &Path, bytes: &[u8]) -> Result<Vec<(String, i64)>> {
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(bytes).lines() {
        let action: Value = serde_json::from_str(line)
            .map_err(|error| Error::wrong(format!("{path} holds no JSON: {error}")))?;
        let txn = &action["txn"];
        if let (Some(app), Some(version)) = (txn["appId"].as_str(), txn["version"].as_i64()) {
            found.push((app.to_owned(), version));
        }
    }
    Ok(found)
}

/// No epoch is there twice, none was left out, and they are in order. Late rows are
/// there in some epochs only.
pub async fn check_epochs(store: &Arc<dyn ObjectStore>) -> Result<()> {
    for (table, apps) in epochs(store).await? {
        for (app, versions) in apps {
            let right = match table.ends_with("__late_rows") {
                true => versions.is_sorted_by(|a, b| a < b),
                false => versions.iter().copied().eq(1..=versions.len() as i64),
            };
            if !right {
                return Err(Error::wrong(format!(
                    "the log of {table} holds the epochs {versions:?} of query {app}"
                )));
            }
        }
    }
    Ok(())
}
