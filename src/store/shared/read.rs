//! Reading: what the backend has, judged by its marker and by what the values say of each other, opened and decoded.

mod brief;

use self::brief::Brief;
use super::anchor::{Look, Note, split_number};
use super::{Shared, pause};
use crate::domain::hold::Record;
use crate::domain::session::Grants;
use crate::domain::subject::Subject;
use crate::domain::subject::versions::{Anchor, Beside, Stale, Values};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Altered, Loaded, Parts, StoreError};
use crate::store::backend::{Backend, Raw};
use crate::store::codec;
use crate::store::seal::Kind;

/// How often values that do not belong together are read again. A commit may have come between two of them: the next
/// reading has all of it.
const AGAIN: u32 = 3;

impl<B: Backend> Shared<B> {
    /// Reads and judges the marker. `None` when the mark is there.
    async fn fetch(
        &self,
        key: &SubjectKey,
        parts: Parts,
        mark: Option<&str>,
    ) -> Result<Option<Raw>, StoreError> {
        let partition = key.partition();
        let expected = self.expected(partition, parts);
        let raw = self.backend.read(key, parts, mark).await?;
        self.seen.judge(partition, &expected, raw.marker.as_ref())?;
        Ok((!raw.marked).then_some(raw))
    }

    /// Reads, and opens what belongs together. What does not is only for making it anew: there it is given as far as
    /// it is genuine.
    pub(super) async fn look(
        &self,
        key: &SubjectKey,
        parts: Parts,
        mark: Option<&str>,
        keep_sealed: bool,
    ) -> Result<Option<Look>, StoreError> {
        for attempt in 0.. {
            // What is expected has to be taken before the values are asked for.
            let floor = self.floors.of(key);
            let Some(raw) = self.fetch(key, parts, mark).await? else {
                break;
            };
            let (look, stale) = self.opened_values(key, parts, raw, floor, keep_sealed)?;
            let Some(stale) = stale else {
                if let Some(note) = look.note.filter(|n| n.versions.subject > floor) {
                    self.floors.raise(key, note.versions.subject);
                }
                return Ok(Some(look));
            };
            // A partition that is rebuilt is made anew as a whole.
            let rebuilt = look.raw.marker.as_ref().is_some_and(|m| m.rebuilding);
            if attempt < AGAIN && stale != Stale::Mending && !rebuilt {
                pause(attempt).await;
                continue;
            }
            if !rebuilt {
                self.altered.note(altered(key, &look.loaded, stale));
            }
            if parts.rebuilding {
                return Ok(Some(look));
            }
            return Err(StoreError::Altered(stale));
        }
        Ok(None)
    }

    /// Opens and decodes. What is sealed is taken out of `raw`, unless it is wanted still.
    fn opened_values(
        &self,
        key: &SubjectKey,
        parts: Parts,
        mut raw: Raw,
        floor: u64,
        keep_sealed: bool,
    ) -> Result<(Look, Option<Stale>), StoreError> {
        let take = |octets: &mut Option<Vec<u8>>| {
            if keep_sealed {
                octets.clone()
            } else {
                octets.take()
            }
        };
        let (anchor, note, record) = self.opened_record(key, take(&mut raw.record))?;
        let beside = |asked: bool, kind, octets| {
            if asked {
                self.beside(kind, key, octets)
            } else {
                Ok((Beside::Unasked, None))
            }
        };
        let (account_is, account) = beside(parts.account, Kind::Account, take(&mut raw.account))?;
        let (grants_are, grants) = beside(parts.grants, Kind::Grants, take(&mut raw.grants))?;
        let values = Values {
            anchor,
            account: account_is,
            grants: grants_are,
            witnessed: raw.due || raw.others,
        };
        // A due entry needs a record, not only what stands in front of one.
        let lone = raw.due && record.is_none() && matches!(anchor, Anchor::Of(v) if !v.mending);
        let stale = values.stale(floor).or(lone.then_some(Stale::Gone));
        let past = raw.marker.as_ref().and_then(|m| m.loss);
        let rebuilding = raw.marker.as_ref().is_some_and(|m| m.rebuilding);
        let believed = grants.filter(|_| matches!(stale, None | Some(Stale::Mending)));
        let grants = believed.map(|octets| decoded(&octets, parts.brief)).transpose()?;
        let account = account.map(|octets| codec::decode("a snapshot", split_number(&octets)?.1));
        let loaded = Loaded {
            account: account.transpose()?,
            // Nobody knows which of them were ended since: none is honoured.
            grants: match past {
                Some(past) => grants.map(|g| g.since(past.begun)),
                None => grants,
            },
            store_time: raw.time,
            told_before: past.map(|p| p.told_before),
            rebuilding: rebuilding || stale.is_some(),
            witnessed: raw.due && record.is_none(),
            record,
        };
        let look = Look {
            raw,
            loaded,
            note,
            floor,
            stale: stale.filter(|_| !rebuilding),
        };
        Ok((look, stale))
    }

    /// The record's value.
    fn opened_record(
        &self,
        key: &SubjectKey,
        sealed: Option<Vec<u8>>,
    ) -> Result<(Anchor, Option<Note>, Option<Record>), StoreError> {
        let Some(sealed) = sealed else {
            return Ok((Anchor::Absent, None, None));
        };
        Ok(match self.anchor(key, sealed)? {
            Some((note, record)) => (Anchor::Of(note.versions), Some(note), record),
            None => (Anchor::Altered, None, None),
        })
    }
}

/// Grants, behind their number.
fn decoded(octets: &[u8], brief: bool) -> Result<Grants, StoreError> {
    let (_, octets) = split_number(octets)?;
    if brief {
        Ok(codec::decode::<Brief>("grants", octets)?.0)
    } else {
        codec::decode("grants", octets)
    }
}

/// What is to be said of an account whose values do not belong together.
fn altered(key: &SubjectKey, left: &Loaded, why: Stale) -> Altered {
    let session = left.grants.as_ref().and_then(|g| g.sessions.first());
    let subject: Option<&Subject> = left.record.as_ref().map(|r| &r.subject);
    Altered {
        key: *key,
        subject: subject.or(session.map(|s| &s.subject)).cloned(),
        why,
    }
}
