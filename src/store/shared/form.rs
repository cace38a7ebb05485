//! What is stored looks like this: values sealed for their place, effects and audit lines with whose they are.

use serde::{Deserialize, Serialize};

use super::anchor::{self, Look};
use super::{Shared, wall_clock};
use crate::domain::audit::Entry;
use crate::domain::hold::Effect;
use crate::domain::subject::Subject;
use crate::domain::time::{Span, Timestamp};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Parts, Pending, StoreError, Write};
use crate::ports::trace::{self, Trace};
use crate::store::backend::{Backend, Batch, Cell, Due, Former, Loose, Put, Waiting};
use crate::store::seal::{Kind, hex};
use crate::store::{codec, retention};

/// The most audit lines of one transition.
const LINES: i64 = 1000;

/// An outbox entry. Sealed whole: a notice holds an address.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) subject: Subject,
    pub(super) id: String,
    pub(super) effect: Effect,
    pub(super) attempts: u32,
    pub(super) since: Timestamp,
    pub(super) failure: Option<String>,
    #[serde(default)]
    pub(super) trace: Option<Trace>,
}

/// Where a value stands, as part of what its seal authenticates.
pub(super) fn place(key: &SubjectKey) -> String {
    format!("{:03}:{}", key.partition(), hex(&key.0))
}

fn outbox_place(partition: u8) -> String {
    format!("{partition:03}:out")
}

impl<B: Backend> Shared<B> {
    /// The atomic step for what a closure wants stored. Everything that it saw is compared.
    pub(super) fn batch(
        &self,
        key: &SubjectKey,
        parts: Parts,
        look: Look,
        write: &Write,
        subject: Option<&Subject>,
    ) -> Result<Batch, StoreError> {
        let place = place(key);
        let record = write.record.as_ref();
        let mut batch = Batch::new(*key, self.expected(key.partition(), parts));
        batch.decides = record.is_some();
        let next = anchor::note_after(&look, write);
        let (time, number) = (look.raw.time, next.versions.subject);
        let raw = look.raw;
        batch.record.former = Former::seen(raw.record);
        batch.account = Cell {
            former: seen(parts.account, raw.account),
            put: match &write.account {
                Some(account) => Put::Set(self.numbered(Kind::Account, &place, number, account)?),
                None => Put::Leave,
            },
            keep: None,
        };
        batch.grants = Cell {
            former: seen(parts.grants, raw.grants),
            put: match &write.grants {
                Some(grants) => Put::Set(self.numbered(Kind::Grants, &place, number, grants)?),
                None => Put::Leave,
            },
            keep: write.grants.as_ref().map(retention::of_grants),
        };
        if record.is_some() || write.account.is_some() || write.grants.is_some() {
            let kept = record.or(look.loaded.record.as_ref());
            batch.number = Some(number);
            batch.record.keep = next.keep(kept);
            batch.record.put = Put::Set(self.anchored(&place, &next, kept)?);
        }
        batch.due = record.map_or(Due::Leave, |r| r.due().map_or(Due::Never, Due::At));
        if write.effects.is_empty() && write.audit.is_empty() {
            return Ok(batch);
        }
        let subject = subject
            .ok_or_else(|| StoreError::Unreadable("effects of a subject without a record".to_owned()))?;
        let since = record.map(|r| r.updated).or(time);
        for (id, effect) in &write.effects {
            batch.outbox.push(self.envelope(
                key.partition(),
                &Envelope {
                    subject: subject.clone(),
                    id: id.clone(),
                    effect: effect.clone(),
                    attempts: 0,
                    since: since.unwrap_or_else(wall_clock),
                    failure: None,
                    trace: trace::current(),
                },
            )?);
        }
        for (index, entry) in (0..LINES).zip(&write.audit) {
            batch.loose.push(line(subject, entry, index));
        }
        Ok(batch)
    }

    /// The name of a mark in a key: the source stays readable, what it marks does not.
    pub(super) fn mark_name(&self, name: &str) -> String {
        let source = name.split(':').next().unwrap_or_default();
        let plain = |c: &char| c.is_ascii_lowercase() || *c == '_';
        let source: String = source.chars().filter(plain).take(32).collect();
        format!("{source}:{}", self.keys.name("mark", name))
    }

    pub(super) fn envelope(&self, partition: u8, envelope: &Envelope) -> Result<Vec<u8>, StoreError> {
        let plain = codec::encode(envelope)?;
        self.keys.seal(Kind::Outbox, &outbox_place(partition), &plain)
    }

    pub(super) fn opened(&self, waiting: &Waiting) -> Result<Pending, StoreError> {
        let place = outbox_place(waiting.at.partition);
        let plain = self.keys.open(Kind::Outbox, &place, waiting.sealed.clone())?;
        let envelope: Envelope = codec::decode("an outbox entry", &plain)?;
        Ok(Pending {
            at: waiting.at.clone(),
            subject: envelope.subject,
            id: envelope.id,
            effect: envelope.effect,
            attempts: envelope.attempts,
            since: envelope.since,
            failure: envelope.failure,
            trace: envelope.trace,
        })
    }
}

/// What a closure saw of a part that it may not have asked for.
fn seen(asked: bool, value: Option<Vec<u8>>) -> Former {
    if asked {
        Former::seen(value)
    } else {
        Former::Unseen
    }
}

/// An audit line and its place in the order of time.
pub(super) fn line(subject: &Subject, entry: &Entry, index: i64) -> Loose {
    Loose {
        place: order(entry.at).saturating_add(index),
        subject: subject.clone(),
        entry: entry.clone(),
    }
}

/// Instants as places in the order of audit lines: exact as a double for many thousand years, with room for the
/// lines of one transition.
pub(crate) fn order(at: Timestamp) -> i64 {
    const LATEST: i64 = 9_000_000_000_000;
    at.millis().clamp(0, LATEST) * LINES
}

/// A length of time in the order of audit lines.
pub(crate) fn order_span(span: Span) -> i64 {
    span.millis().saturating_mul(LINES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::subject::UpstreamId;

    // An entry that an older program put in has no trace; one of ours keeps it however often it is tried.
    #[test]
    fn an_entry_keeps_the_trace_of_what_caused_it() {
        #[derive(Serialize)]
        struct Former {
            subject: Subject,
            id: String,
            effect: Effect,
            attempts: u32,
            since: Timestamp,
            failure: Option<String>,
        }
        let subject = Subject::new(UpstreamId::parse("kc").unwrap(), "ann").unwrap();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for state in [None, Some("vendor=x")] {
            for failure in [None, Some("no answer".to_owned())] {
                let envelope = Envelope {
                    subject: subject.clone(),
                    id: "one".to_owned(),
                    effect: Effect::Converge,
                    attempts: 1,
                    since: Timestamp::from_secs(1),
                    failure,
                    trace: Trace::continuing(parent, state, [7; 8]),
                };
                let written = codec::encode(&envelope).unwrap();
                let read: Envelope = codec::decode("an entry", &written).unwrap();
                assert_eq!(read.trace, envelope.trace);
            }
        }
        let former = codec::encode(&Former {
            subject,
            id: "one".to_owned(),
            effect: Effect::Converge,
            attempts: 0,
            since: Timestamp::from_secs(1),
            failure: None,
        });
        let read: Envelope = codec::decode("an entry", &former.unwrap()).unwrap();
        assert_eq!((read.id.as_str(), read.trace), ("one", None));
    }
}
