//! "This was not me": the freeze, and the ways out of it (domain "Contested").
//!
//! A report only stops; it hands nobody power. Every way out tells everyone, and after a thaw or a lapse the
//! account is read-only for the contested cause's full length, ending by a fresh log-in.
//!
//! Time alone ends only the freeze of a channel that was no longer on the account when the contested change came, and
//! it judges nothing: what came with that change, or after it, never becomes eligible, until people have looked at it
//! ([`Record::doubt`]).

mod after;
pub mod exit;
pub mod remind;
pub mod report;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Record, Transition};
use crate::domain::audit::{Actor, Entry};
use crate::domain::notice::{self, Content, Message};
use crate::domain::policy::{ContestedAtIdp, Exit, Policy};
use crate::domain::subject::account::{Account, ChannelId};
use crate::domain::time::{Now, Span, Timestamp};

/// What two administrators found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The report was right: contested credentials go, the contacts of before come back.
    Owner,
    /// The report was wrong: nothing is removed.
    Unfounded,
}

impl Finding {
    /// The word for it in answers and audit lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Unfounded => "unfounded",
        }
    }
}

/// A thaw under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thaw {
    /// The finding both have to share.
    pub finding: Finding,
    /// Who approved, by [`Subject::name`](crate::domain::subject::Subject::name); distinct, never the account
    /// itself (P11).
    pub approvals: Vec<String>,
    /// When it takes effect; set by the second approval.
    pub ready: Option<Timestamp>,
}

/// The clocks that a freeze began with. The longer of these and today's counts, so that a later policy never makes a
/// running freeze easier to end (P14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// Between the second administrator's word and the thaw.
    pub thaw_wait: Span,
    /// How long a channel has had its say.
    pub report_window: Span,
    /// How long a role has been held before its holder's word counts.
    pub probation: Span,
}

impl Clocks {
    /// Those of a policy.
    #[must_use]
    pub const fn of(policy: &Policy) -> Self {
        Self {
            thaw_wait: policy.thaw_wait,
            report_window: policy.report_window,
            probation: policy.probation,
        }
    }

    /// The longer of each.
    #[must_use]
    pub fn longer(self, other: Self) -> Self {
        Self {
            thaw_wait: self.thaw_wait.max(other.thaw_wait),
            report_window: self.report_window.max(other.report_window),
            probation: self.probation.max(other.probation),
        }
    }
}

/// A freeze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contest {
    /// The contested case.
    pub case: String,
    /// Since when.
    pub since: Timestamp,
    /// The channel that reported.
    pub by: ChannelId,
    /// Another channel has said the same.
    pub confirmed: bool,
    /// When a channel other than the newcomers' accepted the message about the freeze.
    pub told: Option<Timestamp>,
    /// Whether the account is frozen under the tier's roll-out.
    pub enforced: bool,
    /// What the IdP's own tokens are meanwhile.
    pub at_idp: ContestedAtIdp,
    /// Ways out.
    pub exits: Vec<Exit>,
    /// When an unconfirmed freeze lapses, if it is one that does: [`Contest::lapse`] answers that.
    pub lapses: Option<Timestamp>,
    /// The thaw under way.
    pub thaw: Option<Thaw>,
    /// What happened at or after this is contested: factors enrolled since, contacts changed since.
    pub contested_since: Timestamp,
    /// Full length of the `read` hold that follows.
    pub hold: Span,
    /// When the channel that reported had been taken off the account, if it had been. Of several channels the one that
    /// was there longest counts: one that is still there has none.
    #[serde(default)]
    pub removed: Option<Timestamp>,
    /// How many reminders went out.
    #[serde(default)]
    pub reminders: u8,
    /// Channels that said "it was me after all", and when. It changes nothing; those who decide see it.
    #[serde(default)]
    pub owned: Vec<(ChannelId, Timestamp)>,
    /// When somebody proved to be the owner, for a freeze that ended by that: what came later is not in doubt.
    #[serde(default)]
    pub proven: Option<Timestamp>,
    /// The clocks it began with.
    #[serde(default)]
    pub clocks: Clocks,
}

/// A time in which everything that was enrolled is in doubt, until people have judged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// What came at this instant or after it ...
    pub since: Timestamp,
    /// ... and not after this one, where the owner proved to be the owner then.
    pub until: Option<Timestamp>,
}

impl Doubt {
    /// Whether what came at `at` is in doubt.
    #[must_use]
    pub fn covers(self, at: Timestamp) -> bool {
        self.since <= at && self.until.is_none_or(|until| at <= until)
    }
}

/// A channel that was removed less than this before a contested change counts as one that was still there: the IdP's
/// dates and ours are not exact, and who takes over an account does both within minutes.
const STILL_THERE: Span = Span::from_hours(1);

impl Contest {
    /// Whether the store had lost it and only the identity provider still knew: nobody knows who reported, since when it
    /// stands, and when that was told.
    #[must_use]
    pub const fn is_rebuilt(&self) -> bool {
        self.by.0.is_empty()
    }

    /// When the sweeper has to look.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        // A freeze without a clock is still due, far away: the due entry is the witness that a record must exist.
        let far = self.since.plus(Span::from_days(3650));
        let next = self.lapse().into_iter().chain(self.reminder()).min();
        self.thaw_ready().or(next).unwrap_or(far)
    }

    /// When time alone ends it, `None` when it never does (domain "Lapse"): only the report of a channel that was no
    /// longer on the account when what is contested came, and that does not contest its own removal, lapses without
    /// confirmation.
    #[must_use]
    pub fn lapse(&self) -> Option<Timestamp> {
        let former = |gone: Timestamp| gone.plus(STILL_THERE) <= self.contested_since;
        // A freeze that is only watched holds nothing, so its end gives nothing back.
        let by_time = !self.enforced || self.removed.is_some_and(former);
        self.lapses.filter(|_| by_time && !self.confirmed)
    }

    /// What is due about it once it has lapsed: the thaw, if two have approved one.
    pub(super) fn due_after_lapse(&self) -> Timestamp {
        let far = self.since.plus(Span::from_days(3650));
        self.thaw_ready().unwrap_or(far)
    }

    /// Its clocks under today's policy.
    #[must_use]
    pub fn clocks(&self, policy: &Policy) -> Clocks {
        self.clocks.longer(Clocks::of(policy))
    }

    /// When the thaw takes effect, once two have approved. One approval alone moves and holds back nothing.
    fn thaw_ready(&self) -> Option<Timestamp> {
        self.thaw.as_ref().and_then(|t| t.ready)
    }
}

/// Tells everyone about the freeze or its end. A roll-out that only watches writes to nobody.
#[expect(clippy::similar_names, reason = "the field's own words")]
fn tell(t: &mut Transition, account: &Account, message: Message, now: Now, policy: &Policy) {
    let Some(contest) = t.record.disputed().filter(|c| c.enforced) else {
        return;
    };
    let (case, since) = (contest.case.clone(), contest.contested_since);
    let content = Content {
        until: contest.thaw_ready().or(contest.lapse()),
        frozen: t.record.contest.is_some(),
        ..plain(message, now)
    };
    send(t, account, &case, since, &content, policy);
}

/// A message that is about no change.
fn plain(message: Message, now: Now) -> Content {
    Content {
        message,
        ..notice::nothing(now.latest())
    }
}

/// Sends to every channel known before `since`, and to the newcomers. The link shows how things stand, without a
/// log-in that nobody can make now.
fn send(
    t: &mut Transition,
    account: &Account,
    case: &str,
    since: Timestamp,
    content: &Content,
    policy: &Policy,
) {
    let notices = notice::plan(&t.record, account, case, since, content, policy);
    // A freeze may be told more than once: another channel, another freeze.
    t.notices_at(notices);
}

/// Why an administrator's word was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThawRefusal {
    /// The account is not frozen.
    #[error("the account is not frozen")]
    NotContested,
    /// The tier does not let administrators end a freeze.
    #[error("this account's tier does not allow a thaw by administrators")]
    NotAllowed,
    /// Nobody thaws their own account.
    #[error("nobody can thaw their own account")]
    OwnAccount,
    /// The second word has to come from somebody else.
    #[error("a second, different administrator has to agree")]
    SamePerson,
    /// It has been approved by two already.
    #[error("the thaw has been approved already")]
    AlreadyApproved,
}

/// An administrator approves a thaw with a finding. The caller has just checked that the person may. Two different
/// people have to find the same; an approval with another finding than the first one's replaces it.
///
/// # Errors
/// [`ThawRefusal`]; nothing is stored then.
pub fn approve_thaw(
    old: &Record,
    account: &Account,
    approver: &str,
    finding: Finding,
    now: Now,
    policy: &Policy,
) -> Result<Transition, ThawRefusal> {
    let contest = old.disputed().ok_or(ThawRefusal::NotContested)?;
    if !contest.exits.contains(&Exit::Thaw) {
        return Err(ThawRefusal::NotAllowed);
    }
    if approver == old.subject.name() {
        return Err(ThawRefusal::OwnAccount);
    }
    let known = contest
        .thaw
        .clone()
        .filter(|t| t.ready.is_some() || t.finding == finding);
    // Somebody who found otherwise begins anew: one administrator's word must not stand in everybody's way (P13).
    let mut thaw = known.unwrap_or(Thaw {
        finding,
        approvals: Vec::new(),
        ready: None,
    });
    if thaw.ready.is_some() {
        return Err(ThawRefusal::AlreadyApproved);
    }
    if thaw.approvals.iter().any(|a| a == approver) {
        return Err(ThawRefusal::SamePerson);
    }
    thaw.approvals.push(approver.to_owned());
    let complete = thaw.approvals.len() >= 2;
    thaw.ready = complete.then(|| now.latest().plus(contest.clocks(policy).thaw_wait));
    let mut t = Transition::new(old.clone());
    t.record.touch(now);
    let case = contest.case.clone();
    let count = thaw.approvals.len();
    if let Some(contest) = t.record.disputed_mut() {
        contest.thaw = Some(thaw);
    }
    let id = format!("{case}:thaw_approved:{count}:{}", t.record.updated.millis());
    let entry = Entry::system(id, now.latest(), "thaw_approved", Some(&case))
        .by(Actor::Administrator(approver.to_owned()))
        .with("finding", finding.as_str())
        .with("approvals", count);
    t.audit.push(entry);
    if complete {
        tell(&mut t, account, Message::FreezeEnding, now, policy);
    }
    Ok(t)
}

/// What the end of a freeze at `now` waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ThawStep {
    /// Nothing is due.
    Wait,
    /// The finding is `owner`: first remove what was enrolled, and restore what was changed, since this instant.
    Restore(Timestamp),
    /// Two administrators' thaw may complete once both are still eligible.
    Complete,
    /// The freeze lapses into a hold.
    Lapse,
    /// A reminder goes out.
    Remind,
}

/// What is due about a freeze at `now`.
#[must_use]
pub fn thaw_step(record: &Record, now: Now) -> ThawStep {
    let Some(contest) = record.disputed() else {
        return ThawStep::Wait;
    };
    if let (Some(ready), Some(thaw)) = (contest.thaw_ready(), &contest.thaw) {
        return match (ready <= now.earliest(), thaw.finding) {
            (false, _) => ThawStep::Wait,
            (true, Finding::Owner) => ThawStep::Restore(contest.contested_since),
            (true, Finding::Unfounded) => ThawStep::Complete,
        };
    }
    let due = |at: Option<Timestamp>| record.contest.is_some() && at.is_some_and(|at| at <= now.earliest());
    if due(contest.lapse()) {
        ThawStep::Lapse
    } else if due(contest.reminder()) {
        ThawStep::Remind
    } else {
        ThawStep::Wait
    }
}

/// Ends the freeze whose wait is over. `eligible` says for each approver whether they may still approve, checked
/// at this moment (P11); `restored` that the contested credentials are gone, where the finding asks for it.
/// `reference` names the hold that follows. `None` when nothing is due.
#[must_use]
pub fn end_freeze(
    old: &Record,
    account: &Account,
    eligible: &[(String, bool)],
    restored: bool,
    reference: &str,
    now: Now,
    policy: &Policy,
) -> Option<Transition> {
    let contest = old.disputed()?;
    let step = thaw_step(old, now);
    let mut t = Transition::new(old.clone());
    t.record.touch(now);
    let stamp = t.record.updated.millis();
    let line = |action: &str| {
        Entry::system(
            format!("{}:{action}:{stamp}", contest.case),
            now.latest(),
            action,
            Some(&contest.case),
        )
        .with("enforced", contest.enforced)
    };
    match step {
        ThawStep::Wait | ThawStep::Remind => return None,
        ThawStep::Restore(_) if !restored => return None,
        ThawStep::Restore(_) | ThawStep::Complete => {
            if !still_approved(old, contest, eligible) {
                if let Some(contest) = t.record.disputed_mut() {
                    contest.thaw = None;
                }
                let alarm = "an approver may no longer approve";
                t.audit.push(line("thaw_void").alarming().with("alarm", alarm));
                tell(&mut t, account, Message::AccountFrozen, now, policy);
                return Some(t);
            }
            let finding = contest.thaw.as_ref().map(|t| t.finding);
            let found = finding.map_or("", Finding::as_str);
            t.audit.push(line("thawed").with("finding", found));
            if let ThawStep::Restore(since) = step {
                t.account = Some(account.restored(since, now.latest()));
            }
        }
        ThawStep::Lapse => t.audit.push(line("freeze_lapsed").alarming()),
    }
    let after = after::hold(old, contest, reference, now, policy);
    after::follow(
        &mut t,
        account,
        contest,
        step == ThawStep::Lapse,
        after,
        now,
        policy,
    );
    Some(t)
}

/// Whether two different people approved and both still may, at the moment of use (P11).
fn still_approved(record: &Record, contest: &Contest, eligible: &[(String, bool)]) -> bool {
    let approvals = contest
        .thaw
        .as_ref()
        .map(|t| t.approvals.as_slice())
        .unwrap_or_default();
    let may = |a: &String| eligible.iter().any(|(who, ok)| who == a && *ok);
    distinct(approvals, record) >= 2 && approvals.iter().all(may)
}

/// How many different people approved, the account itself not counted (P11).
fn distinct(approvals: &[String], record: &Record) -> usize {
    let own = record.subject.name();
    let people: BTreeSet<&String> = approvals.iter().filter(|a| **a != own).collect();
    people.len()
}

/// A channel of before accepted the message about the freeze.
#[must_use]
pub fn freeze_told(old: &Record, now: Now) -> Option<Transition> {
    let mut t = Transition::new(old.clone());
    let contest = t.record.contest.as_mut().filter(|c| c.told.is_none())?;
    contest.told = Some(now.latest());
    t.record.touch(now);
    Some(t)
}
