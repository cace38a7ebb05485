//! `server`: who we are and where we listen.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use url::Url;

use super::reader::Section;
use super::values::{base_url, deadline, is_loopback, size, socket};

/// Our issuer identifier: an https URL (or http on loopback) without a trailing slash, as it stands in `iss`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    text: String,
    url: Url,
}

impl Issuer {
    /// Reads an issuer.
    ///
    /// # Errors
    /// What is wrong, in words that follow the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = base_url(text)?;
        if text.ends_with('/') {
            return Err(format!(
                "is `{text}`; leave out the last slash, relying parties compare it letter by letter"
            ));
        }
        if url.as_str().trim_end_matches('/') != text {
            let normal = url.as_str().trim_end_matches('/').to_owned();
            return Err(format!("is `{text}`; write it in its normal form, `{normal}`"));
        }
        Ok(Self {
            text: text.to_owned(),
            url,
        })
    }

    /// As it stands in tokens.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As a URL.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Its path without a trailing slash: empty, or `/id`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.url.path().trim_end_matches('/')
    }

    /// An address below it; `path` begins with a slash.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    /// Whether it is https, so that cookies are `Secure` and `__Host-`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// `scheme://host[:port]`, for `Origin` checks.
    #[must_use]
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// `https://<domain>/recovery_scope` (contract section 2, rule 4).
fn claim_alias(text: &str) -> Result<String, String> {
    let url = base_url(text)?;
    if url.scheme() == "https" && url.path().ends_with("/recovery_scope") {
        Ok(text.to_owned())
    } else {
        Err(format!("is `{text}`; write https://<your domain>/recovery_scope"))
    }
}

/// How many connections a listener may have.
fn connections(text: &str) -> Result<usize, String> {
    let found = text.parse().ok().filter(|n| (16..=1_000_000).contains(n));
    found.ok_or_else(|| format!("is `{text}`; write a number from 16 to 1000000"))
}

/// A network: an address and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, `fd00::/8`, or one address.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("is `{text}`, not a network; write for example 10.0.0.0/8 or fd00::/8");
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().ok().filter(|b| *b <= most).ok_or_else(refused)?,
        };
        Ok(Self { address, bits })
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u8| {
            let rest = u32::from(width - self.bits.min(width));
            a.checked_shr(rest).unwrap_or(0) == b.checked_shr(rest).unwrap_or(0)
        };
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
            _ => false,
        }
    }
}

/// The header in which proxies write down whom they speak for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// What to do with a `prompt` value that nobody knows (contract section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownPrompt {
    /// `invalid_request`.
    Refuse,
    /// As if it were not there.
    Ignore,
}

/// The section `server`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Who we are.
    pub issuer: Issuer,
    /// Where relying parties and browsers come in.
    pub listen: SocketAddr,
    /// Where `/live`, `/ready` and `/metrics` are; never public.
    pub operations: SocketAddr,
    /// A second name of the claim `recovery_scope`, for gateways that only pass namespaced claims.
    pub claim_alias: Option<String>,
    /// Largest request body in octets.
    pub body_limit: usize,
    /// Longest time a request may take.
    pub request_timeout: Duration,
    /// Bounds on connections.
    pub bounds: Bounds,
    /// How long requests under way may finish after SIGTERM.
    pub shutdown_grace: Duration,
    /// Networks of our own proxies, whose word on where a request comes from is believed.
    pub trusted_proxies: Vec<Network>,
    /// The header they write.
    pub forwarded_by: ForwardedBy,
    /// Unknown `prompt` values.
    pub unknown_prompt: UnknownPrompt,
}

/// Bounds on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Longest time in which a body has to arrive.
    pub body_timeout: Duration,
    /// Longest time in which the head of a request has to arrive.
    pub header_timeout: Duration,
    /// Longest rest of a connection between two requests.
    pub keep_alive: Duration,
    /// Most connections at once.
    pub connections: usize,
}

impl Bounds {
    fn read(s: &Section<'_>) -> Option<Self> {
        let body_timeout = s.or("body_timeout", Duration::from_secs(5), deadline);
        let header_timeout = s.or("header_timeout", Duration::from_secs(10), deadline);
        let keep_alive = s.or("keep_alive", Duration::from_secs(75), deadline);
        let connections = s.or("connections", 8192, connections);
        Some(Self {
            body_timeout: body_timeout?,
            header_timeout: header_timeout?,
            keep_alive: keep_alive?,
            connections: connections?,
        })
    }
}

fn proxies(s: &Section<'_>) -> (Option<Vec<Network>>, Option<ForwardedBy>) {
    let by = s.choice(
        "forwarded_by",
        ForwardedBy::XForwardedFor,
        &[
            ("x-forwarded-for", ForwardedBy::XForwardedFor),
            ("forwarded", ForwardedBy::Forwarded),
        ],
    );
    (s.list("trusted_proxies", Network::parse), by)
}

impl Server {
    pub(super) fn read(s: &Section<'_>) -> Option<Self> {
        let issuer = s.required("issuer", "https://id.example.com", Issuer::parse);
        let listen = s.or("listen", SocketAddr::from(([127, 0, 0, 1], 8080)), socket);
        let operations = s.or("operations", SocketAddr::from(([127, 0, 0, 1], 9090)), socket);
        let claim_alias = s.optional("claim_alias", claim_alias);
        let body_limit = s.or("body_limit", 64 * 1024, size);
        let request_timeout = s.or("request_timeout", Duration::from_secs(10), deadline);
        let bounds = Bounds::read(s);
        let shutdown_grace = s.or("shutdown_grace", Duration::from_secs(20), deadline);
        let unknown_prompt = s.choice(
            "unknown_prompt",
            UnknownPrompt::Refuse,
            &[
                ("refuse", UnknownPrompt::Refuse),
                ("ignore", UnknownPrompt::Ignore),
            ],
        );
        let (trusted_proxies, forwarded_by) = proxies(s);
        if let (Some(public), Some(operations)) = (listen, operations)
            && public == operations
            && public.port() != 0
        {
            s.fault(
                "operations",
                "is the public address too",
                "give it another port: it is never public",
            );
        }
        if let Some(issuer) = issuer.as_ref().filter(|i| is_loopback(i.url()))
            && let Some(listen) = listen.filter(|l| !l.ip().is_loopback())
            && !issuer.is_https()
        {
            let problem = format!("is {listen}, reachable from outside, with a plain http issuer");
            s.fault("listen", problem, "listen on 127.0.0.1, or make the issuer https");
        }
        Some(Self {
            issuer: issuer?,
            listen: listen?,
            operations: operations?,
            claim_alias: claim_alias?,
            body_limit: body_limit?,
            request_timeout: request_timeout?,
            bounds: bounds?,
            shutdown_grace: shutdown_grace?,
            trusted_proxies: trusted_proxies?,
            forwarded_by: forwarded_by?,
            unknown_prompt: unknown_prompt?,
        })
    }
}
