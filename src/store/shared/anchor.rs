//! The record's value: what it says of the other values of its subject, and the record (see
//! [`crate::domain::subject::versions`]).
//!
//! Sealed like all values that decide, so nobody without the keys makes one, and none serves in another place. In front
//! of the record stand the numbers of the commits that wrote it, the snapshot and the grants; in front of those stands
//! the number of theirs. Every commit of a subject that writes a value writes this one, so all of them are judged by
//! what one reading brings. An old value beside newer ones is found by everybody. A whole set of before is found by
//! every process that saw a newer one (`floors`), and by a relying party's token whose `recovery_epoch` is higher. What
//! remains: an account that no running process has seen since it changed, put back whole. Its partition's fence does not
//! tell, since the others went on.

use super::form::place;
use super::{Shared, wall_clock};
use crate::domain::hold::Record;
use crate::domain::subject::versions::{Beside, Stale, Versions};
use crate::domain::time::Span;
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Loaded, StoreError, Write};
use crate::store::backend::{Backend, Raw};
use crate::store::seal::{Kind, Opened, Shut};
use crate::store::{codec, retention};

/// Octets of a number.
const NUMBER: usize = 8;
/// Octets before the record.
const LENGTH: usize = 1 + 4 * NUMBER;
/// A record follows.
const RECORD: u8 = 1;
/// The values are being made anew.
const MENDING: u8 = 2;

/// A reading, and what its values say about each other.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// As they lie in the store.
    pub(super) raw: Raw,
    /// What they say.
    pub(super) loaded: Loaded,
    /// What the record's value says of the others, when it is genuine.
    pub(super) note: Option<Note>,
    /// The highest number that was seen when they were asked for.
    pub(super) floor: u64,
    /// Why they are no answer; they were asked for all the same. Nothing where the whole partition is rebuilt.
    pub(super) stale: Option<Stale>,
}

/// What stands in front of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// The numbers.
    pub(super) versions: Versions,
    /// How long the grants are kept, counted from their last write.
    pub(super) grants: Span,
}

impl Note {
    /// How long the record's value has to stay: as long as anything that is judged by it.
    pub(super) fn keep(&self, record: Option<&Record>) -> Option<Span> {
        if self.versions.account > 0 || record.is_some_and(|r| r.due().is_some()) {
            return None;
        }
        let kept = record.and_then(retention::of_record).unwrap_or_default();
        Some(retention::beyond(kept.max(self.grants)))
    }

    fn encode(&self, record: Option<&Record>) -> Result<Vec<u8>, StoreError> {
        let mut octets = Vec::with_capacity(LENGTH + 512);
        let v = &self.versions;
        octets.push((u8::from(record.is_some()) * RECORD) | (u8::from(v.mending) * MENDING));
        for number in [v.subject, v.account, v.grants] {
            octets.extend(number.to_be_bytes());
        }
        octets.extend(self.grants.millis().to_be_bytes());
        if let Some(record) = record {
            octets.extend(codec::encode(record)?);
        }
        Ok(octets)
    }

    fn decode(octets: &[u8]) -> Result<(Self, Option<Record>), StoreError> {
        let cut = || StoreError::Unreadable("a record is cut off".to_owned());
        let (head, record) = octets.split_first_chunk::<LENGTH>().ok_or_else(cut)?;
        let (flags, rest) = head.split_first().ok_or_else(cut)?;
        let (numbers, _) = rest.as_chunks::<NUMBER>();
        let [subject, account, grants, keep] = numbers else {
            return Err(cut());
        };
        let note = Self {
            versions: Versions {
                subject: u64::from_be_bytes(*subject),
                account: u64::from_be_bytes(*account),
                grants: u64::from_be_bytes(*grants),
                mending: flags & MENDING != 0,
            },
            grants: Span::from_millis(i64::from_be_bytes(*keep)),
        };
        let record = (flags & RECORD != 0).then(|| codec::decode("a record", record));
        Ok((note, record.transpose()?))
    }
}

/// What stands in front of the record after a commit that writes this.
pub(super) fn note_after(look: &Look, write: &Write) -> Note {
    let millis = look.raw.time.unwrap_or_else(wall_clock).millis();
    let millis = u64::try_from(millis).unwrap_or(0);
    let before = look.note.unwrap_or_default();
    let number = Versions::next(look.note.map(|n| n.versions), look.floor, millis);
    let of = |written: bool, former: u64| if written { number } else { former };
    // Beside values that are no answer no grants are believed any more, whoever makes the account anew.
    let doubted = look.stale.is_some_and(|stale| stale != Stale::Mending);
    Note {
        versions: Versions {
            subject: number,
            account: of(write.account.is_some(), before.versions.account),
            grants: of(doubted || write.grants.is_some(), before.versions.grants),
            mending: look.stale.is_some() || before.versions.mending,
        },
        grants: write.grants.as_ref().map_or(before.grants, retention::of_grants),
    }
}

/// A value beside the record that was opened: its number, and where its own octets begin.
pub(super) fn split_number(opened: &[u8]) -> Result<(u64, &[u8]), StoreError> {
    let split = opened.split_first_chunk::<NUMBER>();
    let (number, rest) = split.ok_or_else(|| StoreError::Unreadable("a value is cut off".to_owned()))?;
    Ok((u64::from_be_bytes(*number), rest))
}

impl<B: Backend> Shared<B> {
    /// A value beside the record, sealed.
    pub(super) fn numbered<T: serde::Serialize>(
        &self,
        kind: Kind,
        place: &str,
        number: u64,
        value: &T,
    ) -> Result<Vec<u8>, StoreError> {
        let octets = codec::encode_after(&number.to_be_bytes(), value)?;
        self.keys.seal(kind, place, &octets)
    }

    /// The record's value, sealed.
    pub(super) fn anchored(
        &self,
        place: &str,
        note: &Note,
        record: Option<&Record>,
    ) -> Result<Vec<u8>, StoreError> {
        self.keys.seal(Kind::Record, place, &note.encode(record)?)
    }

    /// Opens a record's value; nothing where it was altered.
    pub(super) fn anchor(
        &self,
        key: &SubjectKey,
        sealed: Vec<u8>,
    ) -> Result<Option<(Note, Option<Record>)>, StoreError> {
        match self.keys.open(Kind::Record, &place(key), sealed) {
            Ok(opened) => Note::decode(&opened).map(Some),
            Err(Shut::Altered { .. }) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    /// Opens a value beside the record.
    pub(super) fn beside(
        &self,
        kind: Kind,
        key: &SubjectKey,
        sealed: Option<Vec<u8>>,
    ) -> Result<(Beside, Option<Opened>), StoreError> {
        let Some(sealed) = sealed else {
            return Ok((Beside::Absent, None));
        };
        match self.keys.open(kind, &place(key), sealed) {
            Ok(opened) => Ok((Beside::Of(split_number(&opened)?.0), Some(opened))),
            Err(Shut::Altered { .. }) => Ok((Beside::Altered, None)),
            Err(other) => Err(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::subject::{Subject, UpstreamId};

    #[test]
    fn what_stands_in_front_of_a_record_comes_back_with_it_and_without() {
        let note = Note {
            versions: Versions {
                subject: u64::MAX,
                account: 7,
                grants: 1 << 40,
                mending: true,
            },
            grants: Span::from_days(30),
        };
        let record = Record::new(Subject::new(UpstreamId::parse("kc").unwrap(), "u").unwrap());
        for kept in [None, Some(record)] {
            let octets = note.encode(kept.as_ref()).unwrap();
            assert_eq!(Note::decode(&octets).unwrap(), (note, kept));
        }
        assert!(Note::decode(&[0; LENGTH - 1]).is_err());
    }
}
