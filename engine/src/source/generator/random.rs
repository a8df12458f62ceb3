//! Numbers that look random and are a function of a seed and an index.
//!
//! SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
//! 2014): its n-th output is a hash of `seed + n * GAMMA`, so any index can be drawn
//! without those before it.

use std::sync::LazyLock;

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// One sequence of draws.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    seed: u64,
}

impl Stream {
    /// The sequence called `name` of a seed.
    pub fn new(seed: i64, name: &str) -> Self {
        // FNV-1a
        let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        Self { seed: mix(hash ^ mix(seed.cast_unsigned())) }
    }

    #[inline]
    pub fn draw(self, index: i64) -> u64 {
        mix(self.seed.wrapping_add(index.cast_unsigned().wrapping_mul(GAMMA)))
    }

    /// From 0 up to, but not including, `n`.
    #[inline]
    pub fn below(self, index: i64, n: u64) -> u64 {
        ((u128::from(self.draw(index)) * u128::from(n)) >> 64) as u64
    }

    /// True for a share of the indices, in parts of a million.
    pub fn happens(self, index: i64, share: f64) -> bool {
        (self.below(index, 1_000_000) as f64) < share * 1e6
    }
}

#[inline]
fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(GAMMA);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Zipf's law over 1..=n: the k-th is chosen 1/k times as often as the first.
/// Integers only, so that every machine draws the same.
#[derive(Debug)]
pub(super) struct Popularity {
    cumulative: Vec<u64>,
    total: u64,
}

pub(super) const PRODUCT_COUNT: i64 = 1000;
pub(super) const USER_COUNT: i64 = 10_000;
pub(super) static PRODUCTS: LazyLock<Popularity> =
    LazyLock::new(|| Popularity::new(PRODUCT_COUNT.cast_unsigned(), 0));
/// Users differ, but less than products do.
pub(super) static USERS: LazyLock<Popularity> =
    LazyLock::new(|| Popularity::new(USER_COUNT.cast_unsigned(), 50));

impl Popularity {
    /// A larger `flatten` makes the first less special: the weights are 1/(k + flatten).
    fn new(n: u64, flatten: u64) -> Self {
        let mut total = 0;
        let weight = |k: u64| 1_000_000_000_000 / (k + flatten);
        let cumulative = (1..=n)
            .map(|k| {
                total += weight(k);
                total
            })
            .collect();
        Self { cumulative, total }
    }

    #[inline]
    pub fn choose(&self, stream: Stream, index: i64) -> i64 {
        let at = stream.below(index, self.total);
        self.cumulative.partition_point(|bound| *bound <= at) as i64 + 1
    }
}
