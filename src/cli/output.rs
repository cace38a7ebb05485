//! Words to people and scripts. A reader that goes away is no fault.

use std::io::{IsTerminal as _, Write as _};

use super::environment::Environment;
use super::{Outcome, Session};
use crate::config::fault::{Fault, Faults};
use crate::config::{self, Loaded};

/// Colours, where somebody is looking at a terminal (and <https://no-color.org> is not set).
#[derive(Clone, Copy, Debug)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// For standard output.
    #[must_use]
    pub fn stdout(environment: &Environment) -> Self {
        Self {
            colour: std::io::stdout().is_terminal() && wanted(environment),
        }
    }

    /// For standard error.
    #[must_use]
    pub fn stderr(environment: &Environment) -> Self {
        Self {
            colour: std::io::stderr().is_terminal() && wanted(environment),
        }
    }

    /// Whether there are colours.
    #[must_use]
    pub const fn is_colourful(self) -> bool {
        self.colour
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// As it should be.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// To look at.
    #[must_use]
    pub fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Wrong.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// A heading.
    #[must_use]
    pub fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }
}

fn wanted(environment: &Environment) -> bool {
    environment.get("NO_COLOR").is_none() && environment.get("TERM") != Some("dumb")
}

/// Writes to standard output, without adding a line's end.
pub fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Writes a line to standard output.
pub fn line(text: &str) {
    say(&format!("{text}\n"));
}

/// Writes a line to standard error.
pub fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Writes a value as JSON to standard output.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A fault for scripts.
#[must_use]
pub fn fault_json(fault: &Fault) -> serde_json::Value {
    serde_json::json!({
        "key": fault.key,
        "place": fault.place.to_string(),
        "problem": fault.problem,
        "advice": fault.advice,
    })
}

impl Session {
    /// Reads the configuration. Warnings and faults are written to standard error; `None` means refused.
    #[must_use]
    pub fn load(&self) -> Option<config::Config> {
        self.told(config::load_file(&self.file, self.environment.pairs()))
    }

    /// Reads the configuration before there are secrets: for the commands that make them.
    #[must_use]
    pub fn load_for_setup(&self) -> Option<config::Config> {
        // Warnings are for those who check and those who serve.
        let loaded = config::load_file_for_setup(&self.file, self.environment.pairs());
        self.told(loaded.map(|loaded| Loaded {
            warnings: Vec::new(),
            ..loaded
        }))
    }

    fn told(&self, loaded: Result<Loaded, Faults>) -> Option<config::Config> {
        match loaded {
            Ok(Loaded { config, warnings }) => {
                self.warn(&warnings);
                Some(config)
            }
            Err(faults) => {
                let _ = self.refuse(&faults);
                None
            }
        }
    }

    /// Writes warnings to standard error.
    pub fn warn(&self, warnings: &[Fault]) {
        for warning in warnings {
            complain(&format!("{} {warning}", self.err.warn("warning:")));
        }
    }

    /// Writes every fault to standard error.
    #[must_use]
    pub fn refuse(&self, faults: &Faults) -> Outcome {
        complain(&format!(
            "{} {}: {faults}",
            self.err.bad("refused:"),
            self.file.display()
        ));
        Outcome::Refused
    }
}
