//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file: line and column, both from 1.
    File {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// In the policy file that the configuration names, or in the default policy.
    Policy {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// In an environment variable.
    Environment(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { line, column } => write!(f, "line {line}, column {column}"),
            Self::Policy { line, column } => write!(f, "policy, line {line}, column {column}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// The key's path (`clients[0].redirect_uris[1]`); empty for faults of form.
    pub key: String,
    /// What is wrong, to be read after the key: "is not a URL".
    pub problem: String,
    /// What to do; empty when the problem says it all.
    pub advice: String,
}

impl Fault {
    /// A fault of `key` at `place`.
    #[must_use]
    pub fn new(key: &str, place: Place, problem: impl Into<String>) -> Self {
        Self {
            place,
            key: key.to_owned(),
            problem: problem.into(),
            advice: String::new(),
        }
    }

    /// The same with what to do.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if self.key.is_empty() {
            f.write_str("it ")?;
        } else {
            write!(f, "`{}` ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

/// Every fault of a configuration, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// In the order of the text, each once.
    #[must_use]
    pub fn new(mut faults: Vec<Fault>) -> Self {
        faults.sort();
        faults.dedup();
        Self(faults)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(
            f,
            "the configuration has {count} fault{}:",
            if count == 1 { "" } else { "s" }
        )?;
        for fault in &self.0 {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
