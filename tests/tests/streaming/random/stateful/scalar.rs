//! Random expressions over the columns of a relation. None can fail on a value.

use super::relation::{Column, Maker, Ty};

/// Types of which an expression can be made from any columns.
const MADE: [Ty; 7] = [Ty::Int, Ty::Text, Ty::Time, Ty::Bool, Ty::Float, Ty::Decimal, Ty::Rough];

impl Maker<'_> {
    /// A column, or an expression over columns.
    pub fn any(&mut self, columns: &[Column]) -> (String, Ty) {
        if columns.is_empty() || self.choices.chance(35) {
            let ty = *self.choices.pick(&MADE);
            return (self.scalar(columns, ty, 2), ty);
        }
        let column = self.choices.pick(columns);
        (column.name.clone(), column.ty)
    }

    /// As [`Self::any`], of a type that can be compared.
    pub fn comparable(&mut self, columns: &[Column]) -> (String, Ty) {
        let columns: Vec<Column> =
            columns.iter().filter(|column| column.ty.comparable()).cloned().collect();
        self.any(&columns)
    }

    /// An expression of type `ty`: a column if there is one, most of the time.
    pub fn scalar(&mut self, columns: &[Column], ty: Ty, depth: usize) -> String {
        let own: Vec<&Column> = columns.iter().filter(|column| column.ty == ty).collect();
        if !own.is_empty() && (depth == 0 || !self.choices.chance(45)) {
            return self.choices.pick(&own).name.clone();
        }
        if depth == 0 {
            return self.literal(ty);
        }
        match ty {
            Ty::Int => self.integer(columns, depth - 1),
            Ty::Text => self.text(columns, depth - 1),
            Ty::Float => self.float(columns, depth - 1),
            Ty::Rough => {
                let x = self.scalar(columns, Ty::Float, depth - 1);
                format!("({x} / 3.0)")
            }
            Ty::Decimal => self.decimal(columns, depth - 1),
            Ty::Time => self.time(columns, depth - 1),
            Ty::Bool => self.condition(columns, depth - 1),
            Ty::Struct | Ty::List => self.literal(ty),
        }
    }

    pub fn literal(&mut self, ty: Ty) -> String {
        let small = self.choices.below(7);
        let fixed = match ty {
            Ty::Int => return format!("({})", small as i64 - 2),
            Ty::Text => return (*self.choices.pick(&["'a'", "''", "'b c'", "'x'"])).to_owned(),
            Ty::Float => ["0.25e0", "CAST('NaN' AS DOUBLE)", "CAST(NULL AS DOUBLE)"][small % 3],
            Ty::Rough => "(1e0 / 3.0)",
            Ty::Decimal => "CAST('1.50' AS DECIMAL(12,2))",
            Ty::Time => "TIMESTAMP '2024-01-01 00:02:00'",
            Ty::Bool => ["true", "false", "CAST(NULL AS BOOLEAN)"][small % 3],
            Ty::Struct => "named_struct('x', CAST(1 AS INT), 'y', 'a')",
            Ty::List => "make_array(1)",
        };
        fixed.to_owned()
    }

    fn two(&mut self, columns: &[Column], ty: Ty, depth: usize) -> (String, String) {
        (self.scalar(columns, ty, depth), self.scalar(columns, ty, depth))
    }

    fn integer(&mut self, columns: &[Column], depth: usize) -> String {
        match self.choices.below(10) {
            0 | 1 => {
                let (x, y) = self.two(columns, Ty::Int, depth);
                format!("({x} + {y})")
            }
            2 => {
                let (x, y) = self.two(columns, Ty::Int, depth);
                format!("({x} - {y})")
            }
            3 => format!("({} % 3)", self.scalar(columns, Ty::Int, depth)),
            4 => format!("(-2 * {})", self.scalar(columns, Ty::Int, depth)),
            5 => {
                let (x, y) = self.two(columns, Ty::Int, depth);
                format!("coalesce({x}, {y})")
            }
            6 => {
                let (x, y) = self.two(columns, Ty::Int, depth);
                let condition = self.condition(columns, depth);
                format!("CASE WHEN {condition} THEN {x} ELSE {y} END")
            }
            7 => format!(
                "CAST(character_length({}) AS BIGINT)",
                self.scalar(columns, Ty::Text, depth)
            ),
            8 => match columns.iter().find(|column| column.ty == Ty::Struct) {
                Some(column) => format!("{}['x']", column.name),
                None => self.literal(Ty::Int),
            },
            _ => format!(
                "CAST(extract(minute FROM {}) AS BIGINT)",
                self.scalar(columns, Ty::Time, depth)
            ),
        }
    }

    fn text(&mut self, columns: &[Column], depth: usize) -> String {
        match self.choices.below(6) {
            0 => format!("upper({})", self.scalar(columns, Ty::Text, depth)),
            1 => {
                let (x, y) = self.two(columns, Ty::Text, depth);
                format!("({x} || {y})")
            }
            2 => {
                let (x, y) = self.two(columns, Ty::Text, depth);
                format!("coalesce({x}, {y})")
            }
            3 => format!("CAST({} AS VARCHAR)", self.scalar(columns, Ty::Int, depth)),
            4 => match columns.iter().find(|column| column.ty == Ty::Struct) {
                Some(column) => format!("{}['y']", column.name),
                None => self.literal(Ty::Text),
            },
            _ => format!("substr({}, 1, 2)", self.scalar(columns, Ty::Text, depth)),
        }
    }

    fn float(&mut self, columns: &[Column], depth: usize) -> String {
        match self.choices.below(4) {
            0 => {
                let (x, y) = self.two(columns, Ty::Float, depth);
                format!("({x} + {y})")
            }
            1 => format!("CAST({} AS DOUBLE)", self.scalar(columns, Ty::Int, depth)),
            2 => {
                let condition = self.condition(columns, depth);
                let x = self.scalar(columns, Ty::Float, depth);
                format!("CASE WHEN {condition} THEN CAST('NaN' AS DOUBLE) ELSE {x} END")
            }
            _ => {
                let (x, y) = self.two(columns, Ty::Float, depth);
                format!("coalesce({x}, {y})")
            }
        }
    }

    fn decimal(&mut self, columns: &[Column], depth: usize) -> String {
        match self.choices.below(3) {
            0 => {
                let (x, y) = self.two(columns, Ty::Decimal, depth);
                format!("({x} + {y})")
            }
            1 => {
                let (x, y) = self.two(columns, Ty::Decimal, depth);
                format!("coalesce({x}, {y})")
            }
            _ => format!("(-{})", self.scalar(columns, Ty::Decimal, depth)),
        }
    }

    fn time(&mut self, columns: &[Column], depth: usize) -> String {
        let x = self.scalar(columns, Ty::Time, depth);
        match self.choices.below(4) {
            0 => format!("({x} + INTERVAL '30 seconds')"),
            1 => format!("date_trunc('minute', {x})"),
            2 => format!("date_bin(INTERVAL '2 minutes', {x})"),
            _ => format!("coalesce({x}, {})", self.literal(Ty::Time)),
        }
    }

    /// A boolean expression.
    pub fn condition(&mut self, columns: &[Column], depth: usize) -> String {
        match self.choices.below(if depth == 0 { 8 } else { 11 }) {
            0..=3 => self.comparison(columns, depth),
            4 => {
                let (x, _) = self.comparable(columns);
                let not = *self.choices.pick(&["", "NOT "]);
                format!("({x} IS {not}NULL)")
            }
            5 => match columns.iter().find(|column| column.ty == Ty::Bool) {
                Some(column) => column.name.clone(),
                None => format!("({} > 0)", self.scalar(columns, Ty::Int, depth)),
            },
            6 => format!("({} LIKE '%a%')", self.scalar(columns, Ty::Text, depth)),
            7 => format!("({} IN (0, 1, 3))", self.scalar(columns, Ty::Int, depth)),
            8 => {
                let x = self.condition(columns, depth - 1);
                format!("({x} AND {})", self.condition(columns, depth - 1))
            }
            9 => {
                let x = self.condition(columns, depth - 1);
                format!("({x} OR {})", self.condition(columns, depth - 1))
            }
            _ => format!("(NOT {})", self.condition(columns, depth - 1)),
        }
    }

    fn comparison(&mut self, columns: &[Column], depth: usize) -> String {
        let op = *self.choices.pick(&[">", "<>", "<=", "=", "IS DISTINCT FROM"]);
        let types = [Ty::Int, Ty::Text, Ty::Int, Ty::Float, Ty::Decimal, Ty::Time];
        let ty = *self.choices.pick(&types);
        let (x, y) = self.two(columns, ty, depth);
        if op == "=" {
            self.equal(&x, &y);
        }
        format!("({x} {op} {y})")
    }
}
