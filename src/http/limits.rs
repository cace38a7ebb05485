//! How often one address may do what costs something or could be guessed, and how often one account's attempts may fail.
//!
//! Each bucket is one instant (the generic cell rate algorithm): no job refills anything, and a bucket that is full again
//! is the same as none, so forgetting it loses nothing. Memory is bounded: a table that is full forgets what is nearest
//! to full again, which lets somebody try once more, never keeps somebody out.
//!
//! One rule keeps the limits from becoming a weapon: failures delay failures. Wherever something is proven (a client's
//! secret, a signature, a link, an IdP's answer, a refresh token), what is counted is what failed, and the bucket is
//! asked only *after* an attempt has failed: it takes the answer away from whoever guesses and keeps nobody out who
//! has the right thing, however many others fail at the same address. Beforehand is limited only what anybody may do
//! without proving anything, a log-in that begins; a browser with a session of ours has a bucket of its own there.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::limits::{Limits, Rate};
use crate::domain::pace::Pace;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Log-ins that begin, by address.
    Login,
    /// Answers of IdPs to nothing that was asked, by address.
    Callback,
    /// Client authentication and grants that fail, by address and client.
    Token,
    /// Grants that fail, by account.
    Account,
    /// "This was not me" without a link that is good, by address.
    Report,
    /// What other programs push and does not do, by address and hook.
    Hook,
    /// Answers of an IdP for one log-in that do not do.
    State,
}

impl Kind {
    /// Its word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Callback => "callback",
            Self::Token => "token",
            Self::Account => "account",
            Self::Report => "report",
            Self::Hook => "hook",
            Self::State => "state",
        }
    }
}

/// What hangs on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Every request counts, before it is looked at.
    Tries(Kind),
    /// What fails counts, after it has: an answer of 4xx is withheld when there were too many.
    Failures(Kind),
}

/// Whose share is used up: the address's, and with hooks that of the one hook. Several of them are called from the same
/// server, and a flood of what only wakes the poller must not keep out a change that is pushed.
#[must_use]
pub fn bucket(kind: Kind, route: &str, address: IpAddr) -> (IpAddr, &str) {
    let hook = if kind == Kind::Hook { route } else { "" };
    (place(address), hook)
}

/// How often an IdP's answer for one log-in may not do: each is asked about there.
const ANSWERS: Rate = Rate {
    count: 5,
    per: Duration::from_mins(30),
};

/// Independent parts of the table, so that requests do not wait for each other.
const SHARDS: usize = 16;
/// Buckets of one part: all of them together stay below 4 MiB.
const SHARD: usize = 4096;
/// How many buckets are looked at for the one to forget.
const SAMPLE: usize = 32;

/// The buckets.
pub struct Limiter {
    limits: Limits,
    began: Instant,
    hasher: RandomState,
    shards: [Mutex<HashMap<u64, u64>>; SHARDS],
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Limiter {
    /// Full buckets.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            began: Instant::now(),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    fn rate(&self, kind: Kind) -> Option<Rate> {
        match kind {
            Kind::Login => self.limits.login,
            Kind::Callback => self.limits.callback,
            Kind::Token => self.limits.token_failures,
            Kind::Account => self.limits.account_failures,
            Kind::Report => self.limits.report,
            Kind::Hook => self.limits.hooks,
            Kind::State => self.limits.callback.map(|_| ANSWERS),
        }
    }

    /// Takes one out of a bucket.
    ///
    /// # Errors
    /// Seconds until there is one again.
    pub fn take(&self, kind: Kind, who: impl Hash) -> Result<(), u64> {
        self.turn(kind, who, true)
    }

    /// Whether there is one in a bucket; takes none.
    ///
    /// # Errors
    /// Seconds until there is one again.
    pub fn ready(&self, kind: Kind, who: impl Hash) -> Result<(), u64> {
        self.turn(kind, who, false)
    }

    fn turn(&self, kind: Kind, who: impl Hash, take: bool) -> Result<(), u64> {
        let Some(rate) = self.rate(kind) else {
            return Ok(());
        };
        let now = micros(self.began.elapsed());
        let name = self.hasher.hash_one((kind, who));
        let shard = usize::try_from(name).unwrap_or(0) % SHARDS;
        let Some(shard) = self.shards.get(shard) else {
            return Ok(());
        };
        let mut buckets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = Pace::new(rate.count, micros(rate.per));
        let taken = pace.take(buckets.get(&name).copied().unwrap_or(0), now);
        let full_at = taken.map_err(|wait| wait.div_ceil(1_000_000))?;
        if take {
            if buckets.len() >= SHARD && !buckets.contains_key(&name) {
                forget(&mut buckets, now);
            }
            buckets.insert(name, full_at);
        }
        Ok(())
    }
}

/// Makes room: everything that is full again, or else of a few the one that is nearest to it.
fn forget(buckets: &mut HashMap<u64, u64>, now: u64) {
    buckets.retain(|_, full_at| *full_at > now);
    if buckets.len() >= SHARD {
        let nearest = buckets
            .iter()
            .take(SAMPLE)
            .min_by_key(|(_, full_at)| **full_at)
            .map(|(name, _)| *name);
        if let Some(nearest) = nearest {
            buckets.remove(&nearest);
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Whom an address stands for: an IPv4 address itself, the /64 of an IPv6 address (one customer has at least that).
#[must_use]
pub fn place(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(count: u32, per: Duration) -> Limiter {
        Limiter::new(Limits {
            login: Some(Rate { count, per }),
            ..Limits::default()
        })
    }

    #[test]
    fn a_bucket_gives_its_count_and_then_one_at_a_time() {
        let limiter = limiter(5, Duration::from_secs(1));
        for _ in 0..5 {
            limiter.take(Kind::Login, 1).unwrap();
        }
        assert_eq!(limiter.take(Kind::Login, 1), Err(1));
        limiter.take(Kind::Login, 2).unwrap();
        while limiter.take(Kind::Login, 1).is_err() {
            std::hint::spin_loop();
        }
        limiter.take(Kind::Login, 1).unwrap_err();
    }

    #[test]
    fn asking_takes_nothing() {
        let limiter = limiter(1, Duration::from_mins(1));
        for _ in 0..9 {
            limiter.ready(Kind::Login, 1).unwrap();
        }
        limiter.take(Kind::Login, 1).unwrap();
        assert_eq!(limiter.ready(Kind::Login, 1), Err(60));
    }

    #[test]
    fn a_million_addresses_take_no_more_room_and_free_nobody_who_is_out() {
        let limiter = limiter(2, Duration::from_hours(1));
        for who in 0..1_000_000_u32 {
            limiter.take(Kind::Login, who).unwrap();
        }
        let room: usize = limiter.shards.iter().map(|s| s.lock().unwrap().len()).sum();
        assert!(room <= SHARDS * SHARD, "{room}");
    }

    #[test]
    fn ipv6_counts_by_its_64_and_mapped_ipv4_as_ipv4() {
        let place = |text: &str| place(text.parse().unwrap()).to_string();
        assert_eq!(place("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(place("2001:db8:1:2:ffff::1"), "2001:db8:1:2::");
        assert_eq!(place("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(place("192.0.2.7"), "192.0.2.7");
    }
}
