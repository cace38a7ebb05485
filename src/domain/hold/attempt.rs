//! Attempts that change nothing, and are told all the same: a channel's second report, a hold that somebody at the
//! IdP tried to take away.
//!
//! They are coalesced (domain "Notices"): the first is told at once, then at most one an hour and three a day, each
//! with the number of attempts since the last. Whoever repeats himself in a loop writes audit lines, never a flood of
//! mails. What changes the state of an account is never coalesced and does not come through here.

use serde::{Deserialize, Serialize};

use super::{Effect, Record, Transition};
use crate::domain::audit::Entry;
use crate::domain::notice::{self, Content, Message};
use crate::domain::policy::Policy;
use crate::domain::subject::account::Account;
use crate::domain::time::{Now, Span, Timestamp};

/// The shortest time between two messages of a kind.
const PAUSE: Span = Span::from_hours(1);
/// The window in which messages of a kind are counted.
const WINDOW: Span = Span::from_hours(24);
/// The most messages of a kind within the window.
const MOST: usize = 3;

/// Two acts of its own within this time, and an account is restricted in a way that they cannot lift: each is seen and
/// undone, but a token that was issued in between lives on, and a loop gets one nearly every time.
const CLOSE: Span = Span::from_mins(10);

impl Record {
    /// Whether the account undid the hold that runs again and again. It stays so until the hold is over.
    #[must_use]
    pub fn barred(&self, now: Now) -> bool {
        let began = since(self, now);
        self.restriction(now).is_some()
            && self.undone.iter().all(|at| *at >= began)
            && are_close(&self.undone)
    }

    /// Notes that the account undid its hold.
    fn undid(&mut self, now: Now) {
        let began = since(self, now);
        remember(&mut self.undone, began, now.latest());
    }
}

/// Keeps the last two acts since `began`, or the first two that were close.
fn remember(undone: &mut Vec<Timestamp>, began: Timestamp, at: Timestamp) {
    undone.retain(|at| *at >= began);
    if !are_close(undone) {
        undone.push(at);
        let spare = undone.len().saturating_sub(2);
        undone.drain(..spare);
    }
}

fn are_close(undone: &[Timestamp]) -> bool {
    matches!(undone, [first, second] if second.since(*first).abs() <= CLOSE)
}

/// What is remembered of the attempts of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Which message tells of them.
    pub message: Message,
    /// When they were told, oldest first; no more than a day back.
    pub told: Vec<Timestamp>,
    /// How many came since the last message.
    pub untold: u32,
}

/// Counts one more attempt. Gives how many a message has to tell of, when one is to be sent. The earlier of two
/// clocks counts, so that one that goes back brings no further message (P6).
pub(super) fn counted(record: &mut Record, message: Message, now: Now) -> Option<u32> {
    let index = record.attempts.iter().position(|a| a.message == message);
    let mut attempts = index.map_or_else(
        || Attempts {
            message,
            told: Vec::new(),
            untold: 0,
        },
        |index| record.attempts.remove(index),
    );
    attempts.told.retain(|at| now.earliest() < at.plus(WINDOW));
    attempts.untold = attempts.untold.saturating_add(1);
    let paused = attempts
        .told
        .last()
        .is_none_or(|last| last.plus(PAUSE) <= now.earliest());
    let tell = paused && attempts.told.len() < MOST;
    let count = attempts.untold;
    if tell {
        attempts.told.push(now.latest());
        attempts.untold = 0;
    }
    record.attempts.push(attempts);
    tell.then_some(count)
}

/// What a message about attempts says.
pub(super) const fn content(message: Message, count: u32, now: Now) -> Content {
    Content {
        message,
        change: None,
        at: now.latest(),
        origin: None,
        allowed: None,
        until: None,
        locale: None,
        name: String::new(),
        count: Some(count),
        frozen: false,
        ended: None,
        at_end: None,
    }
}

/// Something was done at the IdP that concerns what holds the account there.
#[derive(Clone, Copy, Debug)]
pub struct Undoing<'a> {
    /// What names it in the IdP's log.
    pub event: &'a str,
    /// What was done, for people.
    pub what: &'a str,
    /// The account did it itself.
    pub own: bool,
}

/// Somebody at the IdP moved what holds the account there. It is undone, written down, raises an alarm, and every channel
/// of before is told. `None` when the account is
/// not held: then there was nothing to undo.
#[must_use]
pub fn tampered(
    old: &Record,
    account: Option<&Account>,
    undoing: Undoing<'_>,
    now: Now,
    policy: &Policy,
) -> Option<Transition> {
    let Undoing { event, what, own } = undoing;
    let restriction = old.restriction(now)?;
    let mut t = Transition::new(old.clone());
    t.record.touch(now);
    if own {
        t.record.undid(now);
    }
    let case = restriction.reference.clone();
    let entry = Entry::system(format!("tampered:{event}"), now.latest(), "tampered", Some(&case));
    let entry = entry.alarming().with("what", what).with("own", own);
    let barred = t.record.barred(now);
    t.audit
        .push(if barred { entry.with("barred", true) } else { entry });
    t.effects
        .push((format!("converge:tampered:{event}"), Effect::Converge));
    let told = counted(&mut t.record, Message::RestrictionKept, now);
    if let (Some(count), Some(account)) = (told, account) {
        let content = Content {
            allowed: Some(restriction.allowed),
            until: restriction.until,
            at_end: Some(old.at_end(now)),
            frozen: old.contest.as_ref().is_some_and(|c| c.enforced),
            ..content(Message::RestrictionKept, count, now)
        };
        let notices = notice::plan(&t.record, account, &case, since(old, now), &content, policy);
        t.notices_at(notices);
    }
    Some(t)
}

/// A held account did something at the IdP with an administrator's rights: written down in the case with what it was, an
/// alarm, and the account is judged anew. `None` when nothing restricts it, or it was done before what does began.
#[must_use]
pub fn acted(old: &Record, (event, at): (&str, Timestamp), what: &str, now: Now) -> Option<Transition> {
    let restriction = old.restriction(now)?;
    if at < since(old, now) {
        return None;
    }
    let mut t = Transition::new(old.clone());
    t.record.touch(now);
    let case = Some(restriction.reference.as_str());
    let entry = Entry::system(format!("acted:{event}"), now.latest(), "acted_in_hold", case);
    let said = "a held account acted as an administrator";
    t.audit
        .push(entry.alarming().with("alarm", said).with("what", what));
    t.effects
        .push((format!("converge:acted:{event}"), Effect::Converge));
    Some(t)
}

/// Who was there before this is told: the start of what restricts.
fn since(record: &Record, now: Now) -> Timestamp {
    let running = record
        .causes
        .iter()
        .filter(|c| c.holds() && now.earliest() < c.end());
    let contest = record.contest.as_ref().map(|c| c.contested_since);
    let first = running.map(|c| c.at).chain(contest).min();
    first.unwrap_or_else(|| now.latest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::subject::{Subject, UpstreamId};

    fn record() -> Record {
        Record::new(Subject::new(UpstreamId::parse("kc").unwrap(), "ana").unwrap())
    }

    fn at(minutes: i64) -> Now {
        Now::exact(Timestamp::from_secs(1_000_000 + minutes * 60))
    }

    // Domain "Notices": first at once, then 1/h, 3/d, with a count.
    #[test]
    fn attempts_are_told_first_at_once_then_once_an_hour_and_three_times_a_day() {
        let mut record = record();
        let mut told = Vec::new();
        for minute in 0..(26 * 60) {
            if let Some(count) = counted(&mut record, Message::ReportRepeated, at(minute)) {
                told.push((minute, count));
            }
        }
        assert_eq!(told, [(0, 1), (60, 60), (120, 60), (1440, 1320), (1500, 60)]);
    }

    // Seen and undone is not enough against a loop.
    #[test]
    fn two_acts_within_minutes_are_a_loop_and_stay_one() {
        let minute = |minute: i64| at(minute).latest();
        let mut undone = Vec::new();
        for (when, close) in [(1, false), (30, false), (35, true), (90, true)] {
            remember(&mut undone, minute(0), minute(when));
            assert_eq!(are_close(&undone), close, "minute {when}");
        }
        remember(&mut undone, minute(100), minute(101));
        assert!(!are_close(&undone), "another hold");
        let mut free = record();
        free.undone = vec![minute(1), minute(2)];
        assert!(!free.barred(at(3)), "nothing restricts it");
    }

    #[test]
    fn a_clock_that_goes_back_brings_no_further_message() {
        let mut record = record();
        assert_eq!(counted(&mut record, Message::ReportRepeated, at(600)), Some(1));
        assert_eq!(counted(&mut record, Message::ReportRepeated, at(0)), None);
        assert_eq!(
            counted(&mut record, Message::RestrictionKept, at(0)),
            Some(1),
            "another kind"
        );
    }
}
