//! What need not be found out twice: that a signature is right.
//!
//! Verifying an ES256 signature costs more than everything else an introspection does, and a resource server asks about
//! the same token again and again. So what a verified token says is remembered under the SHA-256 of its every octet.
//! That alone is remembered: never whether it may be used. Whoever takes something out of here still has to ask whether
//! its key is one of ours *now* and whether its time has come or gone ([`crate::oidc::verify::still`]), and then what is
//! true in the store (P1, ISS-8). Only what verified gets in, so a caller cannot push others out with rubbish; the
//! number of entries is bounded, and those that nobody asked for go first.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// A token's name: the SHA-256 of all of it.
pub type Name = [u8; 32];

const SHARDS: usize = 16;

/// Things by the digest of the token that said them. Bounded: at most `2 * most` entries, the last `most` that were
/// asked for among them.
pub struct Remembered<T> {
    shards: Vec<Mutex<Shard<T>>>,
    each: usize,
}

/// Two generations: when the young one is full it becomes the old one, and what nobody asked for meanwhile is gone.
struct Shard<T> {
    young: Map<T>,
    old: Map<T>,
}

type Map<T> = HashMap<Name, Arc<T>, BuildHasherDefault<FirstOctets>>;

/// A digest is as good as random: its first octets are the hash.
#[derive(Default)]
struct FirstOctets(u64);

impl Hasher for FirstOctets {
    fn write(&mut self, octets: &[u8]) {
        if let Some(first) = octets.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl<T> fmt::Debug for Remembered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").field("len", &self.len()).finish()
    }
}

impl<T> Remembered<T> {
    /// Nothing yet; at most `2 * most` entries.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let shard = || {
            Mutex::new(Shard {
                young: Map::default(),
                old: Map::default(),
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            each: most.div_ceil(SHARDS).max(1),
        }
    }

    /// What is remembered under that name.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<Arc<T>> {
        let mut shard = self.shard(name)?.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = shard.young.get(name) {
            return Some(Arc::clone(found));
        }
        let found = shard.old.remove(name)?;
        shard.put(*name, Arc::clone(&found), self.each);
        Some(found)
    }

    /// Remembers it.
    pub fn put(&self, name: Name, what: Arc<T>) {
        if let Some(shard) = self.shard(&name) {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.put(name, what, self.each);
        }
    }

    /// Forgets it.
    pub fn forget(&self, name: &Name) {
        if let Some(shard) = self.shard(name) {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.young.remove(name);
            shard.old.remove(name);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard<T>>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(count).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, name: &Name) -> Option<&Mutex<Shard<T>>> {
        let [.., last] = name;
        self.shards.get(usize::from(*last) % SHARDS)
    }
}

impl<T> Shard<T> {
    fn put(&mut self, name: Name, what: Arc<T>, most: usize) {
        if self.young.len() >= most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oidc::digest;

    #[test]
    fn it_is_bounded_and_what_was_asked_for_stays_longest() {
        let remembered = Remembered::new(64);
        let name = |n: u32| digest::sha256(&n.to_be_bytes());
        remembered.put(name(0), Arc::new(0));
        for n in 1..10_000 {
            remembered.put(name(n), Arc::new(n));
            assert_eq!(
                remembered.get(&name(0)).as_deref(),
                Some(&0),
                "asked for all the time"
            );
            assert!(remembered.len() <= 2 * 64, "{}", remembered.len());
        }
        assert_eq!(remembered.get(&name(1)), None, "nobody asked");
        assert_eq!(remembered.get(&name(9_999)).as_deref(), Some(&9_999));
        remembered.forget(&name(0));
        assert_eq!(remembered.get(&name(0)), None);
    }
}
