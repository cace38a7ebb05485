//! The highest number of each account's commits that this process has seen, so that a whole set of values of before,
//! genuine and of one moment, is no answer.
//!
//! Bounded: of the accounts that nobody asked about for longest nothing is known any more. A process that starts knows
//! nothing; what finds a store that was put back while none ran is the fence of the partition, which is kept outside.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ports::seal::SubjectKey;

/// Accounts are spread over so many maps, so that readings do not wait for each other.
const SHARDS: usize = 64;
/// Accounts remembered in each of them, and as many before those: some 65,000 in all.
const MOST: usize = 512;
/// What nobody saw for so long may have ended by itself since.
const LONGEST: Duration = Duration::from_hours(24 * 29);

/// A number, and when it was last seen.
type Sighting = (u64, Instant);

#[derive(Debug, Default)]
struct Sightings {
    young: HashMap<SubjectKey, Sighting>,
    old: HashMap<SubjectKey, Sighting>,
}

impl Sightings {
    fn put(&mut self, key: SubjectKey, sighting: Sighting) {
        if self.young.len() >= MOST && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, sighting);
    }
}

/// The numbers.
#[derive(Debug)]
pub(super) struct Floors(Vec<Mutex<Sightings>>);

impl Default for Floors {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Floors {
    fn shard(&self, key: &SubjectKey) -> Option<&Mutex<Sightings>> {
        // Not the partition's octet: a process may serve few partitions much.
        let [.., last] = key.0;
        self.0.get(usize::from(last) % SHARDS)
    }

    /// The highest number that was seen; 0 when none is remembered.
    pub(super) fn of(&self, key: &SubjectKey) -> u64 {
        self.at(key, Instant::now())
    }

    fn at(&self, key: &SubjectKey, now: Instant) -> u64 {
        let Some(shard) = self.shard(key) else { return 0 };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let young = shard.young.get(key).copied();
        let Some((number, at)) = young.or_else(|| shard.old.remove(key)) else {
            return 0;
        };
        if now.duration_since(at) > LONGEST {
            shard.young.remove(key);
            return 0;
        }
        if young.is_none() {
            shard.put(*key, (number, at));
        }
        number
    }

    /// A commit of this number was seen.
    pub(super) fn raise(&self, key: &SubjectKey, number: u64) {
        let Some(shard) = self.shard(key) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shard.young.get(key).or_else(|| shard.old.get(key));
        let highest = before.map_or(number, |(seen, _)| number.max(*seen));
        shard.put(*key, (highest, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> SubjectKey {
        let mut key = [0; 16];
        key[8..].copy_from_slice(&n.to_be_bytes());
        SubjectKey(key)
    }

    #[test]
    fn the_highest_counts_and_the_room_is_bounded() {
        let floors = Floors::default();
        assert_eq!(floors.of(&key(7)), 0);
        floors.raise(&key(7), 5);
        floors.raise(&key(7), 3);
        assert_eq!(floors.of(&key(7)), 5);
        for n in 0..1_000_000 {
            floors.raise(&key(n), 1);
            // Who is asked about stays.
            if n % 1000 == 0 {
                assert_eq!(floors.of(&key(7)), 5);
            }
        }
        let held: usize = floors
            .0
            .iter()
            .map(|s| s.lock().map_or(0, |s| s.young.len() + s.old.len()))
            .sum();
        assert!(held <= SHARDS * MOST * 2, "{held}");
    }

    #[test]
    fn what_may_have_ended_by_itself_is_not_expected() {
        let floors = Floors::default();
        floors.raise(&key(1), 5);
        let soon = Instant::now() + LONGEST / 2;
        assert_eq!(floors.at(&key(1), soon), 5);
        let late = Instant::now() + LONGEST + Duration::from_secs(1);
        assert_eq!(floors.at(&key(1), late), 0);
    }
}
