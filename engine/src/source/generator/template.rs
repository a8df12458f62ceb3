//! Which columns a generator makes: those of a template, or what fits declared ones.
//!
//! Without a template the name and the type of a column decide:
//!
//! | type | name | values |
//! |---|---|---|
//! | integers | first column, or `id` | 1, 2, 3… |
//! | | `user_id`, `customer_id`; `product_id`; `quantity` | as in the templates |
//! | | else | 1 to 1000 |
//! | DECIMAL, floats | `price`; `amount`, `total`, `revenue` | a product's price; times the quantity |
//! | | else | 0.00 to 999.99 |
//! | VARCHAR | `name`, `email`, `country`, `currency`, `status`, `payment_method`, `device`, `url`, `referrer`, `category` | as in the templates |
//! | | else | eight hexadecimal digits |
//! | BOOLEAN | | half and half |
//! | TIMESTAMP, DATE | | the event time |

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::decode::{as_instants, bad_option, is_payload, type_name, with_metadata};
use crate::error::{Error, Result};
use crate::source::generator::nexmark::{self, Nexmark};
use crate::source::generator::random::{PRODUCT_COUNT, USER_COUNT};
use crate::source::generator::values::{
    DEVICES, Maker, PAYMENT_METHODS, REFERRERS, STATUSES, Share, Subject, Timeline, Values,
};

/// What `template` can be.
pub const TEMPLATES: [&str; 7] = [
    "orders",
    "page_views",
    "users",
    "products",
    "nexmark.bid",
    "nexmark.auction",
    "nexmark.person",
];

const ORDERS: &[(&str, Values)] = &[
    ("order_id", Values::Sequence),
    ("user_id", Values::UserId),
    ("product_id", Values::ProductId),
    ("quantity", Values::Quantity),
    ("amount", Values::Amount),
    ("currency", Values::Currency),
    ("status", Values::Chosen(STATUSES)),
    ("country", Values::Country),
    ("payment_method", Values::Chosen(PAYMENT_METHODS)),
    ("ordered_at", Values::EventTime),
];
const PAGE_VIEWS: &[(&str, Values)] = &[
    ("view_id", Values::Sequence),
    ("user_id", Values::UserId),
    ("product_id", Values::ProductId),
    ("url", Values::Url),
    ("referrer", Values::ChosenOrNull(REFERRERS)),
    ("device", Values::Chosen(DEVICES)),
    ("viewed_at", Values::EventTime),
];
const USERS: &[(&str, Values)] = &[
    ("user_id", Values::UserId),
    ("name", Values::UserName),
    ("email", Values::Email),
    ("country", Values::Country),
    ("registered_at", Values::EventTime),
];
const PRODUCTS: &[(&str, Values)] = &[
    ("product_id", Values::ProductId),
    ("name", Values::ProductName),
    ("category", Values::Category),
    ("price", Values::Price),
];

/// Rows a second of an unbounded generator that does not say.
const DEFAULT_RATE: f64 = 1000.0;

/// Everything needed to make rows.
#[derive(Debug)]
pub(super) struct Plan {
    maker: Maker,
    nexmark: Option<Nexmark>,
    /// The payload columns of the schema.
    columns: Vec<(FieldRef, Values)>,
    /// For templates that have an end of their own.
    pub default_rows: Option<i64>,
    /// Which events of the sequence that the options speak of are its rows.
    pub share: Share,
    /// Events a second where nothing is said.
    pub default_rate: f64,
}

impl Plan {
    /// Where the columns called `names` stand.
    pub fn positions(&self, names: &[String]) -> Result<Vec<usize>> {
        let place = |name: &String| self.columns.iter().position(|(field, _)| field.name() == name);
        let missing = || Error::internal("a projected column is not generated");
        names.iter().map(|name| place(name).ok_or_else(missing)).collect()
    }

    /// These columns over `rows`.
    pub fn arrays(
        &self,
        columns: &[usize],
        rows: Range<i64>,
        timeline: Timeline,
    ) -> Result<Vec<ArrayRef>> {
        let column = |at: &usize| {
            let (field, values) = &self.columns[*at];
            let array = match (values, &self.nexmark) {
                (Values::Nexmark(column), Some(nexmark)) => {
                    nexmark.array(*column, rows.clone(), timeline)?
                }
                _ => self.maker.array(*values, field.name(), rows.clone(), timeline)?,
            };
            to_type(&array, field.data_type())
        };
        columns.iter().map(column).collect()
    }
}

fn to_type(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    match wanted {
        same if same == array.data_type() => Ok(Arc::clone(array)),
        DataType::Timestamp(_, _) => as_instants(array, wanted),
        _ => {
            let options = CastOptions { safe: false, ..Default::default() };
            Ok(cast_with_options(array, wanted, &options)?)
        }
    }
}

/// The columns of a template.
pub fn template_schema(template: &str) -> Result<SchemaRef> {
    let fields: Vec<Field> =
        columns_of(template)?.iter().map(|(name, values)| field(name, *values)).collect();
    Ok(Arc::new(Schema::new(fields)))
}

fn columns_of(template: &str) -> Result<&'static [(&'static str, Values)]> {
    match template {
        "orders" => Ok(ORDERS),
        "page_views" => Ok(PAGE_VIEWS),
        "users" => Ok(USERS),
        "products" => Ok(PRODUCTS),
        "nexmark.bid" => Ok(nexmark::BID),
        "nexmark.auction" => Ok(nexmark::AUCTION),
        "nexmark.person" => Ok(nexmark::PERSON),
        other => Err(bad_option("template", other, &format!("'{}'", TEMPLATES.join("', '")))),
    }
}

fn field(name: &str, values: Values) -> Field {
    let data_type = match values {
        Values::Quantity => DataType::Int32,
        other => other.data_type(),
    };
    Field::new(name, data_type, matches!(values, Values::ChosenOrNull(_)))
}

/// The schema of a source and how its rows are made.
pub(super) fn plan(
    template: Option<&str>,
    declared: Option<SchemaRef>,
    seed: i64,
) -> Result<(SchemaRef, Plan)> {
    let declared = declared.unwrap_or_else(|| Arc::new(Schema::empty()));
    let schema = match template {
        _ if declared.fields().iter().any(|field| is_payload(field)) => declared,
        Some(template) => with_metadata(&template_schema(template)?, &declared),
        None => {
            return Err(Error::invalid_hint(
                "a generator needs columns or a template",
                format!("declare columns, or give template '{}'", TEMPLATES.join("', '")),
            ));
        }
    };
    let payload = schema.fields().iter().filter(|field| is_payload(field)).enumerate();
    let column = |(nth, field): (usize, &FieldRef)| {
        let values = match template {
            Some(template) => of_template(template, field)?,
            None => by_name_and_type(nth, field)?,
        };
        Ok((Arc::clone(field), values))
    };
    let columns = payload.map(column).collect::<Result<_>>()?;
    let (user, product, default_rows) = match template {
        Some("users") => (Subject::Itself, Subject::Drawn, Some(USER_COUNT)),
        Some("products") => (Subject::Drawn, Subject::Itself, Some(PRODUCT_COUNT)),
        _ => (Subject::Drawn, Subject::Drawn, None),
    };
    let maker = Maker::new(seed, template.unwrap_or_default(), user, product);
    let nexmark = template.and_then(nexmark::share);
    let default_rate = if nexmark.is_some() { nexmark::DEFAULT_RATE } else { DEFAULT_RATE };
    let share = nexmark.unwrap_or(Share::ALL);
    let nexmark = nexmark.map(|share| Nexmark::new(seed, share));
    Ok((schema, Plan { maker, nexmark, columns, default_rows, share, default_rate }))
}

/// What a template has for a declared column.
fn of_template(template: &str, field: &Field) -> Result<Values> {
    let columns = columns_of(template)?;
    let Some((_, values)) = columns.iter().find(|(name, _)| name == field.name()) else {
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        return Err(Error::invalid_hint(
            format!("template '{template}' has no column \"{}\"", field.name()),
            format!("it has {}", names.join(", ")),
        ));
    };
    if fits(&values.data_type(), field.data_type()) {
        return Ok(*values);
    }
    Err(Error::invalid_hint(
        format!(
            "column \"{}\" of template '{template}' can't be {}",
            field.name(),
            type_name(field.data_type())
        ),
        format!("declare it {}", type_name(&values.data_type())),
    ))
}

fn by_name_and_type(nth: usize, field: &Field) -> Result<Values> {
    let values = match (field.data_type(), field.name().to_lowercase().as_str()) {
        (of, "id") if of.is_integer() => Values::Sequence,
        (of, _) if of.is_integer() && nth == 0 => Values::Sequence,
        (of, "user_id" | "customer_id") if of.is_integer() => Values::UserId,
        (of, "product_id") if of.is_integer() => Values::ProductId,
        (of, "quantity") if of.is_integer() => Values::Quantity,
        (of, _) if of.is_integer() => Values::Number,
        (of, "price") if of.is_numeric() => Values::Price,
        (of, "amount" | "total" | "revenue") if of.is_numeric() => Values::Amount,
        (of, _) if of.is_numeric() => Values::Measure,
        (DataType::Boolean, _) => Values::Coin,
        (DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64, _) => Values::EventTime,
        (DataType::Utf8 | DataType::LargeUtf8, name) => text_by_name(name),
        (other, _) => {
            return Err(Error::invalid_hint(
                format!(
                    "a generator can't make column \"{}\" of type {}",
                    field.name(),
                    type_name(other)
                ),
                "leave it out, or compute it from others with AS (…)",
            ));
        }
    };
    Ok(values)
}

fn text_by_name(name: &str) -> Values {
    match name {
        "name" => Values::UserName,
        "email" => Values::Email,
        "country" => Values::Country,
        "currency" => Values::Currency,
        "status" => Values::Chosen(STATUSES),
        "payment_method" => Values::Chosen(PAYMENT_METHODS),
        "device" => Values::Chosen(DEVICES),
        "url" => Values::Url,
        "referrer" => Values::ChosenOrNull(REFERRERS),
        "category" => Values::Category,
        _ => Values::Hex,
    }
}

/// Whether generated values of a type can be had as another one.
fn fits(made: &DataType, wanted: &DataType) -> bool {
    match made {
        made if made.is_numeric() => wanted.is_numeric(),
        DataType::Timestamp(_, _) => {
            matches!(wanted, DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64)
        }
        DataType::Utf8 => matches!(wanted, DataType::Utf8 | DataType::LargeUtf8),
        made => made == wanted,
    }
}
