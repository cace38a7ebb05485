//! What becomes of an outbox entry that was not delivered: later, never by itself, or again by an operator's word.

use super::Shared;
use super::form::Envelope;
use crate::domain::time::Timestamp;
use crate::ports::store::{Pending, PendingId, StoreError};
use crate::store::backend::Backend;

impl Envelope {
    /// The entry as it was.
    fn of(entry: &Pending) -> Self {
        Self {
            subject: entry.subject.clone(),
            id: entry.id.clone(),
            effect: entry.effect.clone(),
            attempts: entry.attempts,
            since: entry.since,
            failure: entry.failure.clone(),
            trace: entry.trace.clone(),
        }
    }

    /// The entry after one more try that failed.
    fn after(entry: &Pending, failure: &str) -> Self {
        Self {
            attempts: entry.attempts.saturating_add(1),
            failure: Some(failure.to_owned()),
            ..Self::of(entry)
        }
    }
}

impl<B: Backend> Shared<B> {
    /// Tried, and to be tried again.
    pub(super) async fn set_aside(
        &self,
        entry: &Pending,
        at: Timestamp,
        failure: &str,
    ) -> Result<(), StoreError> {
        let sealed = self.envelope(entry.at.partition, &Envelope::after(entry, failure))?;
        self.backend.defer(&entry.at, &sealed, at).await
    }

    /// Not tried.
    pub(super) async fn put_off(&self, entry: &Pending, at: Timestamp) -> Result<(), StoreError> {
        let sealed = self.envelope(entry.at.partition, &Envelope::of(entry))?;
        self.backend.defer(&entry.at, &sealed, at).await
    }

    /// Tried for the last time.
    pub(super) async fn buried(&self, entry: &Pending, failure: &str) -> Result<(), StoreError> {
        let sealed = self.envelope(entry.at.partition, &Envelope::after(entry, failure))?;
        self.backend.bury(&entry.at, &sealed).await
    }

    /// Begun anew, with all the patience of a new one.
    pub(super) async fn revived(&self, at: &PendingId, now: Timestamp) -> Result<bool, StoreError> {
        let Some(dead) = self.backend.dead_one(at).await? else {
            return Ok(false);
        };
        let entry = self.opened(&dead)?;
        let fresh = Envelope {
            attempts: 0,
            since: now.max(entry.since),
            ..Envelope::of(&entry)
        };
        let sealed = self.envelope(at.partition, &fresh)?;
        let revived = self.backend.revive(at, &sealed).await?;
        if revived {
            self.look_at(at.partition);
            self.work.notify_one();
        }
        Ok(revived)
    }
}
