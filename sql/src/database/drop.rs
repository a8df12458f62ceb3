//! `DROP`, `ALTER … PAUSE | RESUME`, and replacing what a name stood for.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use tidemill_engine::catalog::{Change, Entry, EntryKind};
use tidemill_engine::dead_letter::table_name;

use super::Database;
use super::create::{late_table, name_place, simple_name};
use super::source::folder;
use crate::error::{Error, Result, nearest};
use crate::objects::Object;
use crate::session::Done;
use crate::statement::{Alter, AlterAction, DropObjects, ObjectKind};

impl Database {
    pub(crate) async fn drop_objects(self: &Arc<Self>, drop: &DropObjects) -> Result<Done> {
        let tag = format!("DROP {}", drop.kind.keyword());
        self.refuse_changes(&tag)?;
        let _changing = self.changing.lock().await;
        let mut victims = Vec::new();
        let mut missing = Vec::new();
        for written in &drop.names {
            let name = simple_name(written)?;
            match self.find(&name, drop.kind).await.map_err(|e| e.or_at(name_place(written))) {
                Ok(entry) => victims.push(entry),
                Err(_) if drop.if_exists && self.objects.get(&name).is_none() => missing.push(name),
                Err(error) => return Err(error),
            }
        }
        let place = drop.names.first().and_then(name_place);
        let all = self.with_dependents(victims, drop.cascade).await.map_err(|e| e.or_at(place))?;
        self.forget(&all).await?;
        let notice = (!missing.is_empty()).then(|| {
            format!("{} \"{}\" does not exist, skipped", drop.kind, missing.join("\", \""))
        });
        Ok(Done { tag, rows: None, notice })
    }

    /// What stands for a name, if `CREATE OR REPLACE` may replace it: same kind, read by nobody.
    pub(super) async fn replaceable(&self, name: &str, kind: ObjectKind) -> Result<Entry> {
        let entry = self.find(name, kind).await?;
        self.with_dependents(vec![entry.clone()], false).await?;
        Ok(entry)
    }

    /// Puts a table in the place of another, whose files are deleted then.
    pub(super) async fn supersede(&self, old: &Entry, new: Entry, object: Object) -> Result<()> {
        let before = self.objects.get(&old.name);
        self.keep(new, object).await?;
        if let Some(before) = before {
            self.delete_files(old, &before).await;
        }
        Ok(())
    }

    pub(crate) async fn find(&self, name: &str, kind: ObjectKind) -> Result<Entry> {
        let Some(entry) = self.engine.catalog().get(name) else {
            let entries = self.engine.catalog().entries();
            let same = entries.iter().filter(|e| fits(e.kind, kind)).map(|e| e.name.as_str());
            let error = Error::name(format!("{kind} \"{name}\" does not exist"));
            return Err(match nearest(name, same) {
                Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
                None => error,
            });
        };
        if fits(entry.kind, kind) {
            return Ok(entry);
        }
        let is = word(entry.kind);
        let error = Error::name(format!("\"{name}\" is a {}", is.to_lowercase()));
        Err(match kind {
            // Whoever wants to end or pause a query must not lose a table by it.
            ObjectKind::Query => error.with_hint(self.queries_into(name)),
            _ => error.with_hint(format!("write {is} in place of {}", kind.keyword())),
        })
    }

    /// Where to find the queries that write to what is none itself.
    fn queries_into(&self, name: &str) -> String {
        let entries = self.engine.catalog().entries();
        let writes = |entry: &&Entry| {
            entry.kind == EntryKind::Insert && entry.depends_on.last().is_some_and(|to| to == name)
        };
        let queries: Vec<_> =
            entries.iter().filter(writes).map(|entry| format!("\"{}\"", entry.name)).collect();
        match queries.len() {
            0 => "SHOW QUERIES lists the queries".into(),
            1 => format!("the query that writes to it is {}", queries.concat()),
            _ => format!("the queries that write to it are {}", queries.join(", ")),
        }
    }

    /// The victims and, with `cascade`, all that reads them; dependents first.
    async fn with_dependents(&self, victims: Vec<Entry>, cascade: bool) -> Result<Vec<Entry>> {
        let entries = self.engine.catalog().entries();
        let mut all = victims.clone();
        let mut next = 0;
        while let Some(entry) = all.get(next).cloned() {
            for other in &entries {
                let listed = all.iter().any(|known| known.name == other.name);
                let own = [entry.name.clone(), late_table(&entry.name), table_name(&entry.name)];
                if own.iter().any(|name| other.depends_on.contains(name)) && !listed {
                    all.push(other.clone());
                }
            }
            next += 1;
        }
        if all.len() > victims.len() && !cascade {
            let readers: Vec<_> = all[victims.len()..]
                .iter()
                .map(|entry| format!("{} \"{}\"", word(entry.kind).to_lowercase(), entry.name))
                .collect();
            let names: Vec<_> = victims.iter().map(|entry| entry.name.as_str()).collect();
            return Err(Error::name(format!(
                "\"{}\" is read by {}",
                names.join("\", \""),
                readers.join(", ")
            ))
            .with_hint("DROP … CASCADE drops these as well"));
        }
        all.reverse();
        Ok(all)
    }

    /// Stops the queries, forgets the definitions, deletes the managed tables.
    pub(super) async fn forget(&self, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            self.engine.remove(&entry.name).await?;
        }
        let changes = entries.iter().map(|entry| Change::Remove(entry.name.clone())).collect();
        self.engine.catalog().apply(changes).await?;
        for entry in entries {
            if let Some(object) = self.objects.remove(&entry.name) {
                self.delete_files(entry, &object).await;
            }
        }
        Ok(())
    }

    async fn delete_files(&self, entry: &Entry, object: &Object) {
        if let Err(error) = self.delete_data(entry, object).await {
            // The definition is gone and nothing refers to the files any more.
            tracing::warn!(name = entry.name, %error, "could not delete the files");
        }
    }

    /// Deletes the files of what Tidemill made; a declared lake table stays where it is.
    async fn delete_data(&self, entry: &Entry, object: &Object) -> tidemill_engine::Result<()> {
        if let Some(late) = self.objects.remove_beside(&entry.name) {
            late.delete().await?;
        }
        match object {
            Object::Table { table, managed: true } | Object::MaterializedView(table) => {
                table.delete().await
            }
            Object::Source { declared, .. } => {
                let store = self.engine.warehouse().store();
                let files: Vec<_> = store.list(Some(&folder(entry))).try_collect().await?;
                for file in files {
                    store.delete(&file.location).await?;
                }
                self.engine.drop_dead_letters(declared).await
            }
            _ => Ok(()),
        }
    }

    pub(crate) async fn alter(self: &Arc<Self>, alter: &Alter) -> Result<Done> {
        let tag = format!("ALTER {}", alter.kind.keyword());
        self.refuse_changes(&tag)?;
        let _changing = self.changing.lock().await;
        let name = simple_name(&alter.name)?;
        let mut entry = match self.find(&name, alter.kind).await {
            Ok(entry) => entry,
            Err(_) if alter.if_exists && self.objects.get(&name).is_none() => {
                let notice = Some(format!("{} \"{name}\" does not exist, skipped", alter.kind));
                return Ok(Done { tag, rows: None, notice });
            }
            Err(error) => return Err(error.or_at(name_place(&alter.name))),
        };
        entry.paused = alter.action == AlterAction::Pause;
        let paused = entry.paused;
        self.engine.catalog().apply(vec![Change::Put(entry)]).await?;
        if paused {
            self.engine.pause(&name).await?;
        } else {
            self.engine.resume(&name)?;
        }
        Ok(Done { tag, rows: None, notice: None })
    }
}

fn fits(entry: EntryKind, kind: ObjectKind) -> bool {
    match kind {
        ObjectKind::Source => entry == EntryKind::Source,
        ObjectKind::Table => entry == EntryKind::Table,
        ObjectKind::View => entry == EntryKind::View,
        ObjectKind::MaterializedView => entry == EntryKind::MaterializedView,
        ObjectKind::Sink => entry == EntryKind::Sink,
        ObjectKind::Query => {
            matches!(entry, EntryKind::Insert | EntryKind::Sink | EntryKind::MaterializedView)
        }
    }
}

fn word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Source => "SOURCE",
        EntryKind::Table => "TABLE",
        EntryKind::View => "VIEW",
        EntryKind::MaterializedView => "MATERIALIZED VIEW",
        EntryKind::Sink => "SINK",
        EntryKind::Insert => "QUERY",
    }
}
