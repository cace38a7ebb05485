//! What is written down about every decision, for people who have to review it (rows N8, I4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::time::Timestamp;

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "id")]
pub enum Actor {
    /// Reentry itself: a clock ran out, a change was heard of.
    System,
    /// A channel of the account, by its keyed id.
    Channel(String),
    /// The account's owner, logged in.
    Owner,
    /// An administrator, by subject.
    Administrator(String),
}

/// One line of the audit log. Holds no address, no number, no name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Stable id: the same transition stored twice writes one line.
    pub id: String,
    /// When the transition was stored.
    pub at: Timestamp,
    /// What happened, in the past tense: `hold_started`, `notice_only`, `contested`, `thawed`, ...
    pub action: String,
    /// The case it belongs to, if any.
    pub case: Option<String>,
    /// Who did it.
    pub actor: Actor,
    /// Whether it needs an operator's eye.
    pub alarm: bool,
    /// Everything that went into the decision, as plain words.
    pub details: BTreeMap<String, String>,
}

impl Entry {
    /// A line by the system about a case.
    #[must_use]
    pub fn system(id: String, at: Timestamp, action: &str, case: Option<&str>) -> Self {
        Self {
            id,
            at,
            action: action.to_owned(),
            case: case.map(str::to_owned),
            actor: Actor::System,
            alarm: false,
            details: BTreeMap::new(),
        }
    }

    /// The same line by somebody else.
    #[must_use]
    pub fn by(mut self, actor: Actor) -> Self {
        self.actor = actor;
        self
    }

    /// The same line, for an operator's eye.
    #[must_use]
    pub fn alarming(mut self) -> Self {
        self.alarm = true;
        self
    }

    /// The same line with one more detail.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a number and a name are given alike"
    )]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.details.insert(name.to_owned(), value.to_string());
        self
    }
}
