//! `reentry store`: prepare the store.

use clap::Subcommand;

use super::{Outcome, Session, output, runtime};
use crate::app;

/// `reentry store ...`
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum StoreCommand {
    /// Make the store's keys, and the markers of a new installation. Harmless when they are there.
    #[command(
        after_help = "Example:\n  reentry store init\n\n`serve` never makes markers: an installation that has lost them is restricted, not begun anew.\nKeep a copy of the keys file: without it what is stored cannot be found."
    )]
    Init,
}

impl StoreCommand {
    /// Runs it.
    ///
    /// # Errors
    /// When the store cannot be reached, or has markers of another installation.
    pub fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        let Self::Init = self;
        let Some(config) = session.load_for_setup() else {
            return Ok(Outcome::Refused);
        };
        let created = runtime()?.block_on(app::store_init(&config))?;
        output::line(if created {
            "the store is ready; keep a copy of the keys file"
        } else {
            "the store was ready before; nothing was changed"
        });
        Ok(Outcome::Done)
    }
}
