//! What the values of a generated column are like, and how a range of them is made.
//!
//! The columns of a row agree with each other and with the other templates: an
//! order's amount is its quantity times the product's price, its country is where the user lives.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Int64Array, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, TimeUnit};

use crate::error::Result;
use crate::source::generator::random::{PRODUCTS, Stream, USERS};

/// Which events of a sequence are a source's rows: of every `cycle` events the `rows` from
/// `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub cycle: i64,
    pub first: i64,
    pub rows: i64,
}

impl Share {
    /// Every event is a row.
    pub const ALL: Share = Share { cycle: 1, first: 0, rows: 1 };

    /// The event that a row is.
    #[inline]
    pub fn event(self, row: i64) -> i64 {
        (row / self.rows).saturating_mul(self.cycle).saturating_add(self.first + row % self.rows)
    }

    /// How many of the first `events` are rows.
    pub fn rows(self, events: i64) -> i64 {
        let within = (events % self.cycle - self.first).clamp(0, self.rows);
        events / self.cycle * self.rows + within
    }
}

/// Event times: event after event at an even pace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeline {
    start_us: i64,
    /// Events in 1000 seconds.
    rate: i64,
    share: Share,
}

impl Timeline {
    pub fn new(start_us: i64, events_per_second: f64) -> Self {
        let rate = ((events_per_second * 1000.0).round() as i64).max(1);
        Self { start_us, rate, share: Share::ALL }
    }

    /// The same pace for a source that has a share of the events.
    pub fn of(self, share: Share) -> Self {
        Self { share, ..self }
    }

    pub fn time_us(&self, row: i64) -> i64 {
        self.event_us(self.share.event(row))
    }

    #[inline]
    pub fn event_us(&self, event: i64) -> i64 {
        // Nine billion events fit; the wide division takes ten times as long.
        let elapsed = match event.checked_mul(1_000_000_000) {
            Some(scaled) => scaled / self.rate,
            None => {
                let elapsed = i128::from(event) * 1_000_000_000 / i128::from(self.rate);
                i64::try_from(elapsed).unwrap_or(i64::MAX)
            }
        };
        self.start_us.saturating_add(elapsed)
    }

    /// How many rows have come about `elapsed_us` after the start.
    pub fn rows_within(&self, elapsed_us: i64) -> i64 {
        let events = i128::from(elapsed_us) * i128::from(self.rate) / 1_000_000_000;
        self.share.rows(i64::try_from(events).unwrap_or(i64::MAX))
    }
}

/// Whose attributes a row bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Row `i` is about number `i + 1`: a table of users, or of products.
    Itself,
    /// Row `i` is about someone drawn: an event.
    Drawn,
}

/// Words with their weights.
pub(super) type Words = &'static [(&'static str, u64)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// 1, 2, 3…
    Sequence,
    UserId,
    UserName,
    Email,
    Country,
    /// Of the user's country.
    Currency,
    ProductId,
    ProductName,
    Category,
    Url,
    Price,
    /// 1 to 5, mostly 1.
    Quantity,
    /// Quantity times price.
    Amount,
    /// 1 to 1000.
    Number,
    /// 0.00 to 999.99
    Measure,
    Coin,
    Chosen(Words),
    /// NULL for the empty word.
    ChosenOrNull(Words),
    EventTime,
    /// Eight hexadecimal digits.
    Hex,
    /// Of a Nexmark event: [`super::nexmark::Nexmark`] makes it.
    Nexmark(super::nexmark::Column),
}

pub(super) const COUNTRIES: Words =
    &[("DE", 30), ("FR", 18), ("GB", 16), ("US", 14), ("NL", 8), ("AT", 6), ("CH", 5), ("PL", 3)];
pub(super) const STATUSES: Words =
    &[("paid", 70), ("placed", 15), ("shipped", 8), ("cancelled", 5), ("returned", 2)];
pub(super) const PAYMENT_METHODS: Words =
    &[("card", 45), ("paypal", 30), ("invoice", 15), ("transfer", 10)];
pub(super) const DEVICES: Words = &[("mobile", 60), ("desktop", 33), ("tablet", 7)];
pub(super) const REFERRERS: Words = &[
    ("", 35),
    ("https://www.google.com/", 35),
    ("https://www.instagram.com/", 15),
    ("https://newsletter.example.com/", 10),
    ("https://www.bing.com/", 5),
];
const CATEGORIES: Words = &[
    ("books", 20),
    ("clothing", 20),
    ("electronics", 18),
    ("garden", 12),
    ("kitchen", 12),
    ("sports", 10),
    ("toys", 8),
];
const FIRST_NAMES: [&str; 12] = [
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Lea", "Max",
];
const LAST_NAMES: [&str; 12] = [
    "Bauer", "Dubois", "Fischer", "Jansen", "Keller", "Martin", "Novak", "Rossi", "Schmidt",
    "Smith", "Weber", "Young",
];
const ADJECTIVES: [&str; 8] =
    ["blue", "compact", "classic", "light", "quiet", "robust", "smart", "warm"];

/// Makes the values of one row after another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker {
    seed: i64,
    user: Subject,
    product: Subject,
    users: Stream,
    products: Stream,
    quantities: Stream,
}

impl Maker {
    /// `kind` keeps the events of one template apart from those of another.
    pub fn new(seed: i64, kind: &str, user: Subject, product: Subject) -> Self {
        let stream = |what: &str| Stream::new(seed, &format!("{kind}/{what}"));
        let (users, products) = (stream("user"), stream("product"));
        Self { seed, user, product, users, products, quantities: stream("quantity") }
    }

    fn user(&self, row: i64) -> i64 {
        match self.user {
            Subject::Itself => row + 1,
            Subject::Drawn => USERS.choose(self.users, row),
        }
    }

    fn product(&self, row: i64) -> i64 {
        match self.product {
            Subject::Itself => row + 1,
            Subject::Drawn => PRODUCTS.choose(self.products, row),
        }
    }

    fn quantity(&self, row: i64) -> i64 {
        [1, 1, 1, 1, 1, 1, 2, 2, 3, 5][self.quantities.below(row, 10) as usize]
    }

    /// Attributes of users and products are the same in every template.
    fn shared(&self, what: &str) -> Stream {
        Stream::new(self.seed, what)
    }

    fn countries(&self) -> impl Fn(i64) -> &'static str {
        let (maker, stream) = (*self, self.shared("country"));
        move |row| word(COUNTRIES, stream, maker.user(row))
    }

    /// The rows of a column called `name`.
    pub fn array(
        &self,
        values: Values,
        name: &str,
        rows: Range<i64>,
        timeline: Timeline,
    ) -> Result<ArrayRef> {
        let own = Stream::new(self.seed, name);
        let cents = self.shared("price");
        let price = |product| cents.below(product, 200) as i64 * 100 + 99;
        Ok(match values {
            Values::Sequence => integers(rows, |row| row + 1),
            Values::UserId => integers(rows, |row| self.user(row)),
            Values::ProductId => integers(rows, |row| self.product(row)),
            Values::Quantity => integers(rows, |row| self.quantity(row)),
            Values::Number => integers(rows, |row| own.below(row, 1000) as i64 + 1),
            Values::Price => money(rows, |row| price(self.product(row)))?,
            Values::Amount => money(rows, |row| price(self.product(row)) * self.quantity(row))?,
            Values::Measure => money(rows, |row| own.below(row, 100_000) as i64)?,
            Values::Coin => {
                let coins: Vec<bool> = rows.map(|row| own.draw(row) & 1 == 1).collect();
                Arc::new(BooleanArray::from(coins))
            }
            Values::EventTime => Arc::new(TimestampMicrosecondArray::from_iter_values(
                rows.map(|row| timeline.time_us(row)),
            )),
            _ => self.strings(values, own, rows),
        })
    }

    fn strings(&self, values: Values, own: Stream, rows: Range<i64>) -> ArrayRef {
        let country = self.countries();
        let names = [self.shared("first name"), self.shared("last name")];
        let (kinds, adjectives) = (self.shared("category"), self.shared("adjective"));
        match values {
            Values::Chosen(words) => words_of(rows, |row| Some(word(words, own, row))),
            Values::ChosenOrNull(words) => {
                words_of(rows, |row| Some(word(words, own, row)).filter(|word| !word.is_empty()))
            }
            Values::Country => words_of(rows, |row| Some(country(row))),
            Values::Currency => words_of(rows, |row| Some(currency(country(row)))),
            Values::Category => {
                words_of(rows, |row| Some(word(CATEGORIES, kinds, self.product(row))))
            }
            Values::UserName => texts(rows, |out, row| {
                let [first, last] = full_name(names, self.user(row));
                write!(out, "{first} {last}")
            }),
            Values::Email => texts(rows, |out, row| {
                let user = self.user(row);
                let [first, last] = full_name(names, user).map(str::to_ascii_lowercase);
                write!(out, "{first}.{last}{user}@example.com")
            }),
            Values::ProductName => texts(rows, |out, row| {
                let product = self.product(row);
                let adjective = ADJECTIVES[adjectives.below(product, 8) as usize];
                write!(out, "{adjective} {} {product}", word(CATEGORIES, kinds, product))
            }),
            Values::Url => texts(rows, |out, row| write!(out, "/products/{}", self.product(row))),
            _ => texts(rows, |out, row| write!(out, "{:08x}", own.draw(row) >> 32)),
        }
    }
}

impl Values {
    /// The type that [`Maker::array`] makes.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Sequence | Self::UserId | Self::ProductId | Self::Quantity | Self::Number => {
                DataType::Int64
            }
            Self::Price | Self::Amount | Self::Measure => DataType::Decimal128(12, 2),
            Self::Coin => DataType::Boolean,
            Self::EventTime => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Nexmark(column) => column.data_type(),
            _ => DataType::Utf8,
        }
    }
}

fn integers(rows: Range<i64>, value: impl Fn(i64) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.map(value)))
}

/// Cents as DECIMAL(12,2).
fn money(rows: Range<i64>, cents: impl Fn(i64) -> i64) -> Result<ArrayRef> {
    let cents = Decimal128Array::from_iter_values(rows.map(|row| i128::from(cents(row))));
    Ok(Arc::new(cents.with_precision_and_scale(12, 2)?))
}

fn words_of(rows: Range<i64>, word: impl Fn(i64) -> Option<&'static str>) -> ArrayRef {
    Arc::new(rows.map(word).collect::<StringArray>())
}

fn texts(
    rows: Range<i64>,
    write: impl Fn(&mut StringBuilder, i64) -> std::fmt::Result,
) -> ArrayRef {
    let mut builder = StringBuilder::new();
    for row in rows {
        // Writing to memory can't fail.
        let _ = write(&mut builder, row);
        builder.append_value("");
    }
    Arc::new(builder.finish())
}

#[inline]
fn word(words: Words, stream: Stream, index: i64) -> &'static str {
    let total = words.iter().map(|(_, weight)| weight).sum();
    let mut at = stream.below(index, total);
    for (word, weight) in words {
        if at < *weight {
            return word;
        }
        at -= weight;
    }
    ""
}

fn full_name([first, last]: [Stream; 2], user: i64) -> [&'static str; 2] {
    [FIRST_NAMES[first.below(user, 12) as usize], LAST_NAMES[last.below(user, 12) as usize]]
}

fn currency(country: &str) -> &'static str {
    match country {
        "GB" => "GBP",
        "US" => "USD",
        "CH" => "CHF",
        "PL" => "PLN",
        _ => "EUR",
    }
}
