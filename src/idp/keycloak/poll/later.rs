//! Accounts of which the log has something new, in the order in which that is pressing.
//!
//! A page may be full of what an administrator's script did to thousands of accounts: groups, roles, profiles. A
//! credential that was set behind all of that must not wait for it. So accounts with lines of credentials are judged at
//! once, and of the others a few at a time; those that wait are kept in the cursor, with the lines that they wait for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Row;

/// Accounts that are judged in one poll, unless more of them are pressing.
const AT_ONCE: usize = 24;
/// The most that wait: behind that everything is judged in its turn.
const MOST: usize = 2_000;

/// An account with its lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Work {
    /// When the oldest of the lines was written, by the server's clock.
    pub(super) since: i64,
    /// Their ids.
    pub(super) ids: BTreeSet<String>,
    #[serde(skip)]
    pressing: bool,
}

impl Work {
    fn add(&mut self, since: i64, ids: impl IntoIterator<Item = String>) {
        self.since = if self.ids.is_empty() {
            since
        } else {
            self.since.min(since)
        };
        self.ids.extend(ids);
    }
}

/// Those that wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Later(BTreeMap<String, Work>);

impl Later {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What to judge now, of accounts with fresh lines (`subs`) on this page and of those that wait.
    pub(super) fn turn<'a>(
        &mut self,
        subs: &BTreeSet<String>,
        rows: impl Iterator<Item = &'a Row>,
    ) -> BTreeMap<String, Work> {
        let mut fresh: BTreeMap<String, Work> = BTreeMap::new();
        for row in rows {
            let Some(sub) = row.sub.as_ref().filter(|sub| subs.contains(*sub)) else {
                continue;
            };
            let work = fresh.entry(sub.clone()).or_default();
            work.add(row.time, [row.id.clone()]);
            work.pressing |= row.pressing;
        }
        let mut now = BTreeMap::new();
        for (sub, mut work) in fresh {
            if let Some(waiting) = self.0.remove(&sub) {
                work.add(waiting.since, waiting.ids);
            }
            if work.pressing || self.0.len() >= MOST {
                now.insert(sub, work);
            } else {
                self.0.insert(sub, work);
            }
        }
        let mut oldest: Vec<(i64, String)> = self.0.iter().map(|(sub, w)| (w.since, sub.clone())).collect();
        oldest.sort();
        for (_, sub) in oldest.into_iter().take(AT_ONCE.saturating_sub(now.len())) {
            let work = self.0.remove(&sub);
            now.extend(work.map(|work| (sub, work)));
        }
        now
    }
}

/// The ids of lines that are judged now and are not on this page.
pub(super) fn waited<'a>(
    work: &'a BTreeMap<String, Work>,
    page: impl Iterator<Item = &'a Row>,
) -> BTreeSet<&'a String> {
    let page: BTreeSet<&String> = page.map(|row| &row.id).collect();
    let ids = work.values().flat_map(|work| &work.ids);
    ids.filter(|id| !page.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sub: &str, time: i64, pressing: bool) -> Row {
        Row {
            id: format!("{sub}@{time}"),
            time,
            sub: Some(sub.to_owned()),
            pressing,
        }
    }

    #[test]
    fn what_is_pressing_goes_before_what_came_earlier_and_nothing_is_forgotten() {
        let crowd: Vec<Row> = (0..100).map(|n| row(&format!("u{n:03}"), n, false)).collect();
        let subs = |rows: &[Row]| {
            rows.iter()
                .filter_map(|row| row.sub.clone())
                .collect::<BTreeSet<_>>()
        };
        let mut later = Later::default();
        let first = later.turn(&subs(&crowd), crowd.iter());
        assert_eq!(first.len(), AT_ONCE);
        assert!(first.contains_key("u000") && !first.contains_key("u099"));
        let reset = [row("u099", 500, true), row("new", 501, true)];
        let second = later.turn(&subs(&reset), reset.iter());
        assert_eq!(second["u099"].ids.len(), 2, "with what waited for it");
        assert_eq!(second["u099"].since, 99);
        assert!(second.contains_key("new"));
        let mut seen = first.len() + second.len();
        while !later.is_empty() {
            seen += later.turn(&BTreeSet::new(), std::iter::empty()).len();
        }
        assert_eq!(seen, 101);
    }

    #[test]
    fn a_quiet_realm_waits_for_nothing() {
        let one = [row("ann", 1, false), row("ann", 2, false)];
        let mut later = Later::default();
        let now = later.turn(&["ann".to_owned()].into(), one.iter());
        assert_eq!(now["ann"].ids.len(), 2);
        assert!(later.is_empty());
    }
}
