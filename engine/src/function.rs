//! Functions of our own: what windows over event time are made of, the parts of a time by name
//! (`parts`), and a faster `to_char`.
//!
//! | function | answers | for |
//! |---|---|---|
//! | `hop_windows(time, slide, size[, offset])` | the starts of the windows that hold `time` | `HOP` |
//! | `cumulate_windows(time, step, size[, offset])` | the ends of the windows that hold `time` | `CUMULATE` |
//! | `session_start(time, gap) OVER (PARTITION BY … ORDER BY time)` | when the row's session starts | `SESSION` |
//! | `session_end(time, gap) OVER (…)` | when it ends: its last time and the gap | `SESSION` |
//!
//! A tumbling window needs none: it is DataFusion's `date_bin`. Lists are ascending, and
//! NULL for a NULL time. Widths are intervals of a fixed length.

mod parts;
mod session;
mod to_char;
mod width;
mod windows;

use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{ScalarUDF, WindowUDF};

pub use session::{SESSION_END, SESSION_START, SessionBound};
pub use to_char::ToChar;
pub use width::{Width, check_cumulate, check_hop};
pub use windows::{CUMULATE_WINDOWS, HOP_WINDOWS, WindowList};

/// Windows that one row may fall into.
pub const MAX_WINDOWS: i64 = 10_000;

/// `hop_windows`.
pub fn hop_windows() -> Arc<ScalarUDF> {
    Arc::new(WindowList::hop().into())
}

/// `cumulate_windows`.
pub fn cumulate_windows() -> Arc<ScalarUDF> {
    Arc::new(WindowList::cumulate().into())
}

/// `session_start`.
pub fn session_start() -> Arc<WindowUDF> {
    Arc::new(SessionBound::start().into())
}

/// `session_end`.
pub fn session_end() -> Arc<WindowUDF> {
    Arc::new(SessionBound::end().into())
}

/// Makes all of them known to `state`.
pub fn register(state: &mut SessionState) -> Result<(), DataFusionError> {
    let to_char = Arc::new(ToChar::new().into());
    for function in [hop_windows(), cumulate_windows(), to_char].into_iter().chain(parts::all()) {
        state.register_udf(function)?;
    }
    for function in [session_start(), session_end()] {
        state.register_udwf(function)?;
    }
    Ok(())
}
