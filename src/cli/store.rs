//! `reentry store`: prepare the store.

use anyhow::Context as _;
use clap::Subcommand;

use super::{Outcome, Session, output, runtime};
use crate::app;

/// `reentry store ...`
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Make the store's keys, and the markers of a new installation. Harmless when they are there.
    #[command(
        after_help = "Example:\n  reentry store init\n\n`serve` never makes markers: an installation that has lost them is restricted, not begun anew.\nKeep a copy of the keys file: without it what is stored cannot be found."
    )]
    Init {
        /// The identity provider of this id has another URL or realm name now, and is the same one all the same.
        #[arg(long, value_name = "UPSTREAM")]
        moved: Option<String>,
    },
    /// Have the whole store rebuilt from the identity providers: after it was flushed, or an old backup was put back.
    #[command(
        after_help = "Example:\n  reentry store rebuild\n\nEvery account is restricted from then on, until a running `reentry serve` has asked the identity providers about\neach. Sessions and refresh tokens of before end; what is left of holds stays. A store that was lost under a running\n`serve` is rebuilt without this."
    )]
    Rebuild,
    /// Have every account compared with what is known, now instead of at the next interval.
    #[command(after_help = "Example:\n  reentry store reconcile")]
    Reconcile,
}

impl StoreCommand {
    /// Runs it.
    ///
    /// # Errors
    /// When the store cannot be reached, or has markers of another installation.
    pub fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        let Some(config) = session.load_for_setup() else {
            return Ok(Outcome::Refused);
        };
        let moved = match self {
            Self::Init { moved } => moved,
            Self::Rebuild => {
                runtime()?.block_on(app::store_rebuild(&config))?;
                output::line("every partition waits for its rebuild; a running `reentry serve` does it");
                return Ok(Outcome::Done);
            }
            Self::Reconcile => {
                runtime()?.block_on(app::store_reconcile(&config))?;
                output::line("a running `reentry serve` compares every account now");
                return Ok(Outcome::Done);
            }
        };
        let configured = |id: &str| {
            config
                .upstreams
                .iter()
                .find(|u| u.id.as_str() == id)
                .map(|u| &u.id)
        };
        let moved = match moved.as_deref() {
            Some(id) => Some(configured(id).with_context(|| format!("no upstream `{id}` is configured"))?),
            None => None,
        };
        let created = runtime()?.block_on(app::store_init(&config, moved))?;
        output::line(if created {
            "the store is ready; keep a copy of the keys file"
        } else {
            "the store was ready before; nothing was changed"
        });
        Ok(Outcome::Done)
    }
}
