//! A clock that can be moved forward: demo time. It does not exist in `serve`.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::domain::time::{Span, Timestamp};
use crate::ports::clock::Clock;

/// The machine's clock plus what was added by hand. It never goes back.
#[derive(Debug, Default)]
pub struct DemoClock {
    ahead: AtomicI64,
}

impl DemoClock {
    /// Moves demo time forward.
    pub fn advance(&self, by: Span) {
        self.ahead.fetch_add(by.millis().max(0), Ordering::SeqCst);
    }

    /// How far demo time is ahead.
    #[must_use]
    pub fn ahead(&self) -> Span {
        Span::from_millis(self.ahead.load(Ordering::SeqCst))
    }
}

impl Clock for DemoClock {
    fn now(&self) -> Timestamp {
        crate::app::clock::SystemClock.now().plus(self.ahead())
    }
}
