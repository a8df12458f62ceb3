//! Makes something happen so many times a second.

use std::time::{Duration, Instant};

/// How finely a rate is kept: work comes in portions of this long.
const TICK: Duration = Duration::from_millis(10);

/// Most that is due at once, so that an unlimited rate still looks up now and then.
const PORTION: u64 = 5_000;

/// A rate, held against the clock.
#[derive(Debug)]
pub struct Pace {
    /// A second; infinite is as fast as it goes.
    rate: f64,
    started: Instant,
    done: u64,
    /// Held back on purpose: not to be caught up with.
    paused: Duration,
}

impl Pace {
    pub fn new(rate: f64) -> Self {
        Self { rate, started: Instant::now(), done: 0, paused: Duration::ZERO }
    }

    /// Waits until something is due, and answers how much.
    pub async fn due(&mut self) -> u64 {
        loop {
            let due = self.owed(self.started.elapsed());
            if due > 0 {
                self.done += due;
                return due;
            }
            tokio::time::sleep(TICK).await;
        }
    }

    fn owed(&self, elapsed: Duration) -> u64 {
        if self.rate.is_infinite() {
            return PORTION;
        }
        let elapsed = elapsed.saturating_sub(self.paused).as_secs_f64();
        // The first is due at once.
        let until_now = (elapsed * self.rate) as u64 + 1;
        until_now.saturating_sub(self.done).min(PORTION)
    }

    /// Stands still for a while.
    pub async fn pause(&mut self, duration: Duration) {
        let before = Instant::now();
        tokio::time::sleep(duration).await;
        self.paused += before.elapsed();
    }

    /// Reached so far.
    pub fn achieved(&self, done: u64) -> f64 {
        done as f64 / self.started.elapsed().as_secs_f64().max(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_follows_the_clock() {
        let mut pace = Pace::new(100.0);
        assert_eq!(pace.owed(Duration::ZERO), 1);
        assert_eq!(pace.owed(Duration::from_secs(2)), 201);
        pace.done = 201;
        assert_eq!(pace.owed(Duration::from_secs(2)), 0);
        pace.paused = Duration::from_secs(1);
        assert_eq!(pace.owed(Duration::from_secs(4)), 100);
        assert_eq!(Pace::new(f64::INFINITY).owed(Duration::ZERO), PORTION);
    }
}
