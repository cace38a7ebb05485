//! What an adapter has to do: read octets, and commit octets if nothing it was told about has changed meanwhile.

use std::sync::Arc;

use async_trait::async_trait;

use super::marker::{Expected, Marker};
use crate::domain::audit::Entry;
use crate::domain::subject::Subject;
use crate::domain::time::{Span, Timestamp};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Lease, Parts, PendingId, Room, Soundness, StoreError};

/// A subject's values and what they are judged by, as found in one round trip.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    /// The partition's marker.
    pub(crate) marker: Option<Marker>,
    /// Whether the dedupe mark that was asked about is there.
    pub(crate) marked: bool,
    /// Whether the subject is in the due queue. Read before the record, which is written with it.
    pub(crate) due: bool,
    /// The record.
    pub(crate) record: Option<Vec<u8>>,
    /// Whether the subject has a snapshot that was not asked for.
    pub(crate) others: bool,
    /// The snapshot, if asked for.
    pub(crate) account: Option<Vec<u8>>,
    /// The grants, if asked for.
    pub(crate) grants: Option<Vec<u8>>,
    /// The store's clock.
    pub(crate) time: Option<Timestamp>,
}

/// What a value has to be still when a commit writes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Former {
    /// The closure never saw it, so it does not matter.
    #[default]
    Unseen,
    /// It was not there.
    Absent,
    /// It was this.
    Was(Vec<u8>),
}

impl Former {
    /// What a closure saw.
    pub(crate) fn seen(value: Option<Vec<u8>>) -> Self {
        value.map_or(Self::Absent, Self::Was)
    }
}

/// What becomes of a value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Put {
    /// It stays.
    #[default]
    Leave,
    /// It is this from now on.
    Set(Vec<u8>),
    /// It goes.
    Remove,
}

/// A subject's value in a commit.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    /// What must still be there.
    pub(crate) former: Former,
    /// What to do with it.
    pub(crate) put: Put,
    /// How long to keep it from now on; for ever when `None`.
    pub(crate) keep: Option<Span>,
}

/// What to do about the due queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Leave it.
    Leave,
    /// The subject is due then.
    At(Timestamp),
    /// The subject is not due.
    Never,
}

/// One atomic step.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Whose it is.
    pub(crate) key: SubjectKey,
    /// What the marker must be.
    pub(crate) marker: Expected,
    /// A dedupe mark that must not be there, and is from now on.
    pub(crate) mark: Option<(String, Span)>,
    /// The number of the commit among those of its subject, when it writes values.
    pub(crate) number: Option<u64>,
    /// Whether a record is among what is written, and not only what stands beside it.
    pub(crate) decides: bool,
    /// The record.
    pub(crate) record: Cell,
    /// The snapshot.
    pub(crate) account: Cell,
    /// The grants.
    pub(crate) grants: Cell,
    /// The due entry.
    pub(crate) due: Due,
    /// Sealed outbox entries.
    pub(crate) outbox: Vec<Vec<u8>>,
    /// Audit lines that are to be linked.
    pub(crate) loose: Vec<Loose>,
    /// Audit lines with their place in the order of time, linked.
    pub(crate) audit: Vec<(i64, Vec<u8>)>,
    /// How the head of the chain moves on, with the lines.
    pub(crate) step: Option<Step>,
}

impl Batch {
    /// By how many octets grants grow in a step that restricts nobody and deals with nothing that was heard.
    pub(crate) fn growth(&self) -> usize {
        let before = match &self.grants.former {
            Former::Was(octets) => octets.len(),
            Former::Unseen | Former::Absent => 0,
        };
        match &self.grants.put {
            Put::Set(octets) if !self.decides && self.mark.is_none() => octets.len().saturating_sub(before),
            _ => 0,
        }
    }

    /// A step that changes nothing yet.
    pub(crate) fn new(key: SubjectKey, marker: Expected) -> Self {
        Self {
            key,
            marker,
            mark: None,
            number: None,
            decides: false,
            record: Cell::default(),
            account: Cell::default(),
            grants: Cell::default(),
            due: Due::Leave,
            outbox: Vec::new(),
            loose: Vec::new(),
            audit: Vec::new(),
            step: None,
        }
    }
}

/// An audit line before it is linked.
#[derive(Debug, Clone)]
pub(crate) struct Loose {
    /// Its place in the order of time.
    pub(crate) place: i64,
    /// Whose it is.
    pub(crate) subject: Subject,
    /// What it says.
    pub(crate) entry: Entry,
}

/// The newest line of a partition's audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ChainHead {
    /// Its number, counted from 1; 0 when there is none yet.
    pub(crate) n: u64,
    /// Its hash in hexadecimal.
    pub(crate) hash: String,
    /// Its place.
    pub(crate) place: i64,
    /// Its MAC in hexadecimal.
    pub(crate) mac: String,
}

/// A head and the one after it.
#[derive(Debug)]
pub(crate) struct Step {
    /// What the head must be still.
    pub(crate) from: ChainHead,
    /// What it is then.
    pub(crate) to: ChainHead,
}

/// How a commit ended.
#[derive(Debug)]
pub(crate) enum Committed {
    /// Done; the fence is this now.
    Stored(u64),
    /// The mark was there; nothing was done.
    Duplicate,
    /// A value is not what it was; nothing was done.
    Conflict,
    /// The marker is not what it must be; nothing was done.
    Unsound(Option<Marker>),
    /// The head of the audit chain is this; nothing was done.
    Behind(Option<ChainHead>),
}

/// An outbox entry as stored.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Where it is.
    pub(crate) at: PendingId,
    /// The sealed entry.
    pub(crate) sealed: Vec<u8>,
}

/// An audit line as stored.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its place in the order of time.
    pub(crate) order: i64,
    /// The encoded line.
    pub(crate) bytes: Vec<u8>,
}

/// A place that keeps octets. Names of marks, states, settings and leases come ready for use in a key.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// Reads a subject.
    async fn read(&self, key: &SubjectKey, parts: Parts, mark: Option<&str>) -> Result<Raw, StoreError>;

    /// Compares and writes, wholly or not at all.
    async fn commit(&self, batch: &Arc<Batch>) -> Result<Committed, StoreError>;

    /// Outbox entries of these partitions that are due at `now`, at most `max` in all.
    async fn outbox(&self, partitions: &[u8], now: Timestamp, max: usize)
    -> Result<Vec<Waiting>, StoreError>;

    /// Everything in the outbox, whenever it is due, at most `max`; moves nothing.
    async fn peek(&self, max: usize) -> Result<Vec<Waiting>, StoreError>;

    /// Removes an outbox entry.
    async fn remove(&self, at: &PendingId) -> Result<(), StoreError>;

    /// Replaces an outbox entry by one that is not due before `until`, in one step. Nothing if it is gone.
    async fn defer(&self, at: &PendingId, sealed: &[u8], until: Timestamp) -> Result<(), StoreError>;

    /// Moves an outbox entry to the dead letters, in one step. Nothing if it is gone.
    async fn bury(&self, at: &PendingId, sealed: &[u8]) -> Result<(), StoreError>;

    /// The dead letters, at most `max`.
    async fn dead(&self, max: usize) -> Result<Vec<Waiting>, StoreError>;

    /// One dead letter.
    async fn dead_one(&self, at: &PendingId) -> Result<Option<Waiting>, StoreError>;

    /// Puts a dead letter back as this entry, in one step. Says whether it was there.
    async fn revive(&self, at: &PendingId, sealed: &[u8]) -> Result<bool, StoreError>;

    /// Subjects due at `now`.
    async fn due(&self, now: Timestamp, max: usize) -> Result<Vec<SubjectKey>, StoreError>;

    /// Puts a value that is not there yet.
    async fn put_state(&self, name: &str, sealed: &[u8], keep: Span) -> Result<(), StoreError>;

    /// Takes a value away.
    async fn take_state(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Reads a setting.
    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Writes a setting, if the lease given is the newest.
    async fn set_setting(&self, name: &str, value: &str, lease: Option<&Lease>) -> Result<(), StoreError>;

    /// Takes or extends a lease.
    async fn lease(&self, name: &str, owner: &str, keep: Span) -> Result<Option<Lease>, StoreError>;

    /// Gives a lease back.
    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError>;

    /// Audit lines before `before` in the order of time, newest first: of one partition, or of all.
    async fn audit(&self, partition: Option<u8>, before: i64, max: usize) -> Result<Vec<Line>, StoreError>;

    /// The head of a partition's audit chain.
    async fn head(&self, partition: u8) -> Result<Option<ChainHead>, StoreError>;

    /// The heads of all partitions.
    async fn heads(&self) -> Result<Vec<Option<ChainHead>>, StoreError>;

    /// How much of its room the store has used, where it has a limit; of the fullest node where there are several.
    async fn room(&self) -> Result<Option<Room>, StoreError> {
        Ok(None)
    }

    /// How long audit lines are kept.
    fn audit_retention(&self) -> Span;

    /// Every marker there is, by partition.
    async fn markers(&self) -> Result<Vec<Option<Marker>>, StoreError> {
        self.markers_in(&(0..=u8::MAX).collect::<Vec<u8>>()).await
    }

    /// The markers of these partitions; the others need not be in reach.
    async fn markers_in(&self, partitions: &[u8]) -> Result<Vec<Option<Marker>>, StoreError>;

    /// The number of the connection, when that connection says that every marker and the installation's note are there;
    /// nothing when one is missing, or it cannot be said with one command. A marker that is there may still be wrong.
    async fn glance(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// The installation's own note of who it is. `fresh` is noted when there is none, or one of the same
    /// incarnation with a lower fence; the answer is what is noted afterwards.
    async fn installation(&self, fresh: Option<&Marker>) -> Result<Option<Marker>, StoreError>;

    /// Creates the marker of every partition that has none.
    async fn create_markers(&self, marker: &Marker) -> Result<(), StoreError>;

    /// Makes `marker` the marker of a partition, in a generation above the one that is there, if that is higher. A
    /// fingerprint that is there stays; one of other keys keeps the whole marker as it is. Of two rebuilds in a row
    /// the earlier memory of what was told counts. Gives the marker as it is now.
    async fn begin(&self, partition: u8, marker: &Marker) -> Result<Option<Marker>, StoreError>;

    /// Ends the rebuild of this generation and gives the fence; nothing if it is another's, or over.
    async fn finish(&self, partition: u8, generation: u64) -> Result<Option<u64>, StoreError>;

    /// Gives this fingerprint to every marker of the same keys, and to the installation's note.
    async fn widen(&self, fingerprint: &str) -> Result<(), StoreError>;

    /// Whether no other process can use it.
    fn exclusive(&self) -> bool {
        false
    }

    /// Faults that are the adapter's own business.
    async fn check(&self) -> Result<Soundness, StoreError>;
}
