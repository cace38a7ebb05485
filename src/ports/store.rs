//! Where state lives. One trait, two adapters, one contract suite.
//!
//! Three values per subject (record, account snapshot, grants) live in the subject's partition and change in one
//! atomic step together with the dedupe mark, the due entry, the outbox and the audit log (P9). Updates are
//! closures: they may run several times (optimistic concurrency), so they are pure.

use async_trait::async_trait;

use crate::domain::audit::{Chain, Entry, Head};
use crate::domain::event::Event;
use crate::domain::hold::{Effect, Record};
use crate::domain::session::Grants;
use crate::domain::subject::account::Account;
use crate::domain::subject::versions::Stale;
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::{Span, Timestamp};
use crate::ports::seal::SubjectKey;
use crate::ports::trace::Trace;

/// Why state could not be had. Every one of them is a restricted answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer, or none in time.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// It answered, but it cannot be believed: a value of another type, a marker of another installation (P5).
    #[error("the store cannot be believed: {0}")]
    Unsound(String),
    /// A whole partition cannot be decided on: it lost its values, went back in time, is another store's, or is
    /// being rebuilt (P5). Everything in it is restricted until it was rebuilt.
    #[error("the store cannot be believed: partition {partition:03}: {loss}")]
    Lost {
        /// The partition.
        partition: u8,
        /// Why.
        loss: Loss,
    },
    /// Values of one account were taken away, altered, or are those of before (P5). It is restricted until they were
    /// made anew, and nobody else is.
    #[error("the store cannot be believed about this account: {0}")]
    Altered(Stale),
    /// A record of a newer version than this program reads, or one that does not decode. Nothing is overwritten.
    #[error("the store holds what this version cannot read: {0}")]
    Unreadable(String),
    /// There is no room for it. What is left is kept for holds and reports.
    #[error("the store has no room: {0}")]
    Full(String),
    /// Too many writers at once; nothing was stored.
    #[error("too many concurrent changes to one account")]
    Contended,
    /// A store for one process, and another one has it.
    #[error("{0}: another process has it; it is for one process only")]
    Taken(String),
    /// The lease has a newer holder; nothing was stored.
    #[error("the lease `{0}` has a newer holder")]
    StaleLease(String),
}

impl StoreError {
    /// Whether another process has the store.
    #[must_use]
    pub const fn is_taken(&self) -> bool {
        matches!(self, Self::Taken(_))
    }
}

/// Why a partition cannot be decided on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// No marker.
    #[error("its marker is missing: flushed, evicted, or another database")]
    Missing,
    /// A fence lower than one that was seen.
    #[error(
        "its fence is lower than one seen before: the store went back in time (an old backup, or a failover that lost writes)"
    )]
    RolledBack,
    /// A marker with another incarnation.
    #[error("its marker belongs to another installation")]
    OtherInstallation,
    /// A marker with another key's fingerprint.
    #[error("its marker belongs to other keys: wrong key file or wrong store")]
    OtherKeys,
    /// Ids of IdPs that are configured and that the store does not know; then those it knows.
    #[error(
        "it was made for the upstream ids `{known}` and knows nothing of `{configured}`: if an identity provider was added, run `reentry store init`; if an id was changed, change it back, since accounts are found by it"
    )]
    OtherUpstreams {
        /// Those of the configuration that are missing from it.
        configured: String,
        /// Those the store was made for.
        known: String,
    },
    /// An IdP that is another one than the store was made for.
    #[error(
        "it was made for another identity provider (another URL or realm) under the id `{ids}`: check `url` and `realm` of the upstream first; if this is a copy of another installation, give it a store of its own (`store.url` with another database, or another server); if replicas reach it by different URLs, set `identity` of the upstream to the same words in all of them; if it moved to another URL, stop every `reentry serve` and run `reentry store init --moved {ids}`"
    )]
    OtherIdentity {
        /// The ids.
        ids: String,
    },
    /// Being rebuilt.
    #[error("it is being rebuilt from the identity provider")]
    Rebuilding,
}

impl Loss {
    /// Whether it is rebuilt without being asked. A store of other keys or other IdPs is somebody's mistake, and
    /// nothing is written into it.
    #[must_use]
    pub const fn heals(&self) -> bool {
        !matches!(
            self,
            Self::OtherKeys | Self::OtherUpstreams { .. } | Self::OtherIdentity { .. }
        )
    }
}

/// A partition that cannot be decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The partition.
    pub partition: u8,
    /// Why.
    pub loss: Loss,
    /// Whether it is rebuilt without being asked; otherwise an operator has to look ([`Loss`] says what to do).
    pub heals: bool,
}

impl StoreError {
    /// Whether it ends by itself: what was lost is made anew from the IdP, and nothing has to wait for it meanwhile.
    #[must_use]
    pub const fn heals(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Altered(_))
    }
}

/// An account whose values cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Altered {
    /// Where it lives.
    pub key: SubjectKey,
    /// Whose it is, if a genuine value that is left says so.
    pub subject: Option<Subject>,
    /// Why.
    pub why: Stale,
}

/// A rebuild of one partition that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// The partition.
    pub partition: u8,
    /// Its generation: whoever begins it again makes another.
    pub generation: u64,
    /// Changes that began before this were told to their owners before the loss, as far as anybody knows.
    pub told_before: Timestamp,
}

/// Which of a subject's values are wanted.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a value that is wanted or not, independent of the others"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The snapshot of contacts and factors.
    pub account: bool,
    /// Sessions, codes, families.
    pub grants: bool,
    /// Also where a partition is being rebuilt: for taking changes in, never for issuing anything.
    pub rebuilding: bool,
    /// Of the grants only what a decision needs: no codes, and no ID tokens of the IdP. For readings alone; an update
    /// always sees everything.
    pub brief: bool,
}

impl Parts {
    /// Only the record.
    pub const RECORD: Self = Self {
        account: false,
        grants: false,
        rebuilding: false,
        brief: false,
    };
    /// Record and snapshot.
    pub const ACCOUNT: Self = Self {
        account: true,
        grants: false,
        rebuilding: false,
        brief: false,
    };
    /// Record and grants.
    pub const GRANTS: Self = Self {
        account: false,
        grants: true,
        rebuilding: false,
        brief: false,
    };
    /// Record, and what a decision about a token at hand needs of the grants.
    pub const DECISION: Self = Self {
        brief: true,
        ..Self::GRANTS
    };
    /// Everything.
    pub const ALL: Self = Self {
        account: true,
        grants: true,
        rebuilding: false,
        brief: false,
    };

    /// The same, also where a partition is being rebuilt. What is read there may be less than was true: it is for
    /// making it stricter, and nothing is issued on it.
    #[must_use]
    pub const fn while_rebuilding(self) -> Self {
        Self {
            rebuilding: true,
            ..self
        }
    }
}

/// A subject's values as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The record; for sure none when absent.
    pub record: Option<Record>,
    /// The snapshot, when asked for.
    pub account: Option<Account>,
    /// The grants, when asked for.
    pub grants: Option<Grants>,
    /// The store's own clock at the read, when it has one.
    pub store_time: Option<Timestamp>,
    /// The partition was lost once: changes that began before this are told, as far as anybody knows, although their
    /// marks are gone.
    pub told_before: Option<Timestamp>,
    /// The partition, or the account alone, is being made anew: what is here may be less than was true.
    pub rebuilding: bool,
    /// The due queue has the subject and there is no record: it was held or frozen. Only while rebuilding; at any
    /// other time this is an error.
    pub witnessed: bool,
}

/// What to store; what is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// Whose it is; needed only for effects and audit lines of a subject without a record, old or new.
    pub subject: Option<Subject>,
    /// New record. Its due entry follows from [`Record::due`].
    pub record: Option<Record>,
    /// New snapshot.
    pub account: Option<Account>,
    /// New grants.
    pub grants: Option<Grants>,
    /// Effects, with ids that are the same however often the closure runs.
    pub effects: Vec<(String, Effect)>,
    /// Audit lines.
    pub audit: Vec<Entry>,
}

impl From<crate::domain::hold::Transition> for Write {
    fn from(t: crate::domain::hold::Transition) -> Self {
        let announced = announced(&t.audit);
        Self {
            subject: None,
            record: Some(t.record),
            account: t.account,
            grants: None,
            effects: t.effects.into_iter().chain(announced).collect(),
            audit: t.audit,
        }
    }
}

impl Write {
    /// One audit line about `subject` that belongs to no new record, with what it announces.
    #[must_use]
    pub fn saying(subject: &Subject, entry: Entry) -> Self {
        let audit = vec![entry];
        Self {
            subject: Some(subject.clone()),
            effects: announced(&audit),
            audit,
            ..Self::default()
        }
    }
}

/// What audit lines announce to other programs.
fn announced(audit: &[Entry]) -> Vec<(String, Effect)> {
    let announce = |entry: &Entry| {
        let event = Event::of(entry)?;
        Some((format!("event:{}", entry.id), Effect::Announce(Box::new(event))))
    };
    audit.iter().filter_map(announce).collect()
}

/// A mark that an event was dealt with, per source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Source and event id: `user_events:<id>`.
    pub name: String,
    /// How long to remember it.
    pub keep: Span,
}

/// How an update ended.
#[derive(Clone, Debug)]
pub enum Updated {
    /// Stored.
    Stored,
    /// The mark was there: dealt with before. Nothing was stored.
    Duplicate,
    /// The closure had nothing to store (the mark was set all the same).
    Unchanged,
}

/// An update closure.
pub type Change<'a> = dyn Fn(&Loaded) -> Option<Write> + Send + Sync + 'a;

/// Something from the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Where it is, for [`Store::done`] and [`Store::retry`].
    pub at: PendingId,
    /// Whose it is.
    pub subject: Subject,
    /// Stable id of the effect.
    pub id: String,
    /// What to do.
    pub effect: Effect,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was first put in.
    pub since: Timestamp,
    /// Last failure, if any.
    pub failure: Option<String>,
    /// The trace of the work that put it in, if there was one.
    pub trace: Option<Trace>,
}

/// A place in the outbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PendingId {
    /// Partition.
    pub partition: u8,
    /// The adapter's id of the entry.
    pub entry: String,
}

impl std::fmt::Display for PendingId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:03}-{}", self.partition, self.entry)
    }
}

impl std::str::FromStr for PendingId {
    type Err = ();

    /// What its display form says: three digits of the partition, a hyphen, the adapter's id in digits and hyphens.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (partition, entry) = text.split_once('-').ok_or(())?;
        let plain = |c: char| c.is_ascii_digit() || c == '-';
        if partition.len() != 3 || entry.is_empty() || entry.len() > 48 || !entry.chars().all(plain) {
            return Err(());
        }
        Ok(Self {
            partition: partition.parse().map_err(|_| ())?,
            entry: entry.to_owned(),
        })
    }
}

/// A lease with a fencing token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub name: String,
    /// Grows with every new holder.
    pub fence: u64,
}

/// What an operator may want to know about the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Soundness {
    /// What was found, one thing a line: nodes, roles, persistence.
    pub facts: Vec<String>,
    /// Faults, each with what to do about it.
    pub faults: Vec<String>,
    /// Partitions whose marker is missing or wrong.
    pub restricted_partitions: Vec<u8>,
}

/// How much of its room the store has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Octets in use.
    pub used: u64,
    /// Octets that it may use.
    pub most: u64,
}

impl Room {
    /// From this part on, in percent, only what tightens, and what costs no room, is stored.
    pub const TIGHT: u64 = 80;

    /// How much of it is used.
    #[must_use]
    pub const fn percent(&self) -> u64 {
        match self.used.saturating_mul(100).checked_div(self.most) {
            Some(percent) => percent,
            None => 0,
        }
    }

    /// Whether what is left is kept for what tightens.
    #[must_use]
    pub const fn is_tight(&self) -> bool {
        self.percent() >= Self::TIGHT
    }
}

/// State.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads a subject in one round trip, with the marker and the second witness.
    ///
    /// # Errors
    /// [`StoreError`]: then the subject is restricted.
    async fn read(&self, key: &SubjectKey, parts: Parts) -> Result<Loaded, StoreError>;

    /// Changes a subject. `change` sees the parts asked for and is run again when somebody was faster. With a
    /// `mark` that is there already nothing happens; a new mark is set in the same step, also when `change`
    /// gives nothing to store.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is stored then, except that after [`StoreError::Unavailable`] it may have been:
    /// the answer of a commit can get lost. So callers repeat, and marks and ids make the repetition harmless.
    async fn update(
        &self,
        key: &SubjectKey,
        parts: Parts,
        mark: Option<&Mark>,
        change: &Change<'_>,
    ) -> Result<Updated, StoreError>;

    /// Outbox entries that are due at `now`, oldest first within a partition, at most `max`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn pending(&self, now: Timestamp, max: usize) -> Result<Vec<Pending>, StoreError> {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        self.pending_in(&all, now, max).await
    }

    /// The same, of these partitions only.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn pending_in(
        &self,
        partitions: &[u8],
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<Pending>, StoreError>;

    /// Whether no other process can use this store, so that nothing has to be shared with one.
    fn exclusive(&self) -> bool {
        false
    }

    /// Everything in the outbox, also what waits for its next attempt, for an operator to look at. Takes nothing and
    /// keeps no worker from finding it.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn waiting(&self, max: usize) -> Result<Vec<Pending>, StoreError> {
        self.pending(Timestamp::from_millis(i64::MAX), max).await
    }

    /// Waits until something may be in the outbox (a commit by this process) or `at_most` has passed.
    async fn wait_for_work(&self, at_most: std::time::Duration);

    /// An outbox entry was dealt with. Only now it leaves the outbox.
    ///
    /// # Errors
    /// [`StoreError`]: then it comes again.
    async fn done(&self, at: &PendingId) -> Result<(), StoreError>;

    /// An outbox entry failed: try again not before `at`.
    ///
    /// # Errors
    /// [`StoreError`]: then it comes again at once.
    async fn retry(&self, entry: &Pending, at: Timestamp, failure: &str) -> Result<(), StoreError>;

    /// Puts an outbox entry off without counting a try: its turn has not come. Not before `at`.
    ///
    /// # Errors
    /// [`StoreError`]: then it comes again at once.
    async fn postpone(&self, entry: &Pending, at: Timestamp) -> Result<(), StoreError>;

    /// Moves an outbox entry to the dead letters, in one step: it will not be tried again by itself. Nothing if it
    /// is gone.
    ///
    /// # Errors
    /// [`StoreError`]: then it comes again.
    async fn bury(&self, entry: &Pending, failure: &str) -> Result<(), StoreError>;

    /// The dead letters, oldest first within a partition, at most `max`. Their places are those for
    /// [`Store::revive`].
    ///
    /// # Errors
    /// [`StoreError`].
    async fn dead(&self, max: usize) -> Result<Vec<Pending>, StoreError>;

    /// Puts a dead letter back into the outbox, in one step, as if it were new at `now`. Says whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn revive(&self, at: &PendingId, now: Timestamp) -> Result<bool, StoreError>;

    /// Subjects that are due at `now` (all that are ever due with [`Timestamp`] at its largest), at most `max`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn due(&self, now: Timestamp, max: usize) -> Result<Vec<SubjectKey>, StoreError>;

    /// Keeps a small value for a while under a random name (login state, single use). Overwrites nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn put_state(&self, name: &str, value: &[u8], keep: Span) -> Result<(), StoreError>;

    /// Takes such a value: it is gone afterwards, for everyone.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn take_state(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// A value of the installation (poll cursors, what `wire` noted).
    ///
    /// # Errors
    /// [`StoreError`].
    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Sets such a value. With a lease whose fence is no longer the newest, nothing is set and it fails.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn set_setting(&self, name: &str, value: &str, lease: Option<&Lease>) -> Result<(), StoreError>;

    /// Takes or extends a lease for `keep`; `None` while another `owner` has it.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn lease(&self, name: &str, owner: &str, keep: Span) -> Result<Option<Lease>, StoreError>;

    /// Gives a lease back.
    ///
    /// # Errors
    /// [`StoreError`]: then it ends by itself.
    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError>;

    /// Audit lines, newest first, before `before`, at most `max`; of one subject if `key` is given.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn audit(
        &self,
        key: Option<&SubjectKey>,
        before: Timestamp,
        max: usize,
    ) -> Result<Vec<(Subject, Entry)>, StoreError>;

    /// Reads and verifies the audit chain of one partition (0 to 255). A chain that is broken is no error: it says so.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn chain(&self, partition: u8) -> Result<Chain, StoreError>;

    /// The newest audit line of every partition that has any, by partition.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn heads(&self) -> Result<Vec<(u8, Head)>, StoreError> {
        Ok(Vec::new())
    }

    /// How much of its room the store has used; nothing where it has no limit. From [`Room::TIGHT`] on, as last asked
    /// here, it refuses what would fill it: single-use state, and new sessions. Holds, reports and ends find room.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn room(&self) -> Result<Option<Room>, StoreError> {
        Ok(None)
    }

    /// Writes one audit line that belongs to no transition (a refused approval, a failed delivery).
    ///
    /// # Errors
    /// [`StoreError`].
    async fn note(&self, subject: &Subject, key: &SubjectKey, entry: &Entry) -> Result<(), StoreError>;

    /// Creates the markers of a new installation, or confirms that they are ours. Never done by `serve`.
    ///
    /// # Errors
    /// [`StoreError::Unsound`] when there are markers of another installation.
    async fn init(&self) -> Result<bool, StoreError>;

    /// The IdP of this id has moved: the configured one is the one that the store was made for. Only an operator knows.
    ///
    /// # Errors
    /// As [`Store::init`].
    async fn moved(&self, upstream: &UpstreamId) -> Result<(), StoreError>;

    /// Partitions that cannot be decided on, each with why. Empty when all is well.
    ///
    /// # Errors
    /// [`StoreError`] when the markers cannot be read.
    async fn lost(&self) -> Result<Vec<Lost>, StoreError>;

    /// Whether nothing has happened since [`Store::lost`] last found nothing that could have made it find something now:
    /// the same connection, every marker there, and no reading or commit that found one wrong. Costs next to nothing.
    /// What nobody reads and nobody misses may have changed all the same, so it does not stand for a look for long.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    async fn still_sound(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Begins to rebuild a partition: its marker says so from now on, under a fence above any that was ever seen.
    /// Reading and changing stays refused, but with [`Parts::rebuilding`]. What is left of its values stays; effects
    /// of before that nobody can tell done from undone are dropped, and grants of before never count again.
    /// `told_before` is when it was last known to be sound, `now` the present. A rebuild that somebody else began is
    /// taken over, and can no longer be finished by them.
    ///
    /// # Errors
    /// [`StoreError::Lost`] when it does not heal by itself.
    async fn begin_rebuild(
        &self,
        partition: u8,
        told_before: Timestamp,
        now: Timestamp,
    ) -> Result<Rebuild, StoreError>;

    /// Ends a rebuild: the partition counts again. `false` when somebody else has begun it anew, or it was lost again
    /// meanwhile: nothing is released then.
    ///
    /// # Errors
    /// [`StoreError`]; then it is not released, or the answer got lost.
    async fn finish_rebuild(&self, rebuild: &Rebuild) -> Result<bool, StoreError>;

    /// Accounts whose values this process found altered or missing, and that were not made anew since.
    fn altered(&self) -> Vec<Altered> {
        Vec::new()
    }

    /// Begins to make an account's values anew: what is left of them is stored again under a number above every one
    /// that was seen, marked so that everybody restricts it. Its sessions are dropped: nobody knows which were ended.
    /// `false` when there is nothing wrong with it.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn begin_mend(&self, key: &SubjectKey) -> Result<bool, StoreError>;

    /// The account's values were made anew and count again. `false` when they were altered again meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn finish_mend(&self, key: &SubjectKey) -> Result<bool, StoreError>;

    /// Whether a notice of this effect id was delivered by this process (`Some(true)`), is known to be undelivered
    /// (`Some(false)`), or is unknown here.
    fn told(&self, effect: &str) -> Option<bool> {
        let _ = effect;
        None
    }

    /// The message of this entry was accepted: from now on [`Store::told`] says so, also when what follows from it
    /// cannot be stored yet.
    fn delivered(&self, entry: &Pending) {
        let _ = entry;
    }

    /// What this process has seen of the fences, as one line of text to be kept where a loss of the store does not
    /// reach it; `None` until anything was seen.
    fn witness(&self) -> Option<String> {
        None
    }

    /// Takes such a line in. A line that is not one, or of another installation, says nothing.
    fn remember(&self, witness: &str) {
        let _ = witness;
    }

    /// Checks everything that makes the store fit to decide on.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn check(&self) -> Result<Soundness, StoreError>;
}
