//! "This was not me": the freeze, and the ways out of it (domain "Contested").
//!
//! A report only stops; it hands nobody power. Every way out tells everyone, and after a thaw or a lapse the
//! account is read-only for the contested cause's full length, ending by a fresh log-in.

mod after;
pub mod exit;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Cause, RETENTION, Record, Transition, attempt};
use crate::domain::audit::{Actor, Entry};
use crate::domain::notice::{self, Content, Message};
use crate::domain::policy::{ContestedAtIdp, Exit, Policy, Tier};
use crate::domain::subject::account::{Account, ChannelId, Contact};
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
    /// When an unconfirmed freeze lapses.
    pub lapses: Option<Timestamp>,
    /// The thaw under way.
    pub thaw: Option<Thaw>,
    /// What happened at or after this is contested: factors enrolled since, contacts changed since.
    pub contested_since: Timestamp,
    /// Full length of the `read` hold that follows.
    pub hold: Span,
    /// The clocks it began with.
    #[serde(default)]
    pub clocks: Clocks,
}

impl Contest {
    /// When the sweeper has to look.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        // A freeze without a clock is still due, far away: the due entry is the witness that a record must exist.
        let far = self.since.plus(Span::from_days(3650));
        let lapse = self.lapses.filter(|_| !self.confirmed);
        self.thaw_ready().or(lapse).unwrap_or(far)
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

/// Why a report has no effect, in words for the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportRefusal {
    /// No such case is known any more.
    #[error("this message is about something that is no longer on record")]
    UnknownCase,
    /// The channel is not, or no longer, a channel of before.
    #[error("this address can no longer speak for the account")]
    NoVoice,
}

/// Somebody on `channel` says that `case` was not them.
///
/// # Errors
/// [`ReportRefusal`] when the case is unknown or the channel has no voice in it. A second report by the same
/// channel within the window is stored and told, without effect, and is not an error.
#[expect(clippy::similar_names, reason = "the field's own words")]
pub fn report(
    old: &Record,
    account: &Account,
    channel: &ChannelId,
    case: &str,
    now: Now,
    policy: &Policy,
) -> Result<Transition, ReportRefusal> {
    let cause = old.cause(case).ok_or(ReportRefusal::UnknownCase)?;
    let contact = account
        .contacts
        .iter()
        .find(|c| c.id == *channel)
        .ok_or(ReportRefusal::NoVoice)?;
    let voiced = contact.since < cause.at
        && Account::may_veto(contact, cause.at, policy)
        && contact
            .gone
            .is_none_or(|gone| now.latest() < old.voice_end(gone, policy));
    if !voiced {
        return Err(ReportRefusal::NoVoice);
    }
    let mut t = Transition::new(old.clone());
    t.record.touch(now);
    let stamp = t.record.updated.millis();
    let line = |action: &str| {
        let id = format!("{case}:{action}:{}:{stamp}", channel.0);
        Entry::system(id, now.latest(), action, Some(case)).by(Actor::Channel(channel.0.clone()))
    };
    if spent(old, contact, now, policy) {
        t.audit.push(line("report_repeated"));
        tell_again(&mut t, account, cause, now, policy);
        return Ok(t);
    }
    let window = report_window(old, policy);
    let kept = |at: Timestamp| now.earliest() < at.plus(RETENTION.max(window));
    t.record.reports.retain(|(_, at)| kept(*at));
    t.record.reports.push((channel.clone(), now.latest()));
    let was = old.contest.as_ref().is_some_and(|c| c.enforced);
    let frozen = freeze(old, cause, channel, now, policy);
    if let Some(contest) = t.record.contest.take() {
        t.record.contest = Some(confirmed(contest, &frozen));
        t.audit.push(line("report_confirmed").alarming());
    } else {
        t.record.contest = Some(frozen);
        t.audit
            .push(line("contested").alarming().with("enforced", cause.enforced));
    }
    if cause.enforced && !was {
        t.record.tighten(now);
        t.record.cut(now, None);
        t.converge();
    }
    tell(&mut t, account, Message::AccountFrozen, now, policy);
    Ok(t)
}

/// How long a channel has had its say: today's window, or the running freeze's where that is longer.
fn report_window(record: &Record, policy: &Policy) -> Span {
    let running = record.contest.as_ref();
    running.map_or(policy.report_window, |c| c.clocks(policy).report_window)
}

/// Whether the channel has had its say: once within the window, and a removed one once ever since it was removed.
fn spent(record: &Record, contact: &Contact, now: Now, policy: &Policy) -> bool {
    let mut said = record.reports.iter().filter(|(c, _)| *c == contact.id);
    said.any(|(_, at)| {
        now.earliest() < at.plus(report_window(record, policy))
            || contact.gone.is_some_and(|gone| *at >= gone)
    })
}

/// A freeze that `again` says too, about the same case or another one: only ever wider and stricter.
fn confirmed(contest: Contest, again: &Contest) -> Contest {
    Contest {
        confirmed: contest.confirmed || contest.by != again.by,
        enforced: contest.enforced || again.enforced,
        contested_since: contest.contested_since.min(again.contested_since),
        hold: contest.hold.max(again.hold),
        clocks: contest.clocks.longer(again.clocks),
        thaw: None,
        ..contest
    }
}

fn freeze(old: &Record, cause: &Cause, channel: &ChannelId, now: Now, policy: &Policy) -> Contest {
    let tier = policy.tier(&cause.tier);
    let exits: Vec<Exit> = tier.map_or_else(|| vec![Exit::Thaw], |t| t.exits.iter().copied().collect());
    let same = |c: &&Cause| c.holds() && c.episode == cause.episode && cause.episode > 0;
    let episode = old.causes.iter().filter(same);
    Contest {
        case: cause.reference.clone(),
        since: now.latest(),
        by: channel.clone(),
        confirmed: false,
        told: None,
        enforced: cause.enforced,
        at_idp: tier.map_or(ContestedAtIdp::Disable, |t: &Tier| t.contested_at_idp),
        lapses: exits
            .contains(&Exit::Lapse)
            .then(|| now.latest().plus(policy.lapse_after)),
        exits,
        thaw: None,
        contested_since: episode
            .map(|c| c.at)
            .min()
            .map_or(cause.at, |at| at.min(cause.at)),
        hold: cause.contest_length,
        clocks: Clocks::of(policy),
    }
}

/// Tells everyone about the freeze or its end. A roll-out that only watches writes to nobody.
#[expect(clippy::similar_names, reason = "the field's own words")]
fn tell(t: &mut Transition, account: &Account, message: Message, now: Now, policy: &Policy) {
    let Some(contest) = t.record.contest.as_ref().filter(|c| c.enforced) else {
        return;
    };
    let (case, since) = (contest.case.clone(), contest.contested_since);
    let until = contest.thaw_ready();
    let content = Content {
        until,
        ..plain(message, now)
    };
    send(t, account, &case, since, &content, policy);
}

/// Tells everyone, the channel itself too, that its second word has changed nothing (domain "Cancel").
fn tell_again(t: &mut Transition, account: &Account, cause: &Cause, now: Now, policy: &Policy) {
    let message = Message::ReportRepeated;
    let Some(count) = attempt::counted(&mut t.record, message, now).filter(|_| cause.enforced) else {
        return;
    };
    let content = attempt::content(message, count, now);
    send(t, account, &cause.reference, cause.at, &content, policy);
}

/// A message that is about no change.
const fn plain(message: Message, now: Now) -> Content {
    Content {
        message,
        change: None,
        at: now.latest(),
        origin: None,
        allowed: None,
        until: None,
        locale: None,
        name: String::new(),
        count: None,
    }
}

/// Sends to every channel known before `since`, and to the newcomers; nobody gets a link.
fn send(
    t: &mut Transition,
    account: &Account,
    case: &str,
    since: Timestamp,
    content: &Content,
    policy: &Policy,
) {
    let mut notices = notice::plan(&t.record, account, case, since, content, policy);
    for notice in &mut notices {
        notice.link = false;
    }
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
    let contest = old.contest.as_ref().ok_or(ThawRefusal::NotContested)?;
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
    if let Some(contest) = t.record.contest.as_mut() {
        contest.thaw = Some(thaw);
    }
    let id = format!("{case}:thaw_approved:{count}:{}", t.record.updated.millis());
    let entry = Entry::system(id, now.latest(), "thaw_approved", Some(&case))
        .by(Actor::Administrator(approver.to_owned()))
        .with("finding", format!("{finding:?}").to_lowercase())
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
}

/// What is due about a freeze at `now`.
#[must_use]
pub fn thaw_step(record: &Record, now: Now) -> ThawStep {
    let Some(contest) = &record.contest else {
        return ThawStep::Wait;
    };
    if let (Some(ready), Some(thaw)) = (contest.thaw_ready(), &contest.thaw) {
        return match (ready <= now.earliest(), thaw.finding) {
            (false, _) => ThawStep::Wait,
            (true, Finding::Owner) => ThawStep::Restore(contest.contested_since),
            (true, Finding::Unfounded) => ThawStep::Complete,
        };
    }
    let lapsed = contest.lapses.is_some_and(|at| at <= now.earliest());
    if lapsed && !contest.confirmed {
        ThawStep::Lapse
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
    let contest = old.contest.as_ref()?;
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
        ThawStep::Wait => return None,
        ThawStep::Restore(_) if !restored => return None,
        ThawStep::Restore(_) | ThawStep::Complete => {
            if !still_approved(old, contest, eligible) {
                if let Some(contest) = t.record.contest.as_mut() {
                    contest.thaw = None;
                }
                let alarm = "an approver may no longer approve";
                t.audit.push(line("thaw_void").alarming().with("alarm", alarm));
                tell(&mut t, account, Message::AccountFrozen, now, policy);
                return Some(t);
            }
            t.audit.push(line("thawed"));
            if let ThawStep::Restore(since) = step {
                t.account = Some(account.restored(since, now.latest()));
            }
        }
        ThawStep::Lapse => t.audit.push(line("freeze_lapsed").alarming()),
    }
    let after = after::hold(old, contest, reference, now, policy);
    after::follow(&mut t, account, after, now, policy);
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
