//! What was heeded a short while ago.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Two generations: at least this many of the newest are remembered, at most twice as many.
const MOST: usize = 4_096;

/// Names of calls. Only proven ones get here, so that nobody else can make it forget.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<(HashSet<String>, HashSet<String>)>);

impl Seen {
    /// Whether `name` was there before.
    pub(super) fn knows(&self, name: &str) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.0.contains(name) || held.1.contains(name)
    }

    /// Whether `name` is new; it is not afterwards.
    pub(super) fn first(&self, name: &str) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0.contains(name) || held.1.contains(name) {
            return false;
        }
        if held.0.len() >= MOST {
            held.1 = std::mem::take(&mut held.0);
        }
        held.0.insert(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_memory_is_bounded() {
        let seen = Seen::default();
        for n in 0..3 * MOST {
            assert!(seen.first(&n.to_string()));
            assert!(!seen.first(&n.to_string()));
        }
        let held = seen.0.lock().unwrap();
        assert!(held.0.len() + held.1.len() <= 2 * MOST);
    }
}
