//! Where requests are worked on. Each kind of work has places of its own, so that a crowd before one door leaves the
//! others open; and a place is taken when a request is there as a whole. Until then its body is under way in a room
//! beside it, where each address has a share: somebody who sends an octet now and then takes nobody's place.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, TryAcquireError};

use crate::config::limits::AtOnce;
use crate::domain::room::Room;
use crate::http::limits;
use crate::http::peer::Peer;

/// What kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Everything that is not named below.
    Common,
    /// What resource servers ask about a token.
    Introspection,
    /// What other programs push.
    Hooks,
    /// "This was not me".
    Reports,
    /// Probes and metrics, on a listener of their own.
    Operations,
}

impl Door {
    /// Its word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Common => "common",
            Self::Introspection => "introspection",
            Self::Hooks => "hooks",
            Self::Reports => "reports",
            Self::Operations => "operations",
        }
    }
}

/// Places for probes and metrics: nobody outside reaches them.
const OPERATIONS: usize = 64;

/// The places.
#[derive(Clone, Debug)]
pub struct Rooms {
    common: Behind,
    introspection: Behind,
    hooks: Behind,
    reports: Behind,
    operations: Behind,
}

/// Everybody of whom nothing is known but that they stand behind loopback: together they have no share, and leave a
/// quarter of the room to the others.
const UNKNOWN: Option<IpAddr> = None;

/// What is behind one door.
#[derive(Clone, Debug)]
struct Behind {
    places: Arc<Semaphore>,
    bodies: Arc<Mutex<Room<Option<IpAddr>>>>,
}

impl Behind {
    /// As many bodies may be under way as there are places.
    fn new(places: usize, share: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            bodies: Arc::new(Mutex::new(Room::new(places, share))),
        }
    }
}

/// A body on its way; it leaves the room when it is dropped.
#[derive(Debug)]
pub struct Underway {
    room: Arc<Mutex<Room<Option<IpAddr>>>>,
    who: Option<IpAddr>,
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.leave(&self.who);
    }
}

impl Rooms {
    /// Empty ones.
    #[must_use]
    pub fn new(at_once: AtOnce) -> Self {
        let behind = |places| Behind::new(places, at_once.bodies_per_address);
        Self {
            common: behind(at_once.requests),
            introspection: behind(at_once.introspections),
            hooks: behind(at_once.hooks),
            reports: behind(at_once.reports),
            operations: behind(OPERATIONS),
        }
    }

    const fn behind(&self, door: Door) -> &Behind {
        match door {
            Door::Common => &self.common,
            Door::Introspection => &self.introspection,
            Door::Hooks => &self.hooks,
            Door::Reports => &self.reports,
            Door::Operations => &self.operations,
        }
    }

    /// A place to work at, for as long as what is given back is kept.
    ///
    /// # Errors
    /// When all are taken.
    pub fn place(&self, door: Door) -> Result<tokio::sync::SemaphorePermit<'_>, TryAcquireError> {
        let place = self.behind(door).places.try_acquire();
        if place.is_err() {
            shed(door, "places");
        }
        place
    }

    /// Room for one body that is on its way; `None` when there is none for this address.
    #[must_use]
    pub fn body(&self, door: Door, peer: Peer) -> Option<Underway> {
        let who = peer.is_known().then(|| limits::place(peer.0));
        let room = &self.behind(door).bodies;
        let admitted = {
            let mut room = room.lock().unwrap_or_else(PoisonError::into_inner);
            if who == UNKNOWN {
                room.enter_many(&who)
            } else {
                room.enter(&who)
            }
        };
        if !admitted {
            shed(door, "bodies");
        }
        admitted.then(|| Underway {
            room: Arc::clone(room),
            who,
        })
    }
}

fn shed(door: Door, what: &'static str) {
    metrics::counter!("reentry_shed_total", "door" => door.as_str(), "full" => what).increment(1);
}
