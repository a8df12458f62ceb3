//! Random queries of stateful operators, nested up to three deep.

mod grouping;
mod joining;
mod ranking;
mod subqueries;

use super::relation::{APPENDED, Column, Maker, Relation, Ty};

const DEPTH: usize = 3;
/// Joins and the like in one query.
const PRODUCTS: usize = 3;

/// The query that a tape describes.
pub fn query(tape: &[u16]) -> String {
    let mut maker = Maker::new(tape);
    let depth = [1, 2, 3, 2][maker.choices.below(4)].min(DEPTH);
    let relation = maker.relation(depth);
    match maker.shared.as_slice() {
        [] => relation.sql,
        shared => format!("WITH {} {}", shared.join(", "), relation.sql),
    }
}

impl Maker<'_> {
    /// A query with operators `depth` deep.
    pub fn relation(&mut self, depth: usize) -> Relation {
        if depth == 0 {
            return self.base();
        }
        let kind = self.choices.below(29);
        let product = matches!(kind, 6..=11 | 24..=28);
        if product && self.products == PRODUCTS {
            return self.grouped(depth);
        }
        self.products += usize::from(product);
        match kind {
            0..=2 => self.grouped(depth),
            3 => self.global(depth),
            4 => self.sets(depth),
            5 => self.distinct(depth),
            6..=8 => self.join(depth),
            9 | 10 => self.semi(depth),
            11 => self.scalar_subquery(depth),
            12..=14 => self.set_operation(depth),
            15 | 16 => self.top(depth),
            17 | 18 => self.ranked(depth),
            19 | 20 => self.over(depth),
            21..=23 => self.windowed(depth),
            24 => self.interval_join(),
            25 => self.shared_join(depth),
            26 | 27 => self.elsewhere(depth),
            _ => self.asof_join(),
        }
    }

    /// Rows of a source, some of them, or joined with the table.
    fn base(&mut self) -> Relation {
        let name = self.any_source();
        let source = self.source(name);
        match self.choices.below(10) {
            0..=5 => source,
            6 | 7 => self.selected(&source),
            8 => self.with_table(),
            _ => self.unnested(),
        }
    }

    fn selected(&mut self, input: &Relation) -> Relation {
        let from = self.from(input);
        let filter = self.condition(&input.columns, 1);
        let mut exprs = vec![self.any(&input.columns)];
        exprs.extend(Self::plain(&self.some(&input.columns, 3)));
        let (items, columns) = self.items(&exprs);
        Relation { sql: format!("SELECT {items} FROM {from} WHERE {filter}"), columns }
    }

    /// A source's rows with those of a lake table.
    fn with_table(&mut self) -> Relation {
        let name = APPENDED[self.choices.below(2)];
        let (mut items, mut columns) = self.source_items();
        let join = match self.choices.below(4) {
            0 => "JOIN dim ON k = dk",
            1 => "LEFT JOIN dim ON k = dk",
            2 => "LEFT JOIN dim ON k = dk AND n > 0",
            _ => {
                let sql = format!("SELECT {items} FROM {name} WHERE k IN (SELECT dk FROM dim)");
                return Relation { sql, columns };
            }
        };
        let named = self.column(Ty::Text);
        items = format!("{items}, name AS {}", named.name);
        columns.push(named);
        Relation { sql: format!("SELECT {items} FROM {name} {join}"), columns }
    }

    fn unnested(&mut self) -> Relation {
        let name = self.any_source();
        let (items, mut columns) = self.source_items();
        let element = self.column(Ty::Int);
        let sql =
            format!("SELECT {items}, unnest(make_array(k, 1)) AS {} FROM {name}", element.name);
        columns.push(element);
        Relation { sql, columns }
    }

    fn distinct(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let from = self.from(&input);
        if self.choices.chance(20) {
            let first = self.choices.pick(&input.columns).clone();
            if first.ty.comparable() {
                return self.distinct_on(&input, &from, &first);
            }
        }
        let mut exprs = Self::plain(&self.some(&input.columns, 3));
        if self.choices.chance(30) {
            exprs.push(self.any(&input.columns));
        }
        let (items, columns) = self.items(&exprs);
        Relation { sql: format!("SELECT DISTINCT {items} FROM {from}"), columns }
    }

    fn distinct_on(&mut self, input: &Relation, from: &str, first: &Column) -> Relation {
        let kept = sortable(&input.columns);
        let others: Vec<Column> = kept.iter().filter(|c| *c != first).cloned().collect();
        let mut order = first.name.clone();
        if !others.is_empty() {
            order = format!("{order}, {}", self.total_order(&others));
        }
        let (items, columns) = self.items(&Self::plain(&kept));
        let on = &first.name;
        let sql = format!("SELECT DISTINCT ON ({on}) {items} FROM {from} ORDER BY {order}");
        Relation { sql, columns }
    }

    /// `UNION`, `INTERSECT`, `EXCEPT`, with and without `ALL`.
    fn set_operation(&mut self, depth: usize) -> Relation {
        let operations =
            ["UNION ALL", "UNION", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"];
        let operation = *self.choices.pick(&operations);
        let mut left = self.relation(depth - 1);
        let mut right = match self.choices.chance(15) {
            true => self.fixed(),
            false => {
                let less = self.choices.below(depth);
                self.relation(less)
            }
        };
        if self.choices.chance(20) {
            std::mem::swap(&mut left, &mut right);
        }
        let comparable: Vec<Column> =
            left.columns.iter().filter(|column| column.ty.comparable()).cloned().collect();
        if comparable.is_empty() {
            return left;
        }
        let kept = self.some(&comparable, 3);
        let (from_left, from_right) = (self.from(&left), self.from(&right));
        let (items, columns) = self.items(&Self::plain(&kept));
        let others: Vec<(String, Ty)> = kept
            .iter()
            .map(|column| (self.scalar(&right.columns, column.ty, 1), column.ty))
            .collect();
        let (others, _) = self.items(&others);
        let sql = format!(
            "SELECT {items} FROM {from_left} {operation} SELECT {others} FROM {from_right}"
        );
        // Parentheses: a set operation inside another, or under ORDER BY, stays whole.
        let whole = Relation { sql, columns };
        let from = self.from(&whole);
        let (items, columns) = self.items(&Self::plain(&whole.columns));
        Relation { sql: format!("SELECT {items} FROM {from}"), columns }
    }
}

/// Columns that an order can hold.
pub fn sortable(columns: &[Column]) -> Vec<Column> {
    let kept: Vec<Column> = columns.iter().filter(|column| column.ty.sortable()).cloned().collect();
    if kept.is_empty() { columns.to_vec() } else { kept }
}
