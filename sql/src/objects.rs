//! What the names in a database stand for, as DataFusion's schema provider.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;
use parking_lot::RwLock;
use tidemill_engine::dead_letter::{DeadLetters, table_name};
use tidemill_engine::lake::LakeTable;
use tidemill_engine::runtime::Engine;
use tidemill_engine::source::DeclaredSource;

use crate::session::RelationKind;

/// One named object, ready to be used.
#[derive(Debug, Clone)]
pub enum Object {
    Source {
        declared: DeclaredSource,
        /// With computed columns, in declared order.
        provider: Arc<dyn TableProvider>,
    },
    /// A Delta table; a managed one lies in the warehouse.
    Table {
        table: Arc<LakeTable>,
        managed: bool,
    },
    View(Arc<dyn TableProvider>),
    MaterializedView(Arc<LakeTable>),
    /// A continuous query without a relation of its own: a sink, a continuous insert.
    Query,
    /// Something of the catalog that could not be opened; the rest runs on.
    Broken {
        kind: RelationKind,
        /// It is a query that does not run.
        continuous: bool,
        reason: String,
    },
}

impl Object {
    /// What a query that names it reads.
    pub fn provider(&self) -> Option<Arc<dyn TableProvider>> {
        match self {
            Object::Source { provider, .. } | Object::View(provider) => Some(Arc::clone(provider)),
            Object::Table { table, .. } | Object::MaterializedView(table) => {
                Some(Arc::clone(table) as Arc<dyn TableProvider>)
            }
            Object::Query | Object::Broken { .. } => None,
        }
    }

    /// The Delta table behind it.
    pub fn lake(&self) -> Option<&Arc<LakeTable>> {
        match self {
            Object::Table { table, .. } | Object::MaterializedView(table) => Some(table),
            _ => None,
        }
    }

    pub fn kind(&self) -> Option<RelationKind> {
        match self {
            Object::Source { .. } => Some(RelationKind::Source),
            Object::Table { .. } => Some(RelationKind::Table),
            Object::View(_) => Some(RelationKind::View),
            Object::MaterializedView(_) => Some(RelationKind::MaterializedView),
            Object::Broken { kind, .. } => Some(*kind),
            Object::Query => None,
        }
    }

    pub fn columns(&self) -> Option<SchemaRef> {
        self.provider().map(|provider| provider.schema())
    }
}

/// All objects, by name.
#[derive(Debug)]
pub struct Objects {
    by_name: RwLock<BTreeMap<String, Object>>,
    /// By query, the table of its late rows.
    beside: RwLock<BTreeMap<String, Arc<LakeTable>>>,
    /// Weak, since the plans that the engine holds refer to us.
    engine: Weak<Engine>,
}

impl Objects {
    pub fn new(engine: &Arc<Engine>) -> Self {
        Self {
            by_name: RwLock::default(),
            beside: RwLock::default(),
            engine: Arc::downgrade(engine),
        }
    }

    /// The dead letters of the source that `name` is made of.
    fn dead_letters(&self, name: &str) -> Option<Arc<DeadLetters>> {
        let by_name = self.by_name.read();
        let mut sources = by_name.iter().filter_map(|(source, object)| match object {
            Object::Source { declared, .. } if table_name(source) == name => Some(declared),
            _ => None,
        });
        self.engine.upgrade()?.dead_letters(sources.next()?)
    }

    /// Tables that nobody created by name: dead letters as far as they are open, and late rows.
    pub fn side_tables(&self) -> Vec<(String, Arc<LakeTable>)> {
        let Some(engine) = self.engine.upgrade() else { return Vec::new() };
        let table = |(source, object): (String, Object)| {
            let Object::Source { declared, .. } = object else { return None };
            let letters = engine.dead_letters(&declared)?;
            Some((table_name(&source), Arc::clone(letters.opened()?)))
        };
        let late: Vec<_> = self.beside.read().values().cloned().collect();
        let late = late.into_iter().map(|table| (table.name().to_owned(), table));
        self.all().into_iter().filter_map(table).chain(late).collect()
    }

    /// The table of a query's late rows.
    pub fn put_beside(&self, query: &str, table: Arc<LakeTable>) {
        self.beside.write().insert(query.to_owned(), table);
    }

    pub fn remove_beside(&self, query: &str) -> Option<Arc<LakeTable>> {
        self.beside.write().remove(query)
    }

    pub fn get(&self, name: &str) -> Option<Object> {
        self.by_name.read().get(name).cloned()
    }

    pub fn put(&self, name: &str, object: Object) {
        self.by_name.write().insert(name.to_owned(), object);
    }

    pub fn remove(&self, name: &str) -> Option<Object> {
        self.by_name.write().remove(name)
    }

    /// Objects sorted by name.
    pub fn all(&self) -> Vec<(String, Object)> {
        self.by_name.read().iter().map(|(name, object)| (name.clone(), object.clone())).collect()
    }
}

#[async_trait]
impl SchemaProvider for Objects {
    fn table_names(&self) -> Vec<String> {
        let objects = self.by_name.read();
        let relations = objects.iter().filter(|(_, object)| object.provider().is_some());
        let named: Vec<_> = relations.map(|(name, _)| name.clone()).collect();
        drop(objects);
        named.into_iter().chain(self.side_tables().into_iter().map(|(name, _)| name)).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        match self.get(name) {
            Some(Object::Broken { reason, .. }) => {
                Err(DataFusionError::Plan(format!("\"{name}\" could not be opened: {reason}")))
            }
            Some(object) => Ok(object.provider()),
            None => match self.dead_letters(name) {
                Some(letters) => Ok(letters.table().await?.map(|table| table as _)),
                None => {
                    let mut tables = self.side_tables().into_iter();
                    let found = tables.find(|(side, _)| side == name);
                    Ok(found.map(|(_, table)| table as _))
                }
            },
        }
    }

    /// As `information_schema` tells it: a source is a table, also one with computed columns.
    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        match self.get(name) {
            Some(Object::Source { .. }) => Ok(Some(TableType::Base)),
            _ => Ok(self.table(name).await?.map(|table| table.table_type())),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.get(name).is_some_and(|object| object.provider().is_some())
    }
}
