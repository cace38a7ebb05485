//! The record of a subject and the restriction that follows from it.
//!
//! The end of a hold is data: whether an account is restricted is a function of the stored record and of the
//! time that is asked about, so no job has to run for it to be true. The record carries what was true when each
//! cause began (length, allowed classes, ways out, digest of the policy), so a later edit of the policy never
//! loosens a running hold.

pub mod apply;
pub mod attempt;
pub mod contest;
mod episode;
pub mod rebuild;
mod standing;
pub mod unreadable;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::domain::audit::Entry;
use crate::domain::ceiling::{Ceiling, Class};
use crate::domain::change::{ChangeKind, Row, Source};
use crate::domain::event::{Delivery, Event};
use crate::domain::notice::Notice;
use crate::domain::policy::{AtEnd, ContestedAtIdp, Policy, Rollout};
use crate::domain::session::Farewell;
use crate::domain::subject::Subject;
use crate::domain::subject::account::{Account, ChannelId, Contact};
use crate::domain::tier::TierName;
use crate::domain::time::{Now, Span, Timestamp};

use attempt::Attempts;
use contest::{Contest, Doubt};
use episode::Episode;
use unreadable::Unreadable;

/// Whether somebody on a channel of before has been told, which sets the end (domain "End").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Not yet: the hold lasts twice its length.
    Pending,
    /// There is nobody to tell: the nominal length, and an alarm.
    NoChannel,
    /// A channel accepted the notice at this instant.
    At(Timestamp),
    /// Several causes folded into one, which ends here.
    Settled(Timestamp),
    /// The store lost it: nobody knows when, so it lasts as long as it could have at all.
    Unknown,
    /// It was heard of when even an untold hold would have been over: it only tells (domain "End"). It holds again as
    /// part of a case that it would have been part of, if one comes up.
    Late,
}

/// One change that holds, or that was told about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Opaque case id, at most 36 characters: `recovery_ref`, and `txn` in security event tokens.
    pub reference: String,
    /// Id of the change.
    pub change: String,
    /// What was changed.
    pub kind: ChangeKind,
    /// The row it fell in.
    pub row: Row,
    /// When the clock started.
    pub at: Timestamp,
    /// Nominal length; zero when it only told.
    pub length: Span,
    /// What stays allowed; full when it only told.
    pub allowed: Ceiling,
    /// Who told us.
    pub sources: Vec<Source>,
    /// Whether the owner was told.
    pub told: Told,
    /// A hold ends no earlier than this after the acceptance of a notice.
    pub told_min: Span,
    /// The tier that answered.
    pub tier: TierName,
    /// How tokens become whole again.
    pub at_end: AtEnd,
    /// First 16 hex digits of the SHA-256 of the policy that answered.
    pub digest: String,
    /// The channel that carried the proof, for the bound on repeated changes.
    pub channel: Option<ChannelId>,
    /// Whether an eligible factor of another class may lift it at once (the bound on repeated changes).
    pub bounded: bool,
    /// How far the rules were in force.
    pub rollout: Rollout,
    /// Whether this account was restricted under that roll-out.
    pub enforced: bool,
    /// Causes that overlap form one episode: it ends as one, with the intersection of what they allow.
    pub episode: u32,
    /// The end was reached and acted on (lift queued at the IdP).
    pub swept: bool,
    /// Full length of the `read` hold that follows a freeze because of this cause.
    pub contest_length: Span,
    /// With `rolling: false`, the latest end this cause may reach.
    pub cap: Option<Timestamp>,
    /// Where from, coarse, for the owner's pages.
    pub origin: Option<String>,
}

impl Cause {
    /// When this cause ends by time.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        let end = match self.told {
            _ if self.length == Span::ZERO => self.at,
            Told::Pending => self.at.plus(self.length.times(2)),
            Told::NoChannel => self.at.plus(self.length),
            Told::At(accepted) => self.nominal_end().max(accepted.plus(self.told_min)),
            Told::Settled(end) => end,
            Told::Unknown => self.at.plus(self.length.times(2)).plus(self.told_min),
            Told::Late => self.at,
        };
        self.cap.map_or(end, |cap| end.min(cap))
    }

    /// When it ends at the latest by its nominal length, whether anybody was told or not.
    #[must_use]
    pub fn nominal_end(&self) -> Timestamp {
        match self.told {
            Told::Settled(end) => end,
            _ => self.at.plus(self.length),
        }
    }

    /// Whether it restricts anything, as opposed to having only told.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.length > Span::ZERO && !self.allowed.is_full() && self.told != Told::Late
    }
}

/// Sessions that began before an instant have ended, but for one (ISS-6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Sessions that began at or before this have ended ...
    pub at: Timestamp,
    /// ... except this session of the IdP: the one of the change itself.
    pub except: Option<String>,
}

/// What a step-up gave: one class, one session, one client (ISS-11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elevation {
    /// The client.
    pub client: String,
    /// The session.
    pub session: String,
    /// The class.
    pub class: Class,
    /// From when ...
    pub from: Timestamp,
    /// ... until when, at most five minutes later.
    pub until: Timestamp,
}

impl Elevation {
    /// Whether it is in force, by whichever clock is stricter: a clock that went back does not revive it (P6).
    #[must_use]
    pub fn active(&self, now: Now) -> bool {
        let until = self.until.min(self.from.plus(MAX_ELEVATION));
        self.from <= now.earliest() && now.latest() < until
    }
}

/// Everything that is kept about a subject for deciding on its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose it is.
    pub subject: Subject,
    /// Grows at every tightening (contract section 1).
    pub epoch: i64,
    /// When it was last stored.
    pub updated: Timestamp,
    /// The causes, oldest first.
    pub causes: Vec<Cause>,
    /// Ends of sessions, oldest first.
    pub cuts: Vec<Cut>,
    /// The freeze, if there is one.
    pub contest: Option<Contest>,
    /// What step-ups gave.
    pub elevations: Vec<Elevation>,
    /// Reports that were made: channel and when. A channel's second within the window has no effect.
    pub reports: Vec<(ChannelId, Timestamp)>,
    /// The open recovery request, if any; its case lives in a key of its own.
    pub recovery: Option<String>,
    /// Attempts that changed nothing, as they were told.
    #[serde(default)]
    pub attempts: Vec<Attempts>,
    /// That the account cannot be read at its IdP, while it cannot.
    #[serde(default)]
    pub unreadable: Option<Unreadable>,
    /// What holds took from the account at the IdP and no lift gave back yet, in the words of the adapter. The IdP's own
    /// notes say the same, until somebody takes them away.
    #[serde(default)]
    pub owed: BTreeSet<String>,
    /// When the account itself undid its hold at the IdP: the last two times, or the first two that were close.
    #[serde(default)]
    pub undone: Vec<Timestamp>,
    /// A freeze that ended without anybody judging what is contested. It is kept until people have, since what came
    /// with the contested change or after it stays in doubt.
    #[serde(default)]
    pub lapsed: Option<Contest>,
}

/// The restriction in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restriction {
    /// What is allowed.
    pub allowed: Ceiling,
    /// Expected end; none for a freeze.
    pub until: Option<Timestamp>,
    /// The case to name.
    pub reference: String,
}

/// What an IdP's own tokens have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posture {
    /// Whole.
    Free,
    /// Reduced.
    Held(Ceiling),
    /// Nothing is issued: disabled, or `none`, as the policy says.
    Contested(ContestedAtIdp),
}

impl Record {
    /// A record of an account to which nothing has happened.
    #[must_use]
    pub fn new(subject: Subject) -> Self {
        Self {
            subject,
            epoch: 0,
            updated: Timestamp::default(),
            causes: Vec::new(),
            cuts: Vec::new(),
            contest: None,
            elevations: Vec::new(),
            reports: Vec::new(),
            recovery: None,
            attempts: Vec::new(),
            unreadable: None,
            owed: BTreeSet::new(),
            undone: Vec::new(),
            lapsed: None,
        }
    }

    /// The cause of a case; one that was folded into another to keep the record small speaks through that one.
    #[must_use]
    pub fn cause(&self, case: &str) -> Option<&Cause> {
        let named = self.causes.iter().find(|c| c.reference == case);
        let folded = |c: &&Cause| matches!(c.told, Told::Settled(_));
        named.or_else(|| self.causes.iter().find(folded))
    }

    /// The number of the latest episode that holds or held; 0 when there was none.
    #[must_use]
    pub fn episode(&self) -> u32 {
        let holding = self.causes.iter().filter(|c| c.holds());
        holding.map(|c| c.episode).max().unwrap_or(0)
    }

    /// The holds that `counts` lets through, as episodes.
    fn episodes(&self, counts: impl Fn(&Cause) -> bool) -> Vec<Episode<'_>> {
        let mut found: BTreeMap<u32, Vec<&Cause>> = BTreeMap::new();
        for cause in self.causes.iter().filter(|c| c.holds() && counts(c)) {
            found.entry(cause.episode).or_default().push(cause);
        }
        found
            .into_iter()
            .map(|(number, causes)| Episode { number, causes })
            .collect()
    }

    /// The episode of a hold from `from` to `to`: holds that overlap form one, in whatever order they are heard of
    /// (P10), and a hold that lies between two episodes makes one of them.
    fn joined(&mut self, from: Timestamp, to: Timestamp) -> u32 {
        let overlaps = |e: &Episode<'_>| e.start() <= to && from < e.end();
        let all = self.episodes(|_| true);
        let touched: Vec<u32> = all.iter().filter(|e| overlaps(e)).map(|e| e.number).collect();
        let fresh = self
            .causes
            .iter()
            .map(|c| c.episode)
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        let number = touched.iter().copied().max().unwrap_or(fresh);
        for cause in self.causes.iter_mut().filter(|c| touched.contains(&c.episode)) {
            cause.episode = number;
        }
        number
    }

    /// Until when a channel that was removed at `gone` keeps notices and veto: 30 d, or 7 d after the end of the
    /// hold it was removed in, whichever is later (domain "Cancel").
    #[must_use]
    pub fn voice_end(&self, gone: Timestamp, policy: &Policy) -> Timestamp {
        let held = self.episodes(|_| true);
        let during = held.iter().filter(|e| e.start() <= gone && gone < e.end());
        policy.veto_end(gone, during.map(Episode::end).max())
    }

    /// Contacts that were the account's before `change`: present ones, and removed ones that keep their voice.
    pub fn channels_before<'a>(
        &'a self,
        account: &'a Account,
        change: Timestamp,
        policy: &'a Policy,
    ) -> impl Iterator<Item = &'a Contact> {
        let heard = move |c: &&Contact| c.gone.is_none_or(|gone| change < self.voice_end(gone, policy));
        account
            .contacts
            .iter()
            .filter(move |c| c.since < change)
            .filter(heard)
    }

    /// The freeze, where it is in force.
    fn frozen(&self) -> Option<&Contest> {
        self.contest.as_ref().filter(|c| c.enforced)
    }

    /// The freeze, or one that has lapsed and that nobody has judged yet.
    #[must_use]
    pub fn disputed(&self) -> Option<&Contest> {
        self.contest.as_ref().or(self.lapsed.as_ref())
    }

    /// The same, to be changed.
    fn disputed_mut(&mut self) -> Option<&mut Contest> {
        self.contest.as_mut().or(self.lapsed.as_mut())
    }

    /// What is in doubt: what came with a change that somebody contested, or after it, and that people have not judged.
    /// No time makes it eligible.
    #[must_use]
    pub fn doubt(&self) -> Option<Doubt> {
        let contest = self.disputed().filter(|c| c.enforced)?;
        Some(Doubt {
            since: contest.contested_since,
            until: contest.proven,
        })
    }

    /// Whether `contact` has a say about a change at `change`: it was the account's before, it is a channel by its own
    /// right ([`Account::may_veto`]), and it did not come with what is contested, or after it.
    #[must_use]
    pub fn has_voice(
        &self,
        account: &Account,
        contact: &Contact,
        change: Timestamp,
        policy: &Policy,
    ) -> bool {
        contact.since < change
            && account.may_veto(contact, change, policy)
            && self.doubt().is_none_or(|doubt| !doubt.covers(contact.since))
    }

    /// When the sweeper has to look next; `None` when the record is quiet. Also the second witness: an account
    /// that is due must have a record.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        // What is only observed must not delay the lift of what is in force; a freeze holds back every lift, and so does
        // an account that cannot be read.
        let last = |enforced: bool| {
            let unswept = self
                .causes
                .iter()
                .filter(|c| c.holds() && !c.swept && c.enforced == enforced);
            let lifts = self.frozen().is_none() && self.unreadable.is_none();
            unswept.map(Cause::end).max().filter(|_| lifts)
        };
        let contest = self.contest.as_ref().map(Contest::due);
        let again = self.unreadable.as_ref().map(|unreadable| unreadable.next);
        let lapsed = self.lapsed.as_ref().map(Contest::due_after_lapse);
        let next = contest
            .into_iter()
            .chain(again)
            .chain(lapsed)
            .chain(last(true))
            .chain(last(false))
            .min();
        let fresh = self
            .causes
            .iter()
            .filter(|c| c.holds() && c.at_end != AtEnd::Auto);
        next.or(fresh.map(|c| c.end().plus(RETENTION)).min())
    }

    /// Until when the record has to be kept; the store may drop it some time after.
    #[must_use]
    pub fn keep_until(&self) -> Timestamp {
        let ends = self.causes.iter().map(Cause::end).max().unwrap_or(self.updated);
        ends.max(self.due().unwrap_or(self.updated))
            .max(self.updated)
            .plus(RETENTION)
    }

    /// Notes a tightening at `now`: max(old + 1, unix seconds), so that it also grows when a store was lost.
    fn tighten(&mut self, now: Now) {
        self.epoch = self.epoch.saturating_add(1).max(now.latest().secs());
    }

    /// Ends every session that began at or before `now`, but for `except`.
    fn cut(&mut self, now: Now, except: Option<String>) {
        self.cuts.push(Cut {
            at: now.stamp(),
            except,
        });
        // A bound that can only tighten: the two oldest become one, at the later instant, without an exception.
        while self.cuts.len() > MAX_CUTS {
            let gone = self.cuts.remove(0);
            if let Some(oldest) = self.cuts.first_mut() {
                oldest.except = None;
                oldest.at = oldest.at.max(gone.at);
            }
        }
    }

    /// Notes that it is stored anew at `now`. Later than every time before, so that what is named after it (effects,
    /// audit lines) is named once, also when a clock went back.
    fn touch(&mut self, now: Now) {
        self.updated = now.latest().max(self.updated.plus(Span::from_millis(1)));
    }
}

/// How long ended causes are kept: sessions, refresh families and report links do not live longer.
pub const RETENTION: Span = Span::from_days(90);
/// The longest elevation (domain "Words").
pub const MAX_ELEVATION: Span = Span::from_mins(5);
/// The most session ends a record carries.
pub const MAX_CUTS: usize = 8;
/// The most causes a record carries.
pub const MAX_CAUSES: usize = 32;

/// Something that has to be done because a transition was stored, and only then (P9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Tell one channel.
    Notice(Box<Notice>),
    /// Make the IdP agree with the record as it then is. Carries nothing, so a late one can undo nothing.
    Converge,
    /// Announce to every receiver that wants to know: becomes an [`Effect::Webhook`] for each.
    Announce(Box<Event>),
    /// Tell one receiver.
    Webhook(Box<Delivery>),
    /// Tell one relying party that a session has ended.
    Farewell(Box<Farewell>),
}

/// A new state with all that follows from it, stored in one atomic step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The new record.
    pub record: Record,
    /// The new snapshot of contacts and factors, when it changed.
    pub account: Option<Account>,
    /// What has to be done, each with an id that is the same however often the transition is computed.
    pub effects: Vec<(String, Effect)>,
    /// What is written down.
    pub audit: Vec<Entry>,
}

impl Transition {
    fn new(record: Record) -> Self {
        Self {
            record,
            account: None,
            effects: Vec::new(),
            audit: Vec::new(),
        }
    }

    fn notices(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            let id = format!(
                "{}:{}:{}",
                notice.case,
                notice.content.message.as_str(),
                notice.channel.0
            );
            self.effects.push((id, Effect::Notice(Box::new(notice))));
        }
    }

    /// Notices that a case may send more than once: the instant of the transition tells them apart.
    fn notices_at(&mut self, notices: Vec<Notice>) {
        let (before, stamp) = (self.effects.len(), self.record.updated.millis());
        self.notices(notices);
        for (id, _) in self.effects.iter_mut().skip(before) {
            // Writing to a String cannot fail.
            let _ = write!(id, ":{stamp}");
        }
    }

    fn converge(&mut self) {
        let id = format!("converge:{}:{}", self.record.epoch, self.record.updated.millis());
        self.effects.push((id, Effect::Converge));
    }
}
