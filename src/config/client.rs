//! `clients`: the relying parties of the broker.

pub mod auth;

use std::collections::BTreeSet;

use aws_lc_rs::{constant_time, digest};
use url::Url;

use super::keys::Jws;
use super::reader::Section;
use super::upstream::Upstream;
use super::values::{base_url, is_loopback};
use super::webhook::Outbound;
use super::words::filled;
use crate::domain::subject::UpstreamId;
use auth::{ClientAuth, ClientKeys};

/// The scope that opens the admin API.
pub const ADMIN_SCOPE: &str = "reentry:admin";
/// Prefix of our own scopes; only [`ADMIN_SCOPE`] may be given to a client.
const OWN_SCOPES: &str = "reentry:";

/// The SHA-256 of a long random secret; the secret itself is not kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

impl SecretHash {
    /// The hash of a secret.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        let mut hash = [0; 32];
        let found = digest::digest(&digest::SHA256, secret);
        for (to, from) in hash.iter_mut().zip(found.as_ref()) {
            *to = *from;
        }
        Self(hash)
    }

    /// Whether `presented` is the secret, in constant time.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &Self::of(presented).0).is_ok()
    }

    /// The hash itself.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        let refused = || "is not a SHA-256 in 64 hexadecimal digits".to_owned();
        if text.len() != 64 || !text.is_ascii() {
            return Err(refused());
        }
        let mut hash = [0; 32];
        for (i, octet) in hash.iter_mut().enumerate() {
            let digits = text.get(2 * i..2 * i + 2).ok_or_else(refused)?;
            *octet = u8::from_str_radix(digits, 16).map_err(|_| refused())?;
        }
        Ok(Self(hash))
    }
}

/// Whether a client that obeys no `recovery_scope` gets tokens in a hold (contract section 2, rule 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unaware {
    /// It gets reduced tokens: it checks scopes, takes back-channel logout, or asks.
    Allow,
    /// In a hold it gets none, and the user a page that says why.
    Refuse,
}

/// One relying party.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a registered property of a client, and independent"
)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// Its name on pages.
    pub name: String,
    /// How it proves who it is.
    pub auth: ClientAuth,
    /// Exact redirect URIs. For a loopback address any port is accepted (RFC 8252 §7.3) only where the broker says so.
    pub redirect_uris: Vec<String>,
    /// Exact URIs for after a log-out.
    pub post_logout_redirect_uris: Vec<String>,
    /// Scopes it may ask for.
    pub scopes: BTreeSet<String>,
    /// `aud` of its access tokens; the client id when there is none.
    pub audience: Option<String>,
    /// Whether PKCE is required (S256; `plain` is never accepted).
    pub pkce_required: bool,
    /// The upstream its users log in at; the first that has a `broker` when there is none.
    pub upstream: Option<UpstreamId>,
    /// Signs its ID tokens.
    pub id_token: Jws,
    /// Signs its access tokens.
    pub access_token: Jws,
    /// Whether it gets tokens in a hold.
    pub unaware: Unaware,
    /// Whether it gets refresh tokens.
    pub refresh: bool,
    /// Whether it may introspect tokens of others.
    pub may_introspect: bool,
    /// Upstreams of which its users choose one; those of `upstream` alone when empty.
    pub upstreams: Vec<UpstreamId>,
    /// Where it takes back-channel log-out.
    pub backchannel_logout_uri: Option<String>,
    /// Whether its log-out tokens must name the session.
    pub backchannel_logout_session_required: bool,
    /// Web origins that may read the answers of the token and userinfo endpoints.
    pub origins: BTreeSet<String>,
}

impl Client {
    fn read(s: &Section<'_>, defaults: (Jws, Jws)) -> Option<Self> {
        let id = s.required("client_id", "bank", client_id);
        let name = s.optional("name", filled);
        let auth = auth::read(s);
        let redirect_uris = s.list("redirect_uris", redirect_uri);
        let post_logout_redirect_uris = s.list("post_logout_redirect_uris", redirect_uri);
        let scopes = match s.node("scopes") {
            None => Some(vec!["openid".to_owned()]),
            Some(_) => s.list("scopes", client_scope),
        };
        let audience = s.optional("audience", filled);
        let upstream = s.optional("upstream", |t| {
            UpstreamId::parse(t).ok_or_else(|| format!("is `{t}`, not the id of an upstream"))
        });
        let upstreams = s.list("upstreams", |t| {
            UpstreamId::parse(t).ok_or_else(|| format!("is `{t}`, not the id of an upstream"))
        });
        let logout_uri = s.optional("backchannel_logout_uri", |t| base_url(t).map(|_| t.to_owned()));
        let logout_session = s.flag("backchannel_logout_session_required", false);
        let origins = s.list("origins", origin);
        let pkce_required = s.choice("pkce", true, &[("required", true), ("optional", false)]);
        let id_token = s.choice("id_token", defaults.0, &Jws::CHOICES);
        let access_token = s.choice("access_token", defaults.1, &Jws::CHOICES);
        let unaware = s.choice(
            "unaware",
            Unaware::Allow,
            &[("allow", Unaware::Allow), ("refuse", Unaware::Refuse)],
        );
        let refresh = s.flag("refresh", true);
        let may_introspect = s.flag("may_introspect", false);
        if redirect_uris.as_ref().is_some_and(Vec::is_empty) {
            let advice = "list every address the client is sent back to, exactly";
            s.fault("redirect_uris", "is missing", advice);
        }
        if auth == Some(ClientAuth::None) {
            public_client(s, pkce_required, may_introspect);
        }
        let id = id?;
        Some(Self {
            name: name?.unwrap_or_else(|| id.clone()),
            auth: auth?,
            redirect_uris: redirect_uris?,
            post_logout_redirect_uris: post_logout_redirect_uris?,
            scopes: scopes?.into_iter().collect(),
            audience: audience?,
            upstream: upstream?,
            pkce_required: pkce_required?,
            id_token: id_token?,
            access_token: access_token?,
            unaware: unaware?,
            refresh: refresh?,
            may_introspect: may_introspect?,
            upstreams: upstreams?,
            backchannel_logout_uri: logout_uri?,
            backchannel_logout_session_required: logout_session?,
            origins: origins?.into_iter().collect(),
            id,
        })
    }
}

fn client_id(text: &str) -> Result<String, String> {
    let fits = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "is `{text}`; write up to 128 visible ASCII characters, no colon"
        ))
    }
}

/// An origin as browsers send it (RFC 6454 §6.1): no path, no slash at the end.
fn origin(text: &str) -> Result<String, String> {
    let url = base_url(text)?;
    let origin = url.origin().ascii_serialization();
    if origin == text {
        Ok(origin)
    } else {
        Err(format!("is `{text}`; write it as browsers send it, `{origin}`"))
    }
}

/// What a client without a secret may not do.
fn public_client(s: &Section<'_>, pkce_required: Option<bool>, may_introspect: Option<bool>) {
    if pkce_required == Some(false) {
        let problem = "is optional for a client without a secret";
        s.fault("pkce", problem, "write `pkce: required`");
    }
    if may_introspect == Some(true) {
        let problem = "is set for a client without a secret";
        s.fault("may_introspect", problem, "give it a secret (RFC 7662 §2.1)");
    }
}

/// An exact redirect URI: https, http on loopback, or an application's own scheme (RFC 8252 §7.1).
fn redirect_uri(text: &str) -> Result<String, String> {
    if text.contains('*') {
        return Err(format!(
            "is `{text}`; wildcards are not accepted, list every address"
        ));
    }
    if text.contains('#') {
        return Err(format!(
            "is `{text}`; a redirect URI has no fragment (RFC 6749 §3.1.2)"
        ));
    }
    let url = Url::parse(text).map_err(|e| format!("is `{text}`, not an absolute URI ({e})"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user or password in it; leave them out".to_owned());
    }
    match url.scheme() {
        "https" => Ok(text.to_owned()),
        "http" if is_loopback(&url) => Ok(text.to_owned()),
        "http" => Err(format!(
            "is `{text}`; plain http is allowed on loopback only, write https://..."
        )),
        own if own.contains('.') => Ok(text.to_owned()),
        own => Err(format!(
            "is `{text}` with scheme `{own}`; write https://..., or an own scheme in reverse domain form (com.example.app:/...)"
        )),
    }
}

/// A scope that may be given to a client or put into a class.
pub(super) fn client_scope(text: &str) -> Result<String, String> {
    let token = |b: u8| b == b'!' || (b'#'..=b'[').contains(&b) || (b']'..=b'~').contains(&b);
    if text.is_empty() || !text.bytes().all(token) {
        return Err(format!("is `{text}`, not an OAuth scope (RFC 6749 §3.3)"));
    }
    if text.starts_with("reentry-") || text.starts_with("recovery_") {
        return Err(format!(
            "is `{text}`; scopes that start with `reentry-` or `recovery_` are ours, and are never asked for"
        ));
    }
    if text.starts_with(OWN_SCOPES) && text != ADMIN_SCOPE {
        return Err(format!(
            "is `{text}`; of `{OWN_SCOPES}...` only `{ADMIN_SCOPE}` may be used"
        ));
    }
    Ok(text.to_owned())
}

/// Users can log in at every upstream that a client names.
fn known_upstreams(s: &Section<'_>, client: &Client, all: &[Upstream]) {
    let named = client.upstream.iter().map(|id| ("upstream", id));
    for (key, id) in named.chain(client.upstreams.iter().map(|id| ("upstreams", id))) {
        if !all.iter().any(|u| u.id == *id && u.broker.is_some()) {
            let problem = format!("is `{id}`, and there is no upstream of that id with a `broker`");
            s.fault(key, problem, "name one that users can log in at");
        }
    }
    if client.upstream.is_some() && !client.upstreams.is_empty() {
        s.fault("upstreams", "is given beside `upstream`", "keep one of them");
    }
}

/// What is fetched from a client, or told to it, is where `outbound` goes.
fn reached(s: &Section<'_>, client: &Client, outbound: &Outbound) {
    let keys = match &client.auth {
        ClientAuth::PrivateKey {
            keys: ClientKeys::Published(url),
            ..
        } => Some(url.clone()),
        _ => None,
    };
    let logout = client.backchannel_logout_uri.as_deref();
    let logout = logout.and_then(|uri| Url::parse(uri).ok());
    for (key, url) in [("jwks_uri", keys), ("backchannel_logout_uri", logout)] {
        if let Some((problem, advice)) = url.and_then(|url| outbound.refuses(&url)) {
            s.fault(key, problem, advice);
        }
    }
}

pub(super) fn read_all(
    root: &Section<'_>,
    defaults: (Jws, Jws),
    upstreams: Option<&[Upstream]>,
    outbound: Option<&Outbound>,
) -> Option<Vec<Client>> {
    let sections = root.sections("clients");
    let read: Vec<Option<Client>> = sections.iter().map(|s| Client::read(s, defaults)).collect();
    let mut ids = BTreeSet::new();
    for (s, client) in sections.iter().zip(&read) {
        if let (Some(client), Some(all)) = (client, upstreams) {
            known_upstreams(s, client, all);
        }
        if let (Some(client), Some(outbound)) = (client, outbound) {
            reached(s, client, outbound);
        }
        if let Some(client) = client
            && !ids.insert(client.id.as_str())
        {
            s.fault(
                "client_id",
                format!("is `{}`, as another's", client.id),
                "give every client its own id",
            );
        }
    }
    read.into_iter().collect()
}
