//! Orders, their payments, what is known of their users, and a view of each kind that keeps
//! state over them: for the tests in which engines die.
//!
//! Order `id`, its payment and so on are functions of `id` and look like chance.

/// Countries, dealt out by chance.
const COUNTRIES: [&str; 5] = ["de", "fr", "gb", "it", "pl"];
/// Payments come in the reverse order of the orders within so many.
pub const BLOCK: u64 = 64;

/// Names and queries.
pub const VIEWS: [(&str, &str); 6] = [
    (
        "aggregate",
        "SELECT user_id, count(*) AS orders, sum(amount) AS amount, min(amount) AS least, \
         max(at) AS last_at, count(DISTINCT country) AS countries FROM orders GROUP BY user_id",
    ),
    ("joined", "SELECT o.id, o.user_id, p.paid FROM orders o JOIN payments p ON o.id = p.order_id"),
    (
        "settled",
        "SELECT o.country, count(*) AS orders, count(p.paid) AS paid, sum(p.paid) AS total \
         FROM orders o LEFT JOIN payments p ON o.id = p.order_id GROUP BY o.country",
    ),
    (
        "sessions",
        "SELECT user_id, window_start, window_end, count(*) AS orders, sum(amount) AS amount \
         FROM SESSION(orders PARTITION BY user_id, at, INTERVAL '1' SECOND) \
         GROUP BY user_id, window_start, window_end",
    ),
    (
        "best",
        "SELECT country, id, amount, place FROM (SELECT country, id, amount, \
         row_number() OVER (PARTITION BY country ORDER BY amount DESC, id) AS place \
         FROM orders) WHERE place <= 3",
    ),
    (
        "owners",
        "SELECT country, count(*) AS users, sum(last_order) AS orders FROM latest GROUP BY country",
    ),
];

/// The sources, with options of `options(topic)`, and the views with `of_views`, to be said
/// again after every crash.
pub fn statements(options: impl Fn(&str) -> String, of_views: &str) -> Vec<String> {
    let source = |name: &str, columns: &str| {
        format!("CREATE SOURCE IF NOT EXISTS {name} ({columns}) WITH ({})", options(name))
    };
    let mut statements = vec![
        source(
            "orders",
            "id BIGINT NOT NULL, user_id BIGINT, country VARCHAR, amount DECIMAL(12,2), \
             at TIMESTAMP",
        ),
        source("payments", "order_id BIGINT NOT NULL, paid BIGINT"),
        source(
            "latest",
            "user_id BIGINT, country VARCHAR, last_order BIGINT, PRIMARY KEY (user_id)",
        ),
    ];
    statements.extend(VIEWS.iter().map(|(name, query)| {
        format!("CREATE MATERIALIZED VIEW IF NOT EXISTS {name} {of_views} AS {query}")
    }));
    statements
}

/// What an order brings into the topics. The payment `id` is not of the order `id`, but of
/// one in the same [`BLOCK`]; of eight orders one is paid twice and one never.
pub struct Order {
    pub user_id: u64,
    pub order: String,
    pub payment: String,
    /// The order as the newest of its user.
    pub latest: String,
}

impl Order {
    pub fn new(id: u64) -> Self {
        let chance = hash(id);
        let (user_id, cents) = (chance % 300, chance / 300 % 20_000);
        let country = COUNTRIES[(chance >> 40) as usize % COUNTRIES.len()];
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        let at = 1_760_000_000_000 + id * 5;
        let paid = if id % 8 == 7 { id - 1 } else { id } ^ (BLOCK - 1);
        Self {
            user_id,
            order: format!(
                "{{\"id\":{id},\"user_id\":{user_id},\"country\":\"{country}\",\
                 \"amount\":\"{amount}\",\"at\":{at}}}"
            ),
            payment: format!("{{\"order_id\":{paid},\"paid\":{}}}", hash(!id) % 1000),
            latest: format!(
                "{{\"user_id\":{user_id},\"country\":\"{country}\",\"last_order\":{id}}}"
            ),
        }
    }
}

/// A number that looks like chance.
fn hash(of: u64) -> u64 {
    let mut x = of.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
