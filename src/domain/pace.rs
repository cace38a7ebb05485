//! How often, and who is asked: the generic cell rate algorithm on one instant, and the rule that failures delay
//! failures alone.

/// So many in a time, all of them at once if need be. Times are microseconds of one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    step: u64,
    most: u64,
}

impl Pace {
    /// `count` in the time `per`; at least one.
    #[must_use]
    pub const fn new(count: u32, per: u64) -> Self {
        let count = if count == 0 { 1 } else { count as u64 };
        let step = per / count;
        Self {
            step,
            most: per.saturating_sub(step),
        }
    }

    /// Takes one out of a bucket that is full again at `full_at`; gives when it is full again then.
    ///
    /// # Errors
    /// How long until there is one.
    pub const fn take(self, full_at: u64, now: u64) -> Result<u64, u64> {
        let full_at = if full_at > now { full_at } else { now };
        let over = (full_at - now).saturating_sub(self.most);
        if over > 0 {
            Err(over)
        } else {
            Ok(full_at.saturating_add(self.step))
        }
    }
}

/// Whether an attempt is answered that was looked at already. What is proven is, always, and uses nothing up; what
/// failed takes one out of the bucket of failures, and is not answered when there is none (P17).
///
/// # Errors
/// What `take` says.
pub fn judge<W>(proven: bool, take: impl FnOnce() -> Result<(), W>) -> Result<(), W> {
    if proven { Ok(()) } else { take() }
}
