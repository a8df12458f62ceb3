//! Joins.

use super::super::relation::{APPENDED, Column, Maker, Relation, Ty};

/// Types whose values meet in joins.
pub const INSIDE: [Ty; 5] = [Ty::Int, Ty::Text, Ty::Time, Ty::Decimal, Ty::Bool];

impl Maker<'_> {
    /// Two relations on one or two equalities, often with a further condition.
    pub fn join(&mut self, depth: usize) -> Relation {
        let kinds =
            ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN"];
        let kind = *self.choices.pick(&kinds);
        let left = self.relation(depth - 1);
        if self.choices.chance(15) {
            let table = self.fixed();
            return match self.choices.chance(50) {
                true => self.joined(kind, &left, &table),
                false => self.joined(kind, &table, &left),
            };
        }
        let less = self.choices.below(depth);
        let right = self.relation(less);
        self.joined(kind, &left, &right)
    }

    /// The lake table, or a list of rows.
    pub fn fixed(&mut self) -> Relation {
        let exprs = [("dk", Ty::Int), ("name", Ty::Text)].map(|(name, ty)| (name.to_owned(), ty));
        let (items, columns) = self.items(&exprs);
        for column in &columns {
            self.vary(&column.name);
        }
        let from = match self.choices.chance(70) {
            true => "dim".to_owned(),
            false => {
                let rows = ["(1, 'a')", "(2, NULL)", "(NULL, 'b')", "(1, 'a')"];
                let rows = rows[..2 + self.choices.below(3)].join(", ");
                format!("(VALUES {rows}) AS {} (dk, name)", self.fresh("r"))
            }
        };
        Relation { sql: format!("SELECT {items} FROM {from}"), columns }
    }

    fn joined(&mut self, kind: &str, left: &Relation, right: &Relation) -> Relation {
        let (from_left, from_right) = (self.from(left), self.from(right));
        let mut on = self.equality(&left.columns, &right.columns);
        if self.choices.chance(20) {
            on = format!("{on} AND {}", self.equality(&left.columns, &right.columns));
        }
        let both = [left.columns.as_slice(), right.columns.as_slice()].concat();
        if self.choices.chance(40) {
            on = format!("{on} AND {}", self.condition(&both, 1));
        }
        let mut visible = match kind.contains("SEMI") || kind.contains("ANTI") {
            true => left.columns.clone(),
            false => both,
        };
        let mut kind = kind;
        if matches!(kind, "LEFT JOIN" | "RIGHT JOIN" | "FULL JOIN") {
            // To DataFusion 55 a constant of a side that an outer join fills up with NULLs is
            // still one: an ORDER BY of it is dropped.
            visible.retain(|column| !self.is_constant(&column.name));
            if visible.is_empty() {
                visible = left.columns.clone();
                kind = "JOIN";
            }
        }
        let kept = self.some(&visible, 5);
        let (items, columns) = self.items(&Self::plain(&kept));
        Relation {
            sql: format!("SELECT {items} FROM {from_left} {kind} {from_right} ON {on}"),
            columns,
        }
    }

    /// `left = right`, of a type that both have.
    pub fn equality(&mut self, left: &[Column], right: &[Column]) -> String {
        let common: Vec<Ty> = INSIDE
            .into_iter()
            .filter(|ty| [left, right].iter().all(|side| side.iter().any(|c| c.ty == *ty)))
            .collect();
        let Some(first) = common.first() else {
            return format!("{} = {}", self.as_text(left), self.as_text(right));
        };
        let ty = if self.choices.chance(70) { *first } else { *self.choices.pick(&common) };
        // Few expressions: what joins should find each other.
        let depth = usize::from(self.choices.chance(15));
        let own = |columns: &[Column]| -> Vec<Column> {
            columns.iter().filter(|column| column.ty == ty).cloned().collect()
        };
        let (x, y) = (self.scalar(&own(left), ty, depth), self.scalar(&own(right), ty, depth));
        self.equal(&x, &y);
        format!("{x} = {y}")
    }

    fn as_text(&mut self, columns: &[Column]) -> String {
        let (x, _) = self.comparable(columns);
        format!("CAST({x} AS VARCHAR)")
    }

    /// Sources whose times are near each other.
    pub fn interval_join(&mut self) -> Relation {
        let kind = *self.choices.pick(&["JOIN", "LEFT JOIN", "FULL JOIN"]);
        let (mut sides, mut times) = (Vec::new(), Vec::new());
        for name in [APPENDED[0], *self.choices.pick(&APPENDED)] {
            let exprs = [("k", Ty::Int), ("t", Ty::Time), ("n", Ty::Int)];
            let exprs = exprs.map(|(name, ty)| (name.to_owned(), ty));
            let (items, columns) = self.items(&exprs);
            times.push(columns[1].name.clone());
            sides.push(Relation { sql: format!("SELECT {items} FROM {name}"), columns });
        }
        let (from_left, from_right) = (self.from(&sides[0]), self.from(&sides[1]));
        let key = format!("{} = {}", sides[0].columns[0].name, sides[1].columns[0].name);
        let (l, r) = (&times[0], &times[1]);
        let near = match self.choices.below(3) {
            0 => format!("{r} BETWEEN {l} AND {l} + INTERVAL '1' MINUTE"),
            1 => format!("{l} >= {r} - INTERVAL '30' SECOND AND {l} <= {r}"),
            _ => format!("{l} = {r}"),
        };
        let both = [sides[0].columns.as_slice(), sides[1].columns.as_slice()].concat();
        let kept = self.some(&both, 5);
        let (items, columns) = self.items(&Self::plain(&kept));
        let sql =
            format!("SELECT {items} FROM {from_left} {kind} {from_right} ON {key} AND {near}");
        Relation { sql, columns }
    }

    pub fn asof_join(&mut self) -> Relation {
        let op = *self.choices.pick(&[">=", ">", "<=", "<"]);
        let mut sides = Vec::new();
        for name in [APPENDED[0], *self.choices.pick(&APPENDED)] {
            let exprs = [("k", Ty::Int), ("t", Ty::Time), ("n", Ty::Int)];
            let exprs = exprs.map(|(name, ty)| (name.to_owned(), ty));
            let (items, columns) = self.items(&exprs);
            sides.push(Relation { sql: format!("SELECT {items} FROM {name}"), columns });
        }
        let (from_left, from_right) = (self.from(&sides[0]), self.from(&sides[1]));
        let [l, r] = [&sides[0].columns, &sides[1].columns];
        let (time, key) = (format!("{} {op} {}", l[1].name, r[1].name), (&l[0].name, &r[0].name));
        let both = [l.as_slice(), r.as_slice()].concat();
        let (items, columns) = self.items(&Self::plain(&both));
        let sql = format!(
            "SELECT {items} FROM {from_left} ASOF JOIN {from_right} MATCH_CONDITION ({time}) \
             ON {} = {}",
            key.0, key.1
        );
        Relation { sql, columns }
    }

    /// A common table expression, joined with itself.
    pub fn shared_join(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let name = self.fresh("w");
        self.shared.push(format!("{name} AS ({})", input.sql));
        let mut copy = || {
            let (items, columns) = self.items(&Self::plain(&input.columns));
            Relation { sql: format!("SELECT {items} FROM {name}"), columns }
        };
        let (left, right) = (copy(), copy());
        let kind = *self.choices.pick(&["JOIN", "LEFT JOIN"]);
        self.joined(kind, &left, &right)
    }
}
