//! GetXdbcTypeInfo: the types of SQL as ODBC and JDBC number them.

use arrow::array::RecordBatch;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetXdbcTypeInfo, Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode,
};

use crate::error::Result;

pub(super) fn type_info(command: CommandGetXdbcTypeInfo) -> Result<RecordBatch> {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    all().into_iter().for_each(|info| builder.append(info));
    let infos = builder.build()?;
    Ok(command.into_builder(&infos).build()?)
}

fn all() -> Vec<XdbcTypeInfo> {
    use XdbcDataType as T;
    use XdbcDatetimeSubcode as Subcode;
    let mut types = vec![
        plain("BOOLEAN", T::XdbcBit, 1),
        integer("TINYINT", T::XdbcTinyint, 3, false),
        integer("SMALLINT", T::XdbcSmallint, 5, false),
        integer("INTEGER", T::XdbcInteger, 10, false),
        integer("BIGINT", T::XdbcBigint, 19, false),
        integer("TINYINT UNSIGNED", T::XdbcTinyint, 3, true),
        integer("SMALLINT UNSIGNED", T::XdbcSmallint, 5, true),
        integer("INTEGER UNSIGNED", T::XdbcInteger, 10, true),
        integer("BIGINT UNSIGNED", T::XdbcBigint, 20, true),
        XdbcTypeInfo { num_prec_radix: Some(2), ..plain("REAL", T::XdbcReal, 24) },
        XdbcTypeInfo { num_prec_radix: Some(2), ..plain("DOUBLE", T::XdbcDouble, 53) },
        decimal(),
        XdbcTypeInfo { case_sensitive: true, ..quoted("VARCHAR", T::XdbcVarchar, i32::MAX) },
    ];
    types.push(XdbcTypeInfo {
        literal_prefix: Some("X'".to_owned()),
        ..quoted("BYTEA", T::XdbcVarbinary, i32::MAX)
    });
    types.extend([
        // The protocol gives year and date the same number; the generated enum names one.
        moment("DATE", T::XdbcDate, 10, Subcode::XdbcSubcodeYear),
        moment("TIME", T::XdbcTime, 15, Subcode::XdbcSubcodeTime),
        moment("TIMESTAMP", T::XdbcTimestamp, 26, Subcode::XdbcSubcodeTimestamp),
        moment(
            "TIMESTAMP WITH TIME ZONE",
            T::XdbcTimestamp,
            32,
            Subcode::XdbcSubcodeTimestampWithTimezone,
        ),
    ]);
    types
}

fn plain(name: &str, data_type: XdbcDataType, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        sql_data_type: data_type,
        column_size: Some(size),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(name.to_owned()),
        ..XdbcTypeInfo::default()
    }
}

fn integer(name: &str, data_type: XdbcDataType, digits: i32, unsigned: bool) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(unsigned),
        auto_increment: Some(false),
        num_prec_radix: Some(10),
        minimum_scale: Some(0),
        maximum_scale: Some(0),
        ..plain(name, data_type, digits)
    }
}

fn decimal() -> XdbcTypeInfo {
    XdbcTypeInfo {
        create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
        unsigned_attribute: Some(false),
        num_prec_radix: Some(10),
        minimum_scale: Some(0),
        maximum_scale: Some(38),
        ..plain("DECIMAL", XdbcDataType::XdbcDecimal, 38)
    }
}

fn quoted(name: &str, data_type: XdbcDataType, size: i32) -> XdbcTypeInfo {
    let quote = || Some("'".to_owned());
    XdbcTypeInfo {
        literal_prefix: quote(),
        literal_suffix: quote(),
        ..plain(name, data_type, size)
    }
}

fn moment(
    name: &str,
    data_type: XdbcDataType,
    size: i32,
    subcode: XdbcDatetimeSubcode,
) -> XdbcTypeInfo {
    let sql_data_type = XdbcDataType::XdbcDatetime;
    let datetime_subcode = Some(subcode);
    XdbcTypeInfo { sql_data_type, datetime_subcode, ..quoted(name, data_type, size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_their_number() {
        let all = type_info(CommandGetXdbcTypeInfo { data_type: None }).unwrap();
        assert_eq!(all.num_rows(), 18);
        let number = Some(XdbcDataType::XdbcBigint as i32);
        let bigint = type_info(CommandGetXdbcTypeInfo { data_type: number }).unwrap();
        assert_eq!(bigint.num_rows(), 2);
        let none = type_info(CommandGetXdbcTypeInfo { data_type: Some(12345) }).unwrap();
        assert_eq!((none.num_rows(), none.schema()), (0, all.schema()));
    }
}
