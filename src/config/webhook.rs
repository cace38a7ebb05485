//! `webhooks` and `outbound`: which programs are told what, and how servers of others are reached.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::address;
use super::reader::Section;
use super::values::{base_url, deadline, span_between};
use super::words::choose;
use crate::domain::event::EventKind;
use crate::domain::time::Span;

/// A receiver of webhooks.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// Where to.
    pub url: Url,
    /// `whsec_...` secrets, newest first; every one of them signs. Empty only before secrets are made.
    pub secrets: Vec<SecretString>,
    /// Which events; all of them unless named.
    pub events: BTreeSet<EventKind>,
}

/// How servers of others are reached.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Hosts that are reached wherever they are, lower case.
    pub allow_hosts: BTreeSet<String>,
    /// A file with further certificates to trust (PEM).
    pub ca_file: Option<PathBuf>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for all of it.
    pub timeout: Duration,
    /// How long a notice or a webhook is tried before it becomes a dead letter.
    pub give_up_after: Span,
}

impl Outbound {
    pub(super) fn read(s: &Section<'_>) -> Option<Self> {
        let allow_hosts = s.list("allow_hosts", host);
        let ca_file = s.file("ca_file");
        let connect_timeout = s.or("connect_timeout", Duration::from_secs(3), deadline);
        let timeout = s.or("timeout", Duration::from_secs(10), deadline);
        let bounds = span_between(Span::from_hours(1), Span::from_days(60));
        let give_up_after = s.or("give_up_after", Span::from_days(7), bounds);
        Some(Self {
            allow_hosts: allow_hosts?.into_iter().collect(),
            ca_file: ca_file?,
            connect_timeout: connect_timeout?,
            timeout: timeout?,
            give_up_after: give_up_after?,
        })
    }
}

impl Outbound {
    /// Why a server of others would not be reached, and what to do about it: what can be told without resolving names.
    pub(super) fn refuses(&self, url: &Url) -> Option<(&'static str, String)> {
        let host = url.host_str().unwrap_or_default();
        if self.allow_hosts.contains(host) {
            return None;
        }
        if url.scheme() == "http" {
            let advice = format!("write https://..., or add `{host}` to outbound.allow_hosts");
            return Some(("is plain http, to a host that is not allowed", advice));
        }
        let public = match url.host() {
            Some(Host::Ipv4(v4)) => address::public(v4.into()),
            Some(Host::Ipv6(v6)) => address::public(v6.into()),
            _ => true,
        };
        let advice = format!("name a public one, or add `{host}` to outbound.allow_hosts");
        (!public).then_some(("names an address that is not public", advice))
    }
}

/// A host as it stands in a URL.
fn host(text: &str) -> Result<String, String> {
    let url =
        Url::parse(&format!("https://{text}/")).map_err(|e| format!("is `{text}`, not a host ({e})"))?;
    let named = url
        .host_str()
        .filter(|_| url.port().is_none() && url.path() == "/");
    let host = named.ok_or_else(|| format!("is `{text}`; write a host alone, without port and path"))?;
    Ok(host.to_owned())
}

impl Webhook {
    fn read(s: &Section<'_>) -> Option<Self> {
        let id = s.required("id", "crm", name);
        let url = s.required("url", "https://hooks.example.com/reentry", target);
        let secrets = secrets(s);
        let named = s.list("events", event);
        let named: BTreeSet<EventKind> = named?.into_iter().collect();
        Some(Self {
            id: id?,
            url: url?,
            secrets: secrets?,
            events: if named.is_empty() {
                EventKind::ALL.into()
            } else {
                named
            },
        })
    }
}

fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=32).contains(&text.len()) && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "is `{text}`; write 1 to 32 of the letters a to z, digits and hyphens"
        ))
    }
}

/// An https URL, or http on loopback; a query is allowed, since many receivers are told apart by one.
fn target(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|e| format!("is `{text}`, not a URL ({e}); write https://..."))?;
    let query = url.query().map(str::to_owned);
    url.set_query(None);
    let mut url = base_url(url.as_str())?;
    url.set_query(query.as_deref());
    Ok(url)
}

fn event(text: &str) -> Result<EventKind, String> {
    let known = EventKind::ALL.map(|kind| (kind.as_str(), kind));
    choose(text, &known)
}

/// One or more secrets, each on a line of its own, newest first.
fn secrets(s: &Section<'_>) -> Option<Vec<SecretString>> {
    let Some(text) = s.secret("secret")? else {
        let advice =
            "name a file with `whsec_` and the base64 of 24 to 64 random octets, one line for each secret";
        s.fault(
            "secret_file",
            "is missing: nobody could tell our webhooks from another's",
            advice,
        );
        return None;
    };
    if Section::is_made_later(&text) {
        return Some(Vec::new());
    }
    let mut found = Vec::new();
    for one in text.expose_secret().split_whitespace() {
        if octets(one).is_none() {
            let advice = "write `whsec_` and the base64 of 24 to 64 random octets, one line for each secret";
            s.fault("secret_file", "holds something that is no signing secret", advice);
            return None;
        }
        found.push(SecretString::from(one.to_owned()));
    }
    Some(found)
}

/// The octets of a `whsec_...` secret, 24 to 64 of them (Standard Webhooks 1.0.0).
#[must_use]
pub fn octets(secret: &str) -> Option<Vec<u8>> {
    let octets = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    (24..=64).contains(&octets.len()).then_some(octets)
}

/// Every receiver; ids differ, and each is where `outbound` goes.
pub(super) fn read_all(root: &Section<'_>, outbound: Option<&Outbound>) -> Option<Vec<Webhook>> {
    let sections = root.sections("webhooks");
    let read: Vec<Option<Webhook>> = sections.iter().map(Webhook::read).collect();
    let mut ids = BTreeSet::new();
    for (s, webhook) in sections.iter().zip(&read) {
        let Some(webhook) = webhook else { continue };
        if !ids.insert(webhook.id.as_str()) {
            let problem = format!("is `{}`, as another's", webhook.id);
            s.fault("id", problem, "give every receiver its own id");
        }
        if let Some((problem, advice)) = outbound.and_then(|o| o.refuses(&webhook.url)) {
            s.fault("url", problem, advice);
        }
    }
    read.into_iter().collect()
}
