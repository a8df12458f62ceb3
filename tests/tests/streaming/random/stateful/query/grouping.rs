//! Aggregates, with what SQL hangs on them.

use super::super::relation::{APPENDED, Column, Maker, Relation, Ty};

impl Maker<'_> {
    /// `GROUP BY` one or two expressions.
    pub fn grouped(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let from = self.from(&input);
        let mut keys = vec![self.group_key(&input.columns)];
        if self.choices.chance(30) {
            keys.push(self.group_key(&input.columns));
        }
        let by: Vec<String> = keys.iter().map(|(expr, _)| expr.clone()).collect();
        let mut exprs = keys;
        exprs.extend(self.calls(&input.columns));
        let having = self.having(&input.columns);
        let (items, columns) = self.items(&exprs);
        let sql = format!("SELECT {items} FROM {from} GROUP BY {}{having}", by.join(", "));
        Relation { sql, columns }
    }

    pub fn group_key(&mut self, columns: &[Column]) -> (String, Ty) {
        if self.choices.chance(25) {
            return self.comparable(columns);
        }
        let fit: Vec<Column> = columns.iter().filter(|c| c.ty != Ty::List).cloned().collect();
        match fit.is_empty() {
            true => self.comparable(columns),
            false => {
                let column = self.choices.pick(&fit);
                (column.name.clone(), column.ty)
            }
        }
    }

    /// One row for all.
    pub fn global(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let from = self.from(&input);
        let calls = self.calls(&input.columns);
        let having = self.having(&input.columns);
        let (items, columns) = self.items(&calls);
        columns.iter().for_each(|column| self.equal(&column.name, "1"));
        Relation { sql: format!("SELECT {items} FROM {from}{having}"), columns }
    }

    /// `GROUPING SETS`, `ROLLUP`, `CUBE`.
    pub fn sets(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let from = self.from(&input);
        // Columns that are constant, or equal, below grouping sets are so above them too, to
        // DataFusion 55: an ORDER BY of them is dropped.
        let comparable = input.columns.iter().filter(|c| c.ty.comparable());
        let fit: Vec<Column> = comparable.filter(|c| !self.is_constant(&c.name)).cloned().collect();
        if fit.len() < 2 {
            return input;
        }
        let at = self.choices.below(fit.len());
        let (x, y) = (&fit[at], &fit[(at + 1) % fit.len()]);
        if self.may_be_same(&x.name, &y.name) {
            return input;
        }
        let how = *self.choices.pick(&["ROLLUP", "CUBE", "GROUPING SETS"]);
        let sets = match how {
            "GROUPING SETS" => format!("(({}), ({}), ())", x.name, y.name),
            _ => format!("({}, {})", x.name, y.name),
        };
        let mut exprs = vec![(x.name.clone(), x.ty), (y.name.clone(), y.ty)];
        exprs.extend(self.calls(&input.columns));
        if self.choices.chance(40) {
            exprs.push((format!("CAST(grouping({}) AS BIGINT)", x.name), Ty::Int));
        }
        let (items, columns) = self.items(&exprs);
        let sql = format!("SELECT {items} FROM {from} GROUP BY {how} {sets}");
        Relation { sql, columns }
    }

    fn having(&mut self, columns: &[Column]) -> String {
        if !self.choices.chance(20) {
            return String::new();
        }
        let (call, _) = self.numeric_call(columns);
        format!(" HAVING {call} > {}", self.choices.below(4))
    }

    /// One to three aggregates.
    pub fn calls(&mut self, columns: &[Column]) -> Vec<(String, Ty)> {
        let n = 1 + self.choices.below(3);
        (0..n).map(|_| self.filtered_call(columns)).collect()
    }

    fn filtered_call(&mut self, columns: &[Column]) -> (String, Ty) {
        let (call, ty) = self.call(columns);
        let within = call.starts_with("CAST") || call.starts_with("array_sort");
        if within || !self.choices.chance(20) {
            return (call, ty);
        }
        let condition = self.condition(columns, 1);
        (format!("{call} FILTER (WHERE {condition})"), ty)
    }

    fn numeric_call(&mut self, columns: &[Column]) -> (String, Ty) {
        let x = self.scalar(columns, Ty::Int, 1);
        match self.choices.below(4) {
            0 => ("count(*)".to_owned(), Ty::Int),
            1 => (format!("sum({x})"), Ty::Int),
            2 => (format!("max({x})"), Ty::Int),
            _ => (format!("count(DISTINCT {x})"), Ty::Int),
        }
    }

    pub fn call(&mut self, columns: &[Column]) -> (String, Ty) {
        let summed = *self.choices.pick(&[Ty::Int, Ty::Float, Ty::Decimal]);
        match self.choices.below(22) {
            0 => ("count(*)".to_owned(), Ty::Int),
            1 | 2 => (format!("sum({})", self.scalar(columns, summed, 1)), summed),
            3 => (format!("count({})", self.comparable(columns).0), Ty::Int),
            4 | 5 => {
                let (x, ty) = self.ordered(columns);
                (format!("{}({x})", self.choices.pick(&["max", "min"])), ty)
            }
            6 => (format!("count(DISTINCT {})", self.comparable(columns).0), Ty::Int),
            7 | 8 => {
                let ty = if summed == Ty::Decimal { Ty::Decimal } else { Ty::Rough };
                (format!("avg({})", self.scalar(columns, summed, 1)), ty)
            }
            9 => (format!("sum(DISTINCT {})", self.scalar(columns, Ty::Int, 1)), Ty::Int),
            10 => (format!("avg(DISTINCT {})", self.scalar(columns, Ty::Int, 1)), Ty::Rough),
            11 | 12 => self.ordered_call(columns),
            13 => {
                // Over rows in the opposite order, and beside other ordered calls, DataFusion 55's
                // array_agg(DISTINCT x ORDER BY x) has them backwards.
                let (x, _) = self.comparable(columns);
                (format!("array_sort(array_agg(DISTINCT {x}))"), Ty::List)
            }
            14 => {
                let x = self.scalar(columns, Ty::Text, 1);
                (format!("string_agg({x}, ',' ORDER BY {x})"), Ty::Text)
            }
            15 => {
                let x = self.condition(columns, 1);
                (format!("{}({x})", self.choices.pick(&["bool_and", "bool_or"])), Ty::Bool)
            }
            16 => {
                let x = self.scalar(columns, Ty::Int, 1);
                let name = *self.choices.pick(&["bit_and", "bit_or", "bit_xor"]);
                (format!("{name}({x})"), Ty::Int)
            }
            17 => {
                // A fraction of which no tie is rounded now one way, now the other.
                let x = self.scalar(columns, Ty::Int, 0);
                let name = *self.choices.pick(&["var_pop", "stddev_pop", "var_samp"]);
                (format!("CAST({name}({x}) * 1000 + 0.31830988 AS BIGINT)"), Ty::Int)
            }
            18 => (format!("median({})", self.scalar(columns, Ty::Int, 1)), Ty::Rough),
            19 => {
                let x = self.scalar(columns, Ty::Text, 1);
                (format!("CAST(approx_distinct({x}) AS BIGINT)"), Ty::Int)
            }
            20 => {
                // No order of its own: what is gathered is put in order afterwards.
                let x = self.scalar(columns, Ty::Int, 1);
                (
                    format!("CAST(array_to_string(array_sort(array_agg({x})), ',') AS VARCHAR)"),
                    Ty::Text,
                )
            }
            _ => (format!("count(DISTINCT {})", self.scalar(columns, Ty::Int, 1)), Ty::Int),
        }
    }

    /// What `min` and `max` take. No floats: with NaN among them, those of DataFusion 55 depend
    /// on the order of rows.
    fn ordered(&mut self, columns: &[Column]) -> (String, Ty) {
        let types = [Ty::Int, Ty::Text, Ty::Time, Ty::Decimal, Ty::Bool];
        let ty = *self.choices.pick(&types);
        (self.scalar(columns, ty, 1), ty)
    }

    fn ordered_call(&mut self, columns: &[Column]) -> (String, Ty) {
        let (x, ty) = self.comparable(columns);
        let (y, other) = self.comparable(columns);
        let (first, second) = (self.direction(), self.direction());
        // An expression that stands twice in an order, if only after it was simplified, makes
        // DataFusion 55's first_value panic and its array_agg fail.
        let is_float = |ty| matches!(ty, Ty::Float | Ty::Rough);
        let alike = ty == other || is_float(ty) && is_float(other);
        let order = match alike && self.may_be_same(&x, &y) {
            true => format!("{x}{second}"),
            false => format!("{y}{first}, {x}{second}"),
        };
        match self.choices.below(4) {
            0 | 1 => (format!("array_agg({x} ORDER BY {order})"), Ty::List),
            2 => (format!("first_value({x} ORDER BY {order})"), ty),
            _ => (format!("last_value({x} ORDER BY {order})"), ty),
        }
    }

    /// Aggregates by windows of event time.
    pub fn windowed(&mut self, depth: usize) -> Relation {
        let name = if self.choices.chance(30) { self.any_source() } else { APPENDED[0] };
        let (items, columns) = self.source_items_with_time();
        let (over, time) = match depth > 1 && self.choices.chance(30) {
            false => (name.to_owned(), "t".to_owned()),
            true => {
                let time = columns.iter().find(|column| column.ty == Ty::Time);
                let time = time.map(|column| column.name.clone()).unwrap_or_default();
                let filter = self.condition(&columns, 1);
                let inner = format!("SELECT {items} FROM {name}");
                let outer = self.fresh("r");
                (format!("(SELECT * FROM ({inner}) AS {outer} WHERE {filter})"), time)
            }
        };
        let bare = time == "t";
        let inside: Vec<Column> = match bare {
            true => super::super::relation::COLUMNS
                .iter()
                .map(|(name, ty)| Column { name: (*name).to_owned(), ty: *ty })
                .collect(),
            false => columns,
        };
        let window = match self.choices.below(if bare { 6 } else { 4 }) {
            0 | 1 => format!("TUMBLE({over}, {time}, INTERVAL '1' MINUTE)"),
            2 => format!("HOP({over}, {time}, INTERVAL '30' SECOND, INTERVAL '1' MINUTE)"),
            3 => format!("CUMULATE({over}, {time}, INTERVAL '30' SECOND, INTERVAL '1' MINUTE)"),
            4 => format!("SESSION({over} PARTITION BY k, {time}, INTERVAL '45' SECOND)"),
            _ => format!("SESSION({over}, {time}, INTERVAL '25' SECOND)"),
        };
        self.over_windows(&inside, &window)
    }

    fn source_items_with_time(&mut self) -> (String, Vec<Column>) {
        let mut exprs: Vec<(String, Ty)> = [("k", Ty::Int), ("t", Ty::Time), ("n", Ty::Int)]
            .map(|(n, t)| (n.to_owned(), t))
            .into();
        if self.choices.chance(50) {
            exprs.push(("s".to_owned(), Ty::Text));
        }
        self.items(&exprs)
    }

    fn over_windows(&mut self, inside: &[Column], window: &str) -> Relation {
        let mut exprs = vec![("window_start".to_owned(), Ty::Time)];
        if self.choices.chance(30) {
            exprs.push(("window_end".to_owned(), Ty::Time));
        }
        if self.choices.chance(50) {
            let key = inside.iter().find(|column| column.ty == Ty::Int);
            exprs.extend(key.map(|key| (key.name.clone(), key.ty)));
        }
        if self.choices.chance(15) {
            let (items, columns) = self.items(&exprs);
            return Relation { sql: format!("SELECT {items} FROM {window}"), columns };
        }
        let by: Vec<String> = exprs.iter().map(|(expr, _)| expr.clone()).collect();
        exprs.extend(self.calls(inside));
        let (items, columns) = self.items(&exprs);
        Relation {
            sql: format!("SELECT {items} FROM {window} GROUP BY {}", by.join(", ")),
            columns,
        }
    }
}
