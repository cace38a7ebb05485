//! A change arrives: what it does to the record (domain "Start", "End", "Merge"), and the steps that time and
//! delivery take afterwards. Every function here is pure and may run several times for one commit.

mod derived;
mod late;

use derived::derived;
use late::{bound, revive};

use super::episode::Episode;
use super::{Cause, Effect, RETENTION, Record, Told, Transition};
use crate::domain::audit::Entry;
use crate::domain::ceiling::Ceiling;
use crate::domain::change::{Change, Row};
use crate::domain::notice;
use crate::domain::policy::{Policy, Response, Tier};
use crate::domain::subject::Subject;
use crate::domain::subject::account::Account;
use crate::domain::time::{Now, Span, Timestamp};
use std::fmt::Write as _;

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
    let account = merged(before, after, change, setting.now);
    let mut transition = Transition::new(old.cloned().unwrap_or_else(|| Record::new(subject.clone())));
    transition.record.touch(setting.now);
    let mut stored = take(
        &mut transition,
        account.as_ref(),
        change,
        setting.reference,
        setting,
    );
    for (one, reference) in derived(&transition.record, account.as_ref(), change, setting) {
        stored |= take(&mut transition, account.as_ref(), &one, &reference, setting);
    }
    if !stored {
        return None;
    }
    if account.as_ref() != before {
        transition.account = account.map(|a| a.pruned(setting.now.earliest(), RETENTION));
    }
    if transition.effects.iter().any(|(_, e)| *e == Effect::Converge) {
        transition.effects.retain(|(_, e)| *e != Effect::Converge);
        transition.converge();
    }
    Some(transition)
}

/// The snapshot with the fresh reading. What the reading shows is taken to be as young as the reading: a newcomer
/// that came after `change` must not pass for one of before a still later change (P7), whatever the order in which
/// the two are heard of.
fn merged(before: Option<&Account>, after: Option<&Account>, change: &Change, now: Now) -> Option<Account> {
    let seen = now.latest().max(change.received);
    match (before, after) {
        (Some(before), Some(after)) => Some(before.refreshed(after, seen)),
        (before, after) => before.or(after).cloned(),
    }
}

/// Puts one change into the record. Says whether anything has to be stored.
#[expect(clippy::similar_names, reason = "the field's own words")]
fn take(t: &mut Transition, account: Option<&Account>, change: &Change, case: &str, s: Setting<'_>) -> bool {
    let mut cause = judged(&t.record, account, change, case, s);
    let known = t.record.causes.iter().position(|c| c.change == change.id);
    let known = known.and_then(|index| t.record.causes.get_mut(index).map(|known| (index, known)));
    let again = known.is_some();
    if let Some((index, known)) = known {
        let heard = known.sources.contains(&change.source);
        if !heard {
            known.sources.push(change.source.clone());
        }
        if !stricter(&cause, known) {
            return !heard;
        }
        tightened(&mut cause, known);
        t.record.causes.remove(index);
    }
    if cause.holds() {
        cause.episode = t.record.joined(cause.at, cause.end());
        widen_contest(&mut t.record, &cause);
    }
    if cause.holds() && cause.enforced {
        t.record.tighten(s.now);
        if change.ends_sessions() {
            t.record.cut(s.now, change.session.clone());
        }
    }
    let (effects, lines) = (t.effects.len(), t.audit.len());
    announce(t, account, change, &cause, s);
    if again {
        // The case has a name already: what is told and written about it now must not pass for a repetition.
        let stamp = t.record.updated.millis();
        let notices = t.effects.iter_mut().skip(effects).map(|(id, _)| id);
        for id in notices.chain(t.audit.iter_mut().skip(lines).map(|line| &mut line.id)) {
            let _ = write!(id, ":{stamp}");
        }
    }
    let episode = cause.holds().then_some(cause.episode);
    t.record.causes.push(cause);
    if let Some(episode) = episode {
        revive(&mut t.record, episode, s.now);
    }
    bound(&mut t.record);
    true
}

/// Judged again with more knowledge: only ever tighter, under the name it already has.
fn tightened(cause: &mut Cause, known: &Cause) {
    cause.reference.clone_from(&known.reference);
    cause.sources.clone_from(&known.sources);
    cause.at = cause.at.max(known.at);
    cause.length = cause.length.max(known.length);
    cause.allowed = cause.allowed.intersect(&known.allowed);
    cause.told_min = cause.told_min.max(known.told_min);
    cause.at_end = cause.at_end.max(known.at_end);
    cause.enforced |= known.enforced;
    cause.contest_length = cause.contest_length.max(known.contest_length);
    if known.holds() {
        cause.cap = known.cap;
    }
    if known.told == Told::Pending {
        cause.told = Told::Pending;
    }
    if known.holds() && cause.end() < known.end() {
        cause.told = Told::Settled(known.end());
    }
}

/// A change that belongs to the case that is contested, and was earlier, is contested too: what it brought is taken
/// back with the rest.
#[expect(clippy::similar_names, reason = "the field's own words")]
fn widen_contest(record: &mut Record, cause: &Cause) {
    let Some(case) = record.contest.as_ref().map(|c| c.case.clone()) else {
        return;
    };
    let contested = record.causes.iter().find(|c| c.reference == case);
    if contested.is_some_and(|c| c.holds() && c.episode == cause.episode)
        && let Some(contest) = record.contest.as_mut()
    {
        contest.contested_since = contest.contested_since.min(cause.at);
    }
}

/// Whether `new` restricts more than what is `known` of the same change.
fn stricter(new: &Cause, known: &Cause) -> bool {
    new.length > known.length || !known.allowed.within(&new.allowed) || (new.holds() && !known.holds())
}

/// The cause that a change is, by today's policy.
fn judged(record: &Record, account: Option<&Account>, change: &Change, case: &str, s: Setting<'_>) -> Cause {
    let (row, start) = (change.row(), change.start());
    let (length, allowed) = match s.tier.response(row) {
        Response::Notice => (Span::ZERO, Ceiling::Full),
        Response::Hold { length, allow } => (length, allow),
    };
    // So late that even an untold hold would be over: it only tells (domain "End"), unless it is part of a case that
    // still runs and would run stricter had it come in time (P10).
    let untold = start.plus(length.times(2));
    let episodes = record.episodes(|_| true);
    let running = |e: &&Episode<'_>| s.now.earliest() < e.end();
    let part = episodes
        .iter()
        .filter(running)
        .any(|e| e.start() <= untold && start < e.end());
    let late = length > Span::ZERO && s.now.earliest() > untold && !part;
    let known = account.is_some_and(|a| record.channels_before(a, start, s.policy).next().is_some());
    let repeated = held_by(record, change, start) >= length.times(2);
    let enforced = s.tier.enforce.enforces(s.place);
    let inside = episodes.iter().find(|e| e.start() <= start && start < e.end());
    let cap = episodes.iter().find(running).filter(|_| !s.policy.rolling);
    Cause {
        reference: case.to_owned(),
        change: change.id.clone(),
        kind: change.kind,
        row,
        at: start,
        length,
        allowed,
        sources: vec![change.source.clone()],
        told: match known && enforced {
            _ if late => Told::Late,
            true => Told::Pending,
            false => Told::NoChannel,
        },
        told_min: s.policy.told_min.min(length.quarter()),
        tier: s.tier.name.clone(),
        at_end: s.tier.at_end,
        digest: s.policy.digest.clone(),
        channel: change.channel.clone(),
        bounded: length > Span::ZERO && !late && change.channel.is_some() && repeated,
        rollout: s.tier.enforce,
        enforced,
        episode: inside.map_or(0, |e| e.number),
        swept: late || length == Span::ZERO,
        contest_length: contest_length(s.tier, row),
        cap: cap.and_then(|e| capped(e, length)),
        origin: change.origin.clone(),
    }
}

/// With `rolling: false`, the end that a further change of `length` may not go beyond: that of what runs already.
/// A change that weighs more than everything that runs is no mere repetition and has its full length, or a small
/// change would be a shield against a large one.
fn capped(running: &Episode<'_>, length: Span) -> Option<Timestamp> {
    let heaviest = running.causes.iter().map(|c| c.length).max()?;
    let first = running.causes.iter().filter(|c| c.cap.is_none());
    first
        .map(|c| c.nominal_end())
        .max()
        .filter(|_| length <= heaviest)
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
    let content = t
        .record
        .stated(notice::content_of(change), restricts.then_some(cause), s.now);
    // A roll-out that only watches writes to nobody.
    if let Some(account) = account.filter(|_| cause.enforced) {
        let notices = notice::plan(&t.record, account, &cause.reference, cause.at, &content, s.policy);
        t.notices(notices);
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
    if cause.holds() && t.record.causes.iter().any(|c| runs_beside(c, cause, s.now)) {
        entry = entry.with("tightens", true);
    }
    if cause.enforced && cause.told == Told::NoChannel {
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

/// Whether `other` restricts already when `cause` comes.
fn runs_beside(other: &Cause, cause: &Cause, now: Now) -> bool {
    let another = other.reference != cause.reference;
    another && other.holds() && other.enforced && now.earliest() < other.end()
}

/// A channel of before accepted the notice about `case` at `now`: the one transition that brings an end forward.
/// `None` when that is known already, or when the hold is over.
#[expect(clippy::similar_names, reason = "the field's own words")]
#[must_use]
pub fn told(old: &Record, case: &str, now: Now) -> Option<Transition> {
    let mut record = old.clone();
    let cause = record.causes.iter_mut().find(|c| c.reference == case)?;
    if cause.told != Told::Pending || (cause.holds() && now.earliest() >= cause.end()) {
        return None;
    }
    cause.told = Told::At(now.latest());
    record.touch(now);
    let mut t = Transition::new(record);
    t.audit.push(Entry::system(
        format!("{case}:told"),
        now.latest(),
        "owner_told",
        Some(case),
    ));
    Some(t)
}

/// What the passing of time asks for at `now`: the lift at the IdP when the holds are over, and much later the end of
/// their memory. Truth does not depend on it; only the IdP's own tokens wait for it. `None` when nothing is due.
#[must_use]
pub fn sweep(old: &Record, now: Now) -> Option<Transition> {
    let unswept = |c: &Cause| c.holds() && !c.swept && c.end() <= now.earliest();
    if old.restriction(now).is_some() {
        return None;
    }
    if !old.causes.iter().any(unswept) {
        return forget(old, now);
    }
    let mut t = Transition::new(old.clone());
    t.record.touch(now);
    for cause in t.record.causes.iter_mut().filter(|c| unswept(c)) {
        cause.swept = true;
        let id = format!("{}:ended", cause.reference);
        let entry = Entry::system(id, now.latest(), "hold_ended", Some(&cause.reference));
        t.audit.push(entry.with("enforced", cause.enforced));
    }
    t.converge();
    Some(t)
}

/// Drops what ended so long ago that no session, link or bound asks for it, so that the record falls quiet.
fn forget(old: &Record, now: Now) -> Option<Transition> {
    let over = |c: &Cause| c.end().plus(RETENTION) <= now.earliest();
    if old.disputed().is_some() || !old.causes.iter().any(|c| c.holds() && over(c)) {
        return None;
    }
    let mut t = Transition::new(old.clone());
    t.record.touch(now);
    t.record.causes.retain(|c| !over(c));
    Some(t)
}
