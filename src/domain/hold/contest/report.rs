//! What a channel says: "this was not me", and "it was me after all".

use super::{Clocks, Contest, plain, send, tell};
use crate::domain::audit::{Actor, Entry};
use crate::domain::change::Row;
use crate::domain::hold::{Cause, RETENTION, Record, Transition, attempt};
use crate::domain::notice::{Content, Message};
use crate::domain::policy::{ContestedAtIdp, Exit, Policy, Tier};
use crate::domain::subject::account::{Account, ChannelId, Contact};
use crate::domain::time::{Now, Timestamp};

/// Why a word has no effect, in words for the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportRefusal {
    /// No such case is known any more.
    #[error("this message is about something that is no longer on record")]
    UnknownCase,
    /// The channel is not, or no longer, a channel of before.
    #[error("this address can no longer speak for the account")]
    NoVoice,
    /// The freeze under way says so already, and this channel has said it in it.
    #[error("this has been said already")]
    Already,
    /// There is no freeze that it could be about.
    #[error("the account is not frozen")]
    NotContested,
}

/// Who speaks about what.
#[derive(Clone, Copy, Debug)]
pub struct Word<'a> {
    /// The channel.
    pub channel: &'a ChannelId,
    /// The case.
    pub case: &'a str,
    /// The channel had a voice when the message about the case was sent to it: the link that carries this word was
    /// signed then, and says so, whatever a snapshot that was lost and read anew knows of the channel now.
    pub proven: bool,
}

/// The change that a case is about: a hold that followed a freeze is about what was contested.
fn contested<'a>(record: &'a Record, case: &str) -> Option<&'a Cause> {
    let mut found = record.cause(case)?;
    // Each step goes to an older cause; the bound is for a record that somebody made up.
    for _ in 0..crate::domain::hold::MAX_CAUSES {
        let before = found.change.strip_prefix("after:");
        let before = before.filter(|_| found.row == Row::AfterContest);
        match before.and_then(|case| record.causes.iter().find(|c| c.reference == case)) {
            Some(older) => found = older,
            None => break,
        }
    }
    Some(found)
}

/// The contact that speaks, if it is known. A word that proves its channel's voice needs none that is known; a removed
/// channel has its say for a while only.
fn speaker<'a>(
    record: &Record,
    account: &'a Account,
    word: &Word<'_>,
    cause: &Cause,
    now: Now,
    policy: &Policy,
) -> Result<Option<&'a Contact>, ReportRefusal> {
    let contact = account.contacts.iter().find(|c| c.id == *word.channel);
    let heard = |c: &Contact| {
        c.gone
            .is_none_or(|gone| now.latest() < record.voice_end(gone, policy))
    };
    match contact {
        Some(c) if (word.proven || record.has_voice(account, c, cause.at, policy)) && heard(c) => Ok(contact),
        None if word.proven => Ok(None),
        _ => Err(ReportRefusal::NoVoice),
    }
}

/// Somebody on a channel says that a case was not them.
///
/// # Errors
/// [`ReportRefusal`] when the case is unknown, the channel has no voice in it, or everything it says is said already.
/// A further report by a channel that was removed and had its say is stored and told, without effect, and is not an
/// error.
pub fn report(
    old: &Record,
    account: &Account,
    word: &Word<'_>,
    now: Now,
    policy: &Policy,
) -> Result<Transition, ReportRefusal> {
    let cause = contested(old, word.case).ok_or(ReportRefusal::UnknownCase)?;
    let contact = speaker(old, account, word, cause, now, policy)?;
    let frozen = freeze(old, account, cause, word, now, policy);
    if says_nothing_new(old, word.channel, &frozen) {
        return Err(ReportRefusal::Already);
    }
    let mut t = Transition::new(old.clone());
    t.record.touch(now);
    let stamp = t.record.updated.millis();
    let line = |action: &str| {
        let id = format!("{}:{action}:{}:{stamp}", cause.reference, word.channel.0);
        Entry::system(id, now.latest(), action, Some(&cause.reference))
            .by(Actor::Channel(word.channel.0.clone()))
    };
    let stays = old.contest.as_ref().is_some_and(|c| c.lapse().is_some()) && frozen.lapse().is_none();
    if spent(old, word.channel, contact) && !stays {
        t.audit.push(line("report_repeated"));
        tell_again(&mut t, account, cause, now, policy);
        return Ok(t);
    }
    let running = old.contest.as_ref().map(|c| c.clocks(policy).report_window);
    let window = running.unwrap_or(policy.report_window);
    let kept = |at: Timestamp| now.earliest() < at.plus(RETENTION.max(window));
    t.record.reports.retain(|(_, at)| kept(*at));
    t.record.reports.push((word.channel.clone(), now.latest()));
    let was = old.contest.as_ref().is_some_and(|c| c.enforced);
    let said = if old.contest.is_some() {
        line("report_confirmed")
    } else {
        line("contested").with("enforced", frozen.enforced)
    };
    t.audit.push(said.alarming());
    let enforced = frozen.enforced;
    t.record.contest = Some(frozen);
    t.record.lapsed = None;
    if enforced && !was {
        t.record.tighten(now);
        t.record.cut(now, None);
        t.converge();
    }
    tell(&mut t, account, Message::AccountFrozen, now, policy);
    Ok(t)
}

/// Somebody on a channel says that what is contested was them after all. It changes nothing: it is written down, and
/// those who decide see it.
///
/// # Errors
/// [`ReportRefusal`] when there is no freeze, the channel has no voice, or it has said so.
pub fn own(
    old: &Record,
    account: &Account,
    word: &Word<'_>,
    now: Now,
    policy: &Policy,
) -> Result<Transition, ReportRefusal> {
    let cause = contested(old, word.case).ok_or(ReportRefusal::UnknownCase)?;
    speaker(old, account, word, cause, now, policy)?;
    let mut t = Transition::new(old.clone());
    t.record.touch(now);
    let id = format!(
        "{}:owned:{}:{}",
        cause.reference,
        word.channel.0,
        t.record.updated.millis()
    );
    let contest = t.record.disputed_mut().ok_or(ReportRefusal::NotContested)?;
    if contest.owned.iter().any(|(channel, _)| channel == word.channel) {
        return Err(ReportRefusal::Already);
    }
    contest.owned.push((word.channel.clone(), now.latest()));
    let line = Entry::system(id, now.latest(), "report_owned", Some(&contest.case));
    t.audit.push(line.by(Actor::Channel(word.channel.0.clone())));
    Ok(t)
}

/// Whether a channel's word has been said by it in the freeze under way, and would change nothing about that: pressed
/// twice, reloaded or opened again, it is one report.
fn says_nothing_new(old: &Record, channel: &ChannelId, frozen: &Contest) -> bool {
    let Some(contest) = &old.contest else {
        return false;
    };
    let said = old
        .reports
        .iter()
        .any(|(c, at)| c == channel && *at >= contest.since);
    let same = Contest {
        thaw: contest.thaw.clone(),
        ..frozen.clone()
    };
    said && same == *contest
}

/// Whether a removed channel has had its say: once since it was removed. One that is still on the account is always
/// heard. Of one that nobody knows any more, whatever it said counts.
fn spent(record: &Record, channel: &ChannelId, contact: Option<&Contact>) -> bool {
    let mut said = record.reports.iter().filter(|(c, _)| c == channel);
    match contact.map(|c| c.gone) {
        Some(None) => false,
        Some(Some(gone)) => said.any(|(_, at)| *at >= gone),
        None => said.next().is_some(),
    }
}

/// The freeze that this word makes, of the one that is there or that lapsed: only ever wider and stricter.
fn freeze(
    old: &Record,
    account: &Account,
    cause: &Cause,
    word: &Word<'_>,
    now: Now,
    policy: &Policy,
) -> Contest {
    let fresh = alone(old, account, cause, word.channel, now, policy);
    let Some(was) = old.disputed() else {
        return fresh;
    };
    let same = was.by == *word.channel;
    let confirmed = was.confirmed || (!same && account.independent(&was.by, word.channel));
    let contested_since = was.contested_since.min(fresh.contested_since);
    let hold = was.hold.max(fresh.hold);
    let clocks = was.clocks.longer(fresh.clocks);
    let enforced = was.enforced || fresh.enforced;
    if old.contest.is_none() {
        // It lapsed: this is a new freeze, about what is in doubt since then as well.
        return Contest {
            confirmed,
            enforced,
            contested_since,
            hold,
            clocks,
            owned: was.owned.clone(),
            ..fresh
        };
    }
    Contest {
        confirmed,
        enforced,
        contested_since,
        hold,
        clocks,
        // Whoever was there longest decides whether time may end it.
        removed: was.removed.zip(fresh.removed).map(|(a, b)| a.max(b)),
        thaw: None,
        ..was.clone()
    }
}

/// The freeze by this word alone.
fn alone(
    old: &Record,
    account: &Account,
    cause: &Cause,
    channel: &ChannelId,
    now: Now,
    policy: &Policy,
) -> Contest {
    let tier = policy.tier(&cause.tier);
    let exits: Vec<Exit> = tier.map_or_else(|| vec![Exit::Thaw], |t| t.exits.iter().copied().collect());
    let same = |c: &&Cause| c.holds() && c.episode == cause.episode && cause.episode > 0;
    let episode = old.causes.iter().filter(same).map(|c| c.at);
    let contact = account.contacts.iter().find(|c| c.id == *channel);
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
        contested_since: episode.min().map_or(cause.at, |at| at.min(cause.at)),
        clocks: Clocks::of(policy),
        hold: cause.contest_length,
        removed: contact.and_then(|c| c.gone),
        reminders: 0,
        owned: Vec::new(),
        proven: None,
    }
}

/// Tells everyone, the channel itself too, that its second word has changed nothing (domain "Cancel").
fn tell_again(t: &mut Transition, account: &Account, cause: &Cause, now: Now, policy: &Policy) {
    let message = Message::ReportRepeated;
    let Some(count) = attempt::counted(&mut t.record, message, now).filter(|_| cause.enforced) else {
        return;
    };
    let content = Content {
        count: Some(count),
        frozen: t.record.contest.as_ref().is_some_and(|c| c.enforced),
        ..plain(message, now)
    };
    send(t, account, &cause.reference, cause.at, &content, policy);
}
