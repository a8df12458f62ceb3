//! A node of a plan on one line, as a person would write it down.
//!
//! DataFusion's own words are for its developers: `Int64(1)`, the fields of an interval, the
//! frame of a function that has no use for one. The weight column is not shown: the mode of
//! the node's changelog says that there is one.

use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, LogicalPlan, SortExpr, Window, WindowFrame, WindowFunctionDefinition,
};

use crate::changelog::WEIGHT;
use crate::plan::node::{Op, SessionBy, Stateful};

/// What stands before the fields of an interval.
const INTERVAL: &str =
    "IntervalMonthDayNano(\"IntervalMonthDayNano { months: 0, days: 0, nanoseconds: ";
const INTERVAL_END: &str = " }\")";
const NUMBERS: [&str; 5] = ["Int64(", "Int32(", "UInt64(", "Float64(", "Boolean("];
const TEXTS: [&str; 3] = ["Utf8(\"", "Utf8View(\"", "LargeUtf8(\""];

/// The node without what is below.
pub fn title(node: &LogicalPlan) -> String {
    let own = match node {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<Stateful>(),
        _ => None,
    };
    let special = match own.map(|own| &own.op) {
        Some(Op::Aggregate { group, session, calls, .. }) => {
            Some(aggregate(group, session.as_ref(), calls))
        }
        Some(Op::Recompute { template, .. }) => match template.as_ref() {
            LogicalPlan::Window(window) => windows(window),
            _ => None,
        },
        _ => None,
    };
    readable(&special.unwrap_or_else(|| node.display().to_string()))
}

fn list(exprs: &[Expr]) -> String {
    exprs.iter().map(Expr::to_string).collect::<Vec<_>>().join(", ")
}

/// Calls over the rows put in stand for those over the rows taken away, too.
fn aggregate(group: &[Expr], session: Option<&SessionBy>, calls: &[(Expr, bool)]) -> String {
    let put_in = format!("{WEIGHT} > Int64(0))");
    let taken = format!("{WEIGHT} < Int64(0))");
    let mut said: Vec<String> = Vec::new();
    for (call, _) in calls {
        let call = call.to_string();
        let plain = call
            .replace(&format!(" FILTER (WHERE {put_in}"), "")
            .replace(&format!(" AND {put_in}"), ")");
        if !call.ends_with(&taken) && !said.contains(&plain) {
            said.push(plain);
        }
    }
    let mut by: Vec<String> = group.iter().map(Expr::to_string).collect();
    by.extend(session.map(|SessionBy { time, gap }| format!("session({time}, {gap})")));
    format!("Aggregate: by=[{}], calls=[{}]", by.join(", "), said.join(", "))
}

/// Window functions over the same window, whose partitions are the key; `None` where they
/// say more than that.
fn windows(window: &Window) -> Option<String> {
    let calls = window.window_expr.iter().map(call).collect::<Option<Vec<_>>>()?;
    let over = &calls.first()?.1;
    if calls.iter().any(|(_, other)| other != over) {
        return None;
    }
    let calls: Vec<&str> = calls.iter().map(|(call, _)| call.as_str()).collect();
    Some(format!("Recompute: {} OVER ({over})", calls.join(", ")))
}

/// A call of a window function, and its window.
fn call(expr: &Expr) -> Option<(String, String)> {
    let Expr::WindowFunction(call) = expr.clone().unalias() else { return None };
    let WindowFunction { fun, params } = *call;
    if params.filter.is_some() || params.null_treatment.is_some() || params.distinct {
        return None;
    }
    let mut window = Vec::new();
    if !params.partition_by.is_empty() {
        window.push(format!("PARTITION BY {}", list(&params.partition_by)));
    }
    if !params.order_by.is_empty() {
        let order: Vec<String> = params.order_by.iter().map(ordered).collect();
        window.push(format!("ORDER BY {}", order.join(", ")));
    }
    let usual = WindowFrame::new((!params.order_by.is_empty()).then_some(false));
    if !is_without_frame(&fun) && params.window_frame != usual {
        window.push(params.window_frame.to_string());
    }
    Some((format!("{}({})", fun.name(), list(&params.args)), window.join(" ")))
}

/// `NULLS LAST` is what ascending order does anyway, `NULLS FIRST` what descending does.
fn ordered(sort: &SortExpr) -> String {
    match (sort.asc, sort.nulls_first) {
        (true, false) => sort.expr.to_string(),
        (false, true) => format!("{} DESC", sort.expr),
        _ => sort.to_string(),
    }
}

/// Ranks and sessions look at the whole partition, whatever the frame.
fn is_without_frame(fun: &WindowFunctionDefinition) -> bool {
    let framed = ["first_value", "last_value", "nth_value"];
    matches!(fun, WindowFunctionDefinition::WindowUDF(fun) if !framed.contains(&fun.name()))
}

/// Without the words that only DataFusion's developers need.
fn readable(text: &str) -> String {
    let text = text
        .replace(&format!(", {WEIGHT}"), "")
        .replace("count(Int64(1)) AS count(*)", "count(*)")
        .replace("count(Int64(1))", "count(*)");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let starts_word = !out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (said, length) = match literal(rest).filter(|_| starts_word) {
            Some(found) => found,
            None => (first.to_string(), first.len_utf8()),
        };
        out.push_str(&said);
        rest = &rest[length..];
    }
    out
}

/// A literal at the start of the text as SQL, and how long it was.
fn literal(text: &str) -> Option<(String, usize)> {
    if let Some(rest) = text.strip_prefix(INTERVAL) {
        let end = rest.find(INTERVAL_END)?;
        let nanos: i64 = rest[..end].parse().ok()?;
        return Some((interval(nanos), INTERVAL.len() + end + INTERVAL_END.len()));
    }
    if let Some((name, nanos)) = DURATIONS.iter().find(|(name, _)| text.starts_with(*name)) {
        let end = text[name.len()..].find("\")")?;
        let count: i64 = text[name.len()..name.len() + end].parse().ok()?;
        return Some((interval(count.checked_mul(*nanos)?), name.len() + end + 2));
    }
    if let Some(name) = TEXTS.iter().find(|name| text.starts_with(**name)) {
        let end = text[name.len()..].find("\")")?;
        let content = &text[name.len()..name.len() + end];
        return Some((format!("'{}'", content.replace('\'', "''")), name.len() + end + 2));
    }
    let name = NUMBERS.iter().find(|name| text.starts_with(**name))?;
    let end = text.find(')')?;
    Some((text[name.len()..end].to_owned(), end + 1))
}

/// Spans of time, and nanoseconds of their unit.
const DURATIONS: [(&str, i64); 4] = [
    ("DurationSecond(\"", 1_000_000_000),
    ("DurationMillisecond(\"", 1_000_000),
    ("DurationMicrosecond(\"", 1_000),
    ("DurationNanosecond(\"", 1),
];

fn interval(nanos: i64) -> String {
    const UNITS: [(i64, &str); 5] = [
        (86_400_000_000_000, "day"),
        (3_600_000_000_000, "hour"),
        (60_000_000_000, "minute"),
        (1_000_000_000, "second"),
        (1_000_000, "millisecond"),
    ];
    let whole = UNITS.iter().find(|(size, _)| nanos % size == 0);
    let (size, unit) = whole.copied().unwrap_or((1, "nanosecond"));
    format!("INTERVAL '{}' {}", nanos / size, unit.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_those_of_sql() {
        let minute = "date_bin(IntervalMonthDayNano(\"IntervalMonthDayNano { months: 0, days: 0, \
                      nanoseconds: 90000000000 }\"), at)";
        for (text, wanted) in [
            (minute, "date_bin(INTERVAL '90' SECOND, at)"),
            ("at + DurationMicrosecond(\"-2000000\")", "at + INTERVAL '-2' SECOND"),
            ("count(Int64(1)) AS count(*) AS n, __weight", "count(*) AS n"),
            ("a = Int64(-3) AND b = Utf8(\"it's\")", "a = -3 AND b = 'it''s'"),
            ("myInt64(x) = Float64(0.5)", "myInt64(x) = 0.5"),
            ("x > Decimal128(Some(5),12,2)", "x > Decimal128(Some(5),12,2)"),
            ("Int64(", "Int64("),
            ("é = Utf8(\"ü\")", "é = 'ü'"),
        ] {
            assert_eq!(readable(text), wanted);
        }
    }
}
