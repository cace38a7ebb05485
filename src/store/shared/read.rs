//! Reading: what the backend has, judged by its marker, opened and decoded.

mod brief;

use self::brief::Brief;
use super::Shared;
use super::form::place;
use crate::domain::session::Grants;
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Loaded, Loss, Parts, StoreError};
use crate::store::backend::{Backend, Raw};
use crate::store::codec;
use crate::store::seal::Kind;

impl<B: Backend> Shared<B> {
    /// Reads and judges. `None` when the mark is there.
    pub(super) async fn fetch(
        &self,
        key: &SubjectKey,
        parts: Parts,
        mark: Option<&str>,
    ) -> Result<Option<Raw>, StoreError> {
        let partition = key.partition();
        let expected = self.expected(partition, parts);
        let raw = self.backend.read(key, parts, mark).await?;
        self.seen.judge(partition, &expected, raw.marker.as_ref())?;
        let rebuilding = raw.marker.as_ref().is_some_and(|m| m.rebuilding);
        if raw.due && raw.record.is_none() && !rebuilding {
            self.seen.damaged(partition, true);
            let loss = Loss::Values;
            return Err(StoreError::Lost { partition, loss });
        }
        Ok((!raw.marked).then_some(raw))
    }

    /// Opens and decodes. What is sealed is taken out of `raw`.
    pub(super) fn loaded(&self, key: &SubjectKey, parts: Parts, raw: &mut Raw) -> Result<Loaded, StoreError> {
        let place = place(key);
        let sealed = |kind, octets: Option<Vec<u8>>| {
            let opened = octets.map(|octets| self.keys.open(kind, &place, octets));
            opened.transpose()
        };
        let account = sealed(Kind::Account, raw.account.take())?;
        let grants = sealed(Kind::Grants, raw.grants.take())?;
        let record = raw.record.as_deref();
        let past = raw.marker.as_ref().and_then(|m| m.loss);
        let grants: Option<Grants> = match grants {
            Some(octets) if parts.brief => Some(codec::decode::<Brief>("grants", &octets)?.0),
            Some(octets) => Some(codec::decode("grants", &octets)?),
            None => None,
        };
        Ok(Loaded {
            record: record.map(|b| codec::decode("a record", b)).transpose()?,
            account: account.map(|b| codec::decode("a snapshot", &b)).transpose()?,
            // Nobody knows which of them were ended since: none is honoured.
            grants: match past {
                Some(past) => grants.map(|g| g.since(past.begun)),
                None => grants,
            },
            store_time: raw.time,
            told_before: past.map(|p| p.told_before),
            rebuilding: raw.marker.as_ref().is_some_and(|m| m.rebuilding),
            witnessed: raw.due && raw.record.is_none(),
        })
    }

    /// Reads for an update: the values as they were stay beside what they say.
    pub(super) async fn load(
        &self,
        key: &SubjectKey,
        parts: Parts,
        mark: Option<&str>,
    ) -> Result<Option<(Raw, Loaded)>, StoreError> {
        let Some(mut raw) = self.fetch(key, parts, mark).await? else {
            return Ok(None);
        };
        let sealed = (raw.account.clone(), raw.grants.clone());
        // Nothing is written that was not seen whole.
        let whole = Parts {
            brief: false,
            ..parts
        };
        let loaded = self.loaded(key, whole, &mut raw)?;
        (raw.account, raw.grants) = sealed;
        Ok(Some((raw, loaded)))
    }
}
