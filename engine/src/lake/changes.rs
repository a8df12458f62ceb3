//! What commits added to a table that only grows: how one view follows another.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use deltalake::kernel::Action;
use deltalake::logstore::get_actions;

use crate::error::{Error, Result};
use crate::lake::LakeTable;
use crate::lake::files::DataFile;
use crate::lake::snapshot::Snapshot;

impl LakeTable {
    /// The rows that the commits `from..to` added, as a table. Files that were only
    /// put together anew are left out.
    ///
    /// # Errors
    /// If a commit took rows away, or is gone from the log.
    pub async fn appended(&self, from: u64, to: u64) -> Result<Arc<dyn TableProvider>> {
        let mut files = Vec::new();
        for version in from..to {
            let entry = self.place.log.read_commit_entry(version).await?;
            let entry = entry.ok_or_else(|| self.gone(version))?;
            for action in get_actions(version, &entry)? {
                match action {
                    Action::Add(add) if add.data_change => files.push(DataFile::from(add)),
                    Action::Remove(remove) if remove.data_change => {
                        return Err(self.shrunk(version));
                    }
                    _ => {}
                }
            }
        }
        let layout = Arc::clone(&self.current().layout);
        Ok(Arc::new(Snapshot::new(to.saturating_sub(1), layout, files.into_iter().collect())))
    }

    fn gone(&self, version: u64) -> Error {
        Error::Source {
            name: self.name().to_owned(),
            message: format!(
                "its commit {version} is gone from the log, which keeps a day: create the view \
                 again to read what is there now"
            ),
            retryable: false,
        }
    }

    fn shrunk(&self, version: u64) -> Error {
        Error::Source {
            name: self.name().to_owned(),
            message: format!(
                "commit {version} took rows away, and only a table that grows can be followed"
            ),
            retryable: false,
        }
    }
}
