//! `limits`: how often, and how many at once.

use std::time::Duration;

use super::reader::Section;

/// So many in a time, all of them at once if need be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In what time.
    pub per: Duration,
}

impl Rate {
    const fn per_minute(count: u32) -> Self {
        Self {
            count,
            per: Duration::from_mins(1),
        }
    }
}

/// The section `limits`; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Log-ins that begin, from one address.
    pub login: Option<Rate>,
    /// Answers of IdPs, from one address.
    pub callback: Option<Rate>,
    /// Failed client authentications and grants, from one address for one client.
    pub token_failures: Option<Rate>,
    /// Failed grants of one account.
    pub account_failures: Option<Rate>,
    /// "This was not me", from one address.
    pub report: Option<Rate>,
    /// What other programs push and does not do, from one address.
    pub hooks: Option<Rate>,
    /// How many at once.
    pub at_once: AtOnce,
}

/// How many requests are worked on at once, each kind of work by itself, and how many bodies of one address may be on
/// their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtOnce {
    /// Everything that is not named below.
    pub requests: usize,
    /// Introspections.
    pub introspections: usize,
    /// Hooks.
    pub hooks: usize,
    /// "This was not me".
    pub reports: usize,
    /// Bodies of one address that are on their way, of each of these.
    pub bodies_per_address: usize,
}

impl Default for AtOnce {
    fn default() -> Self {
        Self {
            requests: 1024,
            introspections: 256,
            hooks: 64,
            reports: 64,
            bodies_per_address: 32,
        }
    }
}

impl AtOnce {
    fn read(s: &Section<'_>) -> Option<Self> {
        let usual = Self::default();
        let requests = s.or("requests", usual.requests, places);
        let introspections = s.or("introspections", usual.introspections, places);
        let hooks = s.or("hooks", usual.hooks, places);
        let reports = s.or("reports", usual.reports, places);
        let bodies_per_address = s.or("bodies_per_address", usual.bodies_per_address, places);
        Some(Self {
            requests: requests?,
            introspections: introspections?,
            hooks: hooks?,
            reports: reports?,
            bodies_per_address: bodies_per_address?,
        })
    }
}

/// A number of places.
fn places(text: &str) -> Result<usize, String> {
    let found = text.parse().ok().filter(|n| (4..=100_000).contains(n));
    found.ok_or_else(|| format!("is `{text}`; write a number from 4 to 100000"))
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            login: Some(Rate::per_minute(300)),
            callback: Some(Rate::per_minute(300)),
            token_failures: Some(Rate::per_minute(60)),
            account_failures: Some(Rate::per_minute(30)),
            report: Some(Rate::per_minute(30)),
            hooks: Some(Rate::per_minute(1200)),
            at_once: AtOnce::default(),
        }
    }
}

impl Limits {
    pub(super) fn read(s: &Section<'_>) -> Option<Self> {
        let usual = Self::default();
        let login = s.or("login", usual.login, rate);
        let callback = s.or("callback", usual.callback, rate);
        let token_failures = s.or("token_failures", usual.token_failures, rate);
        let account_failures = s.or("account_failures", usual.account_failures, rate);
        let report = s.or("report", usual.report, rate);
        let hooks = s.or("hooks", usual.hooks, rate);
        let at_once = AtOnce::read(&s.section("at_once"));
        Some(Self {
            login: login?,
            callback: callback?,
            token_failures: token_failures?,
            account_failures: account_failures?,
            report: report?,
            hooks: hooks?,
            at_once: at_once?,
        })
    }
}

/// `300/m`, `5/s`, `100/h`, or `off`.
fn rate(text: &str) -> Result<Option<Rate>, String> {
    if text == "off" {
        return Ok(None);
    }
    let refused = || format!("is `{text}`, not a rate; write for example 300/m, 5/s, 100/h, or off");
    let (count, unit) = text.split_once('/').ok_or_else(refused)?;
    let count = count
        .parse()
        .ok()
        .filter(|n| (1..=1_000_000).contains(n))
        .ok_or_else(refused)?;
    let per = match unit {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_mins(1),
        "h" => Duration::from_hours(1),
        _ => return Err(refused()),
    };
    Ok(Some(Rate { count, per }))
}
