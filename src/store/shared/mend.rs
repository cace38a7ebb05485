//! One account whose values were altered, missing or of before: known to be so, and made anew by itself, so that it
//! costs nobody else anything (P15).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Shared;
use super::anchor::{Look, note_after};
use super::form::place;
use crate::domain::subject::versions::Stale;
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Altered, Parts, StoreError, Write};
use crate::store::backend::{Backend, Batch, Cell, Committed, Due, Former, Put};
use crate::store::seal::Kind;

/// Accounts remembered at most. Others are found again when somebody asks about them.
const MOST: usize = 4096;

/// Accounts that were found altered.
#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<BTreeMap<SubjectKey, Altered>>);

impl Suspects {
    /// One more. What was said of it first is the cause; that it is being mended is none.
    pub(super) fn note(&self, altered: Altered) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= MOST && !found.contains_key(&altered.key) {
            return;
        }
        let known = found.entry(altered.key).or_insert_with(|| altered.clone());
        known.subject = known.subject.take().or(altered.subject);
        if known.why == Stale::Mending {
            known.why = altered.why;
        }
    }

    fn forget(&self, key: &SubjectKey) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.remove(key);
    }

    pub(super) fn all(&self) -> Vec<Altered> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.values().cloned().collect()
    }
}

impl<B: Backend> Shared<B> {
    /// Stores what is left of an account under a new number, marked as being mended.
    pub(super) async fn begin_to_mend(&self, key: &SubjectKey) -> Result<bool, StoreError> {
        let parts = Parts::ALL.while_rebuilding();
        for attempt in 0..super::ATTEMPTS {
            let Some(look) = self.look(key, parts, None, true).await? else {
                return Ok(false);
            };
            match look.stale {
                None => {
                    self.altered.forget(key);
                    return Ok(false);
                }
                Some(Stale::Mending) => return Ok(true),
                Some(_) => {}
            }
            let batch = self.left(key, parts, look)?;
            if let Committed::Stored(_) = self.commit(batch).await? {
                return Ok(true);
            }
            super::pause(attempt).await;
        }
        Err(StoreError::Contended)
    }

    /// The step that stores what is left.
    fn left(&self, key: &SubjectKey, parts: Parts, look: Look) -> Result<Batch, StoreError> {
        let place = place(key);
        let write = Write {
            account: look.loaded.account.clone(),
            ..Write::default()
        };
        let mut note = note_after(&look, &write);
        let number = note.versions.subject;
        note.versions.mending = true;
        let account = match &write.account {
            Some(account) => Put::Set(self.numbered(Kind::Account, &place, number, account)?),
            None => Put::Remove,
        };
        if write.account.is_none() {
            note.versions.account = 0;
        }
        // Nobody knows which sessions were ended, and what ends them meanwhile finds nothing to end: none is honoured. And
        // nothing that was copied before fits from now on.
        note.versions.grants = number;
        let mut batch = Batch::new(*key, self.expected(key.partition(), parts));
        batch.number = Some(number);
        batch.decides = true;
        let cell = |former: Option<Vec<u8>>, put| Cell {
            former: Former::seen(former),
            put,
            keep: None,
        };
        let record = self.anchored(&place, &note, look.loaded.record.as_ref())?;
        batch.record = cell(look.raw.record, Put::Set(record));
        batch.account = cell(look.raw.account, account);
        batch.grants = cell(look.raw.grants, Put::Remove);
        Ok(batch)
    }

    /// Takes the mark away, if nothing is wrong but that.
    pub(super) async fn end_mending(&self, key: &SubjectKey) -> Result<bool, StoreError> {
        let parts = Parts::ALL.while_rebuilding();
        for attempt in 0..super::ATTEMPTS {
            let Some(look) = self.look(key, parts, None, true).await? else {
                return Ok(false);
            };
            if look.stale.is_none() {
                self.altered.forget(key);
                return Ok(true);
            }
            let Some(before) = look.note.filter(|_| look.stale == Some(Stale::Mending)) else {
                return Ok(false);
            };
            let mut note = note_after(&look, &Write::default());
            note.versions.mending = false;
            let mut batch = Batch::new(*key, self.expected(key.partition(), parts));
            batch.number = Some(note.versions.subject);
            batch.decides = true;
            let record = look.loaded.record.as_ref();
            batch.record = Cell {
                former: Former::seen(look.raw.record),
                put: Put::Set(self.anchored(&place(key), &note, record)?),
                keep: before.keep(record),
            };
            if record.is_none() {
                // The IdP has no such account any more, or nothing of it restricts.
                batch.due = Due::Never;
            }
            if let Committed::Stored(_) = self.commit(batch).await? {
                self.altered.forget(key);
                return Ok(true);
            }
            super::pause(attempt).await;
        }
        Err(StoreError::Contended)
    }
}
