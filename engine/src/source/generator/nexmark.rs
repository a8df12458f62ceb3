//! Nexmark: an auction site as a stream of persons, auctions and bids.
//!
//! The shapes of the published generator (Apache Beam's, which Flink's `nexmark` took over):
//! of every 50 events the first is a person, the next three are auctions, the other 46 are
//! bids. Ids grow with the events; half of the bids go to a hot auction, three quarters of
//! the bids and auctions come from a hot person. Event `n` happens `n / rate` after the start,
//! rounded down to the millisecond.
//!
//! A source makes one of the three kinds. What it is about, sources with the same options agree
//! on: row `i` of the bids is about the auctions and persons that come before it in the sequence.

mod text;

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};

use crate::error::Result;
use crate::source::generator::nexmark::text::{Channels, Text, Texts, digits};
use crate::source::generator::random::Stream;
use crate::source::generator::values::{Share, Timeline, Values};

/// Events of a cycle, and which of them are what.
const CYCLE: i64 = 50;
const PERSONS: Share = Share { cycle: CYCLE, first: 0, rows: 1 };
const AUCTIONS: Share = Share { cycle: CYCLE, first: 1, rows: 3 };
const BIDS: Share = Share { cycle: CYCLE, first: 4, rows: 46 };

/// Events a second where nothing is said, as Beam has it.
pub(super) const DEFAULT_RATE: f64 = 10_000.0;

const FIRST_ID: i64 = 1000;
const FIRST_CATEGORY: i64 = 10;
const CATEGORIES: u64 = 5;
/// Every so many-th auction or person is hot for a while.
const HOT_EVERY: i64 = 100;
/// Auctions that are open at a time, and persons that do something.
const OPEN_AUCTIONS: i64 = 100;
const ACTIVE_PERSONS: i64 = 1000;
/// Ids ahead of the newest that are referred to already.
const LEAD: i64 = 10;

const FIRST_NAMES: [&str; 11] = [
    "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
];
const LAST_NAMES: [&str; 9] =
    ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];

/// A column of one of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Auction,
    Bidder,
    Price,
    Channel,
    Url,
    BidExtra,
    AuctionId,
    ItemName,
    Description,
    InitialBid,
    Reserve,
    Expires,
    Seller,
    Category,
    AuctionExtra,
    PersonId,
    Name,
    EmailAddress,
    CreditCard,
    City,
    State,
    PersonExtra,
    DateTime,
}

const fn column(name: &'static str, column: Column) -> (&'static str, Values) {
    (name, Values::Nexmark(column))
}

pub(super) const BID: &[(&str, Values)] = &[
    column("auction", Column::Auction),
    column("bidder", Column::Bidder),
    column("price", Column::Price),
    column("channel", Column::Channel),
    column("url", Column::Url),
    column("date_time", Column::DateTime),
    column("extra", Column::BidExtra),
];
pub(super) const AUCTION: &[(&str, Values)] = &[
    column("id", Column::AuctionId),
    column("item_name", Column::ItemName),
    column("description", Column::Description),
    column("initial_bid", Column::InitialBid),
    column("reserve", Column::Reserve),
    column("date_time", Column::DateTime),
    column("expires", Column::Expires),
    column("seller", Column::Seller),
    column("category", Column::Category),
    column("extra", Column::AuctionExtra),
];
pub(super) const PERSON: &[(&str, Values)] = &[
    column("id", Column::PersonId),
    column("name", Column::Name),
    column("email_address", Column::EmailAddress),
    column("credit_card", Column::CreditCard),
    column("city", Column::City),
    column("state", Column::State),
    column("date_time", Column::DateTime),
    column("extra", Column::PersonExtra),
];

/// Which events of the sequence a template's rows are.
pub(super) fn share(template: &str) -> Option<Share> {
    match template {
        "nexmark.bid" => Some(BIDS),
        "nexmark.auction" => Some(AUCTIONS),
        "nexmark.person" => Some(PERSONS),
        _ => None,
    }
}

impl Column {
    pub fn data_type(self) -> DataType {
        match self {
            Column::Auction
            | Column::Bidder
            | Column::Price
            | Column::AuctionId
            | Column::InitialBid
            | Column::Reserve
            | Column::Seller
            | Column::Category
            | Column::PersonId => DataType::Int64,
            Column::DateTime | Column::Expires => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => DataType::Utf8,
        }
    }

    /// Columns draw independently of each other.
    fn stream(self, seed: i64) -> Stream {
        Stream::new(seed, &format!("nexmark/{self:?}"))
    }
}

/// Makes the columns of one kind.
#[derive(Debug)]
pub(super) struct Nexmark {
    seed: i64,
    share: Share,
    text: Text,
    channels: Channels,
}

impl Nexmark {
    pub fn new(seed: i64, share: Share) -> Self {
        let text = Text::new(Stream::new(seed, "nexmark/text"));
        let channels = Channels::new(Stream::new(seed, "nexmark/channels"), &text);
        Self { seed, share, text, channels }
    }

    /// `rows` of a column.
    pub fn array(&self, column: Column, rows: Range<i64>, timeline: Timeline) -> Result<ArrayRef> {
        let draws = column.stream(self.seed);
        // The event of each row and a number drawn for it.
        let events = rows.map(|row| {
            let event = self.share.event(row);
            (event, draws.draw(event))
        });
        let integers = |value: fn(i64, u64) -> i64| {
            let values = events.clone().map(|(event, drawn)| value(event, drawn));
            Ok(Arc::new(Int64Array::from_iter_values(values)) as ArrayRef)
        };
        match column {
            Column::Auction => integers(bid_auction),
            Column::Bidder => integers(|event, drawn| hot_person(event, drawn, 1)),
            Column::Price | Column::InitialBid => integers(|_, drawn| price(drawn)),
            Column::AuctionId => integers(|event, _| FIRST_ID + last_auction(event)),
            Column::Seller => integers(|event, drawn| hot_person(event, drawn, 0)),
            Column::Category => {
                integers(|_, drawn| FIRST_CATEGORY + part(drawn, CATEGORIES).cast_signed())
            }
            Column::PersonId => integers(|event, _| FIRST_ID + last_person(event)),
            Column::Reserve => {
                let initial = Column::InitialBid.stream(self.seed);
                let values = events.map(|(event, drawn)| price(initial.draw(event)) + price(drawn));
                Ok(Arc::new(Int64Array::from_iter_values(values)))
            }
            Column::DateTime => times(events.map(|(event, _)| millis(timeline, event))),
            Column::Expires => times(events.map(|(event, drawn)| {
                let now = millis(timeline, event);
                let horizon = millis(timeline, event + OPEN_AUCTIONS * CYCLE / 3) - now;
                now + 1 + part(drawn, (horizon * 2).max(1).cast_unsigned()).cast_signed()
            })),
            _ => self.texts(column, events),
        }
    }

    fn texts(
        &self,
        column: Column,
        events: impl Iterator<Item = (i64, u64)> + Clone,
    ) -> Result<ArrayRef> {
        let mut texts = Texts::new(events.clone().count());
        let other = |column: Column| column.stream(self.seed);
        let channels = other(Column::Channel);
        let (items, descriptions) = (other(Column::ItemName), other(Column::Description));
        let person = [Column::Name, Column::EmailAddress, Column::City].map(other);
        for (event, drawn) in events {
            match column {
                Column::Channel => texts.push(&[self.channels.name(drawn)])?,
                // The address belongs to the channel.
                Column::Url => texts.push(&[self.channels.url(channels.draw(event))])?,
                Column::BidExtra => texts.push(&[self.text.extra(drawn, 100, 32)])?,
                Column::ItemName => texts.push(&[self.text.words(drawn, 20)])?,
                Column::Description => texts.push(&[self.text.words(drawn, 100)])?,
                Column::AuctionExtra => {
                    let item = self.text.words(items.draw(event), 20).len();
                    let description = self.text.words(descriptions.draw(event), 100).len();
                    texts.push(&[self.text.extra(drawn, 500, 48 + item + description)])?;
                }
                Column::Name => {
                    let [first, last] = name(drawn);
                    texts.push(&[first.as_bytes(), b" ", last.as_bytes()])?;
                }
                Column::EmailAddress => {
                    let [user, host] = self.email(drawn);
                    texts.push(&[user, b"@", host, b".com"])?;
                }
                Column::CreditCard => texts.push(&[&digits(drawn)])?,
                Column::City => texts.push(&[city(drawn).as_bytes()])?,
                Column::State => texts.push(&[pick(&STATES, drawn).as_bytes()])?,
                _ => {
                    let [names, emails, cities] = person;
                    let [first, last] = name(names.draw(event));
                    let [user, host] = self.email(emails.draw(event));
                    let used = first.len() + 1 + last.len() + user.len() + host.len() + 5;
                    let used = 8 + used + 19 + city(cities.draw(event)).len() + 2;
                    texts.push(&[self.text.extra(drawn, 200, used)])?;
                }
            }
        }
        texts.finish()
    }

    fn email(&self, drawn: u64) -> [&[u8]; 2] {
        [self.text.letters(drawn, 7), self.text.letters(drawn.rotate_left(32), 5)]
    }
}

fn times(micros: impl Iterator<Item = i64>) -> Result<ArrayRef> {
    let micros = micros.map(|millis| millis.saturating_mul(1000));
    Ok(Arc::new(TimestampMicrosecondArray::from_iter_values(micros)))
}

/// When an event happens, in milliseconds since 1970.
fn millis(timeline: Timeline, event: i64) -> i64 {
    timeline.event_us(event).div_euclid(1000)
}

/// A number below `n` made of the high bits of a drawn one.
#[inline]
fn part(drawn: u64, n: u64) -> u64 {
    ((u128::from(drawn) * u128::from(n)) >> 64) as u64
}

fn pick<'a>(choices: &[&'a str], drawn: u64) -> &'a str {
    choices[part(drawn, choices.len() as u64) as usize]
}

fn name(drawn: u64) -> [&'static str; 2] {
    [pick(&FIRST_NAMES, drawn), pick(&LAST_NAMES, drawn.rotate_left(32))]
}

fn city(drawn: u64) -> &'static str {
    pick(&CITIES, drawn)
}

/// The newest person when an event happens, counted from 0.
fn last_person(event: i64) -> i64 {
    event / CYCLE
}

/// The newest auction when an event happens, counted from 0; -1 before the first.
fn last_auction(event: i64) -> i64 {
    let (cycle, within) = (event / CYCLE, event % CYCLE);
    cycle * AUCTIONS.rows + (within - AUCTIONS.first).clamp(-1, AUCTIONS.rows - 1)
}

/// Half of the bids go to the hot auction, the others to one that is open.
#[inline]
fn bid_auction(event: i64, drawn: u64) -> i64 {
    let last = last_auction(event);
    if drawn & 1 == 1 {
        return FIRST_ID + last / HOT_EVERY * HOT_EVERY;
    }
    let oldest = (last - OPEN_AUCTIONS).max(0);
    let choices = last - oldest + 1 + LEAD;
    FIRST_ID + oldest + part(drawn, choices.cast_unsigned()).cast_signed()
}

/// Three of four times the hot person, else one that is active. The hot bidder is the person
/// after the hot seller.
#[inline]
fn hot_person(event: i64, drawn: u64, after: i64) -> i64 {
    let last = last_person(event);
    if drawn & 3 != 0 {
        return FIRST_ID + last / HOT_EVERY * HOT_EVERY + after;
    }
    let active = (last + 1).min(ACTIVE_PERSONS);
    let choices = (active + LEAD).cast_unsigned();
    FIRST_ID + last + 1 - active + part(drawn, choices).cast_signed()
}

/// Steps of [`PRICES`].
const STEPS: usize = 16_384;
/// 10^(6 / STEPS)
const STEP: f64 = 1.000_843_587_465_501_3;

/// `100 * 10^x` for x from 0 to 6. Multiplied up, so that every machine has the same.
static PRICES: LazyLock<Vec<i64>> = LazyLock::new(|| {
    let steps = std::iter::successors(Some(100.0_f64), |price| Some(price * STEP));
    steps.take(STEPS + 1).map(|price| price.round() as i64).collect()
});

/// 100 to 100 million: the logarithm is spread evenly.
#[inline]
fn price(drawn: u64) -> i64 {
    let step = (drawn >> 50) as usize;
    let within = ((drawn >> 34) & 0xFFFF).cast_signed();
    let [low, high] = [PRICES[step], PRICES[step + 1]];
    low + (((high - low) * within) >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    fn timeline() -> Timeline {
        Timeline::new(0, DEFAULT_RATE)
    }

    fn ids(column: Column, share: Share, rows: i64) -> Vec<i64> {
        let made = Nexmark::new(0, share).array(column, 0..rows, timeline()).unwrap();
        made.as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn ids_come_in_order_and_bids_refer_to_them() {
        assert_eq!(ids(Column::AuctionId, AUCTIONS, 5), [1000, 1001, 1002, 1003, 1004]);
        assert_eq!(ids(Column::PersonId, PERSONS, 3), [1000, 1001, 1002]);
        let bids = ids(Column::Auction, BIDS, 46_000);
        for (row, auction) in bids.iter().enumerate() {
            let last = FIRST_ID + last_auction(BIDS.event(row as i64));
            assert!((FIRST_ID..=last + LEAD).contains(auction), "{row}: {auction} of {last}");
        }
        let hot = bids.iter().filter(|auction| *auction % HOT_EVERY == 0).count();
        assert!((22_000..25_000).contains(&hot), "{hot}");
    }

    #[test]
    fn prices_are_spread_over_six_powers_of_ten() {
        let prices = ids(Column::Price, BIDS, 100_000);
        assert!(prices.iter().all(|price| (100..=100_000_000).contains(price)));
        let below = prices.iter().filter(|price| **price < 100_000).count();
        assert!((49_000..51_000).contains(&below), "{below}");
    }

    #[test]
    fn auctions_close_after_they_open() {
        let nexmark = Nexmark::new(3, AUCTIONS);
        let column = |column| nexmark.array(column, 0..1000, timeline()).unwrap();
        let (open, close) = (column(Column::DateTime), column(Column::Expires));
        assert!(arrow::compute::kernels::cmp::lt(&open, &close).unwrap().true_count() == 1000);
        let bytes = |c| column(c).as_string::<i32>().iter().flatten().map(str::len).sum::<usize>();
        let all =
            bytes(Column::ItemName) + bytes(Column::Description) + bytes(Column::AuctionExtra);
        assert!((420_000..490_000).contains(&all), "{all}");
    }

    #[test]
    fn a_channel_goes_with_its_address() {
        let nexmark = Nexmark::new(0, BIDS);
        let column = |column| nexmark.array(column, 0..2000, timeline()).unwrap();
        let (channels, urls) = (column(Column::Channel), column(Column::Url));
        let mut seen = std::collections::BTreeMap::new();
        for (channel, url) in channels.as_string::<i32>().iter().zip(urls.as_string::<i32>()) {
            let (channel, url) = (channel.unwrap(), url.unwrap());
            assert!(url.starts_with("https://www.nexmark.com/"), "{url}");
            assert_eq!(*seen.entry(channel).or_insert(url), url);
        }
        assert!(seen.contains_key("Google") && seen.len() > 800, "{}", seen.len());
    }
}
