//! What other programs are told (webhooks): a few kinds of event, each out of one audit line, so that nothing is
//! announced that was not written down; and the heads of the audit log itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::audit::Entry;
use crate::domain::time::Timestamp;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// A hold began on an account whose tokens were whole.
    #[serde(rename = "hold.started")]
    HoldStarted,
    /// A further change came to a hold that runs.
    #[serde(rename = "hold.tightened")]
    HoldTightened,
    /// A hold is over.
    #[serde(rename = "hold.ended")]
    HoldEnded,
    /// Somebody said "this was not me": the account is frozen.
    #[serde(rename = "account.contested")]
    Contested,
    /// An account is still frozen: nobody has ended that yet.
    #[serde(rename = "account.still_contested")]
    StillContested,
    /// A freeze is over, by whichever way out.
    #[serde(rename = "account.thawed")]
    Thawed,
    /// A message to an owner will not arrive.
    #[serde(rename = "notice.undeliverable")]
    NoticeUndeliverable,
    /// The identity provider's log cannot be relied on.
    #[serde(rename = "log.alarm")]
    LogAlarm,
    /// Values of an account were altered in the store behind our back: it was restricted and made anew.
    #[serde(rename = "account.altered")]
    Altered,
    /// The store cannot be relied on: values were lost, or it is running full.
    #[serde(rename = "store.alarm")]
    StoreAlarm,
    /// The newest lines of the audit log, to be kept where nobody who can write to the store can reach them.
    #[serde(rename = "audit.head")]
    AuditHead,
    /// An account got a role that may end freezes.
    #[serde(rename = "administrator.added")]
    AdministratorAdded,
    /// A policy became looser: what got looser waits.
    #[serde(rename = "policy.loosened")]
    PolicyLoosened,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::HoldStarted,
        Self::HoldTightened,
        Self::HoldEnded,
        Self::Contested,
        Self::StillContested,
        Self::Thawed,
        Self::NoticeUndeliverable,
        Self::LogAlarm,
        Self::Altered,
        Self::StoreAlarm,
        Self::AuditHead,
        Self::AdministratorAdded,
        Self::PolicyLoosened,
    ];

    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HoldStarted => "hold.started",
            Self::HoldTightened => "hold.tightened",
            Self::HoldEnded => "hold.ended",
            Self::Contested => "account.contested",
            Self::StillContested => "account.still_contested",
            Self::Thawed => "account.thawed",
            Self::NoticeUndeliverable => "notice.undeliverable",
            Self::LogAlarm => "log.alarm",
            Self::Altered => "account.altered",
            Self::StoreAlarm => "store.alarm",
            Self::AuditHead => "audit.head",
            Self::AdministratorAdded => "administrator.added",
            Self::PolicyLoosened => "policy.loosened",
        }
    }

    /// Whether it is about the whole installation and no account.
    #[must_use]
    pub const fn is_of_installation(self) -> bool {
        matches!(self, Self::LogAlarm | Self::StoreAlarm | Self::AuditHead)
    }
}

/// Details of audit lines that leave the house. Everything else stays: who reported, which policy answered.
const SAID: [&str; 11] = [
    "what", "row", "tier", "allowed", "length", "message", "why", "alarm", "exit", "finding", "heads",
];

/// Something to announce. Holds no address, no number, no name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// When it was stored.
    pub at: Timestamp,
    /// The case it belongs to: `recovery_ref`.
    pub case: Option<String>,
    /// What else is known, as plain words.
    pub details: BTreeMap<String, String>,
}

impl Event {
    /// What an audit line announces, if anything. What is only observed (a roll-out in shadow) is not announced.
    #[must_use]
    pub fn of(entry: &Entry) -> Option<Self> {
        let is = |name: &str| entry.details.get(name).is_some_and(|v| v == "true");
        let kind = match entry.action.as_str() {
            "hold_started" if is("enforced") && is("tightens") => EventKind::HoldTightened,
            "hold_started" if is("enforced") => EventKind::HoldStarted,
            "hold_ended" if is("enforced") => EventKind::HoldEnded,
            "contested" if is("enforced") => EventKind::Contested,
            "freeze_stands" if is("enforced") => EventKind::StillContested,
            "thawed" | "freeze_lapsed" | "freeze_left" if is("enforced") => EventKind::Thawed,
            "notice_undeliverable" => EventKind::NoticeUndeliverable,
            "log_alarm" => EventKind::LogAlarm,
            "store_altered" => EventKind::Altered,
            "store_rebuilt" | "store_full" => EventKind::StoreAlarm,
            "administrator_added" => EventKind::AdministratorAdded,
            "policy_loosened" => EventKind::PolicyLoosened,
            _ => return None,
        };
        let said = entry.details.iter().filter(|(k, _)| SAID.contains(&k.as_str()));
        Some(Self {
            kind,
            at: entry.at,
            case: entry.case.clone(),
            details: said.map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }
}

impl Event {
    /// The newest lines of the audit log. The one event that no audit line says: it would be one more to announce.
    #[must_use]
    pub fn heads(at: Timestamp, words: &[String]) -> Self {
        Self {
            kind: EventKind::AuditHead,
            at,
            case: None,
            details: [("heads".to_owned(), words.join(" "))].into(),
        }
    }
}

/// An event on its way to one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The receiver's configured id.
    pub receiver: String,
    /// The stable id of the event, the same for every receiver and every try.
    pub id: String,
    /// What happened.
    pub event: Event,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(action: &str) -> Entry {
        Entry::system("id".to_owned(), Timestamp::from_secs(1), action, Some("rc_1"))
    }

    #[test]
    fn only_what_is_in_force_is_announced_and_without_who_reported() {
        let started = line("hold_started")
            .with("enforced", true)
            .with("tier", "consumer");
        assert_eq!(Event::of(&started).unwrap().kind, EventKind::HoldStarted);
        let more = started.clone().with("tightens", true).with("policy", "0123");
        let event = Event::of(&more).unwrap();
        assert_eq!(event.kind, EventKind::HoldTightened);
        assert_eq!(event.details.keys().collect::<Vec<_>>(), ["tier"]);
        assert_eq!(Event::of(&line("hold_started").with("enforced", false)), None);
        assert_eq!(Event::of(&line("hold_ended")), None);
        assert_eq!(Event::of(&line("owner_told")), None);
    }

    #[test]
    fn every_kind_has_the_name_that_it_is_stored_under() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
