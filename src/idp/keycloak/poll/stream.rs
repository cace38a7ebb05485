//! How far one log has been read, and what a page of it is against that.

// Every time here is a line's, and may be any number.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::row::Row;
use crate::domain::time::Span;

/// Most lines that a cursor remembers; a forgotten one is judged again, which changes nothing.
const REMEMBERED: usize = 4_000;
/// A line older than this may have gone by the log's own retention, in milliseconds (7 days).
const EXPIRES: i64 = 7 * 86_400_000;

/// How far one log has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Stream {
    /// Newest time seen, never ahead of the server's clock.
    pub(super) at: i64,
    /// How far the server's clock was ahead of ours then, in milliseconds.
    #[serde(skip_serializing_if = "is_nought")]
    pub(super) ahead: i64,
    /// In the middle of a page: go on from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<i64>,
    /// Rows of exactly that time to skip.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) skip: u32,
    /// When lines were last found to be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cleared: Option<i64>,
    /// Lines inside the overlap, with their times and what they were judged to be.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) seen: BTreeMap<String, (i64, String)>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_nought(value: &i64) -> bool {
    *value == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Stream {
    /// Where the next page starts.
    pub(super) fn start(&self, overlap: Span, back: i64) -> i64 {
        self.from.unwrap_or_else(|| {
            if self.at == 0 {
                back
            } else {
                self.at.saturating_sub(overlap.millis())
            }
        })
    }

    /// The server's clock was sampled: when it was set back since, so is the mark, or what is written by the new clock
    /// would lie behind it, unseen, until time has caught up. A clock set forward moves nothing.
    pub(super) fn sampled(&mut self, ahead: i64) {
        let back = ahead.saturating_sub(self.ahead).min(0);
        if self.at != 0 && back < 0 {
            self.at = self.at.saturating_add(back);
            self.from = self.from.map(|from| from.saturating_add(back));
            self.skip = 0;
        }
        self.ahead = ahead;
    }

    /// Takes a page in. Gives the accounts with lines that were not judged before, and whether more is waiting.
    pub(super) fn take(
        &mut self,
        rows: &[Row],
        max: u32,
        overlap: Span,
        clock: i64,
    ) -> (BTreeSet<String>, bool) {
        let fresh = rows.iter().filter(|row| !self.seen.contains_key(&row.id));
        let subs = fresh.filter_map(|row| row.sub.clone()).collect();
        for row in rows {
            self.seen
                .entry(row.id.clone())
                .or_insert_with(|| (row.time, String::new()));
        }
        let first = rows.iter().map(|row| row.time).min();
        let last = rows.iter().map(|row| row.time).max();
        let full = rows.len() >= max as usize;
        if let Some(last) = last {
            self.at = self.at.max(last.min(clock));
        }
        if full && first == last {
            self.skip = self.skip.saturating_add(max);
            self.from = last;
        } else if full {
            self.skip = 0;
            self.from = last;
        } else if self.skip > 0 {
            // The end of one crowded instant: on to the next.
            self.skip = 0;
            self.from = self.from.map(|at| at.saturating_add(1));
            return (subs, true);
        } else {
            self.from = None;
        }
        let keep = self
            .from
            .unwrap_or(self.at)
            .min(self.at)
            .saturating_sub(overlap.millis());
        self.seen.retain(|_, (time, _)| *time >= keep);
        while self.seen.len() > REMEMBERED {
            let oldest = self
                .seen
                .iter()
                .min_by_key(|(_, (time, _))| *time)
                .map(|(id, _)| id.clone());
            oldest.map(|id| self.seen.remove(&id));
        }
        (subs, full)
    }

    /// A judged line that the log should still show and does not: it was cleared, or keeps less than the overlap.
    pub(super) fn lost(&self, start: i64, rows: &[Row], full: bool, clock: i64) -> bool {
        let young = start.max(clock.saturating_sub(EXPIRES));
        let newest = self
            .seen
            .iter()
            .filter(|(_, (time, _))| *time >= young)
            .max_by_key(|(_, (time, _))| *time);
        self.from.is_none()
            && newest.is_some_and(|(id, (time, _))| {
                let shown = rows.iter().any(|row| row.id == *id);
                let further = full && rows.iter().all(|row| row.time <= *time);
                !shown && !further
            })
    }
}

impl Stream {
    /// Notes that the log lost lines. What is gone is forgotten, so that a log that is cleared again is a loss of its own.
    pub(super) fn forgets(&mut self, start: i64, rows: &[Row], full: bool, clock: i64) -> bool {
        let lost = self.lost(start, rows, full, clock);
        if lost {
            self.cleared = Some(clock);
            let shown: BTreeSet<&String> = rows.iter().map(|row| &row.id).collect();
            self.seen
                .retain(|id, (time, _)| *time < start || shown.contains(id));
        }
        lost
    }
}
