//! The derived change: everything that proved the owner was replaced (domain word `all_factors_replaced`).

use super::Setting;
use crate::domain::change::{Change, ChangeKind, Row};
use crate::domain::hold::Record;
use crate::domain::hold::episode::Episode;
use crate::domain::policy::Response;
use crate::domain::subject::account::Account;
use crate::domain::time::{Now, Span, Timestamp};

/// The derived changes (domain word `all_factors_replaced`), each with the name of its case: of `change`, and of
/// every later one that would have come within the hold of this one, had this one been heard of in time. Heard in
/// order, each of those would have brought its own (P10), even where this one comes so late that it only tells.
pub(super) fn derived(
    record: &Record,
    account: Option<&Account>,
    change: &Change,
    s: Setting<'_>,
) -> Vec<(Change, String)> {
    let (start, probation) = (change.start(), s.policy.probation);
    let before = baseline(record, start, s.now);
    let Some(account) = account.filter(|a| a.all_replaced(before, start, probation)) else {
        return Vec::new();
    };
    if change.kind == ChangeKind::CredentialInitialised {
        return Vec::new();
    }
    let untold = |row| match s.tier.response(row) {
        Response::Notice => start,
        Response::Hold { length, .. } => start.plus(length.times(2)),
    };
    let until = untold(change.row()).max(untold(Row::AllReplaced));
    let mut near = record.episodes(|_| true);
    near.retain(|e| e.start() <= until && start < e.end());
    let before = near
        .iter()
        .map(Episode::start)
        .min()
        .map_or(before, |at| at.min(before));
    let later = near.iter().flat_map(|e| &e.causes).filter(|c| {
        c.at > start
            && !matches!(
                c.kind,
                ChangeKind::AllFactorsReplaced | ChangeKind::CredentialInitialised
            )
            && record
                .causes
                .iter()
                .all(|other| other.change != all_of(&c.change))
            && account.all_replaced(before, c.at, probation)
    });
    let mut found = vec![(as_all(change), format!("{}-1", s.reference))];
    found.extend(later.map(|c| {
        let then = Change {
            id: c.change.clone(),
            at: c.at,
            offset: Span::ZERO,
            session: None,
            channel: c.channel.clone(),
            origin: c.origin.clone(),
            ..change.clone()
        };
        (as_all(&then), format!("{}-1", c.reference))
    }));
    found
}

/// The id of the change that is derived from `change`.
fn all_of(change: &str) -> String {
    format!("{change}#all")
}

/// The change that says that with `change` the last of what the owner had was replaced.
fn as_all(change: &Change) -> Change {
    Change {
        kind: ChangeKind::AllFactorsReplaced,
        id: all_of(&change.id),
        factor: None,
        ..change.clone()
    }
}

/// The instant before which a factor counts as "before": the start of the episode that a change at `start` falls in
/// or that is under way, or of this change.
fn baseline(record: &Record, start: Timestamp, now: Now) -> Timestamp {
    let episodes = record.episodes(|_| true);
    let near = episodes
        .iter()
        .filter(|e| now.earliest() < e.end() || (e.start() <= start && start < e.end()));
    near.map(Episode::start).min().map_or(start, |at| at.min(start))
}
