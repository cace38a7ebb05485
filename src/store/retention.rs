//! How long values are kept: garbage collection only, well after the last moment at which anything depends on
//! them, and counted from the write, so that no clock that is wrong makes a value go early.

use crate::domain::hold::{RETENTION, Record};
use crate::domain::session::Grants;
use crate::domain::time::Span;

/// What is kept on top.
const MARGIN: Span = Span::from_days(30);

/// How long audit lines are kept, unless configured otherwise.
pub(crate) const AUDIT_RETENTION: Span = Span::from_days(400);

/// How long a record stays of itself; what it says of the other values of its subject may be needed longer. One that is
/// due stays for ever: a due entry without a record means that values were lost, so the entry has to go first.
pub(crate) fn of_record(record: &Record) -> Option<Span> {
    if record.due().is_some() {
        return None;
    }
    let needed = record.keep_until().since(record.updated).max(RETENTION);
    Some(sum(needed, MARGIN))
}

/// How long grants stay: as long as their longest family or session could run if it began now.
pub(crate) fn of_grants(grants: &Grants) -> Span {
    let lives = grants.families.iter().map(|f| f.expires.since(f.began));
    let needed = lives.max().unwrap_or(Span::ZERO).max(RETENTION);
    sum(needed, MARGIN)
}

/// Longer than that: for what has to be there as long as the other is.
pub(crate) fn beyond(kept: Span) -> Span {
    sum(kept.max(sum(RETENTION, MARGIN)), Span::from_days(1))
}

fn sum(a: Span, b: Span) -> Span {
    Span::from_millis(a.millis().saturating_add(b.millis()))
}
