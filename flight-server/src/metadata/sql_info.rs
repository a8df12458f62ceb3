//! GetSqlInfo: what the server is and what its SQL can do.
//!
//! Clients ask for what they can't do without: flightsql-dbapi for 0, 2, 3 and 504, ADBC
//! for 8. Only codes of the `SqlInfo` enum are sent; the JDBC driver fails on others, and
//! on values of another type than it reads a code with.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetSqlInfo, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel,
    SqlSupportedCaseSensitivity, SqlSupportedGroupBy, SqlSupportedResultSetConcurrency,
    SqlSupportedResultSetType, SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions,
    SqlSupportsConvert, SqlTransactionIsolationLevel, SupportedSqlGrammar,
};

use crate::error::Result;

/// Words of Tidemill's statements that are not standard SQL.
const KEYWORDS: &[&str] = &[
    "CUMULATE",
    "EMIT",
    "EXPLAIN",
    "HOP",
    "INCREMENTAL",
    "MATERIALIZED",
    "METADATA",
    "PAUSE",
    "QUERIES",
    "RESUME",
    "SESSION",
    "SHOW",
    "SINK",
    "SOURCE",
    "SUBSCRIBE",
    "TUMBLE",
    "WATERMARK",
];

const NUMERIC_FUNCTIONS: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "cot",
    "degrees",
    "exp",
    "factorial",
    "floor",
    "gcd",
    "isnan",
    "iszero",
    "lcm",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "power",
    "radians",
    "random",
    "round",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
];

const STRING_FUNCTIONS: &[&str] = &[
    "ascii",
    "bit_length",
    "btrim",
    "char_length",
    "chr",
    "concat",
    "concat_ws",
    "contains",
    "ends_with",
    "initcap",
    "left",
    "length",
    "levenshtein",
    "lower",
    "lpad",
    "ltrim",
    "octet_length",
    "overlay",
    "position",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substr_index",
    "to_hex",
    "translate",
    "trim",
    "upper",
    "uuid",
];

const SYSTEM_FUNCTIONS: &[&str] = &[
    "arrow_cast",
    "arrow_typeof",
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "nvl",
    "nvl2",
    "version",
];

const DATETIME_FUNCTIONS: &[&str] = &[
    "current_date",
    "current_time",
    "date_bin",
    "date_part",
    "date_trunc",
    "day",
    "dayofyear",
    "from_unixtime",
    "hour",
    "isodow",
    "make_date",
    "minute",
    "month",
    "now",
    "quarter",
    "to_char",
    "to_date",
    "to_local_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_seconds",
    "to_unixtime",
    "year",
];

pub(super) fn sql_info(command: CommandGetSqlInfo) -> Result<RecordBatch> {
    Ok(command.into_builder(&all()?).build()?)
}

fn all() -> Result<SqlInfoData> {
    let mut infos = SqlInfoDataBuilder::new();
    server(&mut infos);
    names(&mut infos);
    language(&mut infos);
    results(&mut infos);
    limits(&mut infos);
    infos.append(SqlInfo::SqlSupportsConvert, conversions());
    Ok(infos.build()?)
}

fn server(infos: &mut SqlInfoDataBuilder) {
    infos.append(SqlInfo::FlightSqlServerName, "Tidemill");
    infos.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    infos.append(SqlInfo::FlightSqlServerArrowVersion, "1.5");
    infos.append(SqlInfo::FlightSqlServerReadOnly, false);
    infos.append(SqlInfo::FlightSqlServerSql, true);
    infos.append(SqlInfo::FlightSqlServerSubstrait, false);
    infos.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    infos.append(SqlInfo::FlightSqlServerCancel, true);
    infos.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    infos.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    infos.append(SqlInfo::FlightSqlServerStatementTimeout, 0);
    infos.append(SqlInfo::FlightSqlServerTransactionTimeout, 0);
}

fn names(infos: &mut SqlInfoDataBuilder) {
    let lower = SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32;
    let as_written = SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32;
    infos.append(SqlInfo::SqlDdlCatalog, false);
    infos.append(SqlInfo::SqlDdlSchema, false);
    infos.append(SqlInfo::SqlDdlTable, true);
    infos.append(SqlInfo::SqlIdentifierCase, lower);
    infos.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    infos.append(SqlInfo::SqlQuotedIdentifierCase, as_written);
    infos.append(SqlInfo::SqlAllTablesAreSelectable, true);
    infos.append(SqlInfo::SqlSearchStringEscape, "\\");
    infos.append(SqlInfo::SqlExtraNameCharacters, "");
    infos.append(SqlInfo::SqlSchemaTerm, "schema");
    infos.append(SqlInfo::SqlProcedureTerm, "");
    infos.append(SqlInfo::SqlCatalogTerm, "catalog");
    infos.append(SqlInfo::SqlCatalogAtStart, true);
    infos.append(SqlInfo::SqlSchemasSupportedActions, 0);
    infos.append(SqlInfo::SqlCatalogsSupportedActions, 0);
}

fn language(infos: &mut SqlInfoDataBuilder) {
    infos.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    infos.append(SqlInfo::SqlKeywords, KEYWORDS);
    infos.append(SqlInfo::SqlNumericFunctions, NUMERIC_FUNCTIONS);
    infos.append(SqlInfo::SqlStringFunctions, STRING_FUNCTIONS);
    infos.append(SqlInfo::SqlSystemFunctions, SYSTEM_FUNCTIONS);
    infos.append(SqlInfo::SqlDatetimeFunctions, DATETIME_FUNCTIONS);
    let yes = [
        SqlInfo::SqlSupportsColumnAliasing,
        SqlInfo::SqlNullPlusNullIsNull,
        SqlInfo::SqlSupportsTableCorrelationNames,
        SqlInfo::SqlSupportsExpressionsInOrderBy,
        SqlInfo::SqlSupportsOrderByUnrelated,
        SqlInfo::SqlSupportsLikeEscapeClause,
        SqlInfo::SqlSupportsNonNullableColumns,
        SqlInfo::SqlCorrelatedSubqueriesSupported,
    ];
    let no = [
        SqlInfo::SqlSupportsDifferentTableCorrelationNames,
        SqlInfo::SqlSupportsIntegrityEnhancementFacility,
        SqlInfo::SqlSelectForUpdateSupported,
        SqlInfo::SqlStoredProceduresSupported,
        SqlInfo::SqlDataDefinitionCausesTransactionCommit,
        SqlInfo::SqlDataDefinitionsInTransactionsIgnored,
        SqlInfo::SqlBatchUpdatesSupported,
        SqlInfo::SqlSavepointsSupported,
        SqlInfo::SqlNamedParametersSupported,
        SqlInfo::SqlLocatorsUpdateCopy,
        SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported,
    ];
    yes.into_iter().for_each(|info| infos.append(info, true));
    no.into_iter().for_each(|info| infos.append(info, false));
    grammar(infos);
}

fn grammar(infos: &mut SqlInfoDataBuilder) {
    let group_by = bits(&[
        SqlSupportedGroupBy::SqlGroupByUnrelated as i32,
        SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32,
    ]);
    let subqueries = bits(&[
        SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
        SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
        SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
    ]);
    let unions =
        bits(&[SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32]);
    let outer_joins = SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32;
    let no_transactions = SqlTransactionIsolationLevel::SqlTransactionNone as i32;
    infos.append(SqlInfo::SqlSupportedGroupBy, group_by);
    infos.append(
        SqlInfo::SqlSupportedGrammar,
        bits(&[SupportedSqlGrammar::SqlMinimumGrammar as i32]),
    );
    // Entry level.
    infos.append(SqlInfo::SqlAnsi92SupportedLevel, bits(&[0]));
    infos.append(SqlInfo::SqlOuterJoinsSupportLevel, bits(&[outer_joins]));
    infos.append(SqlInfo::SqlSupportedPositionedCommands, 0);
    infos.append(SqlInfo::SqlSupportedSubqueries, subqueries);
    infos.append(SqlInfo::SqlSupportedUnions, unions);
    // JDBC reads this one as a BIGINT.
    infos.append(SqlInfo::SqlDefaultTransactionIsolation, i64::from(no_transactions));
    infos.append(SqlInfo::SqlTransactionsSupported, false);
    infos.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, bits(&[no_transactions]));
}

/// Results are read once, forwards.
fn results(infos: &mut SqlInfoDataBuilder) {
    let forward = SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32;
    let read_only = SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32;
    infos.append(SqlInfo::SqlSupportedResultSetTypes, bits(&[forward]));
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, bits(&[read_only]));
    let none = [
        SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified,
        SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive,
        SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive,
    ];
    none.into_iter().for_each(|info| infos.append(info, 0));
}

/// What CAST converts to what.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert as C;
    let numbers = [
        C::SqlConvertTinyint,
        C::SqlConvertSmallint,
        C::SqlConvertInteger,
        C::SqlConvertBigint,
        C::SqlConvertReal,
        C::SqlConvertFloat,
        C::SqlConvertDecimal,
        C::SqlConvertNumeric,
        C::SqlConvertBit,
    ];
    let times = [C::SqlConvertDate, C::SqlConvertTimestamp];
    let text = C::SqlConvertVarchar;
    let to = |kinds: &[C]| kinds.iter().chain([&text]).map(|kind| *kind as i32).collect::<Vec<_>>();
    let from_number = numbers.iter().map(|kind| (*kind as i32, to(&numbers)));
    let from_time = times.iter().map(|kind| (*kind as i32, to(&times)));
    let from_text = (text as i32, to(&[&numbers[..], &times[..]].concat()));
    from_number.chain(from_time).chain([from_text]).collect()
}

/// 0 says that there is no limit, or none that is known.
fn limits(infos: &mut SqlInfoDataBuilder) {
    let limits = [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatementLength,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ];
    limits.into_iter().for_each(|info| infos.append(info, 0_i64));
    infos.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, true);
}

fn bits(set: &[i32]) -> i32 {
    set.iter().fold(0, |mask, bit| mask | (1 << bit))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::UInt32Type;

    use super::*;

    fn codes(info: &[u32]) -> Vec<u32> {
        let batch = sql_info(CommandGetSqlInfo { info: info.to_vec() }).unwrap();
        batch.column(0).as_primitive::<UInt32Type>().values().to_vec()
    }

    #[test]
    fn what_clients_cannot_do_without_is_there() {
        assert_eq!(codes(&[0, 2, 3, 504]), [0, 2, 3, 504]);
        assert_eq!(codes(&[8]), [8]);
    }

    #[test]
    fn an_empty_list_asks_for_all_and_only_known_codes_are_sent() {
        let all = codes(&[]);
        assert!(all.len() > 60, "{}", all.len());
        for code in all {
            assert!(SqlInfo::try_from(i32::try_from(code).unwrap()).is_ok(), "{code}");
        }
    }

    #[test]
    fn unknown_codes_are_passed_over() {
        assert_eq!(codes(&[0, 99_999]), [0]);
        assert!(codes(&[99_999]).is_empty());
    }
}
