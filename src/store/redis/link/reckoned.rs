//! How many replicas a master's writes have to reach, so that none that could be the next master lacks them.
//!
//! Those that are connected are not enough: a replica that Sentinel has just chosen leaves its master first, and for a
//! moment the master believes that it has one fewer. What it acknowledges then, to those who are left, is lost with it.

use std::time::{Duration, Instant};

/// A replica that is gone for so long was not chosen: a failover is known to everybody sooner.
const GONE: Duration = Duration::from_secs(30);

/// What is known of the replicas that could be the next master, beside the master's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Successors {
    /// The Sentinels see so many that are up.
    Up(u8),
    /// The Sentinels cannot be asked.
    Unanswered,
    /// There is nobody to ask.
    Unknown,
}

/// So many are reckoned with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reckoned {
    pub(super) many: u8,
    /// Since when there are fewer, and the most that there were since then.
    fewer: Option<(Instant, u8)>,
}

impl Reckoned {
    /// When a connection begins.
    pub(super) fn new(connected: u8, successors: Successors) -> Self {
        let many = match successors {
            Successors::Up(up) => connected.max(up),
            Successors::Unanswered | Successors::Unknown => connected,
        };
        Self { many, fewer: None }
    }

    /// When a connection to the same node begins again: what was reckoned with before is not forgotten.
    #[must_use]
    pub(super) fn or(self, before: Self) -> Self {
        if before.many > self.many { before } else { self }
    }

    /// What the master and the Sentinels say later.
    pub(super) fn seen(&mut self, connected: u8, successors: Successors, now: Instant) {
        if let Successors::Up(up) = successors {
            *self = Self::new(connected, Successors::Up(up));
            return;
        }
        if connected >= self.many {
            *self = Self::new(connected, successors);
            return;
        }
        let (since, most) = self.fewer.unwrap_or((now, connected));
        let most = most.max(connected);
        self.fewer = Some((since, most));
        // Cut off from the Sentinels together with us, a master does not learn that it is none.
        if successors == Successors::Unknown && now.duration_since(since) >= GONE {
            self.many = most;
            self.fewer = (connected < most).then_some((now, connected));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // P1, P8: a replica that has just left may be the one that was chosen.
    #[test]
    fn a_replica_that_left_is_reckoned_with_until_it_cannot_be_chosen() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut plain = Reckoned::new(2, Successors::Unknown);
        for (secs, connected, many) in [
            (0, 1, 2),
            (29, 1, 2),
            (30, 1, 1),
            (31, 0, 1),
            (60, 2, 2),
            (61, 0, 2),
            (80, 2, 2),
            (81, 1, 2),
            // The second leaves just before the first is given up.
            (110, 0, 2),
            (111, 0, 1),
            (140, 0, 1),
            (141, 0, 0),
        ] {
            plain.seen(connected, Successors::Unknown, at(secs));
            assert_eq!(plain.many, many, "after {secs} s");
        }
        let mut watched = Reckoned::new(0, Successors::Up(2));
        assert_eq!(watched.many, 2);
        for (secs, connected, successors, many) in [
            (0, 2, Successors::Up(2), 2),
            (1, 1, Successors::Up(2), 2),
            (2, 1, Successors::Unanswered, 2),
            (999, 0, Successors::Unanswered, 2),
            (1_000, 1, Successors::Up(1), 1),
            (1_001, 1, Successors::Up(0), 1),
            (1_002, 3, Successors::Unanswered, 3),
        ] {
            watched.seen(connected, successors, at(secs));
            assert_eq!(watched.many, many, "after {secs} s");
        }
    }
}
