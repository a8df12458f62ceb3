//! Random SQL expressions over the columns of `src`, by type. None can fail on a
//! value: divisors are `nullif`ed, factors are small.

use proptest::prelude::*;

const DEPTH: u32 = 3;
const SIZE: u32 = 12;

type Sql = BoxedStrategy<String>;

/// An expression of any type.
pub fn any() -> Sql {
    prop_oneof![integer(), text(), float(), decimal(), time(), boolean()].boxed()
}

pub fn integer() -> Sql {
    let leaf = prop_oneof![
        4 => Just("id".to_owned()),
        4 => Just("a".to_owned()),
        4 => Just("b".to_owned()),
        2 => (-9..10i64).prop_map(|n| format!("({n})")),
        1 => Just("CAST(NULL AS BIGINT)".to_owned()),
        1 => Just("p['x']".to_owned()),
        1 => Just("CAST(array_length(tags) AS BIGINT)".to_owned()),
        1 => Just("CAST(extract(year FROM t) AS BIGINT)".to_owned()),
    ];
    leaf.prop_recursive(DEPTH, SIZE, 2, |e| {
        prop_oneof![
            pair(&e, |x, y| format!("({x} + {y})")),
            pair(&e, |x, y| format!("({x} - {y})")),
            (e.clone(), -3..4).prop_map(|(x, n)| format!("({x} * {n})")),
            pair(&e, |x, y| format!("({x} % nullif({y}, 0))")),
            pair(&e, |x, y| format!("({x} / nullif({y}, 0))")),
            pair(&e, |x, y| format!("coalesce({x}, {y})")),
            pair(&e, |x, y| format!("nullif({x}, {y})")),
            pair(&e, |x, y| format!("CASE WHEN {x} > 0 THEN {x} ELSE {y} END")),
            e.clone().prop_map(|x| format!("abs({x})")),
        ]
    })
    .boxed()
}

pub fn text() -> Sql {
    let leaf = prop_oneof![
        6 => Just("s".to_owned()),
        2 => literal(),
        1 => Just("CAST(NULL AS VARCHAR)".to_owned()),
        1 => Just("p['y']".to_owned()),
        1 => Just("CAST(id AS VARCHAR)".to_owned()),
        1 => Just("CAST(d AS VARCHAR)".to_owned()),
        1 => Just("CAST(t AS VARCHAR)".to_owned()),
        1 => Just("CAST(ok AS VARCHAR)".to_owned()),
    ];
    leaf.prop_recursive(DEPTH, SIZE, 2, |e| {
        prop_oneof![
            e.clone().prop_map(|x| format!("upper({x})")),
            e.clone().prop_map(|x| format!("lower({x})")),
            e.clone().prop_map(|x| format!("trim({x})")),
            (e.clone(), 1..4, 0..5).prop_map(|(x, from, n)| format!("substr({x}, {from}, {n})")),
            e.clone().prop_map(|x| format!("replace({x}, 'a', 'ä''')")),
            pair(&e, |x, y| format!("({x} || {y})")),
            pair(&e, |x, y| format!("concat({x}, {y})")),
            pair(&e, |x, y| format!("coalesce({x}, {y})")),
            pair(&e, |x, y| format!("nullif({x}, {y})")),
            pair(&e, |x, y| format!("CASE WHEN {x} < {y} THEN {x} END")),
        ]
    })
    .boxed()
}

fn float() -> Sql {
    let leaf = prop_oneof![
        4 => Just("f".to_owned()),
        1 => Just("0.25e0".to_owned()),
        1 => Just("CAST(b AS DOUBLE)".to_owned()),
    ];
    leaf.prop_recursive(DEPTH, SIZE, 2, |e| {
        prop_oneof![
            pair(&e, |x, y| format!("({x} + {y})")),
            pair(&e, |x, y| format!("({x} * {y})")),
            pair(&e, |x, y| format!("({x} / {y})")),
            e.clone().prop_map(|x| format!("round({x})")),
            pair(&e, |x, y| format!("coalesce({x}, {y})")),
        ]
    })
    .boxed()
}

fn decimal() -> Sql {
    let leaf = prop_oneof![
        4 => Just("d".to_owned()),
        1 => Just("CAST(a AS DECIMAL(12,2))".to_owned()),
        1 => Just("CAST('12.50' AS DECIMAL(12,2))".to_owned()),
    ];
    leaf.prop_recursive(2, 4, 2, |e| {
        prop_oneof![
            pair(&e, |x, y| format!("({x} + {y})")),
            pair(&e, |x, y| format!("({x} - {y})")),
            e.clone().prop_map(|x| format!("(-{x})")),
            pair(&e, |x, y| format!("coalesce({x}, {y})")),
        ]
    })
    .boxed()
}

fn time() -> Sql {
    let leaf = prop_oneof![
        4 => Just("t".to_owned()),
        1 => Just("TIMESTAMP '2024-02-29 12:34:56'".to_owned()),
    ];
    leaf.prop_recursive(2, 4, 2, |e| {
        prop_oneof![
            e.clone().prop_map(|x| format!("date_trunc('hour', {x})")),
            e.clone().prop_map(|x| format!("({x} + INTERVAL '1 day')")),
            pair(&e, |x, y| format!("coalesce({x}, {y})")),
        ]
    })
    .boxed()
}

pub fn boolean() -> Sql {
    let compare =
        prop_oneof![Just("="), Just("<>"), Just("<"), Just(">="), Just("IS DISTINCT FROM"),];
    let compared = prop_oneof![
        (integer(), integer()),
        (text(), text()),
        (float(), float()),
        (decimal(), decimal()),
        (time(), time()),
    ];
    let leaf = prop_oneof![
        2 => Just("ok".to_owned()),
        1 => Just("true".to_owned()),
        6 => (compared, compare).prop_map(|((x, y), op)| format!("({x} {op} {y})")),
        2 => text().prop_map(|x| format!("({x} LIKE '%a%')")),
        2 => text().prop_map(|x| format!("({x} IN ('a', '', 'b c'))")),
        2 => integer().prop_map(|x| format!("({x} BETWEEN -2 AND 5)")),
        2 => text().prop_map(|x| format!("({x} IS NULL)")),
    ];
    leaf.prop_recursive(2, 6, 2, |e| {
        prop_oneof![
            pair(&e, |x, y| format!("({x} AND {y})")),
            pair(&e, |x, y| format!("({x} OR {y})")),
            e.clone().prop_map(|x| format!("(NOT {x})")),
            e.clone().prop_map(|x| format!("({x} IS NOT TRUE)")),
        ]
    })
    .boxed()
}

fn literal() -> Sql {
    super::case::words().prop_map(|word| format!("'{}'", word.replace('\'', "''"))).boxed()
}

fn pair(e: &Sql, f: fn(String, String) -> String) -> Sql {
    (e.clone(), e.clone()).prop_map(move |(x, y)| f(x, y)).boxed()
}
