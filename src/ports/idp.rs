//! The IdP beside which we stand: what it tells, and what we do to it.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use crate::domain::change::Change;
use crate::domain::hold::rebuild::carried::Carried;
use crate::domain::hold::{Cut, Posture};
use crate::domain::session::Withdrawal;
use crate::domain::session::signed_out::SignedOut;
use crate::domain::subject::UpstreamId;
use crate::domain::subject::account::{Account, Facts};
use crate::domain::time::{Now, Span, Timestamp};
use crate::ports::hook::{Heeded, HookCall, HookRefusal};

/// Why the IdP did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum IdpError {
    /// No answer, or none in time. Tried again.
    #[error("the identity provider cannot be reached: {0}")]
    Unreachable(String),
    /// Our credentials are refused, or a role is missing.
    #[error("the identity provider refuses us: {0}")]
    Refused(String),
    /// There is no such account.
    #[error("the identity provider knows no such account")]
    UnknownSubject,
    /// It answered something we do not understand.
    #[error("the identity provider answered something unexpected: {0}")]
    Unexpected(String),
}

/// Something in the IdP's log that concerns an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A change, judged by the rules of the adapter.
    Change(Change),
    /// Somebody other than us moved what the adapter uses to hold accounts: re-apply at once.
    Tampered {
        /// The IdP's event id.
        id: String,
        /// What was done, for the audit log.
        what: String,
        /// The account did it itself.
        own: bool,
    },
    /// The account did something with an administrator's rights: nothing to say of one that is free.
    Acted {
        /// The IdP's event id.
        id: String,
        /// What was done, for the audit log.
        what: String,
        /// When, by our clock: what was done before a hold began is none of it.
        at: Timestamp,
        /// The account that this made, or that it gave an administrator's rights.
        made: Option<String>,
    },
    /// It has ended sessions of the account, or the account itself: ended here too, at once (ISS-12).
    Withdrawn {
        /// The IdP's event id.
        id: String,
        /// What it has ended.
        what: Withdrawal,
    },
    /// The account signed in by way of another provider, which may give it roles and groups at every log-in: nothing to
    /// say of one that is free.
    Entered {
        /// The IdP's event id.
        id: String,
    },
    /// An account was made or its contacts or factors may differ without any rule applying: refresh the snapshot.
    Touched {
        /// The IdP's event id.
        id: String,
    },
}

/// One line of the log with whom it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The account's `sub`.
    pub sub: String,
    /// What happened.
    pub heard: Heard,
}

impl Heard {
    /// The id of the event that it is about.
    #[must_use]
    pub fn event(&self) -> &str {
        match self {
            Self::Change(change) => &change.id,
            Self::Tampered { id, .. }
            | Self::Acted { id, .. }
            | Self::Entered { id }
            | Self::Withdrawn { id, .. }
            | Self::Touched { id } => id,
        }
    }
}

/// An account that the log has something new about, and that could not be read: its lines wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The account's `sub`.
    pub sub: String,
    /// When the oldest of the lines was written, by our clock.
    pub since: Timestamp,
}

/// What an account is observed for.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Lines from here on, by our clock.
    pub since: Timestamp,
    /// When it is observed.
    pub now: Now,
}

/// A line about an account that is observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The IdP's event id.
    pub event: String,
    /// What happened.
    pub heard: Heard,
}

/// An account: how it is, and what the log tells of it. The reading is never older than the lines.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// The live reading.
    pub reading: Reading,
    /// The lines, oldest first, and what no line tells of but the dates of its credentials.
    pub told: Vec<Told>,
}

impl Observation {
    /// What the `lines` about one account tell, and its reading.
    #[must_use]
    pub fn new(lines: Vec<Line>, reading: Reading) -> Self {
        let told = lines.into_iter().map(|line| Told {
            event: line.heard.event().to_owned(),
            heard: line.heard,
        });
        Self {
            reading,
            told: told.collect(),
        }
    }
}

/// How far a poll has come; opaque to everyone but the adapter, kept in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub String);

/// What one poll brought.
#[derive(Clone, Debug, Default)]
pub struct Polled {
    /// In the order of the log. Lines are repeated by design (overlap): marks make that harmless.
    pub lines: Vec<Line>,
    /// Live readings that were made for these lines, by `sub`: none is older than a line about it. Whose is missing is
    /// read when it is needed.
    pub readings: BTreeMap<String, Reading>,
    /// Accounts whose lines are missing from these: they could not be read, and others could.
    pub unread: Vec<Unread>,
    /// Lines that cannot be understood and that name no account, each for an alarm.
    pub strange: Vec<String>,
    /// Where to go on, once every line has been stored.
    pub next: Cursor,
    /// More is waiting: poll again at once.
    pub more: bool,
    /// Faults of the log itself (switched off, shrunk, cleared), each for an alarm.
    pub alarms: Vec<String>,
    /// Changes to what holds rest on, each an alarm of its own: it does not pass because the next poll is quiet.
    pub drifted: Vec<String>,
    /// What these pages say of everybody's being signed out.
    pub signed_out: SignedOut,
    /// Held accounts may no longer be held: they are compared with their records at once, before anybody else.
    pub doubt: bool,
}

/// A live reading of one account.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Contacts and factors. Contact ids are empty: the caller names them.
    pub account: Account,
    /// What tiers are chosen by; `None` when it could not be read.
    pub facts: Option<Facts>,
    /// What the IdP itself carries of a hold; `None` when it could not be read, or the IdP carries nothing ever.
    pub carried: Option<Carried>,
    /// How far the IdP's clock, by which the account's dates are, is ahead of ours, as last sampled.
    pub ahead: Span,
}

impl Reading {
    /// Whether somebody other than us has switched the account off: it gets nothing (ISS-12).
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        !self.account.enabled && !self.carried.as_ref().is_some_and(|carried| carried.disabled)
    }
}

/// What the adapter made the IdP do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converged {
    /// Acts, in order, for the audit log; empty when everything agreed already.
    pub acts: Vec<String>,
    /// Why the account could not be brought to the posture (an alarm); the rest was done.
    pub cannot: Option<String>,
    /// What could not be done may be possible later: it is tried again.
    pub again: bool,
    /// What the lift of this hold has to give back, in the adapter's own words.
    pub owes: BTreeSet<String>,
}

/// What the IdP has to agree with: the current record, nothing else.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What its own tokens have to be.
    pub posture: Posture,
    /// Which sessions have ended.
    pub cuts: Vec<Cut>,
    /// A hold with `at_end: fresh_login` is over: end every session that began before this.
    pub end_before: Option<Timestamp>,
    /// What holds took from the account and no lift gave back yet, as [`Converged::owes`] said it: the IdP's own notes
    /// of it may have been taken away.
    pub owed: BTreeSet<String>,
    /// Its own acts undid the hold again and again: it is restricted in a way that they cannot lift.
    pub barred: bool,
}

/// The IdP.
#[async_trait]
pub trait IdentityProvider: Send + Sync {
    /// Its configured id.
    fn id(&self) -> &UpstreamId;

    /// Whether it keeps a log that is polled. Until that log was read to its end once, nothing is issued (P5).
    fn keeps_log(&self) -> bool;

    /// Reads its log from `cursor` on (an empty cursor: as far back as the log goes or `back` allows).
    ///
    /// # Errors
    /// [`IdpError`]; the cursor stays.
    async fn poll(&self, cursor: &Cursor, now: Now) -> Result<Polled, IdpError>;

    /// Every line about one account since `since`, oldest first, and what no line tells of but the dates of its
    /// credentials. Nothing when the IdP keeps no log.
    ///
    /// # Errors
    /// [`IdpError`].
    async fn story(&self, sub: &str, since: Timestamp, now: Now) -> Result<Vec<Line>, IdpError>;

    /// Reads the lines about one account, then the account.
    ///
    /// # Errors
    /// [`IdpError`]: of this account alone, where [`IdentityProvider::answers`].
    async fn observe(&self, sub: &str, look: Look) -> Result<Observation, IdpError> {
        let lines = self.story(sub, look.since, look.now).await?;
        Ok(Observation::new(lines, self.account(sub).await?))
    }

    /// Whether it answers at all, asked by a call about no account: tells an account that cannot be read from an IdP
    /// that cannot.
    ///
    /// # Errors
    /// [`IdpError`]: it does not.
    async fn answers(&self) -> Result<(), IdpError> {
        Ok(())
    }

    /// What holds rest on and is out of step with the rest of the IdP, each with what to do: asked for by reconcile.
    ///
    /// # Errors
    /// [`IdpError`].
    async fn drift(&self) -> Result<Vec<String>, IdpError> {
        Ok(Vec::new())
    }

    /// Reads one account live.
    ///
    /// # Errors
    /// [`IdpError`].
    async fn account(&self, sub: &str) -> Result<Reading, IdpError>;

    /// A page of accounts' `sub`s, for the import of snapshots; empty at the end.
    ///
    /// # Errors
    /// [`IdpError`].
    async fn accounts(&self, first: u32, max: u32) -> Result<Vec<String>, IdpError>;

    /// Makes the IdP agree with `wanted`, in the order that fails closed, and reads it back.
    ///
    /// # Errors
    /// [`IdpError`]; what was done stays done, the effect is tried again.
    async fn converge(&self, sub: &str, wanted: &Wanted) -> Result<Converged, IdpError>;

    /// Removes the factors enrolled at or after `since` and restores the contacts of `before` (a thaw with the
    /// finding `owner`). Gives what was done; reading back is part of it.
    ///
    /// # Errors
    /// [`IdpError`]; tried again.
    async fn restore(&self, sub: &str, since: Timestamp, before: &Account) -> Result<Vec<String>, IdpError>;

    /// Ends one of the account's sessions.
    ///
    /// # Errors
    /// [`IdpError`].
    async fn end_session(&self, sub: &str, session: &str) -> Result<(), IdpError>;

    /// Sessions of the account at the IdP.
    ///
    /// # Errors
    /// [`IdpError`].
    async fn sessions(&self, sub: &str) -> Result<Vec<IdpSession>, IdpError>;

    /// Removes one factor (the owner's page: a factor added in the hold).
    ///
    /// # Errors
    /// [`IdpError`].
    async fn remove_factor(&self, sub: &str, factor: &str) -> Result<(), IdpError>;

    /// Whether it answers, our roles suffice, and the log is on: for `doctor` and readiness. Each entry is a fault
    /// with what to do about it.
    ///
    /// # Errors
    /// [`IdpError`].
    async fn health(&self) -> Result<Vec<String>, IdpError>;

    /// What holds would have to see and our rights do not show, each with what to do. It works, but somebody has to know:
    /// for `doctor`, and reconcile tells it once.
    ///
    /// # Errors
    /// [`IdpError`].
    async fn blind_spots(&self) -> Result<Vec<String>, IdpError> {
        Ok(Vec::new())
    }

    /// Proves and reads a call of one of its hooks at `now`, our clock. Nothing is stored here.
    ///
    /// # Errors
    /// [`HookRefusal`]; an adapter without hooks refuses every call.
    async fn heed(&self, call: &HookCall<'_>, now: Timestamp) -> Result<Heeded, HookRefusal> {
        let _ = (call, now);
        Err(HookRefusal::NotConfigured)
    }

    /// A proven call of that id was dealt with: sent again it is refused.
    fn heeded(&self, id: &str) {
        let _ = id;
    }
}

/// A session at the IdP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdpSession {
    /// Its id.
    pub id: String,
    /// When it began.
    pub began: Timestamp,
    /// Last used.
    pub last_access: Timestamp,
    /// Where from, as the IdP says it.
    pub ip: String,
    /// Clients that use it.
    pub clients: Vec<String>,
    /// An offline session.
    pub offline: bool,
}
