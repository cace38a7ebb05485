//! An account that cannot be read at its IdP, although others can (P15).
//!
//! What may have happened to it nobody can say, so nothing is allowed to it until it was read again; that is a fact about
//! this account alone, stored with it, and everybody else goes on. It is tried again by itself, ever more rarely. Owners
//! are told nothing: nothing is known to have happened to them. Operators are, when it begins and when it ends.

use serde::{Deserialize, Serialize};

use super::apply::Setting;
use super::{Record, Transition};
use crate::domain::audit::Entry;
use crate::domain::subject::Subject;
use crate::domain::time::{Now, Span, Timestamp};

/// The pause after the first try.
const FIRST_PAUSE: Span = Span::from_secs(2);
/// The longest pause.
const LONGEST_PAUSE: Span = Span::from_mins(10);

/// Why an account cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No answer about it, or none in time.
    NoAnswer,
    /// We are refused this account.
    Refused,
    /// The answer is not what it should be.
    Malformed,
}

impl Why {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "the identity provider gives no answer about this account, or an error",
            Self::Refused => "the identity provider refuses us this account",
            Self::Malformed => "what the identity provider answers about this account cannot be understood",
        }
    }
}

/// That an account cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Since when.
    pub since: Timestamp,
    /// From when on lines of the IdP's log about it have not been taken in.
    pub from: Timestamp,
    /// Why, as of the last try.
    pub why: Why,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried again.
    pub next: Timestamp,
    /// The case to name.
    pub case: String,
    /// Whether it restricts: the strictest tier may only be observed (roll-out).
    pub enforced: bool,
    /// The store had lost its record: it is made anew from what the IdP knows.
    pub lost: bool,
}

/// What is known of a reading that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Why.
    pub why: Why,
    /// When the oldest line was written that waits for the reading.
    pub from: Timestamp,
    /// The store had lost the account's record.
    pub lost: bool,
}

/// The account of `subject` could not be read. Only the first time is told; later ones only put off the next try.
#[must_use]
pub fn failed(subject: &Subject, old: Option<&Record>, trouble: Trouble, setting: Setting<'_>) -> Transition {
    let now = setting.now;
    let mut t = Transition::new(old.cloned().unwrap_or_else(|| Record::new(subject.clone())));
    t.record.touch(now);
    if let Some(known) = &mut t.record.unreadable {
        known.why = trouble.why;
        known.from = known.from.min(trouble.from);
        known.lost |= trouble.lost;
        known.tries = known.tries.saturating_add(1);
        known.next = now.latest().plus(pause(known.tries));
        return t;
    }
    let enforced = setting.tier.enforce.enforces(setting.place);
    t.record.tighten(now);
    t.record.unreadable = Some(Unreadable {
        since: now.latest(),
        from: trouble.from.min(now.earliest()),
        why: trouble.why,
        tries: 1,
        next: now.latest().plus(pause(1)),
        case: setting.reference.to_owned(),
        enforced,
        lost: trouble.lost,
    });
    let id = format!("unreadable:{}", t.record.updated.millis());
    let entry = Entry::system(id, now.latest(), "account_unreadable", Some(setting.reference));
    let entry = entry.alarming().with("alarm", trouble.why.as_str());
    t.audit
        .push(entry.with("sub", &subject.sub).with("enforced", enforced));
    t.converge();
    t
}

/// Lines about an account that is known to be unreadable have turned up, the oldest of `from`: they wait. `None` when it
/// is not, or they wait already.
#[must_use]
pub fn waits(old: &Record, from: Timestamp, now: Now) -> Option<Transition> {
    let known = old.unreadable.as_ref().filter(|known| from < known.from)?;
    let mut t = Transition::new(old.clone());
    t.record.unreadable = Some(Unreadable {
        from,
        ..known.clone()
    });
    t.record.touch(now);
    Some(t)
}

/// The account was read, and what its log tells was taken in. `None` when nothing was wrong with it.
#[must_use]
pub fn read(old: &Record, now: Now) -> Option<Transition> {
    let known = old.unreadable.as_ref()?;
    let mut t = Transition::new(old.clone());
    t.record.unreadable = None;
    t.record.touch(now);
    let id = format!("readable:{}", t.record.updated.millis());
    let entry = Entry::system(id, now.latest(), "account_readable", Some(&known.case));
    t.audit
        .push(entry.with("sub", &old.subject.sub).with("tries", known.tries));
    t.converge();
    Some(t)
}

/// How long to wait after so many tries: twice as long each time.
fn pause(tries: u32) -> Span {
    let doubled = 1_i64
        .checked_shl(tries.saturating_sub(1).min(20))
        .unwrap_or(i64::MAX);
    Span::from_millis(FIRST_PAUSE.millis().saturating_mul(doubled)).min(LONGEST_PAUSE)
}
