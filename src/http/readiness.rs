//! Whether this replica takes traffic: latched once the log of every IdP was read to its end and the store was
//! sound. A partition that is lost later answers `none` and alarms; it does not take every replica out of service.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::subject::UpstreamId;
use crate::flow::poll::Standing;

/// What `/ready` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Latched: it was ready once.
    pub ready: bool,
    /// What is still missing, or wrong now.
    pub reasons: Vec<String>,
}

#[derive(Debug, Default)]
struct State {
    latched: bool,
    store: Option<String>,
    room: Option<String>,
    idps: BTreeMap<UpstreamId, Standing>,
    workers: BTreeMap<String, String>,
}

/// Collects how the parts stand.
#[derive(Debug)]
pub struct Readiness(Mutex<State>);

impl Readiness {
    /// Waits for these IdPs, and for the store.
    #[must_use]
    pub fn new(upstreams: impl IntoIterator<Item = UpstreamId>) -> Self {
        let idps = upstreams
            .into_iter()
            .map(|id| (id, Standing::default()))
            .collect();
        Self(Mutex::new(State {
            latched: false,
            store: Some("the store was not checked yet".to_owned()),
            room: None,
            idps,
            workers: BTreeMap::new(),
        }))
    }

    /// How an IdP's poller stands.
    pub fn polled(&self, upstream: &UpstreamId, standing: &Standing) {
        self.change(|state| {
            state.idps.insert(upstream.clone(), standing.clone());
        });
    }

    /// What is wrong with the store, if anything.
    pub fn store(&self, fault: Option<String>) {
        self.change(|state| state.store = fault);
    }

    /// What went wrong with a worker; `None` when it is well again.
    pub fn worker(&self, name: &str, fault: Option<String>) {
        self.change(|state| match fault {
            Some(fault) => drop(state.workers.insert(name.to_owned(), fault)),
            None => drop(state.workers.remove(name)),
        });
    }

    /// That the store is nearly full, if it is. Said, and no reason to take no traffic: ends and reports are traffic.
    pub fn room(&self, fault: Option<String>) {
        self.change(|state| state.room = fault);
    }

    /// The answer now.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Answer {
            ready: state.latched,
            reasons: reasons(&state),
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let caught_up = state.idps.values().all(|s| s.caught_up);
        state.latched |= caught_up && state.store.is_none();
    }
}

fn reasons(state: &State) -> Vec<String> {
    let idps = state.idps.iter().flat_map(|(id, standing)| {
        let waiting = (!standing.caught_up).then(|| format!("{id}: the log was not read to its end yet"));
        let fault = standing.fault.as_ref().map(|f| format!("{id}: {f}"));
        let alarms = standing.alarms.iter().map(move |a| format!("{id}: {a}"));
        waiting.into_iter().chain(fault).chain(alarms).collect::<Vec<_>>()
    });
    state
        .store
        .iter()
        .chain(&state.room)
        .map(|f| format!("store: {f}"))
        .chain(idps)
        .chain(
            state
                .workers
                .iter()
                .map(|(name, fault)| format!("worker {name}: {fault}")),
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_latches_after_the_first_catching_up_and_stays() {
        let id = UpstreamId::parse("a").unwrap();
        let readiness = Readiness::new([id.clone()]);
        readiness.store(None);
        assert!(!readiness.answer().ready);
        readiness.polled(
            &id,
            &Standing {
                caught_up: true,
                ..Standing::default()
            },
        );
        assert_eq!(
            readiness.answer(),
            Answer {
                ready: true,
                reasons: Vec::new()
            }
        );
        readiness.store(Some("gone".to_owned()));
        readiness.room(Some("nearly full".to_owned()));
        let later = readiness.answer();
        assert!(later.ready && later.reasons == ["store: gone", "store: nearly full"]);
        readiness.worker("sweep", Some("it ended".to_owned()));
        assert_eq!(
            readiness.answer().reasons,
            ["store: gone", "store: nearly full", "worker sweep: it ended"]
        );
        readiness.worker("sweep", None);
        assert_eq!(readiness.answer().reasons, ["store: gone", "store: nearly full"]);
    }
}
