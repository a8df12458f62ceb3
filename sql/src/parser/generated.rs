//! Generated statements print back to themselves; generated nonsense never panics.
//!
//! Long because there is a generator for every kind of statement.

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Ident, ObjectName, Query, SelectItem, SetExpr,
};
use datafusion::sql::sqlparser::parser::Parser;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{DIALECT, is_complete, parse, parse_one};
use crate::options::{OptionEntry, OptionValue, Options};
use crate::statement::*;

/// Text that printing easily gets wrong.
fn text() -> impl Strategy<Value = String> {
    let nasty = [
        "",
        "'",
        "''",
        "'''",
        "it's",
        "\\'",
        "a\\''b",
        "\"",
        "\"\"",
        "`",
        ";",
        "--",
        "/*",
        "*/",
        "$$",
        "$1",
        "line\nbreak",
        "\n",
        "tab\t",
        "é",
        "日本語",
        "😀",
        "\u{0}",
        "%_\\",
        "EMIT CHANGES",
    ];
    prop_oneof![select(nasty.to_vec()).prop_map(str::to_owned), any::<String>(), "[a-z]{1,8}"]
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name in a statement of ours: anything at all.
fn ident() -> impl Strategy<Value = Ident> {
    prop_oneof![
        "[a-z_][a-z0-9_$]{0,8}x".prop_map(Ident::new),
        "[A-Zß日][a-z0-9_@#]{0,8}x".prop_map(Ident::new),
        (select(vec!['"', '`']), text()).prop_map(|(quote, text)| Ident::with_quote(quote, text)),
        select(vec!["select", "table", "from", "Order", "with"])
            .prop_map(|word| Ident::with_quote('"', word)),
    ]
}

fn name() -> impl Strategy<Value = ObjectName> {
    vec(ident(), 1..=3).prop_map(ObjectName::from)
}

/// A name inside a query: not two quotes in a row, which sqlparser can't print.
fn query_name() -> impl Strategy<Value = String> {
    let names = ["orders", "\"Or\"\"der\"", "\"select\"", "\"日 本\"", "`t`", "s.\"T;\"", "_x$1"];
    select(names.to_vec()).prop_map(str::to_owned)
}

fn expr_sql() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        query_name(),
        text().prop_map(|text| quoted(&text)),
        any::<u32>().prop_map(|number| number.to_string()),
        select(vec!["NULL", "TRUE", "1.5e3", "$1", "now()", "count(*)", "INTERVAL '5' SECOND"])
            .prop_map(str::to_owned),
        select(vec!["TIMESTAMP '2024-01-01 00:00:00'", "E'a\\n\\'b'", "$q$it's$q$", "X'ff'"])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            (two.clone(), select(vec!["+", "-", "*", "=", "<>", "AND", "||", "->", "IS DISTINCT FROM"]))
                .prop_map(|((a, b), op)| format!("({a}) {op} ({b})")),
            two.clone().prop_map(|(a, b)| format!("CASE WHEN ({a}) THEN ({b}) ELSE NULL END")),
            two.clone().prop_map(|(a, b)| format!("({a}) IN (({b}), 2)")),
            two.prop_map(|(a, b)| format!("coalesce({a}, {b})")),
            inner.clone().prop_map(|a| format!("CAST(({a}) AS DECIMAL(12, 2))")),
            inner.clone().prop_map(|a| format!("({a})::TIMESTAMP WITH TIME ZONE")),
            inner.clone().prop_map(|a| format!("NOT (({a}) BETWEEN 1 AND 2)")),
            inner.clone().prop_map(|a| format!("({a}) LIKE 'a%' ESCAPE '!'")),
            inner.clone().prop_map(|a| format!("sum({a}) FILTER (WHERE {a} IS NOT NULL) OVER (PARTITION BY {a} ORDER BY 1 ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)")),
            inner.prop_map(|a| format!("EXISTS (SELECT 1 FROM t WHERE {a})")),
        ]
    })
}

fn relation_sql() -> impl Strategy<Value = String> {
    prop_oneof![
        query_name(),
        query_name().prop_map(|t| format!("{t} AS \"a b\" (x, y)")),
        query_name().prop_map(|t| format!("TUMBLE({t}, at, INTERVAL '1' MINUTE) AS w")),
        query_name().prop_map(|t| {
            format!("TABLE(HOP(TABLE {t}, DESCRIPTOR(at), INTERVAL '1' MINUTE, INTERVAL '1' HOUR))")
        }),
        query_name().prop_map(|t| {
            format!("SESSION({t} PARTITION BY a, f(b, c), DESCRIPTOR(at), INTERVAL '1' HOUR) AS w")
        }),
        query_name()
            .prop_map(|t| format!("a JOIN {t} FOR SYSTEM_TIME AS OF now() AS b ON a.id = b.id")),
        query_name().prop_map(|t| {
            format!("a ASOF JOIN {t} MATCH_CONDITION (a.at >= {t}.at) ON a.id = {t}.id")
        }),
        query_name().prop_map(|t| format!("a LEFT JOIN {t} ON a.id = {t}.id")),
        query_name().prop_map(|t| format!("a CROSS JOIN UNNEST({t}.items) AS u (item)")),
    ]
}

fn query_sql() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (vec(expr_sql(), 1..4), relation_sql(), option::of(expr_sql())).prop_map(
            |(items, relation, filter)| {
                let filter = filter.map_or(String::new(), |filter| format!(" WHERE {filter}"));
                format!("SELECT {} FROM {relation}{filter}", items.join(", "))
            }
        ),
        (expr_sql(), relation_sql(), expr_sql()).prop_map(|(key, relation, having)| {
            format!("SELECT {key} AS k, count(DISTINCT x) c FROM {relation} GROUP BY {key}, 2 HAVING {having} ORDER BY 1 DESC NULLS LAST LIMIT 3 OFFSET 1")
        }),
        vec(expr_sql(), 1..3).prop_map(|row| format!("VALUES ({})", row.join(", "))),
        query_name().prop_map(|t| format!("SELECT * EXCEPT (a), {t}.* FROM {t}")),
        Just("SELECT a emit FROM changes".to_owned()),
    ];
    leaf.prop_recursive(3, 6, 2, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            two.clone().prop_map(|(a, b)| format!("({a}) UNION ALL ({b})")),
            two.prop_map(|(a, b)| format!("WITH \"c t\" AS ({a}), d (x) AS ({b}) SELECT * FROM d")),
            inner.prop_map(|a| format!("SELECT * FROM ({a}) AS s WHERE x IN ({a})")),
        ]
    })
}

fn query() -> impl Strategy<Value = Box<Query>> {
    query_sql().prop_map(|sql| match parse_one(&sql).map(|parsed| parsed.node) {
        Ok(Statement::Query(query)) => query,
        other => panic!("{sql}: {other:?}"),
    })
}

fn expr() -> impl Strategy<Value = Expr> {
    expr_sql().prop_map(|sql| {
        let query = match parse_one(&format!("SELECT {sql}")).map(|parsed| parsed.node) {
            Ok(Statement::Query(query)) => query,
            other => panic!("{sql}: {other:?}"),
        };
        match *query.body {
            SetExpr::Select(mut select) => match select.projection.pop() {
                Some(SelectItem::UnnamedExpr(expr)) => expr,
                other => panic!("{sql}: {other:?}"),
            },
            other => panic!("{sql}: {other:?}"),
        }
    })
}

fn data_type() -> impl Strategy<Value = DataType> {
    let types = [
        "INT",
        "BIGINT",
        "VARCHAR",
        "VARCHAR(20)",
        "DECIMAL(12,2)",
        "TIMESTAMP",
        "TIMESTAMP(3)",
        "TIMESTAMP WITH TIME ZONE",
        "DOUBLE PRECISION",
        "BYTEA",
        "INT[]",
        "ARRAY<INT>",
        "STRUCT<a INT, b VARCHAR>",
        "MAP(INT, VARCHAR)",
        "\"My Type\"",
        "TIMESTAMPTZ",
        "STRING",
    ];
    select(types.to_vec())
        .prop_map(|sql| Parser::new(&DIALECT).try_with_sql(sql).unwrap().parse_data_type().unwrap())
}

fn column_kind() -> impl Strategy<Value = ColumnKind> {
    let computed = (option::of(data_type()), expr())
        .prop_map(|(data_type, expr)| ColumnKind::Computed { data_type, expr: Box::new(expr) });
    prop_oneof![
        4 => (data_type(), any::<bool>())
            .prop_map(|(data_type, not_null)| ColumnKind::Physical { data_type, not_null }),
        1 => (data_type(), option::of(text()))
            .prop_map(|(data_type, from)| ColumnKind::Metadata { data_type, from }),
        1 => computed.prop_filter("subqueries are refused", |kind| {
            !matches!(kind, ColumnKind::Computed { expr, .. }
                // A pair of parentheses around all belongs to the clause.
                if matches!(**expr, Expr::Exists { .. } | Expr::Nested(_)))
        }),
    ]
}

fn columns() -> impl Strategy<Value = Columns> {
    let column = (column_kind(), option::of(text()));
    let watermark = (ident(), expr()).prop_map(|(column, expr)| Watermark { column, expr });
    (vec(column, 0..5), vec(ident(), 0..3), option::of(watermark), "[a-z]x").prop_map(
        |(columns, primary_key, watermark, stem)| {
            // Names differ, whatever else they are.
            let columns = columns.into_iter().enumerate().map(|(index, (kind, comment))| {
                let name = Ident::with_quote('"', format!("{stem}\"{index}"));
                ColumnDef { name, kind, comment }
            });
            Columns { columns: columns.collect(), primary_key, watermark }
        },
    )
}

fn value() -> impl Strategy<Value = OptionValue> {
    prop_oneof![
        text().prop_map(OptionValue::String),
        any::<i64>().prop_map(|number| OptionValue::Number(number.to_string())),
        any::<u16>().prop_map(|number| OptionValue::Number(format!("{number}.25"))),
        any::<bool>().prop_map(OptionValue::Boolean),
    ]
}

fn options(at_least: usize) -> impl Strategy<Value = Options> {
    let names = ["connector", "topic", "bootstrap.servers", "properties.sasl.password", "select"];
    let name = prop_oneof![select(names.to_vec()).prop_map(str::to_owned), text()];
    vec((name, value()).prop_map(|(name, value)| OptionEntry::new(name, value)), at_least..4)
        .prop_map(Options::from_iter)
}

fn create_flags() -> impl Strategy<Value = (bool, bool)> {
    select(vec![(false, false), (true, false), (false, true)])
}

fn emit() -> impl Strategy<Value = Emit> {
    select(vec![Emit::Changes, Emit::OnWindowClose])
}

fn create() -> impl Strategy<Value = Statement> {
    prop_oneof![
        (create_flags(), name(), columns(), options(1)).prop_map(
            |((or_replace, if_not_exists), name, columns, options)| {
                Statement::CreateSource(CreateSource {
                    or_replace,
                    if_not_exists,
                    name,
                    columns,
                    options,
                })
            }
        ),
        (create_flags(), name(), columns(), vec(ident(), 0..3), options(1), option::of(query()))
            .prop_map(
                |((or_replace, if_not_exists), name, columns, partitioned_by, options, query)| {
                    Statement::CreateTable(CreateTable {
                        or_replace,
                        if_not_exists,
                        name,
                        columns,
                        partitioned_by,
                        options,
                        query,
                    })
                }
            ),
        (create_flags(), name(), vec(ident(), 0..3), query()).prop_map(
            |((or_replace, if_not_exists), name, columns, query)| {
                Statement::CreateView(CreateView {
                    or_replace,
                    if_not_exists,
                    name,
                    columns,
                    query,
                })
            }
        ),
        (
            create_flags(),
            name(),
            vec(ident(), 0..3),
            vec(ident(), 0..3),
            options(0),
            query(),
            emit()
        )
            .prop_map(
                |(
                    (or_replace, if_not_exists),
                    name,
                    columns,
                    partitioned_by,
                    options,
                    query,
                    emit,
                )| {
                    Statement::CreateMaterializedView(CreateMaterializedView {
                        or_replace,
                        if_not_exists,
                        name,
                        columns,
                        partitioned_by,
                        options,
                        query,
                        emit,
                    })
                }
            ),
        (create_flags(), name(), options(1), query(), emit()).prop_map(
            |((or_replace, if_not_exists), name, options, query, emit)| {
                Statement::CreateSink(CreateSink {
                    or_replace,
                    if_not_exists,
                    name,
                    options,
                    query,
                    emit,
                })
            }
        ),
        (name(), vec(ident(), 0..3), options(0), query(), emit()).prop_map(
            |(table, columns, options, query, emit)| {
                Statement::Insert(Insert { table, columns, options, query, emit })
            }
        ),
    ]
}

fn kind() -> impl Strategy<Value = ObjectKind> {
    select(ObjectKind::ALL.to_vec())
}

fn show() -> impl Strategy<Value = Statement> {
    let lists = [
        ShowWhat::Sources,
        ShowWhat::Tables,
        ShowWhat::Views,
        ShowWhat::MaterializedViews,
        ShowWhat::Sinks,
        ShowWhat::Queries,
        ShowWhat::Schemas,
        ShowWhat::Functions,
    ];
    let list = prop_oneof![select(lists.to_vec()), name().prop_map(ShowWhat::Columns)];
    let setting = prop_oneof![Just(ShowWhat::All), name().prop_map(ShowWhat::Setting)];
    prop_oneof![
        (list, option::of(name()), option::of(text()))
            .prop_map(|(what, from, like)| Statement::Show(Show { what, from, like })),
        setting.prop_map(|what| Statement::Show(Show { what, from: None, like: None })),
        (kind(), name()).prop_map(|(kind, name)| Statement::ShowCreate(ShowCreate { kind, name })),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![name().prop_map(Target::Relation), query().prop_map(Target::Query)]
}

fn command() -> impl Strategy<Value = Statement> {
    let as_of = prop_oneof![any::<u64>().prop_map(AsOf::Version), text().prop_map(AsOf::Timestamp)];
    let running = select(vec![ObjectKind::MaterializedView, ObjectKind::Sink, ObjectKind::Query]);
    let action = select(vec![AlterAction::Pause, AlterAction::Resume]);
    let transactions = vec![
        Transaction::Begin,
        Transaction::Commit,
        Transaction::Rollback,
        Transaction::Characteristics,
    ];
    prop_oneof![
        query().prop_map(Statement::Query),
        (target(), option::of(as_of))
            .prop_map(|(target, as_of)| Statement::Subscribe(Subscribe { target, as_of })),
        target().prop_map(|target| Statement::Describe(Describe { target })),
        (running, any::<bool>(), name(), action).prop_map(|(kind, if_exists, name, action)| {
            Statement::Alter(Alter { kind, if_exists, name, action })
        }),
        (kind(), any::<bool>(), vec(name(), 1..3), any::<bool>()).prop_map(
            |(kind, if_exists, names, cascade)| {
                Statement::Drop(DropObjects { kind, if_exists, names, cascade })
            }
        ),
        (name(), vec(value(), 1..3))
            .prop_map(|(name, values)| Statement::Set(Set { name, values })),
        option::of(name()).prop_map(Statement::Reset),
        select(transactions).prop_map(Statement::Transaction),
        Just(Statement::Discard),
    ]
}

fn explain() -> impl Strategy<Value = Statement> {
    let modes = vec![ExplainMode::Plan, ExplainMode::Incremental, ExplainMode::Analyze];
    let planned = prop_oneof![query().prop_map(Statement::Query), create()].prop_filter(
        "a plan is of a query",
        |statement| match statement {
            Statement::CreateSource(_) => false,
            Statement::CreateTable(table) => table.query.is_some(),
            _ => true,
        },
    );
    (select(modes), any::<bool>(), option::of(text()), planned).prop_map(
        |(mode, verbose, format, statement)| {
            let statement = Box::new(statement);
            Statement::Explain(Explain { mode, verbose, format, statement })
        },
    )
}

fn statement() -> impl Strategy<Value = Statement> {
    prop_oneof![4 => create(), 3 => command(), 1 => show(), 1 => explain()]
}

fn assert_same(text: &str, expected: &Statement) {
    match parse_one(text) {
        Ok(parsed) => assert_eq!(&parsed.node, expected, "{text}"),
        Err(error) => panic!("{}\n{text}", error.render(text)),
    }
}

/// Words and symbols that make sense together now and then.
fn soup() -> impl Strategy<Value = String> {
    let words = [
        "CREATE",
        "SOURCE",
        "TABLE",
        "VIEW",
        "MATERIALIZED",
        "SINK",
        "WITH",
        "AS",
        "SELECT",
        "FROM",
        "(",
        ")",
        ",",
        "=",
        ";",
        ".",
        "'x'",
        "\"y\"",
        "x",
        "1",
        "-",
        "EMIT",
        "CHANGES",
        "ON",
        "WINDOW",
        "CLOSE",
        "PRIMARY",
        "KEY",
        "WATERMARK",
        "FOR",
        "METADATA",
        "NOT",
        "NULL",
        "INT",
        "EXPLAIN",
        "INSERT",
        "INTO",
        "VALUES",
        "SUBSCRIBE",
        "TO",
        "OF",
        "SHOW",
        "DROP",
        "IF",
        "EXISTS",
        "TUMBLE",
        "SESSION(",
        "PARTITION",
        "BY",
        "FOR",
        "SYSTEM_TIME",
        "UNION",
        "ALL",
        "*",
        "SET",
        "=>",
        "/* c */",
        "-- c\n",
        "'open",
        "/*",
    ];
    vec(select(words.to_vec()), 0..24).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn a_statement_prints_back_to_itself(statement in statement()) {
        assert_same(&statement.to_string(), &statement);
        assert_same(&format!("{statement:#}"), &statement);
    }

    #[test]
    fn statements_in_one_text_keep_their_own_text(statements in vec(statement(), 1..4)) {
        let texts: Vec<String> = statements.iter().map(Statement::to_string).collect();
        let sql = format!("-- first ;\n{};\n", texts.join("\n ; /* ; */ "));
        let parsed = parse(&sql).unwrap();
        let found: Vec<&str> = parsed.iter().map(|one| one.text(&sql)).collect();
        prop_assert_eq!(found, texts);
        prop_assert!(is_complete(&sql));
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic(sql in prop_oneof![soup(), any::<String>()]) {
        let complete = is_complete(&sql);
        match parse(&sql) {
            Ok(statements) => {
                for one in statements {
                    one.text(&sql);
                }
            }
            Err(error) => {
                let drawn = error.render(&sql);
                prop_assert!(drawn.starts_with("error: "), "{} {}", complete, drawn);
                prop_assert!(error.location().is_some(), "no place: {}", error);
            }
        }
    }
}
