//! What this process knows of effects: which notices it delivered, and which it saw waiting. Kept outside the store,
//! because it is asked for when the store has lost it. Bounded; what is forgotten is unknown, not untrue.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use crate::domain::hold::Effect;
use crate::ports::store::{Pending, PendingId};

/// Effects remembered of each sort: these many, and as many before them.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
struct State {
    /// Ids of notices by where they wait.
    waiting: BTreeMap<PendingId, String>,
    /// What is known of them.
    known: HashMap<String, bool>,
    before: HashMap<String, bool>,
}

impl State {
    fn note(&mut self, id: String, told: bool) {
        if self.known.len() >= MOST {
            self.before = std::mem::take(&mut self.known);
            if self.waiting.len() > MOST {
                self.waiting.clear();
            }
        }
        self.known.insert(id, told);
    }
}

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<State>);

impl Memory {
    /// A message waits.
    pub(super) fn found(&self, entry: &Pending) {
        if matches!(entry.effect, Effect::Converge) {
            return;
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waiting.insert(entry.at.clone(), entry.id.clone()).is_none()
            && !state.known.contains_key(&entry.id)
        {
            state.note(entry.id.clone(), false);
        }
    }

    /// The message was accepted, and still waits for what follows from that.
    pub(super) fn delivered(&self, entry: &Pending) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.note(entry.id.clone(), true);
    }

    /// The effect at this place was dealt with.
    pub(super) fn done(&self, at: &PendingId) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = state.waiting.remove(at) {
            state.note(id, true);
        }
    }

    /// What is known of an effect.
    pub(super) fn told(&self, effect: &str) -> Option<bool> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.known.get(effect).or_else(|| state.before.get(effect));
        known.copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{Event, EventKind};
    use crate::domain::subject::{Subject, UpstreamId};
    use crate::domain::time::Timestamp;

    fn waits(entry: &str, effect: Effect) -> Pending {
        Pending {
            at: PendingId {
                partition: 0,
                entry: entry.to_owned(),
            },
            subject: Subject::new(UpstreamId::parse("a").unwrap(), "u").unwrap(),
            id: format!("id {entry}"),
            effect,
            attempts: 0,
            since: Timestamp::default(),
            failure: None,
            trace: None,
        }
    }

    #[test]
    fn only_what_was_seen_is_known() {
        let memory = Memory::default();
        let converge = waits("1", Effect::Converge);
        memory.found(&converge);
        memory.done(&converge.at);
        assert_eq!(memory.told("id 1"), None);
    }

    // P9: whoever sent it knows that, however often the store says that it waits.
    #[test]
    fn what_was_accepted_is_known_while_it_still_waits() {
        let memory = Memory::default();
        let event = Event {
            kind: EventKind::HoldStarted,
            at: Timestamp::default(),
            case: None,
            details: BTreeMap::new(),
        };
        let entry = waits("1", Effect::Announce(Box::new(event)));
        memory.found(&entry);
        assert_eq!(memory.told("id 1"), Some(false));
        memory.delivered(&entry);
        memory.found(&entry);
        assert_eq!(memory.told("id 1"), Some(true));
    }
}
