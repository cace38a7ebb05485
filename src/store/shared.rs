//! The rules that both adapters obey, written once.

mod anchor;
mod chain;
mod floors;
pub(crate) mod form;
mod letters;
mod loss;
mod memory;
mod mend;
mod operate;
mod read;
mod setting;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use self::floors::Floors;
use self::form::line;
use self::memory::Memory;
use super::backend::{Backend, Batch, ChainHead, Committed};
use super::marker::{Expected, PARTITIONS, Seen};
use super::seal::{Keys, Kind};
use crate::domain::audit::{Chain, Entry, Head};
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::{Span, Timestamp};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{
    Altered, Change, Lease, Loaded, Lost, Mark, Parts, Pending, PendingId, Rebuild, Room, Soundness, Store,
    StoreError, Updated,
};

/// How often an update runs again because another process was faster.
const ATTEMPTS: u32 = 32;
/// Grants that grow by more octets than this begin something: a session, or what a code gave. Ends and revocations are
/// far below.
const GROWTH: usize = 256;
/// How often partitions are looked at to which this process committed nothing.
const FULL_SCAN: Duration = Duration::from_secs(1);
/// How long an outbox entry that cannot be read steps aside.
const UNREADABLE_WAIT: Span = Span::from_mins(10);

/// A store over a backend.
pub(crate) struct Shared<B> {
    backend: B,
    /// The heads of the audit chains as this process knows them.
    chains: Vec<Mutex<ChainHead>>,
    keys: Arc<Keys>,
    seen: Seen,
    /// Updates of one subject in this process wait for each other here instead of colliding in the store.
    turns: Vec<Mutex<()>>,
    work: Notify,
    /// Partitions that this process put outbox entries into since they were last looked at.
    fresh: Vec<AtomicBool>,
    scanned: StdMutex<Option<Instant>>,
    /// Whether the installation's own note was found to be ours: nobody leads others in a store that is not.
    ours: AtomicBool,
    /// The connection over which the last look at all markers found nothing wrong.
    sound: StdMutex<Option<u64>>,
    /// What this process knows of effects, also when the store does not any more.
    memory: Memory,
    /// The highest number of each account's commits that it has seen.
    floors: Floors,
    /// Whether what is left of the store's room is kept for what tightens.
    tight: AtomicBool,
    /// Accounts whose values it found altered.
    altered: mend::Suspects,
}

/// The real time, for what is not a decision: ages of effects without a record, expiry of single-use state.
#[expect(
    clippy::disallowed_methods,
    reason = "expiry of what is kept for a while is real time, also where a test or `demo` moves the clock of decisions"
)]
pub(crate) fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
    Timestamp::from_millis(millis)
}

impl<B: Backend> Shared<B> {
    pub(crate) fn new(backend: B, keys: Arc<Keys>) -> Self {
        Self {
            seen: Seen::new(keys.fingerprint()),
            chains: (0..PARTITIONS).map(|_| Mutex::default()).collect(),
            turns: (0..PARTITIONS).map(|_| Mutex::default()).collect(),
            work: Notify::new(),
            fresh: (0..PARTITIONS).map(|_| AtomicBool::new(true)).collect(),
            scanned: StdMutex::default(),
            ours: AtomicBool::new(false),
            sound: StdMutex::default(),
            memory: Memory::default(),
            floors: Floors::default(),
            tight: AtomicBool::new(false),
            altered: mend::Suspects::default(),
            backend,
            keys,
        }
    }

    /// One attempt at an update; `None` when somebody else was faster.
    async fn attempt(
        &self,
        key: &SubjectKey,
        parts: &mut Parts,
        mark: Option<&(String, Span)>,
        change: &Change<'_>,
    ) -> Result<Option<Updated>, StoreError> {
        let name = mark.map(|(name, _)| name.as_str());
        // Nothing is written that was not seen whole.
        parts.brief = false;
        let Some(look) = self.look(key, *parts, name, true).await? else {
            return Ok(Some(Updated::Duplicate));
        };
        let loaded = &look.loaded;
        let wanted = change(loaded);
        let unchanged = wanted.is_none();
        let write = wanted.unwrap_or_default();
        if unchanged && mark.is_none() {
            return Ok(Some(Updated::Unchanged));
        }
        let blind = Parts {
            account: write.account.is_some() && !parts.account,
            grants: write.grants.is_some() && !parts.grants,
            ..Parts::RECORD
        };
        if blind.account || blind.grants {
            // Nothing is overwritten unseen: the closure runs again, with the value before its eyes.
            parts.account |= blind.account;
            parts.grants |= blind.grants;
            return Ok(None);
        }
        let records = [write.record.as_ref(), loaded.record.as_ref()];
        let known = records.into_iter().flatten().map(|r| &r.subject).next();
        let subject = known.or(write.subject.as_ref()).cloned();
        let mut batch = self.batch(key, *parts, look, &write, subject.as_ref())?;
        if batch.growth() > GROWTH {
            self.has_room()?;
        }
        batch.mark = mark.cloned();
        Ok(match self.commit(batch).await? {
            Committed::Duplicate => Some(Updated::Duplicate),
            Committed::Stored(_) if unchanged => Some(Updated::Unchanged),
            Committed::Stored(_) => Some(Updated::Stored),
            Committed::Conflict | Committed::Behind(_) | Committed::Unsound(_) => None,
        })
    }

    /// What a marker has to be for a command that is sent now.
    fn expected(&self, partition: u8, parts: Parts) -> Expected {
        Expected {
            rebuilding: parts.rebuilding,
            ..self.seen.expected(partition)
        }
    }

    /// Commits, and remembers the fence and the work that there is now.
    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        let mut batch = Arc::new(batch);
        let partition = batch.key.partition();
        let committed = self.linked(&mut batch).await?;
        match &committed {
            Committed::Stored(fence) => {
                self.seen.moved(partition, *fence);
                if let Some(number) = batch.number {
                    self.floors.raise(&batch.key, number);
                }
                if !batch.outbox.is_empty() {
                    self.look_at(partition);
                    self.work.notify_waiters();
                    self.work.notify_one();
                }
            }
            Committed::Unsound(marker) => {
                self.seen.judge(partition, &batch.marker, marker.as_ref())?;
            }
            Committed::Duplicate | Committed::Conflict | Committed::Behind(_) => {}
        }
        Ok(committed)
    }

    /// Whether there is room for what only fills the store.
    fn has_room(&self) -> Result<(), StoreError> {
        if self.tight.load(Ordering::Acquire) {
            let why = format!(
                "more than {} % of it is used, and the rest is kept for holds and reports",
                Room::TIGHT
            );
            return Err(StoreError::Full(why));
        }
        Ok(())
    }

    fn look_at(&self, partition: u8) {
        if let Some(fresh) = self.fresh.get(usize::from(partition)) {
            fresh.store(true, Ordering::Release);
        }
    }

    /// Those of `mine` to look at now: those with news, and from time to time all.
    fn partitions(&self, mine: &[u8]) -> Vec<u8> {
        let all = {
            let Ok(mut scanned) = self.scanned.lock() else {
                return mine.to_vec();
            };
            let all = scanned.is_none_or(|at| at.elapsed() >= FULL_SCAN);
            if all {
                *scanned = Some(Instant::now());
            }
            all
        };
        let fresh = |p: &u8| {
            let flag = self.fresh.get(usize::from(*p));
            flag.is_some_and(|f| f.swap(false, Ordering::AcqRel))
        };
        mine.iter().copied().filter(|p| fresh(p) || all).collect()
    }
}

/// Waits a little, not always equally long, so that two that collided do not collide again.
async fn pause(attempt: u32) {
    let mut dice = [0_u8; 1];
    // Without randomness the pause is merely less well spread.
    let _ = aws_lc_rs::rand::fill(&mut dice);
    let most = 1_u64 << attempt.min(5);
    let [dice] = dice;
    tokio::time::sleep(Duration::from_micros(most * 1000 * u64::from(dice) / 255)).await;
}

#[async_trait]
impl<B: Backend> Store for Shared<B> {
    async fn read(&self, key: &SubjectKey, parts: Parts) -> Result<Loaded, StoreError> {
        let look = self.look(key, parts, None, false).await?;
        Ok(look.map(|look| look.loaded).unwrap_or_default())
    }

    async fn update(
        &self,
        key: &SubjectKey,
        mut parts: Parts,
        mark: Option<&Mark>,
        change: &Change<'_>,
    ) -> Result<Updated, StoreError> {
        let mark = mark.map(|m| (self.mark_name(&m.name), m.keep));
        let [_, turn, ..] = key.0;
        let turn = self.turns.get(usize::from(turn));
        let _turn = match turn {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        for attempt in 0..ATTEMPTS {
            if let Some(updated) = self.attempt(key, &mut parts, mark.as_ref(), change).await? {
                return Ok(updated);
            }
            pause(attempt).await;
        }
        Err(StoreError::Contended)
    }

    fn exclusive(&self) -> bool {
        self.backend.exclusive()
    }

    async fn pending_in(
        &self,
        partitions: &[u8],
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<Pending>, StoreError> {
        let partitions = self.partitions(partitions);
        let waiting = match self.backend.outbox(&partitions, now, max).await {
            Ok(waiting) => waiting,
            Err(error) => {
                for partition in &partitions {
                    self.look_at(*partition);
                }
                return Err(error);
            }
        };
        // More may be where something was, and where the limit cut the search off.
        let cut = waiting.len() >= max;
        let found: BTreeSet<u8> = waiting.iter().map(|w| w.at.partition).collect();
        for partition in partitions.iter().filter(|p| cut || found.contains(p)) {
            self.look_at(*partition);
        }
        let mut pending = Vec::new();
        for one in self.believed(waiting).await? {
            match self.opened(&one) {
                Ok(entry) => {
                    self.memory.found(&entry);
                    pending.push(entry);
                }
                Err(error) => {
                    // It is kept, for whoever can read it, and steps aside so that it does not hold up the others.
                    tracing::error!(partition = one.at.partition, entry = %one.at.entry, %error, "an outbox entry cannot be read");
                    let later = now.plus(UNREADABLE_WAIT);
                    self.backend.defer(&one.at, &one.sealed, later).await?;
                }
            }
        }
        Ok(pending)
    }

    async fn waiting(&self, max: usize) -> Result<Vec<Pending>, StoreError> {
        let waiting = self.backend.peek(max).await?;
        // One that cannot be read is the worker's to report.
        Ok(waiting.iter().filter_map(|one| self.opened(one).ok()).collect())
    }

    async fn wait_for_work(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most.min(FULL_SCAN), self.work.notified()).await;
    }

    async fn done(&self, at: &PendingId) -> Result<(), StoreError> {
        self.backend.remove(at).await?;
        self.memory.done(at);
        Ok(())
    }

    async fn retry(&self, entry: &Pending, at: Timestamp, failure: &str) -> Result<(), StoreError> {
        self.set_aside(entry, at, failure).await
    }

    async fn postpone(&self, entry: &Pending, at: Timestamp) -> Result<(), StoreError> {
        self.put_off(entry, at).await
    }

    async fn bury(&self, entry: &Pending, failure: &str) -> Result<(), StoreError> {
        self.buried(entry, failure).await
    }

    async fn dead(&self, max: usize) -> Result<Vec<Pending>, StoreError> {
        let dead = self.backend.dead(max).await?;
        Ok(dead.iter().filter_map(|one| self.opened(one).ok()).collect())
    }

    async fn revive(&self, at: &PendingId, now: Timestamp) -> Result<bool, StoreError> {
        self.revived(at, now).await
    }

    async fn due(&self, now: Timestamp, max: usize) -> Result<Vec<SubjectKey>, StoreError> {
        self.backend.due(now, max).await
    }

    async fn put_state(&self, name: &str, value: &[u8], keep: Span) -> Result<(), StoreError> {
        self.has_room()?;
        let name = self.keys.name("state", name);
        let sealed = self.keys.seal(Kind::State, &name, value)?;
        self.backend.put_state(&name, &sealed, keep).await
    }

    async fn take_state(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let name = self.keys.name("state", name);
        let Some(sealed) = self.backend.take_state(&name).await? else {
            return Ok(None);
        };
        let plain = self.keys.open(Kind::State, &name, sealed)?;
        Ok(Some(plain.to_vec()))
    }

    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(setting::read(
            &*self.keys,
            name,
            self.backend.setting(name).await?,
        ))
    }

    async fn set_setting(&self, name: &str, value: &str, lease: Option<&Lease>) -> Result<(), StoreError> {
        let value = setting::sealed(&*self.keys, name, value);
        self.backend.set_setting(name, &value, lease).await
    }

    async fn lease(&self, name: &str, owner: &str, keep: Span) -> Result<Option<Lease>, StoreError> {
        self.recognised().await?;
        self.backend.lease(name, owner, keep).await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        self.backend.release(name, owner).await
    }

    async fn audit(
        &self,
        key: Option<&SubjectKey>,
        before: Timestamp,
        max: usize,
    ) -> Result<Vec<(Subject, Entry)>, StoreError> {
        self.audit_lines(key, before, max).await
    }

    async fn chain(&self, partition: u8) -> Result<Chain, StoreError> {
        self.verified(partition, wall_clock()).await
    }

    async fn heads(&self) -> Result<Vec<(u8, Head)>, StoreError> {
        self.every_head().await
    }

    async fn room(&self) -> Result<Option<Room>, StoreError> {
        let room = self.backend.room().await?;
        let tight = room.is_some_and(|room| room.is_tight());
        self.tight.store(tight, Ordering::Release);
        Ok(room)
    }

    async fn note(&self, subject: &Subject, key: &SubjectKey, entry: &Entry) -> Result<(), StoreError> {
        let parts = Parts::RECORD.while_rebuilding();
        let mut batch = Batch::new(*key, self.expected(key.partition(), parts));
        batch.loose.push(line(subject, entry, 0));
        self.commit(batch).await.map(|_| ())
    }

    async fn init(&self) -> Result<bool, StoreError> {
        self.install(None).await
    }

    async fn moved(&self, upstream: &UpstreamId) -> Result<(), StoreError> {
        self.install(Some(upstream)).await.map(|_| ())
    }

    async fn lost(&self) -> Result<Vec<Lost>, StoreError> {
        self.looked().await
    }

    async fn still_sound(&self) -> Result<bool, StoreError> {
        self.glance().await
    }

    async fn begin_rebuild(
        &self,
        partition: u8,
        told_before: Timestamp,
        now: Timestamp,
    ) -> Result<Rebuild, StoreError> {
        self.begin(partition, told_before, now).await
    }

    async fn finish_rebuild(&self, rebuild: &Rebuild) -> Result<bool, StoreError> {
        self.finish(rebuild).await
    }

    fn altered(&self) -> Vec<Altered> {
        self.altered.all()
    }

    async fn begin_mend(&self, key: &SubjectKey) -> Result<bool, StoreError> {
        self.begin_to_mend(key).await
    }

    async fn finish_mend(&self, key: &SubjectKey) -> Result<bool, StoreError> {
        self.end_mending(key).await
    }

    fn told(&self, effect: &str) -> Option<bool> {
        self.memory.told(effect)
    }

    fn delivered(&self, entry: &Pending) {
        self.memory.delivered(entry);
    }

    fn witness(&self) -> Option<String> {
        self.seen.witness()
    }

    fn remember(&self, witness: &str) {
        self.seen.remember(witness);
    }

    async fn check(&self) -> Result<Soundness, StoreError> {
        self.soundness().await
    }
}
