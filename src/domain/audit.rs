//! What is written down about every decision, for people who have to review it (rows N8, I4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::subject::Subject;
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

/// A line in its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Its number in the chain of its partition, counted from 1.
    pub n: u64,
    /// Its place in the order of time.
    pub place: i64,
    /// Its hash, SHA-256 in hexadecimal; the next line carries it.
    pub hash: String,
    /// Whose it is.
    pub subject: Subject,
    /// What it says.
    pub entry: Entry,
}

/// The newest line of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number.
    pub n: u64,
    /// Its hash.
    pub hash: String,
}

/// What a line does that says that lines before it are gone.
pub const GAP: &str = "audit_gap";

impl Head {
    /// The heads in a text of whatever sort, by partition: words of the form `partition:number:hash`, as they stand in
    /// events and in log lines.
    #[must_use]
    pub fn all_in(text: &str) -> Vec<(u8, Self)> {
        let words = text.split(|c: char| !(c.is_ascii_hexdigit() || c == ':'));
        words.filter_map(Self::read).collect()
    }

    fn read(word: &str) -> Option<(u8, Self)> {
        let (partition, rest) = word.split_once(':')?;
        let (n, hash) = rest.split_once(':')?;
        let plain = partition.len() == 3 && hash.len() == 64 && !hash.contains(':');
        let head = Self {
            n: n.parse().ok()?,
            hash: hash.to_owned(),
        };
        Some((partition.parse().ok()?, head)).filter(|_| plain)
    }

    /// The word that [`Head::all_in`] reads.
    #[must_use]
    pub fn word(&self, partition: u8) -> String {
        format!("{partition:03}:{}:{}", self.n, self.hash)
    }
}

/// What is wrong with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// Something that is no audit line.
    Strange,
    /// A line was changed, moved in time, brought from elsewhere, or made without the key.
    Altered,
    /// A line before this one is missing before its time.
    Removed,
    /// This line does not follow the one before it.
    Inserted,
    /// Lines at the end are missing: the head is further on.
    Cut,
    /// The head is missing, or is not genuine.
    NoHead,
    /// The chain no longer has a line that an earlier verification saw.
    Rewritten,
    /// This line says that lines before it, which had been written, were gone from the store.
    Lost,
}

impl Flaw {
    /// In words, after the name of a line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strange => "is no audit line",
            Self::Altered => "was changed, moved in time, brought from elsewhere, or made without the key",
            Self::Removed => "does not follow: a line before it was removed",
            Self::Inserted => "does not follow the line before it: it was put in, or is there twice",
            Self::Cut => "should be the last, and lines at the end were removed",
            Self::NoHead => "is the last, and the head of the chain is missing or not genuine",
            Self::Lost => "says that lines before it, which had been written, were gone from the store",
            Self::Rewritten => "was there at an earlier verification, and is not there as it was",
        }
    }
}

/// The first bad line of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Partition.
    pub partition: u8,
    /// What is wrong.
    pub flaw: Flaw,
    /// The line's number, if it has one.
    pub n: Option<u64>,
    /// The line's id, or where it stands.
    pub line: Option<String>,
}

/// A partition's chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Lines whose MAC is right, in their order.
    pub lines: Vec<Linked>,
    /// The head.
    pub head: Option<Head>,
    /// What is wrong, first of all.
    pub fault: Option<Broken>,
}

impl Chain {
    /// The same chain, held against a head that an earlier verification saw. Lines that are older than all that are
    /// kept cannot be held against it.
    #[must_use]
    pub fn against(mut self, partition: u8, earlier: &Head) -> Self {
        let first = self.lines.first().map(|l| l.n);
        let kept = first.is_some_and(|first| first <= earlier.n);
        let there = self
            .lines
            .iter()
            .any(|l| l.n == earlier.n && l.hash == earlier.hash);
        let behind = self.head.as_ref().is_none_or(|h| h.n < earlier.n);
        if self.fault.is_none() && (behind || (kept && !there)) {
            self.fault = Some(Broken {
                partition,
                flaw: Flaw::Rewritten,
                n: Some(earlier.n),
                line: None,
            });
        }
        self
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_in_log_lines_and_events() {
        let (one, two) = ("ab".repeat(32), "0f".repeat(32));
        let heads = [(7, 12, one.clone()), (255, 1, two)];
        let words: Vec<String> = heads
            .iter()
            .map(|(p, n, hash)| {
                let (n, hash) = (*n, hash.clone());
                Head { n, hash }.word(*p)
            })
            .collect();
        let text = format!(
            "2026-11-30T11:00:00Z INFO the newest lines heads=\"{}\" 11:22:33 256:1:{one} 007:x:{one} 007:1:ab",
            words.join(" ")
        );
        let found = Head::all_in(&text);
        let found: Vec<(u8, u64, String)> = found.into_iter().map(|(p, h)| (p, h.n, h.hash)).collect();
        assert_eq!(found, heads);
    }
}
