//! The first rows by some order, and window functions.

use super::super::relation::{Column, Maker, Relation, Ty};
use super::sortable;

impl Maker<'_> {
    /// `ORDER BY … LIMIT`.
    pub fn top(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let from = self.from(&input);
        let kept = sortable(&input.columns);
        let (items, columns) = self.items(&Self::plain(&kept));
        let order = self.total_order(&kept);
        let limit = 1 + self.choices.below(5);
        let offset = match self.choices.chance(25) {
            true => format!(" OFFSET {}", 1 + self.choices.below(2)),
            false => String::new(),
        };
        Relation {
            sql: format!("SELECT {items} FROM {from} ORDER BY {order} LIMIT {limit}{offset}"),
            columns,
        }
    }

    /// `ROW_NUMBER() <= n` and its kin.
    pub fn ranked(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let from = self.from(&input);
        let kept = sortable(&input.columns);
        let number = self.fresh("n");
        let function = *self.choices.pick(&["row_number", "rank", "dense_rank"]);
        let order = match function {
            "row_number" => self.total_order(&kept),
            _ => {
                let column = self.choices.pick(&kept).name.clone();
                format!("{column}{}", self.direction())
            }
        };
        let partition = self.partition(&kept);
        let last = 1 + self.choices.below(3);
        let bound = match self.choices.below(5) {
            0 | 1 => format!("{number} <= {last}"),
            2 => {
                self.equal(&number, "1");
                format!("{number} = 1")
            }
            3 => format!("{number} < {}", last + 1),
            _ => format!("{number} BETWEEN 2 AND {}", last + 1),
        };
        let mut exprs = Self::plain(&kept);
        if self.choices.chance(50) {
            exprs.push((format!("CAST({number} AS BIGINT)"), Ty::Int));
        }
        let (items, columns) = self.items(&exprs);
        let outer = self.fresh("r");
        let sql = format!(
            "SELECT {items} FROM (SELECT *, {function}() OVER ({partition}ORDER BY {order}) \
             AS {number} FROM {from}) AS {outer} WHERE {bound}"
        );
        Relation { sql, columns }
    }

    fn partition(&mut self, columns: &[Column]) -> String {
        if self.choices.chance(25) {
            return String::new();
        }
        let column = self.choices.pick(columns);
        match column.ty.comparable() {
            true => format!("PARTITION BY {} ", column.name),
            false => String::new(),
        }
    }

    /// Window functions over partitions.
    pub fn over(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let from = self.from(&input);
        let kept = sortable(&input.columns);
        let mut exprs = Self::plain(&self.some(&kept, 3));
        for nth in 0..=self.choices.below(2) {
            // Which of two equal rows comes first is for each call by itself: beside one that
            // tells them apart, others are the same for both.
            let kinds: &[usize] = if nth == 0 { &[0, 1, 2, 3, 4, 5, 6, 7, 8] } else { &[0, 2, 7] };
            let kind = *self.choices.pick(kinds);
            let call = self.window_call(&kept, kind);
            exprs.push(call);
        }
        let (items, columns) = self.items(&exprs);
        Relation { sql: format!("SELECT {items} FROM {from}"), columns }
    }

    fn window_call(&mut self, columns: &[Column], kind: usize) -> (String, Ty) {
        let partition = self.partition(columns);
        let order = self.total_order(columns);
        let summed = *self.choices.pick(&[Ty::Int, Ty::Decimal]);
        let x = self.scalar(columns, summed, 1);
        let frames = [
            "",
            " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW",
            " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
            " ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING",
        ];
        let frame = *self.choices.pick(&frames);
        let (call, ty) = match kind {
            0 => {
                let total = partition.trim_end();
                return (format!("count(*) OVER ({total})"), Ty::Int);
            }
            1 => (format!("sum({x}) OVER ({partition}ORDER BY {order}{frame})"), summed),
            2 => {
                let column = self.choices.pick(columns).name.clone();
                let peers = format!("ORDER BY {column}{}", self.direction());
                (format!("sum({x}) OVER ({partition}{peers})"), summed)
            }
            3 => (format!("lag({x}) OVER ({partition}ORDER BY {order})"), summed),
            4 => (format!("lead({x}, 2) OVER ({partition}ORDER BY {order})"), summed),
            5 => (format!("max({x}) OVER ({partition}ORDER BY {order}{frame})"), summed),
            6 => (format!("first_value({x}) OVER ({partition}ORDER BY {order}{frame})"), summed),
            7 => {
                let column = self.choices.pick(columns).name.clone();
                let name = *self.choices.pick(&["rank", "dense_rank"]);
                let over = format!("OVER ({partition}ORDER BY {column}{})", self.direction());
                (format!("CAST({name}() {over} AS BIGINT)"), Ty::Int)
            }
            _ => {
                let name = *self.choices.pick(&["row_number()", "ntile(2)"]);
                (format!("CAST({name} OVER ({partition}ORDER BY {order}) AS BIGINT)"), Ty::Int)
            }
        };
        (call, ty)
    }
}
