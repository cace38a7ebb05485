//! A room for what nobody has proven anything about: so many places, and a share for each who comes.
//!
//! Two bounds on whoever is in it already: a share that is never passed, and less than a quarter of what is still free
//! for each further place. The second one makes the room shrink for the greedy before it is full: a few who take all
//! they can get leave room for one who has nothing yet, and the last places go to newcomers alone (P17).

use std::collections::BTreeMap;

/// For one more place somebody may hold less than this part of what is free.
const PART: usize = 4;

/// Who holds how many places.
#[derive(Clone, Debug)]
pub struct Room<K> {
    most: usize,
    share: usize,
    taken: usize,
    held: BTreeMap<K, usize>,
}

impl<K: Ord + Clone> Room<K> {
    /// Nobody is in it: `most` places, at most `share` of them for one.
    #[must_use]
    pub const fn new(most: usize, share: usize) -> Self {
        Self {
            most,
            share,
            taken: 0,
            held: BTreeMap::new(),
        }
    }

    /// Places that are taken.
    #[must_use]
    pub const fn taken(&self) -> usize {
        self.taken
    }

    /// Places that one holds.
    #[must_use]
    pub fn held(&self, who: &K) -> usize {
        self.held.get(who).copied().unwrap_or_default()
    }

    /// Takes a place, if there is one for them.
    pub fn enter(&mut self, who: &K) -> bool {
        let (held, free) = (self.held(who), self.most.saturating_sub(self.taken));
        let admitted = held < self.share && held.saturating_mul(PART) < free;
        if admitted {
            self.taken += 1;
            self.held.insert(who.clone(), held + 1);
        }
        admitted
    }

    /// Takes a place for one of many who cannot be told apart: they have no share, and leave a quarter of the room to
    /// those who can.
    pub fn enter_many(&mut self, who: &K) -> bool {
        let admitted = self.taken < self.most - self.most / PART;
        if admitted {
            self.taken += 1;
            *self.held.entry(who.clone()).or_default() += 1;
        }
        admitted
    }

    /// Gives a place back; nothing for whoever holds none.
    pub fn leave(&mut self, who: &K) {
        match self.held(who) {
            0 => return,
            1 => {
                self.held.remove(who);
            }
            held => {
                self.held.insert(who.clone(), held - 1);
            }
        }
        self.taken -= 1;
    }
}
