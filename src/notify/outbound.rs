//! The client for servers that others run. What it may reach is decided where the connection is made.
//!
//! A name is resolved here, every address is judged, and the connection goes to the address that was judged: a name
//! that answers something else a moment later (DNS rebinding) gains nothing. One address that is not public refuses
//! the name as a whole. Addresses written as numbers never come past a resolver, so they are judged before. No
//! redirect is followed, no proxy of the environment is used, connecting and the whole exchange have deadlines, and of
//! a body only the beginning is read. Hosts that the configuration names are reached wherever they are: that is how an
//! operator's own receiver in a private network is.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::config::address;
use crate::ports::outbound::{Answer, Outbound, OutboundError, Post};
use crate::ports::trace;

/// What is reached, and how long it may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Hosts that are reached wherever they are: names or addresses as in the URL, lower case. Plain http too, when
    /// every address of the host is loopback.
    pub allowed: BTreeSet<String>,
    /// Further certificates to trust (PEM).
    pub authorities: Option<Vec<u8>>,
    /// Until when a connection has to stand.
    pub connect: Duration,
    /// Until when everything has to be over.
    pub total: Duration,
    /// Octets of an answer's body that are read.
    pub body: usize,
}

impl Default for Limits {
    /// Nothing but the Internet; 3 s to connect, 10 s in all, 16 KiB.
    fn default() -> Self {
        Self {
            allowed: BTreeSet::new(),
            authorities: None,
            connect: Duration::from_secs(3),
            total: Duration::from_secs(10),
            body: 16 * 1024,
        }
    }
}

/// The client.
pub struct Client {
    /// For public addresses and allowed hosts.
    secure: reqwest::Client,
    /// For plain http: loopback and nothing else.
    local: reqwest::Client,
    limits: Limits,
}

impl Client {
    /// A client; connects to nothing yet.
    ///
    /// # Errors
    /// When TLS cannot be set up with these certificates.
    pub fn new(limits: Limits) -> Result<Self, reqwest::Error> {
        let reach = |rule| Reach {
            rule,
            allowed: limits.allowed.clone(),
        };
        Ok(Self {
            secure: build(&limits, reach(Rule::Public))?,
            local: build(&limits, reach(Rule::Loopback))?,
            limits,
        })
    }

    /// The client for a target, when it is one that we talk to.
    fn target(&self, text: &str) -> Result<(&reqwest::Client, Url), OutboundError> {
        let refused = |why: &str| OutboundError::Refused(why.to_owned());
        let url = Url::parse(text).map_err(|_| refused("the target is no URL"))?;
        let (client, rule) = match url.scheme() {
            "https" => (&self.secure, Rule::Public),
            "http" => (&self.local, Rule::Loopback),
            _ => return Err(refused("the target is not https")),
        };
        let host = url.host().ok_or_else(|| refused("the target has no host"))?;
        let name = host.to_string();
        let literal = match host {
            Host::Domain(_) => None,
            Host::Ipv4(v4) => Some(IpAddr::V4(v4)),
            Host::Ipv6(v6) => Some(IpAddr::V6(v6)),
        };
        let allowed = self.limits.allowed.contains(&name);
        if rule == Rule::Loopback && !allowed {
            return Err(refused(
                "the target is not https; plain http needs a loopback host that the configuration allows",
            ));
        }
        match literal {
            Some(address) if !rule.takes(address, allowed) => Err(OutboundError::Refused(not_taken(rule))),
            _ => Ok((client, url)),
        }
    }
}

fn build(limits: &Limits, reach: Reach) -> Result<reqwest::Client, reqwest::Error> {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .dns_resolver(Arc::new(reach))
        .connect_timeout(limits.connect)
        .timeout(limits.total)
        .pool_idle_timeout(Duration::from_secs(30))
        .user_agent(concat!("reentry/", env!("CARGO_PKG_VERSION")));
    if let Some(pem) = &limits.authorities {
        builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem)?);
    }
    builder.build()
}

/// Which addresses are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Public ones, and any of an allowed host.
    Public,
    /// Loopback of an allowed host.
    Loopback,
}

impl Rule {
    fn takes(self, address: IpAddr, allowed: bool) -> bool {
        match self {
            Self::Public => allowed || address::public(address),
            Self::Loopback => allowed && address.is_loopback(),
        }
    }
}

fn not_taken(rule: Rule) -> String {
    match rule {
        Rule::Public => "the target's address is not public, and the configuration does not allow this host",
        Rule::Loopback => "plain http goes to this machine only",
    }
    .to_owned()
}

/// Resolves names and judges what they resolve to.
struct Reach {
    rule: Rule,
    allowed: BTreeSet<String>,
}

/// What a name resolved to is not taken. Found again in what the client's failure was caused by.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotTaken(String);

impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let (rule, allowed) = (self.rule, self.allowed.contains(name.as_str()));
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if found.iter().any(|a| !rule.takes(a.ip(), allowed)) {
                return Err(NotTaken(not_taken(rule)).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// What a failure says: refused by us, or nothing came.
fn fault(error: &reqwest::Error) -> OutboundError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut last = String::new();
    while let Some(found) = cause {
        if let Some(refused) = found.downcast_ref::<NotTaken>() {
            return OutboundError::Refused(refused.to_string());
        }
        last = found.to_string();
        cause = found.source();
    }
    // The whole text would name the URL, which may hold a secret.
    OutboundError::Failed(if error.is_timeout() {
        "the receiver took too long".to_owned()
    } else {
        crate::domain::wording::plain_line(&last, 200)
    })
}

fn traced(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    let headers = trace::headers().into_iter();
    headers.fold(request, |request, (name, value)| request.header(name, value))
}

#[async_trait]
impl Outbound for Client {
    async fn post(&self, post: &Post<'_>) -> Result<Answer, OutboundError> {
        let (client, url) = self.target(post.url)?;
        let mut request = client
            .post(url)
            .header(reqwest::header::CONTENT_TYPE, post.content_type)
            .body(post.body.clone());
        for (name, value) in &post.headers {
            request = request.header(*name, value);
        }
        let mut response = traced(request).send().await.map_err(|e| fault(&e))?;
        let status = response.status().as_u16();
        // The status is the answer; a body that breaks off, drips or never ends takes nothing from it.
        let mut body = Vec::new();
        while body.len() < self.limits.body {
            let Ok(Some(chunk)) = response.chunk().await else {
                break;
            };
            let room = self.limits.body - body.len();
            body.extend(chunk.iter().take(room));
        }
        Ok(Answer { status, body })
    }

    async fn get(&self, url: &str, most: usize) -> Result<Answer, OutboundError> {
        let (client, url) = self.target(url)?;
        let mut response = traced(client.get(url)).send().await.map_err(|e| fault(&e))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| fault(&e))? {
            if body.len() + chunk.len() > most {
                let why = format!("the answer is larger than {most} octets");
                return Err(OutboundError::Failed(why));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }
}
