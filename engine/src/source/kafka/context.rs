//! What librdkafka tells us besides records: its log, and what goes wrong.

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Forwards librdkafka's log to `tracing` and keeps its last complaint.
#[derive(Debug)]
pub(super) struct Context {
    source: String,
    last: Mutex<Option<Trouble>>,
}

/// The last thing librdkafka complained about.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub reason: String,
    /// Credentials or certificates: trying again alone does not help.
    pub refused: bool,
}

impl Context {
    pub fn new(source: &str) -> Self {
        Self { source: source.to_string(), last: Mutex::new(None) }
    }

    pub fn trouble(&self) -> Option<Trouble> {
        self.last.lock().clone()
    }

    /// All is well: what was said before no longer matters.
    pub fn forget(&self) {
        *self.last.lock() = None;
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(&self.source, level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let statistics = String::from_utf8_lossy(statistics);
        tracing::debug!(target: "librdkafka", source = %self.source, "statistics: {statistics}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{Authentication, SSL, SaslAuthenticationFailed};
        tracing::debug!(target: "librdkafka", source = %self.source, "{error}: {reason}");
        let code = error.rdkafka_error_code();
        // "All brokers are down" follows the reason why they are: keep the reason.
        if code == Some(RDKafkaErrorCode::AllBrokersDown) && self.last.lock().is_some() {
            return;
        }
        let refused = match code {
            Some(Authentication | SaslAuthenticationFailed) => true,
            // A broker that goes away during the handshake may come back.
            Some(SSL) => !reason.contains("isconnected"),
            _ => false,
        };
        *self.last.lock() = Some(Trouble { reason: reason.to_string(), refused });
    }
}

impl ConsumerContext for Context {}

/// Writes one line of librdkafka's log. Its errors are warnings to us: it goes
/// on by itself, and what does not come right becomes an error of the source.
pub(super) fn log(source: &str, level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", source, "{facility}: {message}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", source, "{facility}: {message}");
        }
        RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", source, "{facility}: {message}");
        }
    }
}

/// What an error says, without the wrapper's own words around it.
pub(super) fn plain(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), describe)
}

/// What librdkafka says of a code: `BrokerTransportFailure (Local: Broker
/// transport failure)` without the name that the wrapper gives it.
pub(super) fn describe(code: RDKafkaErrorCode) -> String {
    let text = code.to_string();
    match text.split_once(" (").and_then(|(_, words)| words.strip_suffix(')')) {
        Some(words) => words.to_string(),
        None => text,
    }
}
