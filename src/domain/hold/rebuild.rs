//! A record made anew, after the store lost it, from what the IdP still knows (P5).
//!
//! Three sources speak: the IdP's log, the ages of the credentials, and what the IdP itself carries of the hold. The
//! log is played again as it was heard then, every change at its own time, with one difference: nobody knows any more
//! when an owner was told, so every hold runs as long as it could have run untold. What the IdP carries is the floor
//! below that: a hold or a freeze that the log does not explain is taken over, for as long as it may have had to run.
//! So the record is at least as strict as the lost one at every later instant. What is left of the old record is the
//! ground that all of this is laid on; nothing of it is taken away.
//!
//! Messages are about changes that came when the loss was near or later; of the others the owner was told then. But a
//! hold that no line of the log tells of is told whenever it is found (P8).

pub mod carried;

use std::collections::BTreeSet;

use self::carried::Carried;
use super::apply::{Setting, apply};
use super::contest::{Clocks, Contest};
use super::{Cause, Effect, Record, Told, Transition};
use crate::domain::audit::Entry;
use crate::domain::ceiling::Ceiling;
use crate::domain::change::{Change, ChangeKind, Row, Source};
use crate::domain::policy::{AtEnd, ContestedAtIdp, Exit, Policy, Response, Tier};
use crate::domain::subject::Subject;
use crate::domain::subject::account::{Account, ChannelId, Factor, FactorClass};
use crate::domain::time::{Now, Span, Timestamp};

/// This long before the loss a change may have come whose message was not sent yet: it is sent again, unless it is
/// known that it was.
pub const UNCERTAIN: Span = Span::from_secs(10);

/// What is still known of an account whose record was lost.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Changes, oldest first.
    pub changes: &'a [Change],
    /// The snapshot of before, where it is left.
    pub before: Option<&'a Account>,
    /// The account as the IdP shows it now.
    pub after: Option<&'a Account>,
    /// What the IdP carries of the hold.
    pub carried: &'a Carried,
    /// The due queue has the account: it was held or frozen, although no record says how.
    pub witnessed: bool,
    /// The account's values were lost or altered: a record may have been there, although nothing tells of it.
    pub lost: bool,
    /// Changes before this were told.
    pub told_before: Timestamp,
    /// But not these, by their ids: nobody ever took them down.
    pub unheard: &'a BTreeSet<String>,
}

impl Evidence<'_> {
    /// Whether the owner was told of this change, as far as anybody knows.
    fn told(&self, id: &str, start: Timestamp) -> bool {
        was_told(start, self.told_before) && !self.unheard.contains(id)
    }
}

/// Names the case of a change.
pub type Naming<'a> = dyn Fn(&str) -> String + 'a;
/// Whether an effect was done, if that is known.
pub type Known<'a> = dyn Fn(&str) -> Option<bool> + 'a;

/// Whether the owner was told of a change that began at `start`, as far as anybody knows.
#[must_use]
pub fn was_told(start: Timestamp, told_before: Timestamp) -> bool {
    start < told_before.minus(UNCERTAIN)
}

/// Leaves out messages about changes of before that were sent then.
pub fn hush(effects: &mut Vec<(String, Effect)>, old: bool, known: &Known<'_>) {
    effects.retain(|(id, effect)| match effect {
        Effect::Converge | Effect::Farewell(_) => true,
        Effect::Notice(_) | Effect::Announce(_) | Effect::Webhook(_) => !known(id).unwrap_or(old),
    });
}

/// The longest time that a hold by this policy can run from its change on.
#[must_use]
pub fn reach(policy: &Policy) -> Span {
    let rows = policy.tiers.iter().flat_map(|t| t.holds.values());
    let lengths = rows.map(|r| match r {
        Response::Hold { length, .. } => *length,
        Response::Notice => Span::ZERO,
    });
    untold(lengths.max().unwrap_or_default(), policy)
}

/// How long a hold of this nominal length can have run, told at the last moment.
fn untold(length: Span, policy: &Policy) -> Span {
    Span::from_millis(length.times(2).millis().saturating_add(policy.told_min.millis()))
}

/// Makes the record. `None` when there is nothing to restrict, nothing was left and nothing was lost. What was lost may
/// have had an epoch, so that its record is always made, if only to say a higher one (contract, section 1).
#[must_use]
pub fn rebuild(
    subject: &Subject,
    left: Option<&Record>,
    evidence: Evidence<'_>,
    case: &Naming<'_>,
    known: &Known<'_>,
    setting: Setting<'_>,
) -> Option<Transition> {
    // What came after another change may not be cut short by when that one was told: nobody knows when.
    let policy = Policy {
        rolling: true,
        ..setting.policy.clone()
    };
    let s = Setting {
        policy: &policy,
        ..setting
    };
    let mut whole = Transition::new(left.cloned().unwrap_or_else(|| Record::new(subject.clone())));
    whole.record.elevations.clear();
    // It was read just now.
    whole.record.unreadable = None;
    whole.account = ground(&evidence, s.now);
    replay(&mut whole, subject, &evidence, case, known, s);
    unknown_told(&mut whole, left, &evidence);
    let carried = carry(&mut whole, &evidence, case, s);
    let quiet =
        whole.record.causes.is_empty() && whole.record.contest.is_none() && left.is_none() && !carried;
    if quiet && !evidence.lost {
        return None;
    }
    let r = &mut whole.record;
    r.touch(s.now);
    r.tighten(s.now);
    if quiet {
        // The snapshot is the caller's.
        whole.account = None;
        return Some(whole);
    }
    let id = format!("rebuilt:{}:{}", r.epoch, r.updated.millis());
    let entry = Entry::system(id, s.now.latest(), "rebuilt", None)
        .with("changes", evidence.changes.len())
        .with("causes", r.causes.len())
        .with("frozen", r.contest.is_some());
    whole.audit.push(if carried { entry.alarming() } else { entry });
    whole.effects.retain(|(_, e)| *e != Effect::Converge);
    whole.converge();
    Some(whole)
}

/// The snapshot to judge by. Without one of before, what the log says was taken away stands in for what was there.
fn ground(evidence: &Evidence<'_>, now: Now) -> Option<Account> {
    if let Some(before) = evidence.before {
        let seen = |after: &Account| before.refreshed(after, now.latest());
        return Some(evidence.after.map_or_else(|| before.clone(), seen));
    }
    let mut account = evidence.after?.clone();
    account.name.clear();
    for change in evidence.changes {
        let class = match change.kind {
            ChangeKind::PasswordReset | ChangeKind::PasswordChanged | ChangeKind::PasswordSetByAdmin => {
                FactorClass::Password
            }
            ChangeKind::RecoveryCodesReset => FactorClass::RecoveryCodes,
            ChangeKind::FactorRemoved => change.factor.unwrap_or(FactorClass::Other),
            _ => continue,
        };
        account.factors.push(Factor {
            id: format!("lost:{}", change.id),
            class,
            created: account.created,
            gone: Some(change.start()),
            at_creation: true,
            remaining: None,
        });
    }
    Some(account)
}

/// Plays the log again: what was heard before the loss at its own time, the rest now.
fn replay(
    whole: &mut Transition,
    subject: &Subject,
    evidence: &Evidence<'_>,
    case: &Naming<'_>,
    known: &Known<'_>,
    s: Setting<'_>,
) {
    for change in evidence.changes {
        let start = change.start();
        let old = evidence.told(&change.id, start);
        let then = Now::exact(start.plus(Span::from_millis(1)));
        let reference = case(&change.id);
        let at = Setting {
            now: if old { then } else { s.now },
            reference: &reference,
            ..s
        };
        let account = whole.account.as_ref();
        let Some(mut t) = apply(subject, Some(&whole.record), account, None, change, at) else {
            continue;
        };
        // What only a date tells of may never have been found before, so nobody can have been told of it.
        let first = change.source == Source::Reconcile && runs(&t.record, &reference, s.now);
        hush(&mut t.effects, old && !first, known);
        whole.record = t.record;
        whole.account = t.account.or_else(|| whole.account.take());
        whole.effects.extend(t.effects);
        if !old {
            whole.audit.extend(t.audit);
        }
    }
}

/// Whether the case may hold still: as long as a hold can run of which nobody knows when it was told.
fn runs(record: &Record, reference: &str, now: Now) -> bool {
    let Some(mut cause) = record.cause(reference).cloned().filter(Cause::holds) else {
        return false;
    };
    if cause.told == Told::Pending {
        cause.told = Told::Unknown;
    }
    now.earliest() < cause.end()
}

/// Of old changes nobody knows when they were told, and no message will say so; nor does anybody know what lifts
/// they had already given.
fn unknown_told(whole: &mut Transition, left: Option<&Record>, evidence: &Evidence<'_>) {
    let effects = &whole.effects;
    let mailed = |case: &str| {
        effects
            .iter()
            .any(|(_, e)| matches!(e, Effect::Notice(n) if n.case == case))
    };
    for cause in &mut whole.record.causes {
        let kept = left.is_some_and(|l| l.causes.iter().any(|c| c.change == cause.change));
        let old = evidence.told(&cause.change, cause.at);
        // A young one without a message was told all the same: whoever delivered it remembers that, not when.
        if kept || mailed(&cause.reference) || (!old && cause.told != Told::Pending) {
            continue;
        }
        if matches!(cause.told, Told::Pending | Told::NoChannel) {
            cause.told = Told::Unknown;
        }
        if old {
            cause.bounded = false;
        }
    }
}

/// Never below what the IdP itself carries. Says whether anything had to be taken over.
fn carry(whole: &mut Transition, evidence: &Evidence<'_>, case: &Naming<'_>, s: Setting<'_>) -> bool {
    let carried = evidence.carried;
    let ceiling = carried.ceiling.clone();
    if let (true, Some(ceiling)) = (carried.contested, &ceiling)
        && *ceiling != Ceiling::none()
        && !whole.record.causes.iter().any(|c| c.row == Row::AfterContest)
    {
        // A freeze that was lifted into a hold of the contested cause's length.
        let longest = longest(s.tier, |_| true).max(Span::from_hours(24));
        take_over(whole, Row::AfterContest, ceiling, longest, case, s);
        // Whether people judged it or it lapsed, nobody knows: it stays in doubt.
        let known = whole.record.lapsed.take();
        whole.record.lapsed = known.or_else(|| contest(whole, carried, s));
        return true;
    }
    let frozen = carried.contested && ceiling.as_ref().is_none_or(|c| *c == Ceiling::none());
    if frozen && whole.record.contest.is_none() {
        freeze(whole, carried, case, s);
        return true;
    }
    let floor = match (&ceiling, evidence.witnessed) {
        (Some(ceiling), _) => ceiling.clone(),
        (None, true) => every(s.tier),
        (None, false) => return false,
    };
    let now = whole.record.restriction(s.now);
    if now.is_some_and(|r| r.allowed.within(&floor)) {
        return false;
    }
    let length = longest(s.tier, |allowed| floor.within(allowed));
    take_over(whole, Row::PasswordReset, &floor, length, case, s);
    true
}

/// The longest hold of a tier whose ceiling `fits`.
fn longest(tier: &Tier, fits: impl Fn(&Ceiling) -> bool) -> Span {
    let lengths = tier.holds.values().filter_map(|r| match r {
        Response::Hold { length, allow } if fits(allow) => Some(*length),
        _ => None,
    });
    // A ceiling that no row of this tier gives came from another one.
    lengths.max().unwrap_or(Span::from_days(30))
}

/// What every row of a tier allows.
fn every(tier: &Tier) -> Ceiling {
    let allowed = tier.holds.values().filter_map(|r| match r {
        Response::Hold { allow, .. } => Some(allow),
        Response::Notice => None,
    });
    allowed.fold(Ceiling::Full, |all, one| all.intersect(one))
}

/// Adds a cause for a hold that is there and that nothing explains.
fn take_over(
    whole: &mut Transition,
    row: Row,
    allowed: &Ceiling,
    length: Span,
    naming: &Naming<'_>,
    s: Setting<'_>,
) {
    let change = format!("carried:{}:{}", allowed.level(), s.now.latest().millis());
    let mut cause = Cause {
        reference: naming(&change),
        change,
        kind: ChangeKind::PasswordReset,
        row,
        at: s.now.latest(),
        length,
        allowed: allowed.clone(),
        sources: vec![Source::Reconcile],
        told: Told::Unknown,
        told_min: s.policy.told_min.min(length.quarter()),
        tier: s.tier.name.clone(),
        at_end: match row {
            Row::AfterContest => AtEnd::FreshEligibleLogin,
            _ => s.tier.at_end,
        },
        digest: s.policy.digest.clone(),
        channel: None,
        bounded: false,
        rollout: s.tier.enforce,
        enforced: true,
        episode: 0,
        swept: false,
        contest_length: longest(s.tier, |_| true),
        cap: None,
        origin: None,
    };
    cause.episode = whole.record.joined(cause.at, cause.end());
    whole.record.causes.push(cause);
}

/// The account is frozen at the IdP: it is frozen here, and nothing lets that lapse.
fn freeze(whole: &mut Transition, carried: &Carried, naming: &Naming<'_>, s: Setting<'_>) {
    let holding = |c: &&Cause| c.holds() && c.enforced;
    if !whole.record.causes.iter().any(|c| holding(&c)) {
        let length = longest(s.tier, |_| true);
        take_over(whole, Row::PasswordReset, &every(s.tier), length, naming, s);
    }
    whole.record.contest = contest(whole, carried, s);
}

/// The freeze of which only the IdP still knows: about the latest hold in force and what belongs to it.
fn contest(whole: &Transition, carried: &Carried, s: Setting<'_>) -> Option<Contest> {
    let holding = |c: &&Cause| c.holds() && c.enforced;
    let running = whole.record.causes.iter().filter(holding);
    let cause = running.max_by_key(|c| c.at)?;
    let same = |c: &&Cause| c.holds() && c.episode == cause.episode;
    let since = whole.record.causes.iter().filter(same).map(|c| c.at).min();
    let exits: Vec<Exit> = s.tier.exits.iter().copied().collect();
    Some(Contest {
        case: cause.reference.clone(),
        since: s.now.latest(),
        by: ChannelId(String::new()),
        // Only the freeze of a channel that is no longer there lapses; whose this was, nobody knows.
        confirmed: true,
        told: Some(s.now.latest()),
        enforced: true,
        at_idp: if carried.disabled {
            ContestedAtIdp::Disable
        } else {
            ContestedAtIdp::IssueNone
        },
        exits,
        lapses: None,
        thaw: None,
        contested_since: since.unwrap_or(cause.at),
        hold: cause.contest_length.max(longest(s.tier, |_| true)),
        removed: None,
        reminders: 0,
        owned: Vec::new(),
        proven: None,
        clocks: Clocks::of(s.policy),
    })
}
