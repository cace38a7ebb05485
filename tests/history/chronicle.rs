//! What happened, as seen from outside: every token that was handed out, every change at Keycloak, when each was
//! committed, every report and every mail.

use std::collections::BTreeSet;

/// Milliseconds since 1970, by the one clock of the machine.
pub type Millis = u64;

/// How something about a session was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// A code was exchanged: the first token after a log-in.
    Exchange,
    /// A refresh token was used.
    Refresh,
    /// A token was introspected.
    Introspection,
    /// Userinfo was asked.
    Userinfo,
}

/// Something that Reentry said with its authority: a token, or an answer about one.
#[derive(Clone, Debug)]
pub struct Said {
    /// Whose.
    pub person: usize,
    /// Which session of theirs.
    pub session: u32,
    /// How.
    pub way: Way,
    /// Before the request was sent.
    pub asked: Millis,
    /// After the answer was there.
    pub answered: Millis,
    /// `recovery_scope`.
    pub recovery_scope: String,
    /// `scope`; empty where the answer has none.
    pub scopes: BTreeSet<String>,
    /// `recovery_epoch`, where the answer has one.
    pub epoch: Option<i64>,
    /// `roles`; empty where the answer has none.
    pub roles: BTreeSet<String>,
}

/// A session, from the moment its first token was there.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its number.
    pub number: u32,
    /// When its first token was there.
    pub began: Millis,
}

/// A password that was changed at Keycloak, past Reentry.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose.
    pub person: usize,
    /// Before Keycloak was asked.
    pub from: Millis,
    /// After it had answered.
    pub until: Millis,
}

/// A hold as the store has it at the end, when everything is quiet.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Whose.
    pub person: usize,
    /// The case.
    pub case: String,
    /// When its clock started.
    pub at: Millis,
    /// The ends that it was seen to have, by somebody who looked all the time; none when nobody saw it in time.
    pub terms: Vec<Term>,
    /// When it ends, or ended, as the store has it last; its start for one that was heard of so late that it only
    /// tells.
    pub end: Millis,
    /// What stays allowed.
    pub allowed: BTreeSet<String>,
    /// The OAuth scopes that go with that.
    pub scopes: BTreeSet<String>,
    /// The `Message-ID` that the notice about it must have. `None` for one that was taken over from Keycloak itself,
    /// which still carried it when the store had lost it: it has no change of its own, and its owner was told before.
    pub notice: Option<String>,
}

/// An end that a hold had for a while. It comes nearer when its owner was told; it may go further away when the record
/// was made anew, since nobody knows any more when that was.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// When it was seen committed.
    pub seen: Millis,
    /// The end.
    pub end: Millis,
}

/// Something that an administrator took away at Keycloak, for a while or for good.
#[derive(Clone, Debug)]
pub struct Withdrawal {
    /// From whom.
    pub person: usize,
    /// What.
    pub what: Withdrawn,
    /// After Keycloak had said that it is gone.
    pub from: Millis,
    /// Before it was given back, if it was.
    pub until: Option<Millis>,
}

/// What can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// The account was switched off.
    Account,
    /// The role [`crate::company::ROLE`].
    Role,
}

/// A report that froze an account.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose account.
    pub person: usize,
    /// After the page had said so.
    pub acknowledged: Millis,
}

/// A mail of Reentry's that a mail server accepted.
#[derive(Clone, Debug)]
pub struct Mailed {
    /// To whom.
    pub person: usize,
    /// Its `Message-ID`, without the brackets and the domain.
    pub id: String,
}

/// What trouble there was.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// Masters that were killed, hung or told to hand over while another took over.
    pub failovers: u32,
    /// Replicas of Reentry that were killed.
    pub kills: u32,
    /// Replicas of Reentry that were stopped for a while.
    pub pauses: u32,
    /// Times the store was slow.
    pub slowness: u32,
    /// Times the directory of some people was away, so that their accounts could not be read.
    pub unreadable: u32,
    /// Old records that somebody put back.
    pub put_back: u32,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Chronicle {
    /// Tokens and answers about them.
    pub said: Vec<Said>,
    /// Sessions.
    pub sessions: Vec<Session>,
    /// Changes.
    pub changes: Vec<Change>,
    /// Holds at the end.
    pub holds: Vec<Hold>,
    /// Reports.
    pub reports: Vec<Report>,
    /// Mails.
    pub mails: Vec<Mailed>,
    /// What administrators took away.
    pub withdrawals: Vec<Withdrawal>,
    /// Trouble.
    pub trouble: Trouble,
}

/// How far off the difference between Keycloak's clock and ours can be estimated on a busy machine; nobody changes
/// anything twice within it.
const OFFSET: Millis = 2_000;

impl Hold {
    /// When it was first seen committed.
    pub fn seen(&self) -> Option<Millis> {
        self.terms.first().map(|term| term.seen)
    }

    /// Whether it was known before `said` was asked for, and not over before it was answered, by whatever end it had
    /// then or later.
    pub fn applies_to(&self, said: &Said) -> bool {
        self.seen().is_some_and(|seen| said.asked > seen) && !self.is_over(said)
    }

    /// Whether it may have been over when `said` was answered.
    pub fn is_over(&self, said: &Said) -> bool {
        let next = self.terms.iter().skip(1).map(Some).chain([None]);
        let each = self.terms.iter().zip(next);
        // A term counts until the next one is there for sure.
        let current = each.filter(|(_, next)| next.is_none_or(|next| next.seen >= said.asked));
        let ends = current.map(|(term, _)| term.end);
        ends.chain([self.end])
            .min()
            .is_some_and(|end| said.answered >= end)
    }

    /// Whether it is about that change.
    pub fn tells_of(&self, change: &Change) -> bool {
        let within = self.at + OFFSET >= change.from && self.at <= change.until + OFFSET;
        self.person == change.person && self.notice.is_some() && within
    }
}

impl Chronicle {
    /// Whether the notice of a hold, if it needs one, was accepted.
    pub fn told(&self, hold: &Hold) -> bool {
        let about = |id: &String| self.mails.iter().any(|m| m.person == hold.person && m.id == *id);
        hold.notice.as_ref().is_none_or(about)
    }
}
