//! `limits`: how often.

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
    /// What other programs push, from one address.
    pub hooks: Option<Rate>,
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
        Some(Self {
            login: login?,
            callback: callback?,
            token_failures: token_failures?,
            account_failures: account_failures?,
            report: report?,
            hooks: hooks?,
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
