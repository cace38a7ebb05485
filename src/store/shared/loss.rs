//! Partitions that cannot be decided on, and how one is taken back into use.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::Shared;
use crate::domain::time::Timestamp;
use crate::ports::store::{Loss, Lost, Rebuild, StoreError};
use crate::store::backend::{Backend, Waiting};
use crate::store::marker::{Expected, GENERATION, Marker, Past, next_generation, united};

/// Readings of an outbox at most, when it is cleared of what was done.
const ROUNDS: usize = 64;
/// Entries at a time.
const PAGE: usize = 128;

impl<B: Backend> Shared<B> {
    /// All losses, and a note for [`Shared::glance`] when there is none.
    pub(super) async fn looked(&self) -> Result<Vec<Lost>, StoreError> {
        self.seen.calm();
        let over = self.backend.glance().await?;
        let lost = self.losses().await?;
        if let Ok(mut sound) = self.sound.lock() {
            *sound = over.filter(|_| lost.is_empty());
        }
        Ok(lost)
    }

    /// Whether the last look found nothing, over the connection that is still there, and nobody found anything since.
    pub(super) async fn glance(&self) -> Result<bool, StoreError> {
        let Some(over) = self.sound.lock().ok().and_then(|sound| *sound) else {
            return Ok(false);
        };
        let now = self.backend.glance().await?;
        Ok(now == Some(over) && !self.seen.is_alarmed())
    }

    /// Whether the store is ours at all, as its own note says. One that has none is not known to be another's.
    ///
    /// # Errors
    /// [`StoreError::Lost`] when it is one of other keys or for other IdPs: whoever took a lease in it would keep those
    /// from their work whose it is.
    pub(super) async fn recognised(&self) -> Result<(), StoreError> {
        if self.ours.load(Ordering::Acquire) {
            return Ok(());
        }
        let Some(note) = self.backend.installation(None).await? else {
            return Ok(());
        };
        let expected = Expected {
            incarnation: None,
            fence: 0,
            rebuilding: true,
            ..self.seen.expected(0)
        };
        if let Some(loss) = expected.fault(Some(&note)) {
            return Err(StoreError::Lost { partition: 0, loss });
        }
        self.ours.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) async fn losses(&self) -> Result<Vec<Lost>, StoreError> {
        let installed = self.backend.installation(None).await?;
        if let Some(own) = &installed {
            self.seen.installed(own);
        }
        self.ours.store(false, Ordering::Release);
        // What is expected has to be taken before the markers are asked for.
        let expected: Vec<Expected> = (0..=u8::MAX).map(|p| self.seen.expected(p)).collect();
        let markers = self.backend.markers().await?;
        let ours = self.seen.incarnation();
        // The note names another installation: somebody else's store, or one that was begun anew.
        let foreign = installed
            .as_ref()
            .is_some_and(|n| ours != Some(n.incarnation.as_str()));
        let mut found = Vec::new();
        for ((partition, marker), expected) in (0..=u8::MAX).zip(&markers).zip(&expected) {
            let judged = self.seen.judge(partition, expected, marker.as_ref());
            let Err(StoreError::Lost { loss, .. }) = judged else {
                continue;
            };
            let heals = loss.heals() && ours.is_some() && !foreign;
            found.push(Lost {
                partition,
                loss,
                heals,
            });
        }
        Ok(found)
    }

    pub(super) async fn begin(
        &self,
        partition: u8,
        told_before: Timestamp,
        now: Timestamp,
    ) -> Result<Rebuild, StoreError> {
        let note = self.backend.installation(None).await?;
        if let Some(note) = &note {
            self.seen.installed(note);
        }
        let state = self
            .losses()
            .await?
            .into_iter()
            .find(|l| l.partition == partition);
        if let Some(Lost {
            loss, heals: false, ..
        }) = &state
            && (!loss.heals() || note.is_some())
        {
            return Err(StoreError::Lost {
                partition,
                loss: loss.clone(),
            });
        }
        let expected = self.seen.expected(partition);
        let past = Past {
            told_before,
            begun: now,
        };
        let fresh = self.fresh_marker(&expected, note.as_ref(), past)?;
        if note.is_none() {
            self.note_again(&fresh).await?;
        }
        let back_in_time = matches!(
            state.map(|l| l.loss),
            None | Some(Loss::RolledBack | Loss::OtherInstallation)
        );
        let marker = self.backend.begin(partition, &fresh).await?;
        let expected = Expected {
            rebuilding: true,
            ..expected
        };
        self.seen.judge(partition, &expected, marker.as_ref())?;
        let marker = marker.ok_or(StoreError::Lost {
            partition,
            loss: Loss::Missing,
        })?;
        if back_in_time {
            self.forget_what_was_done(partition).await?;
        }
        Ok(Rebuild {
            partition,
            generation: marker.fence >> GENERATION,
            told_before: marker.loss.map_or(told_before, |past| past.told_before),
        })
    }

    /// The installation's own note was lost too.
    async fn note_again(&self, fresh: &Marker) -> Result<(), StoreError> {
        let whole = Marker {
            fence: 2,
            rebuilding: false,
            loss: None,
            ..fresh.clone()
        };
        if let Some(note) = self.backend.installation(Some(&whole)).await? {
            self.seen.installed(&note);
        }
        Ok(())
    }

    /// The marker of a rebuild that begins.
    fn fresh_marker(
        &self,
        expected: &Expected,
        note: Option<&Marker>,
        past: Past,
    ) -> Result<Marker, StoreError> {
        let own = self.keys.fingerprint();
        Ok(Marker {
            incarnation: match self.seen.incarnation() {
                Some(ours) => ours.to_owned(),
                None => Self::random_id()?,
            },
            fingerprint: note.map_or_else(|| own.clone(), |note| united(&own, &note.fingerprint)),
            fence: next_generation(expected.fence),
            rebuilding: true,
            loss: Some(past),
        })
    }

    pub(super) async fn finish(&self, rebuild: &Rebuild) -> Result<bool, StoreError> {
        let fence = self.backend.finish(rebuild.partition, rebuild.generation).await?;
        if let Some(fence) = fence {
            self.seen.moved(rebuild.partition, fence);
            self.look_at(rebuild.partition);
            self.work.notify_one();
        }
        Ok(fence.is_some())
    }

    /// Effects that came back with old values and that this process did long ago. Of the others nobody knows, and a
    /// message is rather repeated, with the same id, than lost (P8); whoever delivers them may know better.
    async fn forget_what_was_done(&self, partition: u8) -> Result<(), StoreError> {
        let end = Timestamp::from_millis(i64::MAX);
        for _ in 0..ROUNDS {
            let all = self.backend.outbox(&[partition], end, PAGE).await?;
            let mut gone = 0;
            for one in &all {
                let Ok(entry) = self.opened(one) else { continue };
                if self.memory.told(&entry.id) == Some(true) {
                    self.backend.remove(&one.at).await?;
                    gone += 1;
                }
            }
            if gone == 0 || all.len() < PAGE {
                break;
            }
        }
        Ok(())
    }

    /// Those that stand in partitions whose state can be believed: what follows from an effect has to be stored.
    pub(super) async fn believed(&self, waiting: Vec<Waiting>) -> Result<Vec<Waiting>, StoreError> {
        if waiting.is_empty() {
            return Ok(waiting);
        }
        // Only these: a node that is away must not hold up the work of the others.
        let partitions: BTreeSet<u8> = waiting.iter().map(|w| w.at.partition).collect();
        let partitions: Vec<u8> = partitions.into_iter().collect();
        let expected: Vec<Expected> = partitions.iter().map(|p| self.seen.expected(*p)).collect();
        let markers = self.backend.markers_in(&partitions).await?;
        let mut lost = Vec::new();
        for ((partition, marker), expected) in partitions.iter().zip(&markers).zip(&expected) {
            let judged = self.seen.judge(*partition, expected, marker.as_ref());
            if judged.is_err() {
                lost.push(*partition);
            }
        }
        Ok(waiting
            .into_iter()
            .filter(|w| !lost.contains(&w.at.partition))
            .collect())
    }

    fn random_id() -> Result<String, StoreError> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| StoreError::Unavailable("no randomness".to_owned()))?;
        Ok(crate::store::seal::hex(&id))
    }
}
