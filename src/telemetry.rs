//! What operators see: log lines, one wide line a request, and metrics.
//!
//! Log lines never hold a path (a path may hold a secret), an address, a `sub` or a token; the matched route, the client
//! and stable words are enough to follow a case, together with the trace id that the caller was given.

mod json;
pub mod metric;
mod out;
pub mod request;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::telemetry::{LogFormat, TelemetrySettings};
use out::Out;

/// Libraries that say too much below `warn`.
const QUIET: &str =
    "hyper=warn,hyper_util=warn,reqwest=warn,rustls=warn,h2=warn,redis=warn,lettre=warn,cel=warn";

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("the log filter `{filter}` cannot be read: {why}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong.
        why: String,
    },
    /// There is nowhere to write to.
    #[error("log lines cannot be written: {0}")]
    Writer(#[from] std::io::Error),
    /// Somebody set up logs or metrics before.
    #[error("telemetry was set up twice: {0}")]
    Twice(String),
}

/// Writes the last lines when it is dropped: keep it until nothing is left to be said.
#[must_use]
#[derive(Debug)]
pub struct Lines(Out);

impl Drop for Lines {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts writing log lines to standard error. `filter` (as in `RUST_LOG`) wins over the configured level. Colours only
/// for `text` and when `colour` says that a person is looking. Panics are lines from now on.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(
    settings: TelemetrySettings,
    filter: Option<&str>,
    colour: bool,
) -> Result<Lines, TelemetryError> {
    let wanted = filter.map_or_else(|| format!("{},{QUIET}", settings.level.as_str()), str::to_owned);
    let filter = EnvFilter::try_new(&wanted).map_err(|e| TelemetryError::Filter {
        filter: wanted.clone(),
        why: e.to_string(),
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let out = Out::start()?;
    let lines = tracing_subscriber::fmt::layer().with_writer(out.clone());
    let set = match settings.format {
        LogFormat::Json => registry.with(lines.event_format(json::Json)).try_init(),
        LogFormat::Text => registry.with(lines.compact().with_ansi(colour)).try_init(),
    };
    set.map_err(|e| TelemetryError::Twice(e.to_string()))?;
    // What a thread says at its end is a line like any other: nothing else writes where somebody may not read.
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string);
        let said = panic.payload_as_str().unwrap_or("nothing");
        tracing::error!(at, said, "a thread panicked");
    }));
    Ok(Lines(out))
}
