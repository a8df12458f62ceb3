//! Subqueries, which become joins.

use super::super::relation::{Column, Maker, Relation, Ty};
use super::joining::INSIDE;

impl Maker<'_> {
    /// `WHERE` with a subquery.
    pub fn semi(&mut self, depth: usize) -> Relation {
        let left = self.relation(depth - 1);
        let less = self.choices.below(depth);
        let right = self.relation(less);
        let (from, inner) = (self.from(&left), self.from(&right));
        let mut found = self.found(&left.columns, &right.columns, &inner);
        match self.choices.below(8) {
            6 => found = format!("{found} AND {}", self.condition(&left.columns, 1)),
            7 => found = format!("({found} OR {})", self.condition(&left.columns, 1)),
            _ => {}
        }
        let kept = self.some(&left.columns, 4);
        let (items, columns) = self.items(&Self::plain(&kept));
        Relation { sql: format!("SELECT {items} FROM {from} WHERE {found}"), columns }
    }

    fn found(&mut self, left: &[Column], right: &[Column], inner: &str) -> String {
        let common: Vec<Ty> = INSIDE
            .into_iter()
            .filter(|ty| [left, right].iter().all(|side| side.iter().any(|c| c.ty == *ty)))
            .collect();
        let ty = common.first().copied().unwrap_or(Ty::Int);
        let not = *self.choices.pick(&["", "NOT "]);
        let (x, y) = (self.scalar(left, ty, 0), self.scalar(right, ty, 0));
        match self.choices.below(4) {
            0 => format!("{x} {not}IN (SELECT {y} FROM {inner})"),
            1 => format!("{not}EXISTS (SELECT 1 FROM {inner} WHERE {y} = {x})"),
            2 => {
                let both = [left, right].concat();
                let more = self.condition(&both, 1);
                format!("{not}EXISTS (SELECT 1 FROM {inner} WHERE {y} = {x} AND {more})")
            }
            _ => {
                let filter = self.condition(right, 0);
                format!("{x} {not}IN (SELECT {y} FROM {inner} WHERE {y} IS NOT NULL AND {filter})")
            }
        }
    }

    /// A subquery of one value, of all rows or of those that belong to the row.
    pub fn scalar_subquery(&mut self, depth: usize) -> Relation {
        let left = self.relation(depth - 1);
        let right = self.relation(0);
        let (from, inner) = (self.from(&left), self.from(&right));
        let y = self.scalar(&right.columns, Ty::Int, 0);
        let call = match self.choices.below(4) {
            0 => format!("max({y})"),
            1 => "count(*)".to_owned(),
            2 => format!("sum({y})"),
            _ => format!("min({y})"),
        };
        let related = match self.choices.chance(50) {
            false => String::new(),
            true => format!(" WHERE {}", self.equality(&right.columns, &left.columns)),
        };
        let value = format!("(SELECT {call} FROM {inner}{related})");
        let mut exprs = Self::plain(&self.some(&left.columns, 4));
        let mut single = None;
        let x = self.scalar(&left.columns, Ty::Int, 0);
        // DataFusion 55 pushes a condition that names no column below an aggregate of all rows,
        // which then makes its row all the same.
        let filter = match self.choices.chance(50) && !self.is_constant(&x) {
            true => {
                let op = *self.choices.pick(&[">", "<=", "="]);
                let filter = format!(" WHERE {x} {op} {value}");
                single = (op == "=").then_some(x);
                filter
            }
            false => {
                exprs.push((value, Ty::Int));
                String::new()
            }
        };
        let (items, columns) = self.items(&exprs);
        if related.is_empty() {
            let last = columns.last().map(|column| column.name.clone());
            let value = if filter.is_empty() { last } else { single };
            value.iter().for_each(|value| self.equal(value, "1"));
        }
        Relation { sql: format!("SELECT {items} FROM {from}{filter}"), columns }
    }

    /// A subquery where no filter is: among the columns, in an aggregate, a group key, an
    /// order, the condition of a join.
    pub fn elsewhere(&mut self, depth: usize) -> Relation {
        let left = self.relation(depth - 1);
        let right = if self.choices.chance(25) { self.fixed() } else { self.relation(0) };
        let (from, inner) = (self.from(&left), self.from(&right));
        let value = self.truth(&left.columns, &right.columns, &inner);
        match self.choices.below(5) {
            0 => {
                let calls = [
                    self.group_key(&left.columns),
                    (format!("count(*) FILTER (WHERE {value})"), Ty::Int),
                    (format!("sum(CASE WHEN {value} THEN 1 ELSE 0 END)"), Ty::Int),
                ];
                let (items, columns) = self.items(&calls);
                let sql = format!("SELECT {items} FROM {from} GROUP BY {}", calls[0].0);
                Relation { sql, columns }
            }
            1 => {
                let exprs = [(value.clone(), Ty::Bool), ("count(*)".to_owned(), Ty::Int)];
                let (items, columns) = self.items(&exprs);
                Relation { sql: format!("SELECT {items} FROM {from} GROUP BY {value}"), columns }
            }
            2 => {
                let kept: Vec<Column> =
                    left.columns.iter().filter(|c| c.ty.sortable()).cloned().collect();
                if kept.is_empty() {
                    return left;
                }
                let (items, columns) = self.items(&Self::plain(&kept));
                let order = self.total_order(&kept);
                let first = 1 + self.choices.below(4);
                let sql =
                    format!("SELECT {items} FROM {from} ORDER BY {value}, {order} LIMIT {first}");
                Relation { sql: format!("SELECT * FROM ({sql}) AS {}", self.fresh("r")), columns }
            }
            _ => {
                let mut exprs = Self::plain(&self.some(&left.columns, 4));
                exprs.push((value, Ty::Bool));
                let (items, columns) = self.items(&exprs);
                Relation { sql: format!("SELECT {items} FROM {from}"), columns }
            }
        }
    }

    /// A subquery that is true, false or NULL for a row.
    fn truth(&mut self, left: &[Column], right: &[Column], inner: &str) -> String {
        let not = *self.choices.pick(&["", "NOT "]);
        match self.choices.below(6) {
            0 | 1 => {
                let related = self.equality(right, left);
                format!("({not}EXISTS (SELECT 1 FROM {inner} WHERE {related}))")
            }
            2 => {
                let filter = self.condition(right, 1);
                format!("({not}EXISTS (SELECT 1 FROM {inner} WHERE {filter}))")
            }
            3 | 4 => {
                let ty = *self.choices.pick(&INSIDE);
                let (x, y) = (self.scalar(left, ty, 0), self.scalar(right, ty, 0));
                format!("({x} {not}IN (SELECT {y} FROM {inner}))")
            }
            _ => {
                let (x, y) = (self.scalar(left, Ty::Int, 0), self.scalar(right, Ty::Int, 0));
                let op = *self.choices.pick(&[">", "<=", "<>", "="]);
                let of = *self.choices.pick(&["ALL", "ANY"]);
                format!("({x} {op} {of} (SELECT {y} FROM {inner}))")
            }
        }
    }
}
