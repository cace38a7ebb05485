//! `reentry demo`: the whole story on one machine.

use clap::Args;

use super::serve::stopped_by_signals;
use super::{Outcome, Session, output, runtime};
use crate::config::telemetry::{LogFormat, LogLevel, TelemetrySettings};
use crate::demo::{self, Options, Places};
use crate::telemetry;

/// `reentry demo`
#[derive(Clone, Copy, Debug, Args)]
#[command(
    after_help = "Examples:\n  reentry demo\n  reentry demo --port 9000\n\nIt opens nothing, keeps nothing, and stops with Ctrl+C."
)]
pub struct Demo {
    /// The first of its ports; when one is taken, the next free ones are.
    #[arg(long, default_value_t = 8700)]
    port: u16,
    /// Print the addresses as JSON.
    #[arg(long)]
    json: bool,
    /// Write what happens to standard error.
    #[arg(long, short)]
    verbose: bool,
}

impl Demo {
    /// Runs it.
    ///
    /// # Errors
    /// When a port, a directory or the store cannot be had.
    pub fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        let level = if self.verbose {
            LogLevel::Info
        } else {
            LogLevel::Error
        };
        let settings = TelemetrySettings {
            format: LogFormat::Text,
            level,
        };
        let _lines = telemetry::init(
            settings,
            session.environment.get("RUST_LOG"),
            session.err.is_colourful(),
        )?;
        let strong = session.out;
        runtime()?.block_on(async {
            let stop = stopped_by_signals()?;
            demo::run(Options { port: self.port }, stop, |places| {
                if self.json {
                    output::line(&places_json(places).to_string());
                } else {
                    output::say(&told(places, strong));
                }
            })
            .await
        })?;
        Ok(Outcome::Done)
    }
}

fn places_json(places: &Places) -> serde_json::Value {
    serde_json::json!({
        "guide": places.guide, "bank": places.bank, "idp": places.idp,
        "mailbox": places.mailbox, "issuer": places.issuer,
    })
}

fn told(places: &Places, style: output::Style) -> String {
    format!(
        "The story begins at {}\n\n  bank               {}\n  identity provider  {}\n  mailbox            {}\n  \
         Reentry            {}\n\nStop it with Ctrl+C; nothing is kept.\n",
        style.strong(&places.guide),
        places.bank,
        places.idp,
        places.mailbox,
        places.issuer
    )
}
