//! What the broker has to know of the configuration; the program builds it, so the protocol needs no more of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use secrecy::SecretString;
use url::Url;

use crate::domain::subject::{Subject, UpstreamId};
use crate::oidc::assertion::{Alg, PublicKeys};
use crate::oidc::digest;
use crate::oidc::upstream::Freshness;
use crate::ports::signer::Algorithm;

/// The scope that opens the admin API, for clients that are allowed it.
pub const ADMIN_SCOPE: &str = "reentry:admin";
/// The scope for refresh tokens that outlive the session.
pub const OFFLINE_SCOPE: &str = "offline_access";

/// Whether a scope word is ours alone: a ceiling, or the name of one of our claims (ISS-9).
#[must_use]
pub fn is_reserved_scope(word: &str) -> bool {
    word.starts_with("reentry-") || word.starts_with("recovery_")
}

/// A client secret, kept as its hash only.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Of a secret.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(digest::sha256(secret.as_bytes()))
    }

    /// Of a secret whose SHA-256 is known.
    #[must_use]
    pub fn from_digest(sha256: &[u8; 32]) -> Self {
        Self(*sha256)
    }

    /// Whether this is the secret, in constant time.
    #[must_use]
    pub fn is(&self, secret: &str) -> bool {
        digest::same(&self.0, &digest::sha256(secret.as_bytes()))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// How a client proves who it is at the token endpoint (OIDC Core §9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// A public client: nothing but PKCE.
    None,
    /// A shared secret by `client_secret_basic` or `client_secret_post`; two during a change of secrets.
    Secret {
        /// Any of these.
        secrets: Vec<SecretHash>,
        /// `client_secret_basic` is taken.
        basic: bool,
        /// `client_secret_post` is taken.
        post: bool,
    },
    /// `private_key_jwt`.
    PrivateKey {
        /// Its public keys.
        keys: ClientKeys,
        /// What it may sign with.
        algorithms: BTreeSet<Alg>,
    },
}

/// Where a client's public keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientKeys {
    /// Here.
    Inline(PublicKeys),
    /// The client publishes them at this address.
    Published(String),
}

/// A relying party.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a registered property that stands for itself"
)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// Its name on pages.
    pub name: String,
    /// How it proves who it is.
    pub auth: ClientAuth,
    /// Exactly these redirect URIs.
    pub redirect_uris: Vec<String>,
    /// Exactly these URIs after a log-out.
    pub post_logout_redirect_uris: Vec<String>,
    /// Scopes it may ask for.
    pub scopes: BTreeSet<String>,
    /// `aud` of its access tokens; its id when absent.
    pub audience: Option<String>,
    /// Whether a request without PKCE is refused.
    pub pkce_required: bool,
    /// Algorithm of its ID tokens.
    pub id_token_alg: Algorithm,
    /// Algorithm of its access tokens.
    pub access_token_alg: Algorithm,
    /// Knows nothing of holds and keeps its own session: in a hold it gets no token at all (contract section 2, 10).
    pub refuse_in_hold: bool,
    /// Whether it gets refresh tokens.
    pub refresh: bool,
    /// Whether it may introspect tokens of others.
    pub may_introspect: bool,
    /// Its IdPs: with several the user chooses; the first configured one when there is none.
    pub upstreams: Vec<UpstreamId>,
    /// Where it takes back-channel log-out.
    pub backchannel_logout_uri: Option<String>,
    /// Whether its log-out tokens must name the session.
    pub backchannel_logout_session_required: bool,
    /// Web origins that may read the answers of the token and userinfo endpoints.
    pub origins: BTreeSet<String>,
}

impl Client {
    /// A confidential client with the defaults: PKCE required, ID tokens RS256, access tokens ES256.
    #[must_use]
    pub fn confidential(id: &str, secret: &str, redirect_uri: &str, scopes: &[&str]) -> Self {
        let auth = ClientAuth::Secret {
            secrets: vec![SecretHash::of(secret)],
            basic: true,
            post: true,
        };
        Self {
            auth,
            ..Self::public(id, redirect_uri, scopes)
        }
    }

    /// A public client with the defaults.
    #[must_use]
    pub fn public(id: &str, redirect_uri: &str, scopes: &[&str]) -> Self {
        Self {
            id: id.to_owned(),
            name: id.to_owned(),
            auth: ClientAuth::None,
            redirect_uris: vec![redirect_uri.to_owned()],
            post_logout_redirect_uris: Vec::new(),
            scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
            audience: None,
            pkce_required: true,
            id_token_alg: Algorithm::Rs256,
            access_token_alg: Algorithm::Es256,
            refuse_in_hold: false,
            refresh: true,
            may_introspect: false,
            upstreams: Vec::new(),
            backchannel_logout_uri: None,
            backchannel_logout_session_required: false,
            origins: BTreeSet::new(),
        }
    }

    /// Whether it proves who it is.
    #[must_use]
    pub const fn is_confidential(&self) -> bool {
        !matches!(self.auth, ClientAuth::None)
    }

    /// `aud` of its access tokens.
    #[must_use]
    pub fn audience(&self) -> &str {
        self.audience.as_deref().unwrap_or(&self.id)
    }
}

/// The IdP as an OpenID provider.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its configured id.
    pub id: UpstreamId,
    /// Its name where users choose.
    pub name: String,
    /// Its issuer URL, as it says it.
    pub issuer: String,
    /// Our client there.
    pub client_id: String,
    /// Our secret there.
    pub client_secret: Option<SecretString>,
    /// Scopes we ask for besides `openid`.
    pub scopes: Vec<String>,
    /// What its `sub`s are prefixed with; at most one upstream has none.
    pub subject_prefix: String,
    /// Whether a log-out here is a log-out there (by its `end_session_endpoint`).
    pub end_session: bool,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// The issuer, without a slash at the end.
    pub issuer: String,
    /// Relying parties by `client_id`.
    pub clients: BTreeMap<String, Client>,
    /// IdPs; the first one is the default.
    pub upstreams: Vec<Upstream>,
    /// Unknown `prompt` values are ignored instead of refused.
    pub ignore_unknown_prompt: bool,
    /// `acr` values the upstreams give, for discovery (RFC 9470 §7).
    pub acr_values: Vec<String>,
    /// An alias of the claim `recovery_scope` that is sent beside it (contract section 2, rule 4).
    pub alias: Option<String>,
    /// How long what an IdP publishes is believed.
    pub freshness: Freshness,
    base: String,
}

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsFault {
    /// The issuer is no URL, has a query or fragment, or is plain http and not on loopback.
    #[error("the issuer {0} must be an https URL without query or fragment (plain http only on loopback)")]
    Issuer(String),
    /// No upstream at all, or a client's is none of them.
    #[error("there is no identity provider {0}")]
    NoUpstream(String),
    /// Two upstreams whose subjects could be taken for one another (contract section 3).
    #[error(
        "subjects of the identity providers {0} and {1} could be taken for one another: give each its own prefix"
    )]
    Prefixes(String, String),
    /// A client asks for a word that is ours (ISS-9).
    #[error("the client {0} may not have the reserved scope {1}")]
    ReservedScope(String, String),
    /// A confidential-client rule.
    #[error("the client {0} has no usable secret, or a public client may not go without PKCE")]
    ClientSecret(String),
}

impl BrokerSettings {
    /// Settings, checked.
    ///
    /// # Errors
    /// Every [`SettingsFault`] there is.
    pub fn new(
        issuer: &str,
        clients: Vec<Client>,
        upstreams: Vec<Upstream>,
    ) -> Result<Self, Vec<SettingsFault>> {
        let issuer = issuer.trim_end_matches('/').to_owned();
        let mut faults = Vec::new();
        let base = issuer_path(&issuer).unwrap_or_else(|| {
            faults.push(SettingsFault::Issuer(issuer.clone()));
            String::new()
        });
        // Where relying parties stay at the IdP nobody logs in here: then there is no client either.
        if upstreams.is_empty() && !clients.is_empty() {
            faults.push(SettingsFault::NoUpstream("at all".to_owned()));
        }
        for (at, one) in upstreams.iter().enumerate() {
            for other in upstreams.iter().skip(at + 1) {
                let (a, b) = (&one.subject_prefix, &other.subject_prefix);
                // The empty prefix is told apart at log-in; two that extend each other could not be.
                if one.id == other.id
                    || a == b
                    || (!a.is_empty()
                        && !b.is_empty()
                        && (a.starts_with(b.as_str()) || b.starts_with(a.as_str())))
                {
                    faults.push(SettingsFault::Prefixes(one.id.to_string(), other.id.to_string()));
                }
            }
        }
        for client in &clients {
            faults.extend(client_faults(client, &upstreams));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let clients = clients.into_iter().map(|c| (c.id.clone(), c)).collect();
        Ok(Self {
            issuer,
            clients,
            upstreams,
            ignore_unknown_prompt: false,
            acr_values: Vec::new(),
            alias: None,
            freshness: Freshness::default(),
            base,
        })
    }

    /// The path of the issuer: empty, or `/…` without a slash at the end.
    #[must_use]
    pub fn base_path(&self) -> &str {
        &self.base
    }

    /// Whether the issuer is https, so that cookies are `Secure` and browsers told to stay on https.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.issuer.starts_with("https://")
    }

    /// A URL below the issuer.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    /// A client.
    #[must_use]
    pub fn client(&self, id: &str) -> Option<&Client> {
        self.clients.get(id)
    }

    /// An upstream.
    #[must_use]
    pub fn upstream(&self, id: &UpstreamId) -> Option<&Upstream> {
        self.upstreams.iter().find(|u| u.id == *id)
    }

    /// The upstreams of a client, of which its user chooses one.
    #[must_use]
    pub fn upstreams_of(&self, client: &Client) -> Vec<&Upstream> {
        if client.upstreams.is_empty() {
            return self.upstreams.iter().take(1).collect();
        }
        client
            .upstreams
            .iter()
            .filter_map(|id| self.upstream(id))
            .collect()
    }

    /// `sub` of our tokens: the IdP's, with its prefix. `None` for a `sub` that could be taken for another's.
    #[must_use]
    pub fn sub(&self, subject: &Subject) -> Option<String> {
        let upstream = self.upstream(&subject.upstream)?;
        let prefixed = format!("{}{}", upstream.subject_prefix, subject.sub);
        (self.subject(&prefixed).as_ref() == Some(subject)).then_some(prefixed)
    }

    /// Whose `sub` it is.
    #[must_use]
    pub fn subject(&self, sub: &str) -> Option<Subject> {
        let named = self.upstreams.iter().filter(|u| !u.subject_prefix.is_empty());
        let owner = named
            .into_iter()
            .find_map(|u| sub.strip_prefix(&u.subject_prefix).map(|rest| (u, rest)));
        let plain = || {
            self.upstreams
                .iter()
                .find(|u| u.subject_prefix.is_empty())
                .map(|u| (u, sub))
        };
        let (upstream, rest) = owner.or_else(plain)?;
        Subject::new(upstream.id.clone(), rest)
    }

    /// Scopes any client may ask for.
    #[must_use]
    pub fn scopes(&self) -> BTreeSet<String> {
        self.clients
            .values()
            .flat_map(|c| c.scopes.iter().cloned())
            .chain(["openid".to_owned()])
            .collect()
    }
}

fn issuer_path(issuer: &str) -> Option<String> {
    let url = Url::parse(issuer).ok()?;
    let loopback = match url.host()? {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(ip) => ip.is_loopback(),
        url::Host::Ipv6(ip) => ip.is_loopback(),
    };
    let fits = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && (url.scheme() == "https" || (url.scheme() == "http" && loopback));
    fits.then(|| url.path().trim_end_matches('/').to_owned())
}

fn client_faults(client: &Client, upstreams: &[Upstream]) -> Vec<SettingsFault> {
    let mut faults = Vec::new();
    if let Some(word) = client.scopes.iter().find(|s| is_reserved_scope(s)) {
        faults.push(SettingsFault::ReservedScope(client.id.clone(), word.clone()));
    }
    let unknown = client
        .upstreams
        .iter()
        .filter(|id| !upstreams.iter().any(|u| u.id == **id));
    faults.extend(unknown.map(|id| SettingsFault::NoUpstream(id.to_string())));
    let usable = match &client.auth {
        ClientAuth::None => client.pkce_required,
        ClientAuth::Secret { secrets, basic, post } => !secrets.is_empty() && (*basic || *post),
        ClientAuth::PrivateKey { algorithms, .. } => !algorithms.is_empty(),
    };
    if !usable {
        faults.push(SettingsFault::ClientSecret(client.id.clone()));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(id: &str, prefix: &str) -> Upstream {
        Upstream {
            id: UpstreamId::parse(id).unwrap(),
            name: id.to_owned(),
            issuer: "https://id.example".to_owned(),
            client_id: "reentry".to_owned(),
            client_secret: None,
            scopes: Vec::new(),
            subject_prefix: prefix.to_owned(),
            end_session: true,
        }
    }

    fn faults(issuer: &str, clients: Vec<Client>, upstreams: Vec<Upstream>) -> Vec<SettingsFault> {
        BrokerSettings::new(issuer, clients, upstreams)
            .err()
            .unwrap_or_default()
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for good in [
            "https://login.example",
            "https://login.example/t1/",
            "http://127.0.0.1:8080",
            "http://localhost/x",
            "http://[::1]:9",
        ] {
            assert!(
                faults(good, Vec::new(), vec![upstream("kc", "")]).is_empty(),
                "{good}"
            );
        }
        for bad in [
            "http://login.example",
            "http://127.0.0.1.evil.test",
            "ftp://x",
            "https://x/?a=b",
            "https://x/#f",
            "nothing",
            "https://u@x",
        ] {
            assert_eq!(
                faults(bad, Vec::new(), vec![upstream("kc", "")]).len(),
                1,
                "{bad}"
            );
        }
    }

    // Contract section 3, "Broker claims".
    #[test]
    fn subjects_of_two_idps_can_never_be_taken_for_one_another() {
        for (a, b) in [("", ""), ("x:", "x:"), ("x:", "x:y:"), ("xy", "x")] {
            assert!(
                !faults(
                    "https://l.example",
                    Vec::new(),
                    vec![upstream("a", a), upstream("b", b)]
                )
                .is_empty()
            );
        }
        let settings = BrokerSettings::new(
            "https://l.example",
            Vec::new(),
            vec![upstream("a", ""), upstream("b", "b:"), upstream("c", "c:")],
        )
        .unwrap();
        for (id, sub, ours) in [
            ("a", "alice", Some("alice")),
            ("b", "alice", Some("b:alice")),
            ("a", "b:alice", None),
            ("b", "c:alice", Some("b:c:alice")),
        ] {
            let subject = Subject::new(UpstreamId::parse(id).unwrap(), sub).unwrap();
            assert_eq!(settings.sub(&subject).as_deref(), ours);
            if let Some(ours) = ours {
                assert_eq!(settings.subject(ours), Some(subject));
            }
        }
    }

    #[test]
    fn iss9_reserved_words_and_clients_without_any_proof_are_refused() {
        let upstreams = || vec![upstream("kc", "")];
        for word in ["reentry-hold.read", "reentry-full", "recovery_scope"] {
            let client = Client::public("spa", "https://spa.example/cb", &[word]);
            assert!(matches!(
                faults("https://l.example", vec![client], upstreams()).as_slice(),
                [SettingsFault::ReservedScope(_, found)] if found == word
            ));
        }
        let mut open = Client::public("spa", "https://spa.example/cb", &[]);
        open.pkce_required = false;
        let mut lost = Client::public("lost", "https://spa.example/cb", &[]);
        lost.upstreams.extend(UpstreamId::parse("nowhere"));
        let both = faults("https://l.example", vec![open, lost], upstreams());
        assert_eq!(both.len(), 2, "every fault at once: {both:?}");
        let alone = Client::public("spa", "https://spa.example/cb", &[]);
        let without = faults("https://l.example", vec![alone], Vec::new());
        assert!(
            matches!(without.as_slice(), [SettingsFault::NoUpstream(_)]),
            "{without:?}"
        );
        assert!(
            faults("https://l.example", Vec::new(), Vec::new()).is_empty(),
            "token mode alone"
        );
    }
}
