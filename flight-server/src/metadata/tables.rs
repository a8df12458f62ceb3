//! Catalogs, schemas and tables, filtered as the clients' tools ask for them.
//!
//! Two habits of clients decide more than the protocol does: tools ask for the types
//! `TABLE`, `BASE TABLE` or `table` and mean whatever holds rows; and a client that looks
//! one table up by name takes the first row, although the name is a LIKE pattern.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables,
};
use tidemill_sql::session::{CATALOG, Relation, RelationKind, SCHEMA};

use crate::error::Result;
use crate::wire::{schema_bytes, wire_schema};

const KINDS: [RelationKind; 5] = [
    RelationKind::MaterializedView,
    RelationKind::Source,
    RelationKind::System,
    RelationKind::Table,
    RelationKind::View,
];

/// The table type that clients are told.
fn type_name(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::Source => "SOURCE",
        RelationKind::Table => "TABLE",
        RelationKind::View => "VIEW",
        RelationKind::MaterializedView => "MATERIALIZED VIEW",
        RelationKind::System => "SYSTEM TABLE",
    }
}

/// The kind that a table type names; of other servers, a table.
pub(crate) fn kind_of(wanted: &str) -> RelationKind {
    let named = |kind: &RelationKind| type_name(*kind).eq_ignore_ascii_case(wanted);
    KINDS.into_iter().find(named).unwrap_or(RelationKind::Table)
}

/// Whether a tool that asks for tables of type `wanted` means this kind.
fn is_of_type(kind: RelationKind, wanted: &str) -> bool {
    let is = |name: &str| wanted.eq_ignore_ascii_case(name);
    let stored = matches!(kind, RelationKind::Table | RelationKind::MaterializedView);
    is(type_name(kind)) || (stored && (is("TABLE") || is("BASE TABLE")))
}

pub(super) fn catalogs(relations: &[Relation]) -> Result<RecordBatch> {
    let mut builder = CommandGetCatalogs {}.into_builder();
    let names = relations.iter().map(|relation| relation.catalog.as_str()).chain([CATALOG]);
    names.collect::<BTreeSet<_>>().into_iter().for_each(|name| builder.append(name));
    Ok(builder.build()?)
}

pub(super) fn schemas(command: CommandGetDbSchemas, relations: &[Relation]) -> Result<RecordBatch> {
    let pattern = command.db_schema_filter_pattern.clone();
    let mut builder =
        CommandGetDbSchemas { db_schema_filter_pattern: None, ..command }.into_builder();
    let named = relations.iter().map(|r| (r.catalog.as_str(), r.schema.as_str()));
    let matching = named.chain([(CATALOG, SCHEMA)]).filter(|(_, name)| matches(&pattern, name));
    for (catalog, schema) in matching.collect::<BTreeSet<_>>() {
        builder.append(catalog, schema);
    }
    Ok(builder.build()?)
}

pub(super) fn table_types() -> Result<RecordBatch> {
    let mut builder = CommandGetTableTypes {}.into_builder();
    KINDS.into_iter().for_each(|kind| builder.append(type_name(kind)));
    Ok(builder.build()?)
}

pub(super) fn tables(command: &CommandGetTables, relations: &[Relation]) -> Result<RecordBatch> {
    let wanted = |relation: &&Relation| {
        command.catalog.as_ref().is_none_or(|name| *name == relation.catalog)
            && matches(&command.db_schema_filter_pattern, &relation.schema)
            && matches(&command.table_name_filter_pattern, &relation.name)
            && (command.table_types.is_empty()
                || command.table_types.iter().any(|name| is_of_type(relation.kind, name)))
    };
    let mut found: Vec<&Relation> = relations.iter().filter(wanted).collect();
    let exact = |relation: &Relation| {
        let names = [
            (&command.table_name_filter_pattern, &relation.name),
            (&command.db_schema_filter_pattern, &relation.schema),
        ];
        names.map(|(pattern, name)| pattern.as_ref() == Some(name))
    };
    found.sort_by(|left, right| {
        let order = |r: &Relation| (r.catalog.clone(), r.schema.clone(), r.name.clone());
        exact(right).cmp(&exact(left)).then_with(|| order(left).cmp(&order(right)))
    });

    let column = |text: fn(&Relation) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(found.iter().map(|relation| text(relation))))
    };
    let mut columns = vec![
        column(|relation| &relation.catalog),
        column(|relation| &relation.schema),
        column(|relation| &relation.name),
        column(|relation| type_name(relation.kind)),
    ];
    if command.include_schema {
        let schemas = found.iter().map(|relation| schema_bytes(&described(relation)));
        let schemas = schemas.collect::<Result<Vec<_>>>()?;
        columns.push(Arc::new(BinaryArray::from_iter_values(schemas)));
    }
    Ok(RecordBatch::try_new(command.clone().into_builder().schema(), columns)?)
}

/// The columns of a relation as its results are sent, each with where it belongs.
fn described(relation: &Relation) -> Schema {
    let wire = wire_schema(&relation.columns);
    let fields = wire.fields().iter().map(|field| {
        let place = [
            ("ARROW:FLIGHT:SQL:CATALOG_NAME", &relation.catalog),
            ("ARROW:FLIGHT:SQL:SCHEMA_NAME", &relation.schema),
            ("ARROW:FLIGHT:SQL:TABLE_NAME", &relation.name),
        ];
        let place = place.map(|(key, name)| (key.to_owned(), name.clone()));
        let known = field.metadata().iter().map(|(key, value)| (key.clone(), value.clone()));
        let metadata: HashMap<String, String> = known.chain(place).collect();
        Field::clone(field).with_metadata(metadata)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

fn matches(pattern: &Option<String>, name: &str) -> bool {
    pattern.as_ref().is_none_or(|pattern| pattern == name || like(pattern, name))
}

/// SQL's LIKE: `%` is any text, `_` any character, a backslash takes the next as it is.
fn like(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on when a later part fails: after the last `%`, one character further.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let (step, hit) = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some('%'), _) => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            (Some('_'), Some(_)) => (1, true),
            (Some('\\'), Some(c)) if p + 1 < pattern.len() => (2, pattern[p + 1] == *c),
            (Some(wanted), Some(c)) => (1, wanted == c),
            _ => (0, false),
        };
        if hit {
            (p, t) = (p + step, t + 1);
        } else if let Some((after, from)) = retry.filter(|(_, from)| *from < text.len()) {
            retry = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::DataType;
    use arrow_flight::IpcMessage;

    use super::*;

    fn relation(schema: &str, name: &str, kind: RelationKind) -> Relation {
        let columns = Schema::new(vec![Field::new("v", DataType::Utf8View, false)]);
        Relation {
            catalog: CATALOG.to_owned(),
            schema: schema.to_owned(),
            name: name.to_owned(),
            kind,
            columns: Arc::new(columns),
        }
    }

    fn relations() -> Vec<Relation> {
        vec![
            relation("information_schema", "tables", RelationKind::System),
            relation("public", "a1b", RelationKind::Table),
            relation("public", "a_b", RelationKind::MaterializedView),
            relation("public", "clicks", RelationKind::Source),
            relation("public", "paid", RelationKind::View),
        ]
    }

    fn names(command: CommandGetTables) -> Vec<String> {
        let batch = tables(&command, &relations()).unwrap();
        batch.column(2).as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    }

    fn by_type(types: &[&str]) -> Vec<String> {
        let table_types = types.iter().map(|t| (*t).to_owned()).collect();
        names(CommandGetTables { table_types, ..CommandGetTables::default() })
    }

    fn by_name(pattern: &str) -> Vec<String> {
        let table_name_filter_pattern = Some(pattern.to_owned());
        names(CommandGetTables { table_name_filter_pattern, ..CommandGetTables::default() })
    }

    #[test]
    fn without_a_filter_everything_is_listed() {
        let all = names(CommandGetTables::default());
        assert_eq!(all, ["tables", "a1b", "a_b", "clicks", "paid"]);
        let elsewhere = Some("elsewhere".to_owned());
        assert!(names(CommandGetTables { catalog: elsewhere, ..Default::default() }).is_empty());
    }

    #[test]
    fn what_holds_rows_is_a_table_however_that_is_written() {
        for types in [&["BASE TABLE", "table"][..], &["TABLE"], &["Base Table"]] {
            assert_eq!(by_type(types), ["a1b", "a_b"]);
        }
        assert_eq!(by_type(&["view"]), ["paid"]);
        assert_eq!(by_type(&["SOURCE", "materialized view"]), ["a_b", "clicks"]);
        assert!(by_type(&["TEMPORARY"]).is_empty());
    }

    #[test]
    fn the_exact_name_comes_before_what_is_only_like_it() {
        assert_eq!(by_name("a_b"), ["a_b", "a1b"]);
        assert_eq!(by_name("a\\_b"), ["a_b"]);
        assert_eq!(by_name("%i%"), ["clicks", "paid"]);
        let schema = Some("public".to_owned());
        let command = CommandGetTables { db_schema_filter_pattern: schema, ..Default::default() };
        assert_eq!(names(command).len(), 4);
    }

    #[test]
    fn schemas_are_sent_as_the_results_are() {
        let command = CommandGetTables { include_schema: true, ..Default::default() };
        let batch = tables(&command, &relations()).unwrap();
        let bytes = batch.column(4).as_binary::<i32>().value(2).to_vec();
        let schema = Schema::try_from(IpcMessage(bytes.into())).unwrap();
        assert_eq!(schema.field(0).data_type(), &DataType::Utf8);
        assert!(!schema.field(0).is_nullable());
        assert_eq!(schema.field(0).metadata()["ARROW:FLIGHT:SQL:TABLE_NAME"], "a_b");
        assert_eq!(schema.field(0).metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"], "VARCHAR");
    }

    #[test]
    fn catalogs_and_schemas_are_there_before_anything_is_created() {
        assert_eq!(catalogs(&[]).unwrap().num_rows(), 1);
        assert_eq!(schemas(CommandGetDbSchemas::default(), &[]).unwrap().num_rows(), 1);
        assert_eq!(schemas(CommandGetDbSchemas::default(), &relations()).unwrap().num_rows(), 2);
        let pattern = Some("inf%".to_owned());
        let command = CommandGetDbSchemas { db_schema_filter_pattern: pattern, catalog: None };
        assert_eq!(schemas(command, &relations()).unwrap().num_rows(), 1);
        let catalog = Some(String::new());
        let command = CommandGetDbSchemas { db_schema_filter_pattern: None, catalog };
        assert_eq!(schemas(command, &relations()).unwrap().num_rows(), 0);
    }

    #[test]
    fn like_is_sqls() {
        let hits = [
            ("", ""),
            ("%", ""),
            ("%%", "x"),
            ("a%", "a"),
            ("a%c", "abbc"),
            ("%b%b", "abcb"),
            ("_", "ü"),
            ("a\\%", "a%"),
            ("a\\\\", "a\\"),
            ("\\", "\\"),
            ("%_%", "x"),
        ];
        let misses = [
            ("", "x"),
            ("a", ""),
            ("_", ""),
            ("a%c", "abcd"),
            ("a\\%", "ab"),
            ("%b", "bc"),
            ("A", "a"),
            ("%_%_%", "x"),
        ];
        hits.iter().for_each(|(p, t)| assert!(like(p, t), "{p} {t}"));
        misses.iter().for_each(|(p, t)| assert!(!like(p, t), "{p} {t}"));
    }
}
