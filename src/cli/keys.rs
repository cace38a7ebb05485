//! `reentry keys`: signing keys.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output;
use super::{Outcome, Session};
use crate::app::keys::{self, Standing};

/// `reentry keys ...`
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key. Without an algorithm, what is missing of RS256 and ES256.
    #[command(
        after_help = "Examples:\n  reentry keys create                        what the broker cannot do without\n  reentry keys create --algorithm ES256      a successor: published now, signs in an hour\n  reentry keys create --algorithm EdDSA --at-once"
    )]
    Create(Create),
    /// List keys: which sign, which only verify.
    List {
        /// Where.
        #[command(flatten)]
        place: Place,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Retire a key: it signs no more, and verifies for seven days.
    #[command(after_help = "Example:\n  reentry keys retire NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs")]
    Retire {
        /// The key's id.
        kid: String,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
}

/// `reentry keys create`
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    place: Place,
    /// RS256, ES256 or EdDSA.
    #[arg(long, value_name = "NAME")]
    algorithm: Option<String>,
    /// Sign with it at once, instead of publishing it for an hour first.
    #[arg(long, requires = "algorithm")]
    at_once: bool,
}

/// Where keys are.
#[derive(Debug, Args)]
pub struct Place {
    /// The keys directory, instead of the configuration's.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Place {
    fn find(self, session: &Session) -> Option<PathBuf> {
        self.directory
            .or_else(|| session.load_for_setup().map(|c| c.keys.directory))
    }
}

impl KeysCommand {
    /// Runs it.
    ///
    /// # Errors
    /// When the directory or a key cannot be used.
    pub fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        match self {
            Self::Create(create) => create.run(session),
            Self::List { place, json } => {
                let Some(directory) = place.find(session) else {
                    return Ok(Outcome::Refused);
                };
                list(&directory, json)
            }
            Self::Retire { kid, place } => {
                let Some(directory) = place.find(session) else {
                    return Ok(Outcome::Refused);
                };
                let retired = keys::retire(&directory, &kid)?;
                output::line(&format!(
                    "retired {} {}; it verifies for seven days more",
                    retired.algorithm, retired.kid
                ));
                Ok(Outcome::Done)
            }
        }
    }
}

impl Create {
    fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        let Some(directory) = self.place.find(session) else {
            return Ok(Outcome::Refused);
        };
        let made = match self.algorithm {
            Some(name) => vec![keys::create(&directory, &name, self.at_once)?],
            None => keys::create_missing(&directory)?,
        };
        if made.is_empty() {
            output::line("nothing is missing; name an --algorithm to make a successor");
        }
        for key in made {
            output::line(&format!(
                "made {} {}, signs from {}",
                key.algorithm, key.kid, key.active_from
            ));
        }
        Ok(Outcome::Done)
    }
}

fn list(directory: &std::path::Path, json: bool) -> anyhow::Result<Outcome> {
    let listed = keys::list(directory)?;
    if json {
        output::json(&listed)?;
        return Ok(Outcome::Done);
    }
    for key in listed {
        let standing = match key.standing {
            Standing::Signs => "signs",
            Standing::Waits => "published, signs later",
            Standing::Verifies => "verifies only",
            Standing::Gone => "over; its file may be deleted",
        };
        output::line(&format!(
            "{:5}  {}  {}  {standing}",
            key.algorithm, key.kid, key.created
        ));
    }
    Ok(Outcome::Done)
}
