//! Readers of single values. Each gives what is wrong in words that follow the key: "is not a URL ...".

use std::net::SocketAddr;
use std::time::Duration;

use url::Url;

use crate::domain::time::Span;

/// A length of time: a whole number and one of `ms s m h d` (`300s`, `24h`, `7d`); `0s` is none.
///
/// # Errors
/// What is wrong.
pub fn span(text: &str) -> Result<Span, String> {
    let refused = || format!("is `{text}`, not a length of time; write for example 300s, 24h or 7d");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
    let (number, unit) = text.split_at(split);
    let number: i64 = number.parse().map_err(|_| refused())?;
    let millis: i64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refused()),
    };
    let total = number
        .checked_mul(millis)
        .filter(|t| *t <= Span::from_days(3_660).millis());
    total
        .map(Span::from_millis)
        .ok_or_else(|| format!("is `{text}`, longer than ten years"))
}

/// A length of time within bounds.
pub fn span_between(least: Span, most: Span) -> impl Fn(&str) -> Result<Span, String> {
    move |text| {
        let found = span(text)?;
        if found < least {
            return Err(format!("is {found}; the least is {least}"));
        }
        if found > most {
            return Err(format!("is {found}; the most is {most}"));
        }
        Ok(found)
    }
}

/// A deadline for IO, from 10 ms to 5 min.
///
/// # Errors
/// What is wrong.
pub fn deadline(text: &str) -> Result<Duration, String> {
    let found = span_between(Span::from_millis(10), Span::from_mins(5))(text)?;
    Ok(duration(found))
}

/// A span as the standard library's duration; a negative one is none.
#[must_use]
pub fn duration(span: Span) -> Duration {
    Duration::from_millis(u64::try_from(span.millis()).unwrap_or(0))
}

/// A size in octets: a whole number, with `KiB` or `MiB` if wanted.
///
/// # Errors
/// What is wrong.
pub fn size(text: &str) -> Result<usize, String> {
    let refused = || format!("is `{text}`, not a size; write for example 65536, 64KiB or 1MiB");
    let (number, factor) = if let Some(n) = text.strip_suffix("KiB") {
        (n, 1024)
    } else if let Some(n) = text.strip_suffix("MiB") {
        (n, 1024 * 1024)
    } else {
        (text, 1)
    };
    let number: usize = number.trim().parse().map_err(|_| refused())?;
    number
        .checked_mul(factor)
        .filter(|n| (1024..=16 * 1024 * 1024).contains(n))
        .ok_or_else(|| format!("is `{text}`; it must be between 1KiB and 16MiB"))
}

/// A socket address.
///
/// # Errors
/// What is wrong.
pub fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("is `{text}`, not an address and port; write for example 127.0.0.1:8080 or [::]:8080")
    })
}

/// A port.
///
/// # Errors
/// What is wrong.
pub fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|p| *p > 0)
        .ok_or_else(|| format!("is `{text}`, not a port (1 to 65535)"))
}

/// Whether a URL's host is this machine itself: the loopback addresses and `localhost` (RFC 8252 §7.3).
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// An https URL, or http on loopback; no user, no query, no fragment.
///
/// # Errors
/// What is wrong.
pub fn base_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("is `{text}`, not a URL ({e}); write https://..."))?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => {
            return Err(format!(
                "is `{text}`; plain http is allowed on loopback only, write https://..."
            ));
        }
        other => return Err(format!("is `{text}` with scheme {other}; write https://...")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user or password in it; leave them out".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("is `{text}`; leave out what follows `?` or `#`"));
    }
    Ok(url)
}

/// An e-mail address as far as it can be told without sending: one `@`, something on both sides, no blanks.
///
/// # Errors
/// What is wrong.
pub fn email(text: &str) -> Result<String, String> {
    let fits = text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && (domain.contains('.') || domain == "localhost") && !domain.contains('@')
    });
    if fits
        && !text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | ','))
    {
        Ok(text.to_owned())
    } else {
        Err(format!("is `{text}`, not an e-mail address"))
    }
}

/// An e-mail address, or a name and an address: `Example Bank <notices@example.com>`.
///
/// # Errors
/// What is wrong.
pub fn mailbox(text: &str) -> Result<String, String> {
    match text.split_once('<') {
        Some((name, rest)) => {
            let address = rest
                .strip_suffix('>')
                .ok_or_else(|| format!("is `{text}`, where a `>` is missing"))?;
            if name.chars().any(char::is_control) {
                return Err(format!("is `{text}`, with a control character"));
            }
            email(address).map(|_| text.to_owned())
        }
        None => email(text),
    }
}
