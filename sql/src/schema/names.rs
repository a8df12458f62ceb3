//! Types as SQL calls them: what `DESCRIBE` shows, a `CREATE` takes.

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType as SqlType, Ident, ObjectName};

/// Types that a column can have, for whoever mistyped one.
pub(super) const TYPES: [&str; 18] = [
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "INTEGER",
    "BIGINT",
    "REAL",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
    "NUMERIC",
    "VARCHAR",
    "TEXT",
    "BYTEA",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "STRUCT",
];

/// The name in a type that the parser knows no type of, as far as it can be at fault.
pub(super) fn unknown_type(ty: &SqlType) -> Option<&ObjectName> {
    match ty {
        SqlType::Custom(name, _) => Some(name),
        SqlType::Array(
            ArrayElemTypeDef::AngleBracket(item)
            | ArrayElemTypeDef::SquareBracket(item, _)
            | ArrayElemTypeDef::Parenthesis(item),
        ) => unknown_type(item),
        SqlType::Struct(fields, _) => {
            fields.iter().find_map(|field| unknown_type(&field.field_type))
        }
        SqlType::Map(key, value) => unknown_type(key).or_else(|| unknown_type(value)),
        _ => None,
    }
}

/// The SQL name of a type; Arrow's own, where SQL has none.
pub fn sql_type(ty: &DataType) -> String {
    let name = match ty {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA",
        DataType::Date32 => "DATE",
        DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Interval(_) => "INTERVAL",
        other => return compound(other),
    };
    name.to_owned()
}

fn compound(ty: &DataType) -> String {
    match ty {
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => format!("DECIMAL({p},{s})"),
        DataType::Dictionary(_, values) => sql_type(values),
        DataType::List(item) | DataType::LargeList(item) => {
            format!("{}[]", sql_type(item.data_type()))
        }
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|field| member(field)).collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// `name TYPE`, the name quoted where it has to be.
fn member(field: &Field) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let bare = field.name().starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && field.name().chars().all(plain);
    let name = match bare {
        true => field.name().clone(),
        false => Ident::with_quote('"', field.name()).to_string(),
    };
    format!("{name} {}", sql_type(field.data_type()))
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;
    use crate::parser;
    use crate::schema::table_schema;
    use crate::statement::Statement;

    #[test]
    fn a_create_takes_what_describe_shows() {
        let types = [
            "BOOLEAN",
            "TINYINT",
            "SMALLINT",
            "INT",
            "BIGINT",
            "TINYINT UNSIGNED",
            "SMALLINT UNSIGNED",
            "INT UNSIGNED",
            "BIGINT UNSIGNED",
            "REAL",
            "DOUBLE",
            "DECIMAL(12,2)",
            "DECIMAL(60,3)",
            "VARCHAR",
            "BYTEA",
            "DATE",
            "TIME",
            "TIMESTAMP",
            "TIMESTAMP WITH TIME ZONE",
            "INTERVAL",
            "BIGINT[]",
            "VARCHAR[][]",
            "STRUCT<a INT, \"B c\" VARCHAR[], order STRUCT<key DECIMAL(4,1)>>",
            "STRUCT<a TIMESTAMP WITH TIME ZONE>[]",
        ];
        let zoned = SessionConfig::new().set_str("datafusion.execution.time_zone", "UTC");
        let state = SessionContext::new_with_config(zoned).state();
        for name in types {
            let sql = format!("CREATE TABLE t (c {name})");
            let parsed = parser::parse_one(&sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
            let Statement::CreateTable(create) = parsed.node else { panic!("{sql}") };
            let schema = table_schema(&state, &create.columns).unwrap();
            assert_eq!(sql_type(schema.field(0).data_type()), name);
        }
    }
}
