//! Keys by the calendar. A successor is made and published well before it signs, so that relying parties that look at
//! the JWK Set only when they meet an unknown key find it at any replica; the predecessor is retired when every
//! replica's clock must have passed the change; and its file goes when nothing that it signed can be alive.
//!
//! The files themselves are the state: whoever rotates next, this replica or another, sees how far it got. Only who
//! has the lease rotates; the others read the directory again.

use std::path::Path;

use super::file::{self, KeyFile};
use super::{ALGORITHMS, KeyFault, lifecycle};
use crate::domain::time::{Span, Timestamp};
use crate::ports::signer::Algorithm;

/// When keys come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// A key signs so long.
    pub every: Span,
    /// It is published so long before.
    pub ahead: Span,
    /// What clocks of replicas may differ: a predecessor is retired so long after its successor signs.
    pub skew: Span,
    /// A retired key is published so long: longer than any token it may have signed.
    pub keep: Span,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A successor was made; it signs later.
    Made(String),
    /// A predecessor was retired.
    Retired(String),
    /// A key's file was removed.
    Removed(String),
}

/// Does what is due at `now`. Harmless when repeated.
///
/// # Errors
/// [`KeyFault`]; what was done stays done, the rest is due again.
pub fn rotate(directory: &Path, schedule: &Schedule, now: Timestamp) -> Result<Vec<Turn>, KeyFault> {
    let mut turns = Vec::new();
    for algorithm in ALGORITHMS {
        let all = file::read_directory(directory)?;
        let mut mine: Vec<&KeyFile> = all
            .iter()
            .map(|(_, k)| k)
            .filter(|k| living(k, algorithm))
            .collect();
        mine.sort_by_key(|k| (k.active_from, k.created));
        let Some(newest) = mine.last() else {
            continue;
        };
        if now.plus(schedule.ahead) >= newest.active_from.plus(schedule.every) {
            let made = lifecycle::create_from(directory, algorithm, now, now.plus(schedule.ahead))?;
            turns.push(Turn::Made(made.kid));
        }
        // All but the newest of those that have signed for longer than clocks differ.
        let settled = |k: &&&KeyFile| k.active_from.plus(schedule.skew) <= now;
        let settled: Vec<&&KeyFile> = mine.iter().filter(settled).collect();
        if let Some((_, former)) = settled.split_last() {
            for key in former {
                lifecycle::retire(directory, &key.kid, now)?;
                turns.push(Turn::Retired(key.kid.clone()));
            }
        }
    }
    for (path, key) in file::read_directory(directory)? {
        if key.retired.is_some_and(|at| at.plus(schedule.keep) <= now) {
            file::remove(&path)?;
            turns.push(Turn::Removed(key.kid.clone()));
        }
    }
    Ok(turns)
}

fn living(key: &KeyFile, algorithm: Algorithm) -> bool {
    key.algorithm == algorithm && key.retired.is_none()
}
