//! Tables against a plain model, a vector of rows, under random operations.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    StringViewArray, StructArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type, Schema, SchemaRef};
use proptest::prelude::*;

use super::keys::tests::COLLIDE;
use super::{Address, Keys, Sizes, Table, TableSpec};

const TINY: Sizes = Sizes { rows: 8, bytes: 400, spill_bytes: 0, budget: 6 };

/// A row of the tests: number, float, text, and a serial number that tells rows apart.
type Row = (Option<i64>, Option<u8>, Option<u8>, i64);

const FLOATS: [f64; 5] = [0.0, -0.0, f64::NAN, 1.5, f64::INFINITY];
const TEXTS: [&str; 3] = ["", "short", "a text that is too long for a view"];

fn schema() -> SchemaRef {
    let inner = Fields::from(vec![Field::new("n", DataType::Int64, true)]);
    Arc::new(Schema::new(vec![
        Field::new("number", DataType::Int64, true),
        Field::new("float", DataType::Float64, true),
        Field::new("text", DataType::Utf8View, true),
        Field::new("nested", DataType::Struct(inner), true),
        Field::new("serial", DataType::Int64, false),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let numbers: Int64Array = rows.iter().map(|row| row.0).collect();
    let float = |row: &Row| row.1.map(|at| FLOATS[at as usize]);
    let floats: Float64Array = rows.iter().map(float).collect();
    let text = |row: &Row| row.2.map(|at| TEXTS[at as usize]);
    let texts: StringViewArray = rows.iter().map(text).collect();
    let field = Arc::new(Field::new("n", DataType::Int64, true));
    let nested = StructArray::from(vec![(field, Arc::new(numbers.clone()) as ArrayRef)]);
    let serials: Int64Array = rows.iter().map(|row| Some(row.3)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(numbers),
        Arc::new(floats),
        Arc::new(texts),
        Arc::new(nested),
        Arc::new(serials),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// The key of a row as text; equal keys have equal texts.
fn key_of(row: &Row, key: &[usize]) -> String {
    let part = |column: &usize| match column {
        0 | 3 => format!("{:?}", row.0),
        1 => format!("{:?}", row.1.map(|at| if at == 1 { 0 } else { at })),
        2 => format!("{:?}", row.2),
        _ => format!("{:?}", row.3),
    };
    key.iter().map(part).collect::<Vec<_>>().join("|")
}

/// A table and what should be in it, oldest first.
struct Pair {
    table: Table,
    rows: Vec<Row>,
    key: Vec<usize>,
    unique: bool,
    serial: i64,
    folder: tempfile::TempDir,
}

#[derive(Debug, Clone)]
enum Step {
    Add(Vec<(Option<i64>, Option<u8>, Option<u8>)>),
    Remove(Vec<usize>),
    Renew(Vec<usize>),
    Find(Vec<usize>),
    Look(Vec<(Option<i64>, Option<u8>, Option<u8>)>),
    Below(i64),
    Maintain,
    Restore,
    Spill(usize),
}

impl Pair {
    fn new(key: Vec<usize>, unique: bool) -> Self {
        let spec = TableSpec { schema: schema(), key: key.clone() };
        let table = Table::with_sizes(spec, TINY).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { table, rows: Vec::new(), key, unique, serial: 0, folder }
    }

    fn keys(&self, rows: &[Row]) -> Keys {
        let batch = batch(rows);
        let columns: Vec<_> = self.key.iter().map(|at| batch.column(*at).clone()).collect();
        self.table.keys(&columns, rows.len()).unwrap()
    }

    /// The serials of rows at these addresses.
    fn serials(&self, rows: &[Address]) -> Vec<Option<i64>> {
        let serials = self.table.gather(rows, Some(&[4])).unwrap();
        serials[0].as_primitive::<Int64Type>().iter().collect()
    }

    /// Rows like these; every other shares its serial, so that there are duplicates.
    fn number(&mut self, rows: Vec<(Option<i64>, Option<u8>, Option<u8>)>) -> Vec<Row> {
        let rows = rows.into_iter().map(|(number, float, text)| {
            self.serial += i64::from(self.unique || float != Some(3));
            (number, float, text, self.serial)
        });
        rows.collect()
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Add(rows) => self.add(rows),
            Step::Remove(which) => self.remove(which),
            Step::Renew(which) => self.renew(which),
            Step::Find(which) => self.find(which),
            Step::Look(rows) => self.look(rows),
            Step::Below(bound) => self.below(bound),
            Step::Maintain => self.table.maintain().unwrap(),
            Step::Restore => self.restore(),
            Step::Spill(limit) => {
                self.table.spill_to(self.folder.path());
                self.table.set_memory_limit(limit);
                self.table.maintain().unwrap();
            }
        }
        self.check();
    }

    fn add(&mut self, rows: Vec<(Option<i64>, Option<u8>, Option<u8>)>) {
        let mut rows = self.number(rows);
        if !self.unique {
            self.table.insert(&self.keys(&rows), &batch(&rows)).unwrap();
            self.rows.extend(rows);
            return;
        }
        let mut seen = std::collections::HashSet::new();
        rows.retain(|row| seen.insert(key_of(row, &self.key)));
        let keys = self.keys(&rows);
        if self.serial % 2 == 0 {
            self.table.upsert(&keys, &batch(&rows)).unwrap();
        } else {
            let old = self.table.get(&keys).unwrap();
            self.table.replace(&keys, &old, &batch(&rows)).unwrap();
        }
        self.rows.retain(|row| !seen.contains(&key_of(row, &self.key)));
        self.rows.extend(rows);
    }

    fn remove(&mut self, which: Vec<usize>) {
        let all = self.table.all();
        let mut gone: Vec<usize> =
            which.into_iter().filter(|_| !all.is_empty()).map(|at| at % all.len()).collect();
        let mut addresses: Vec<_> = gone.iter().map(|at| all[*at]).collect();
        addresses.push(Address::NONE);
        let before = self.serials(&addresses);
        self.table.remove(&addresses).unwrap();
        self.table.remove(&addresses).unwrap();
        assert_eq!(self.serials(&addresses), before, "removed rows can be read until upkeep");
        gone.sort_unstable();
        gone.dedup();
        for at in gone.into_iter().rev() {
            self.rows.remove(at);
        }
    }

    /// Replaces rows, wherever they are, by others of the same key.
    fn renew(&mut self, which: Vec<usize>) {
        let all = self.table.all();
        let mut gone: Vec<usize> =
            which.into_iter().filter(|_| !all.is_empty()).map(|at| at % all.len()).collect();
        gone.sort_unstable();
        gone.dedup();
        let old: Vec<_> = gone.iter().map(|at| all[*at]).collect();
        let new: Vec<Row> = gone.iter().map(|at| self.rows[*at]).collect();
        let new: Vec<Row> = new.into_iter().map(|row| (row.0, row.1, row.2, row.3 + 1)).collect();
        self.table.replace(&self.keys(&new), &old, &batch(&new)).unwrap();
        for at in gone.into_iter().rev() {
            self.rows.remove(at);
        }
        self.rows.extend(new);
    }

    /// Finds stored rows, twice some, and one that isn't there; takes the found ones away.
    fn find(&mut self, which: Vec<usize>) {
        let picked = which.into_iter().filter(|_| !self.rows.is_empty());
        let mut rows: Vec<Row> = picked.map(|at| self.rows[at % self.rows.len()]).collect();
        rows.push((Some(-1), None, None, -1));
        let found = self.table.find(&self.keys(&rows), &batch(&rows)).unwrap();
        let serials = self.serials(&found);
        for (at, row) in rows.iter().enumerate().filter(|(at, _)| !found[*at].is_none()) {
            assert_eq!(serials[at], Some(row.3));
            let newest = self.rows.iter().rposition(|stored| stored == row);
            self.rows.remove(newest.expect("a stored row is found once"));
        }
        for (at, row) in rows.iter().enumerate() {
            assert!(!found[at].is_none() || !self.rows.contains(row), "{row:?} is stored");
        }
        self.table.remove(&found).unwrap();
    }

    fn look(&mut self, rows: Vec<(Option<i64>, Option<u8>, Option<u8>)>) {
        let probes: Vec<Row> = rows.into_iter().map(|row| (row.0, row.1, row.2, 1)).collect();
        let keys = self.keys(&probes);
        let (mut newest, mut key, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for (at, probe) in probes.iter().enumerate() {
            let wanted = key_of(probe, &self.key);
            let same = self.rows.iter().filter(|row| key_of(row, &self.key) == wanted);
            let same: Vec<_> = same.map(|row| Some(row.3)).collect();
            newest.push(same.last().copied().flatten());
            key.resize(key.len() + same.len(), at as u32);
            all.extend(same);
        }
        let got = self.table.get(&keys).unwrap();
        assert_eq!(self.serials(&got), newest);
        let there: Vec<bool> = newest.iter().map(Option::is_some).collect();
        assert_eq!(self.table.contains(&keys).unwrap(), there);
        let matches = self.table.get_all(&keys).unwrap();
        assert_eq!(matches.key, key);
        assert_eq!(self.serials(&matches.rows), all);
    }

    fn below(&mut self, bound: i64) {
        let is_below = |row: &Row| row.0.is_some_and(|number| number < bound);
        let found = self.table.below(0, bound).unwrap();
        let mut serials: Vec<_> = self.serials(&found).into_iter().flatten().collect();
        let mut wanted: Vec<_> =
            self.rows.iter().filter(|row| is_below(row)).map(|row| row.3).collect();
        serials.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(serials, wanted);
        self.table.remove(&found).unwrap();
        self.rows.retain(|row| !is_below(row));
    }

    fn restore(&mut self) {
        let image = self.table.image().unwrap();
        assert_eq!(image.len(), self.rows.len());
        let spec = TableSpec { schema: schema(), key: self.key.clone() };
        self.table = Table::restore(spec, image).unwrap();
        self.table.log.sizes = TINY;
    }

    fn check(&self) {
        assert_eq!(self.table.len(), self.rows.len());
        let columns = self.table.gather(&self.table.all(), None).unwrap();
        let wanted = batch(&self.rows);
        for (stored, wanted) in columns.iter().zip(wanted.columns()) {
            assert_eq!(format!("{stored:?}"), format!("{wanted:?}"));
        }
    }
}

fn row() -> impl Strategy<Value = (Option<i64>, Option<u8>, Option<u8>)> {
    let number = prop::option::weighted(0.9, 0..12i64);
    (number, prop::option::of(0..5u8), prop::option::of(0..3u8))
}

fn step() -> impl Strategy<Value = Step> {
    let some = || prop::collection::vec(0..1000usize, 0..12);
    prop_oneof![
        6 => prop::collection::vec(row(), 0..20).prop_map(Step::Add),
        3 => some().prop_map(Step::Remove),
        2 => some().prop_map(Step::Renew),
        2 => some().prop_map(Step::Find),
        4 => prop::collection::vec(row(), 0..12).prop_map(Step::Look),
        1 => (0..6i64).prop_map(Step::Below),
        4 => Just(Step::Maintain),
        1 => Just(Step::Restore),
        1 => (0..60_000usize).prop_map(Step::Spill),
    ]
}

/// Few, unless the environment asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_table_is_a_list_of_rows(
        key in prop::sample::select(vec![
            vec![], vec![0], vec![1], vec![2], vec![3], vec![0, 2], vec![1, 0, 3],
        ]),
        unique in any::<bool>(),
        collide in any::<bool>(),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        COLLIDE.set(collide);
        let mut pair = Pair::new(key, unique);
        for step in steps {
            pair.run(step);
        }
        COLLIDE.set(false);
    }
}

fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(range));
    RecordBatch::try_from_iter([("n", column)]).unwrap()
}

fn table_of_numbers() -> Table {
    Table::new(TableSpec { schema: numbers(0..0).schema(), key: vec![0] }).unwrap()
}

#[test]
fn a_hot_key_does_not_slow_retractions_down() {
    let rows = 50_000;
    let key: ArrayRef = Arc::new(Int64Array::from(vec![7; rows]));
    let serial: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    let batch = RecordBatch::try_from_iter([("key", key.clone()), ("serial", serial)]).unwrap();
    let mut table = Table::new(TableSpec { schema: batch.schema(), key: vec![0] }).unwrap();
    let keys = table.keys(&[key], rows).unwrap();
    table.insert(&keys, &batch).unwrap();
    for start in (0..rows).step_by(5_000) {
        let some = batch.slice(start, 5_000);
        let keys = table.keys(&[some.column(0).clone()], 5_000).unwrap();
        let found = table.find(&keys, &some).unwrap();
        assert!(found.iter().all(|at| !at.is_none()));
        table.remove(&found).unwrap();
        table.maintain().unwrap();
    }
    assert!(table.is_empty());
    assert!(table.memory() < 1 << 20, "{}", table.memory());
}

#[test]
fn equal_rows_are_taken_one_by_one() {
    let same = numbers(5..6);
    let mut table = table_of_numbers();
    let keys = table.keys(same.columns(), 1).unwrap();
    for _ in 0..3 {
        table.insert(&keys, &same).unwrap();
    }
    let column: ArrayRef = Arc::new(Int64Array::from(vec![5; 5]));
    let five = RecordBatch::try_new(same.schema(), vec![column]).unwrap();
    let keys = table.keys(five.columns(), 5).unwrap();
    let found = table.find(&keys, &five).unwrap();
    assert_eq!(found[..3], table.all().into_iter().rev().collect::<Vec<_>>());
    assert!(found[3].is_none() && found[4].is_none());
}

#[test]
fn upserts_leave_little_garbage() {
    let mut table = table_of_numbers();
    for epoch in 0..60 {
        let rows = numbers(epoch % 3 * 3000..epoch % 3 * 3000 + 9000);
        let keys = table.keys(rows.columns(), 9000).unwrap();
        table.upsert(&keys, &rows).unwrap();
        if epoch % 4 == 0 {
            table.image().unwrap();
        }
        table.maintain().unwrap();
    }
    assert_eq!(table.len(), 15_000);
    assert!(table.image().unwrap().segments.len() <= 12);
    assert!(table.memory() < 15_000 * 60, "{}", table.memory());
}

#[test]
fn state_beyond_its_limit_is_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = table_of_numbers();
    table.spill_to(folder.path());
    table.set_memory_limit(1);
    for part in 0..8 {
        let rows = numbers(part * 50_000..(part + 1) * 50_000);
        let keys = table.keys(rows.columns(), 50_000).unwrap();
        table.upsert(&keys, &rows).unwrap();
        table.maintain().unwrap();
    }
    let without_rows = table.index.memory() + 1_200_000;
    assert!(table.memory() < without_rows, "{} {}", table.memory(), table.index.memory());
    let probe = numbers(399_990..400_010);
    let keys = table.keys(probe.columns(), 20).unwrap();
    assert_eq!(table.contains(&keys).unwrap().iter().filter(|there| **there).count(), 10);
}

#[test]
fn columns_of_other_types_are_refused() {
    let mut table = table_of_numbers();
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    assert!(table.keys(std::slice::from_ref(&texts), 1).is_err());
    assert!(table.keys(&[], 1).is_err());
    let keys = Keys::new(std::slice::from_ref(&texts), 1).unwrap();
    assert!(table.get(&keys).is_err());
    let keys = table.keys(numbers(0..1).columns(), 1).unwrap();
    let rows = RecordBatch::try_from_iter([("n", texts)]).unwrap();
    assert!(table.insert(&keys, &rows).is_err());
    assert!(table.insert(&keys, &numbers(0..2)).is_err());
    let other = TableSpec { schema: rows.schema(), key: vec![] };
    table.insert(&keys, &numbers(0..1)).unwrap();
    assert!(Table::restore(other, table.image().unwrap()).is_err());
    assert!(Table::new(TableSpec { schema: rows.schema(), key: vec![1] }).is_err());
}

#[test]
fn float_keys_are_stored_as_they_came() {
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![-0.0]));
    let rows = RecordBatch::try_from_iter([("f", floats)]).unwrap();
    let mut table = Table::new(TableSpec { schema: rows.schema(), key: vec![0] }).unwrap();
    table.insert(&table.keys(rows.columns(), 1).unwrap(), &rows).unwrap();
    let zero = cast(&Int64Array::from(vec![0]), &DataType::Float64).unwrap();
    let found = table.get(&table.keys(&[zero], 1).unwrap()).unwrap();
    let stored = table.gather(&found, None).unwrap();
    assert!(stored[0].as_primitive::<Float64Type>().value(0).is_sign_negative());
}

#[test]
fn nested_fields_may_have_other_names() {
    let list = |name: &str| DataType::List(Arc::new(Field::new(name, DataType::Int64, true)));
    let stored = Arc::new(Schema::new(vec![Field::new("l", list("item"), true)]));
    let mut table = Table::new(TableSpec { schema: stored, key: vec![0] }).unwrap();
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), None]);
    let lists = cast(&lists, &list("element")).unwrap();
    let rows = RecordBatch::try_from_iter([("other", lists)]).unwrap();
    let keys = table.keys(rows.columns(), 2).unwrap();
    table.insert(&keys, &rows).unwrap();
    table.insert(&keys, &rows).unwrap();
    assert_eq!(table.get_all(&keys).unwrap().key, [0, 0, 1, 1]);
    let found = table.find(&keys, &rows).unwrap();
    assert_eq!(found, table.all()[2..]);
}
