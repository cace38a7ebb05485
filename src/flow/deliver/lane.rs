//! Lanes of the outbox worker: how many go to one server at a time, and who has to wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::hold::Effect;
use crate::domain::subject::UpstreamId;
use crate::domain::subject::account::ContactKind;
use crate::domain::time::{Span, Timestamp};
use crate::ports::store::Pending;

/// The most that wait in memory for a place; the others wait in the store.
const QUEUE: usize = 256;
/// How long those wait in the store before they ask again.
const FULL: Span = Span::from_secs(10);
/// The longest time for which a receiver that failed is left alone by everybody.
const LONGEST_REST: Span = Span::from_mins(5);

/// Where an effect goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// An IdP.
    Idp(UpstreamId),
    /// The gateway of a kind of channel.
    Gateway(ContactKind),
    /// Nowhere: our own store.
    Own,
    /// A receiver of webhooks.
    Receiver(String),
    /// A relying party.
    Party(String),
}

impl Lane {
    pub(super) fn of(entry: &Pending) -> Self {
        match &entry.effect {
            Effect::Notice(notice) => Self::Gateway(notice.kind),
            Effect::Converge => Self::Idp(entry.subject.upstream.clone()),
            Effect::Announce(_) => Self::Own,
            Effect::Webhook(delivery) => Self::Receiver(delivery.receiver.clone()),
            Effect::Farewell(farewell) => Self::Party(farewell.client.clone()),
        }
    }

    /// What goes by it, for metrics.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Idp(_) => "idp",
            Self::Gateway(ContactKind::Email) => "email",
            Self::Gateway(ContactKind::Phone) => "phone",
            Self::Own => "event",
            Self::Receiver(_) => "webhook",
            Self::Party(_) => "logout",
        }
    }

    /// How many at a time.
    const fn places(&self) -> usize {
        match self {
            Self::Gateway(_) => 16,
            Self::Idp(_) | Self::Own => 8,
            Self::Receiver(_) | Self::Party(_) => 4,
        }
    }

    /// Whether one failure says something about the next: a receiver is one server with one address, while a mail
    /// server refuses one mailbox and takes the next.
    const fn shares_faults(&self) -> bool {
        matches!(self, Self::Receiver(_))
    }
}

/// Whether one may go.
pub(super) enum Turn {
    /// With this place, to be given back.
    Yours(OwnedSemaphorePermit),
    /// Not before this time.
    Later(Span),
    /// The worker is stopping.
    Closed,
}

struct Standing {
    places: Arc<Semaphore>,
    waiting: usize,
    failures: u32,
    rests_until: Option<Timestamp>,
}

/// All lanes.
#[derive(Default)]
pub(super) struct Lanes {
    all: Mutex<HashMap<Lane, Standing>>,
    closed: std::sync::atomic::AtomicBool,
}

impl Lanes {
    /// Waits for a place, unless the lane rests or too many wait already.
    pub(super) async fn enter(&self, lane: &Lane, now: Timestamp) -> Turn {
        let places = match self.queue(lane, now) {
            Ok(places) => places,
            Err(wait) => return Turn::Later(wait),
        };
        let place = places.acquire_owned().await;
        let rests = self.with(lane, |standing| {
            standing.waiting = standing.waiting.saturating_sub(1);
            standing.rests(now)
        });
        match (place, rests.flatten()) {
            (Err(_), _) => Turn::Closed,
            (Ok(_), Some(wait)) => Turn::Later(wait),
            (Ok(_), None) if self.closed.load(std::sync::atomic::Ordering::Relaxed) => Turn::Closed,
            (Ok(place), None) => Turn::Yours(place),
        }
    }

    fn queue(&self, lane: &Lane, now: Timestamp) -> Result<Arc<Semaphore>, Span> {
        let queued = self.with(lane, |standing| {
            if let Some(wait) = standing.rests(now) {
                return Err(wait);
            }
            if standing.waiting >= QUEUE {
                return Err(FULL);
            }
            standing.waiting += 1;
            Ok(Arc::clone(&standing.places))
        });
        queued.unwrap_or(Err(FULL))
    }

    /// Notes how a try ended.
    pub(super) fn left(&self, lane: &Lane, well: bool, now: Timestamp) {
        if !lane.shares_faults() {
            return;
        }
        self.with(lane, |standing| {
            if well {
                standing.failures = 0;
                standing.rests_until = None;
            } else {
                let rest = Span::from_secs(1_i64 << standing.failures.min(9)).min(LONGEST_REST);
                standing.failures = standing.failures.saturating_add(1);
                standing.rests_until = Some(now.plus(rest));
            }
        });
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.closed.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Ok(all) = self.all.lock() {
            for standing in all.values() {
                standing.places.close();
            }
        }
    }

    /// `None` only after a panic elsewhere.
    fn with<T>(&self, lane: &Lane, act: impl FnOnce(&mut Standing) -> T) -> Option<T> {
        let mut all = self.all.lock().ok()?;
        let standing = all.entry(lane.clone()).or_insert_with(|| Standing {
            places: Arc::new(Semaphore::new(lane.places())),
            waiting: 0,
            failures: 0,
            rests_until: None,
        });
        Some(act(standing))
    }
}

impl Standing {
    /// How long the lane rests still.
    fn rests(&self, now: Timestamp) -> Option<Span> {
        let until = self.rests_until.filter(|until| now < *until)?;
        // A clock that goes back makes nobody wait for longer than a rest is.
        Some(until.since(now).min(LONGEST_REST))
    }
}
