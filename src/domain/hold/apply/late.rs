//! What time does to the list of causes: one that came too late is found to be part of a case after all, and the oldest
//! are folded together.

use crate::domain::ceiling::Ceiling;
use crate::domain::change::Row;
use crate::domain::hold::{Cause, MAX_CAUSES, Record, Told};
use crate::domain::time::{Now, Span};

/// What came so late that it only told, and lies within the case that has `episode`, is part of that case after all:
/// had it come in time, the two would be one and the sessions of then would have ended (P10). Which session the change
/// itself was made in is not known any more: none is spared.
pub(super) fn revive(record: &mut Record, mut episode: u32, now: Now) {
    let within = |record: &Record, episode: u32| {
        let all = record.episodes(|_| true);
        let case = all.iter().find(|e| e.number == episode)?;
        let (start, end) = (case.start(), case.end());
        let late = |c: &Cause| c.told == Told::Late && start <= c.at.plus(c.length.times(2)) && c.at < end;
        record.causes.iter().position(late)
    };
    while let Some(index) = within(record, episode) {
        let Some(cause) = record.causes.get_mut(index) else {
            return;
        };
        cause.told = Told::Pending;
        cause.swept = false;
        let (from, to) = (cause.at, cause.end());
        let ends_sessions =
            cause.enforced && !matches!(cause.row, Row::PasswordChanged | Row::FactorAddedProven);
        // It joins what it overlaps; the case itself is among that.
        cause.episode = episode;
        episode = record.joined(from, to);
        if ends_sessions {
            record.cut(now, None);
        }
    }
}

/// Keeps the record small without ever loosening it: the two oldest causes become one, with the later end, the
/// smaller ceiling, the earlier start. A report about a case that was folded away speaks to the one it went into.
pub(super) fn bound(record: &mut Record) {
    while record.causes.len() > MAX_CAUSES {
        let first = record.causes.remove(0);
        let Some(second) = record.causes.first_mut() else {
            return;
        };
        let end = match (first.holds(), second.holds()) {
            (true, true) => first.end().max(second.end()),
            (true, false) => first.end(),
            (false, _) => second.end(),
        };
        if first.holds() && first.kind.is_contact() {
            second.kind = first.kind;
        }
        if first.holds() {
            let both = second.holds();
            second.swept = first.swept && (second.swept || !both);
            second.episode = second.episode.max(first.episode);
            second.at_end = second.at_end.max(first.at_end);
            second.enforced = first.enforced || (both && second.enforced);
        }
        second.at = second.at.min(first.at);
        match (first.holds(), second.holds()) {
            (true, true) => {
                second.length = second.length.max(first.length);
                second.allowed = second.allowed.intersect(&first.allowed);
            }
            (true, false) => (second.length, second.allowed) = (first.length, first.allowed.clone()),
            (false, true) => {}
            (false, false) => (second.length, second.allowed) = (Span::ZERO, Ceiling::Full),
        }
        second.told = Told::Settled(end);
        second.cap = None;
        second.contest_length = second.contest_length.max(first.contest_length);
        let number = second.episode;
        if first.holds() && first.episode != number {
            for cause in record.causes.iter_mut().filter(|c| c.episode == first.episode) {
                cause.episode = number;
            }
        }
    }
}
