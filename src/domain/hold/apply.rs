//! A change arrives: what it does to the record (domain "Start", "End", "Merge"), and the steps that time and
//! delivery take afterwards. Every function here is pure and may run several times for one commit.

use super::{Cause, Effect, MAX_CAUSES, RETENTION, Record, Told, Transition};
use crate::domain::audit::Entry;
use crate::domain::ceiling::Ceiling;
use crate::domain::change::{Change, ChangeKind, Row};
use crate::domain::notice;
use crate::domain::policy::{AtEnd, Policy, Response, Tier};
use crate::domain::subject::Subject;
use crate::domain::subject::account::Account;
use crate::domain::time::{Now, Span, Timestamp};

/// What a change is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The policy of today.
    pub policy: &'a Policy,
    /// The tier chosen for the account.
    pub tier: &'a Tier,
    /// Where the account's keyed hash falls, 0..10,000, for a cohort roll-out.
    pub place: u16,
    /// What time it is.
    pub now: Now,
    /// A fresh case id, at most 34 characters; used if this change opens a case.
    pub reference: &'a str,
}

/// Applies one observed change to a subject.
///
/// `before` is the snapshot as stored, `after` what the IdP shows now (`None` when it could not be read; the
/// snapshot then stays). Returns `None` when there is nothing to store: this change is known already and what is
/// known is at least as strict (P10).
#[must_use]
pub fn apply(
    subject: &Subject,
    old: Option<&Record>,
    before: Option<&Account>,
    after: Option<&Account>,
    change: &Change,
    setting: Setting<'_>,
) -> Option<Transition> {
    let account = merged(before, after, change);
    let mut transition = Transition::new(old.cloned().unwrap_or_else(|| Record::new(subject.clone())));
    let mut changes = vec![change.clone()];
    let all = account
        .as_ref()
        .filter(|a| a.all_replaced(baseline(old, change, setting.now), setting.policy.probation));
    if change.kind != ChangeKind::CredentialInitialised && all.is_some() {
        let id = format!("{}#all", change.id);
        changes.push(Change {
            kind: ChangeKind::AllFactorsReplaced,
            id,
            factor: None,
            ..change.clone()
        });
    }
    let mut stored = false;
    for (index, one) in changes.iter().enumerate() {
        let reference = if index == 0 {
            setting.reference.to_owned()
        } else {
            format!("{}-{index}", setting.reference)
        };
        stored |= take(&mut transition, account.as_ref(), one, &reference, setting);
    }
    if !stored {
        return None;
    }
    transition.record.updated = setting.now.latest().max(transition.record.updated);
    if account.as_ref() != before {
        transition.account = account.map(|a| a.pruned(setting.now.earliest(), RETENTION));
    }
    if transition.effects.iter().any(|(_, e)| *e == Effect::Converge) {
        transition.effects.retain(|(_, e)| *e != Effect::Converge);
        transition.converge();
    }
    Some(transition)
}

/// The snapshot with the fresh reading and the address the event itself names as the old one.
fn merged(before: Option<&Account>, after: Option<&Account>, change: &Change) -> Option<Account> {
    let seen = change.start();
    match (before, after) {
        (Some(before), Some(after)) => Some(before.refreshed(after, seen)),
        (before, after) => before.or(after).cloned(),
    }
}

/// The instant before which a factor counts as "before": the start of the episode under way, or of this change.
fn baseline(old: Option<&Record>, change: &Change, now: Now) -> Timestamp {
    let start = change.start();
    let Some(record) = old else { return start };
    let episode = record.episode();
    let active = record
        .causes
        .iter()
        .filter(|c| c.episode == episode && c.holds() && now.earliest() < c.end());
    active.map(|c| c.at).min().map_or(start, |at| at.min(start))
}

/// Puts one change into the record. Says whether anything has to be stored.
fn take(t: &mut Transition, account: Option<&Account>, change: &Change, case: &str, s: Setting<'_>) -> bool {
    let mut cause = judged(&t.record, account, change, case, s);
    if let Some(known) = t.record.causes.iter_mut().find(|c| c.change == change.id) {
        let heard = known.sources.contains(&change.source);
        if !stricter(&cause, known) {
            if !heard {
                known.sources.push(change.source.clone());
            }
            return !heard;
        }
        // Judged again with more knowledge: only ever tighter, under the name it already has.
        cause.reference.clone_from(&known.reference);
        cause.at = cause.at.max(known.at);
        cause.length = cause.length.max(known.length);
        cause.allowed = cause.allowed.intersect(&known.allowed);
        let reference = known.reference.clone();
        t.record.causes.retain(|c| c.reference != reference);
    }
    if cause.holds() && cause.enforced {
        t.record.tighten(s.now);
        if change.ends_sessions() {
            t.record.cut(s.now, change.session.clone());
        }
    }
    announce(t, account, change, &cause, s);
    t.record.causes.push(cause);
    bound(&mut t.record);
    true
}

/// Whether `new` restricts more than what is `known` of the same change.
fn stricter(new: &Cause, known: &Cause) -> bool {
    new.length > known.length || !known.allowed.within(&new.allowed)
}

/// The cause that a change is, by today's policy.
fn judged(record: &Record, account: Option<&Account>, change: &Change, case: &str, s: Setting<'_>) -> Cause {
    let (row, start) = (change.row(), change.start());
    let (mut length, mut allowed) = match s.tier.response(row) {
        Response::Notice => (Span::ZERO, Ceiling::Full),
        Response::Hold { length, allow } => (length, allow),
    };
    // So late that even an untold hold would be over: it only tells (domain "End").
    if s.now.earliest() > start.plus(length.times(2)) {
        (length, allowed) = (Span::ZERO, Ceiling::Full);
    }
    let known = account.is_some_and(|a| a.channels_before(start, None, s.policy).next().is_some());
    let active = active_episode(record, s.now);
    let repeated = held_by(record, change, start) >= length.times(2);
    Cause {
        reference: case.to_owned(),
        change: change.id.clone(),
        kind: change.kind,
        row,
        at: start,
        length,
        allowed,
        sources: vec![change.source.clone()],
        told: if known { Told::Pending } else { Told::NoChannel },
        told_min: s.policy.told_min.min(length.quarter()),
        tier: s.tier.name.clone(),
        at_end: s.tier.at_end,
        digest: s.policy.digest.clone(),
        channel: change.channel.clone(),
        bounded: length > Span::ZERO && change.channel.is_some() && repeated,
        rollout: s.tier.enforce,
        enforced: s.tier.enforce.enforces(s.place),
        episode: active.map_or_else(|| record.episode().saturating_add(1), |(episode, _)| episode),
        swept: length == Span::ZERO,
        contest_length: contest_length(s.tier, row),
        cap: active.filter(|_| !s.policy.rolling).map(|(_, end)| end),
        origin: change.origin.clone(),
    }
}

/// The episode under way and its end.
fn active_episode(record: &Record, now: Now) -> Option<(u32, Timestamp)> {
    let episode = record.episode();
    let causes = record.causes.iter().filter(|c| c.episode == episode && c.holds());
    causes
        .map(super::Cause::end)
        .max()
        .filter(|end| now.earliest() < *end)
        .map(|end| (episode, end))
}

/// How long changes proven by the same channel have held the account within the 30 days before `start`.
fn held_by(record: &Record, change: &Change, start: Timestamp) -> Span {
    let Some(channel) = &change.channel else {
        return Span::ZERO;
    };
    let window = start.minus(Span::from_days(30));
    let mut spans: Vec<(Timestamp, Timestamp)> = record
        .causes
        .iter()
        .filter(|c| c.holds() && c.channel.as_ref() == Some(channel))
        .map(|c| (c.at.max(window), c.end().min(start)))
        .filter(|(from, to)| from < to)
        .collect();
    spans.sort();
    let (mut total, mut reached) = (0_i64, window);
    for (from, to) in spans {
        let from = from.max(reached);
        if from < to {
            total = total.saturating_add(to.since(from).millis());
            reached = to;
        }
    }
    Span::from_millis(total)
}

/// The full length of a hold because of `row`; a row that only tells counts as a password reset, since a report
/// about it says that it was not the owner.
fn contest_length(tier: &Tier, row: Row) -> Span {
    let length = |row| match tier.response(row) {
        Response::Hold { length, .. } => Some(length),
        Response::Notice => None,
    };
    length(row)
        .or_else(|| length(Row::PasswordReset))
        .unwrap_or(Span::from_hours(24))
}

/// Adds notices, audit lines and the word to the IdP.
fn announce(t: &mut Transition, account: Option<&Account>, change: &Change, cause: &Cause, s: Setting<'_>) {
    let restricts = cause.holds() && cause.enforced;
    let content = notice::content_of(
        change,
        restricts.then(|| cause.allowed.clone()),
        restricts.then(|| cause.at.plus(cause.length)),
    );
    if let Some(account) = account {
        let end = cause.holds().then(|| cause.end());
        t.notices(notice::plan(
            account,
            &cause.reference,
            cause.at,
            end,
            &content,
            s.policy,
        ));
    }
    let action = if cause.holds() {
        "hold_started"
    } else {
        "change_noticed"
    };
    let id = format!("{}:{action}:{}", cause.reference, cause.row.as_str());
    let mut entry = Entry::system(id, s.now.latest(), action, Some(&cause.reference))
        .with("row", cause.row.as_str())
        .with("tier", &cause.tier.0)
        .with("allowed", &cause.allowed)
        .with("length", cause.length)
        .with("enforced", cause.enforced)
        .with("rollout", format!("{:?}", cause.rollout))
        .with("source", change.source.as_str())
        .with("change", &change.id)
        .with("policy", &cause.digest);
    if cause.told == Told::NoChannel {
        entry = entry
            .alarming()
            .with("alarm", "account without any channel: nobody could be told");
    } else if cause.bounded {
        entry = entry
            .alarming()
            .with("alarm", "the same channel keeps holding this account");
    }
    t.audit.push(entry);
    if restricts {
        t.converge();
    }
}

/// Keeps the record small without ever loosening it: what is over goes first, then the two oldest causes that
/// still hold become one with the later end and the smaller ceiling.
fn bound(record: &mut Record) {
    while record.causes.len() > MAX_CAUSES {
        if let Some(index) = record.causes.iter().position(|c| !c.holds()) {
            record.causes.remove(index);
            continue;
        }
        let first = record.causes.remove(0);
        if let Some(second) = record.causes.first_mut() {
            second.told = Told::Settled(first.end().max(second.end()));
            second.cap = None;
            second.at = second.at.min(first.at);
            second.length = second.length.max(first.length);
            second.allowed = second.allowed.intersect(&first.allowed);
            second.enforced |= first.enforced;
            second.swept &= first.swept;
            if first.at_end != AtEnd::Auto {
                second.at_end = first.at_end;
            }
        }
    }
}

/// A channel of before accepted the notice about `case` at `now`: the one transition that brings an end forward.
/// `None` when that is known already, or when the hold is over.
#[must_use]
pub fn told(old: &Record, case: &str, now: Now) -> Option<Transition> {
    let mut record = old.clone();
    let cause = record.causes.iter_mut().find(|c| c.reference == case)?;
    if cause.told != Told::Pending || (cause.holds() && now.earliest() >= cause.end()) {
        return None;
    }
    cause.told = Told::At(now.latest());
    record.updated = now.latest().max(record.updated);
    let mut t = Transition::new(record);
    t.audit.push(Entry::system(
        format!("{case}:told"),
        now.latest(),
        "owner_told",
        Some(case),
    ));
    Some(t)
}

/// What the passing of time asks for at `now`: the lift at the IdP when the holds are over. Truth does not depend
/// on it; only the IdP's own tokens wait for it. `None` when nothing is due.
#[must_use]
pub fn sweep(old: &Record, now: Now) -> Option<Transition> {
    let over = old.restriction(now).is_none();
    let unswept = |c: &Cause| c.holds() && !c.swept && c.end() <= now.earliest();
    if !over || !old.causes.iter().any(unswept) || old.contest.is_some() {
        return None;
    }
    let mut record = old.clone();
    record.updated = now.latest().max(record.updated);
    let mut ended = Vec::new();
    for cause in record.causes.iter_mut().filter(|c| unswept(c)) {
        cause.swept = true;
        ended.push(cause.reference.clone());
    }
    let mut t = Transition::new(record);
    for case in ended {
        t.audit.push(Entry::system(
            format!("{case}:ended"),
            now.latest(),
            "hold_ended",
            Some(&case),
        ));
    }
    t.converge();
    Some(t)
}
