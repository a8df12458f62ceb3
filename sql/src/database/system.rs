//! `information_schema`, as tools list it.

use std::sync::Arc;

use datafusion::catalog::SchemaProvider;
use datafusion::catalog::information_schema::{
    INFORMATION_SCHEMA, INFORMATION_SCHEMA_TABLES, InformationSchemaProvider,
};
use futures::FutureExt;

use super::Database;
use crate::session::{CATALOG, Relation, RelationKind};

impl Database {
    /// The tables of `information_schema`, which [`Database::relations`] leaves out.
    pub fn system_relations(&self) -> Vec<Relation> {
        let provider = InformationSchemaProvider::new(Arc::clone(self.state.catalog_list()));
        let relation = |name: &&str| {
            // Only the trait is asynchronous: the answer is there at once.
            let table = provider.table(name).now_or_never()?.ok()??;
            Some(Relation {
                catalog: CATALOG.to_owned(),
                schema: INFORMATION_SCHEMA.to_owned(),
                name: (*name).to_owned(),
                kind: RelationKind::System,
                columns: table.schema(),
            })
        };
        INFORMATION_SCHEMA_TABLES.iter().filter_map(relation).collect()
    }
}
