//! The IdP as an OpenID provider: where a browser is sent, and what comes back, checked.
//!
//! Everything the IdP says is believed only out of a verified ID token: signature, issuer, audience, nonce, expiry. Its
//! metadata and keys are kept, and fetched again after a while, or at once (but not more often than every few seconds)
//! when a token names a key that is not known. While it is down, what is known stays in use.

mod prove;
mod token;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthenticationFlow, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod,
    CoreGrantType, CoreIdToken, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType,
};
use openidconnect::{
    AccessToken, AdditionalProviderMetadata, AuthorizationCode, ClientId, ClientSecret, CsrfToken, IssuerUrl,
    Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata, RedirectUrl,
    RequestTokenError, Scope, TokenResponse,
};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use url::Url;

use crate::domain::subject::UpstreamId;
use crate::domain::time::Timestamp;
use crate::oidc::authorize::AuthorizeRequest;
use crate::oidc::settings::Upstream;
use crate::oidc::transport::Transport;

/// How long what an IdP publishes about itself is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Metadata and keys are used so long without asking again.
    pub fresh: Duration,
    /// Between two fetches because of an unknown key, or after a failed one.
    pub pause: Duration,
    /// While the IdP does not answer, or publishes no key, what is known of it is used so long and no longer: a key that
    /// it has withdrawn must not open the door for ever.
    pub keep: Duration,
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            fresh: Duration::from_hours(1),
            pause: Duration::from_secs(5),
            keep: Duration::from_hours(24),
        }
    }
}

/// How long everybody who waits gets the answer of the one who asked in vain.
const FAILED: Duration = Duration::from_secs(1);

/// What an IdP's metadata says beside the standard members the library reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Extra {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end_session_endpoint: Option<Url>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for Extra {}

type Metadata = ProviderMetadata<
    Extra,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// Why an IdP did not log anybody in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamFault {
    /// No answer, none in time, or none that is OpenID Connect. It may be better later.
    #[error("the identity provider cannot be reached: {0}")]
    Unavailable(String),
    /// It refuses the code, or our client.
    #[error("the identity provider refuses: {0}")]
    Refused(String),
    /// Its answer is not what was asked for: another issuer, nonce, audience; a signature that does not verify.
    #[error("the identity provider's answer is not valid: {0}")]
    Invalid(String),
}

/// A log-in that begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Where the browser goes.
    pub url: String,
    /// The nonce that has to come back.
    pub nonce: String,
    /// The PKCE verifier.
    pub verifier: String,
}

/// A log-in that ended: what a verified ID token says.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// `sub`.
    pub sub: String,
    /// `sid`: the IdP's session.
    pub sid: Option<String>,
    /// `auth_time`, by our clock where the IdP's is ahead.
    pub auth_time: Option<Timestamp>,
    /// `acr`.
    pub acr: Option<String>,
    /// `amr`.
    pub amr: Vec<String>,
    /// Every claim.
    pub claims: Map<String, Value>,
    /// The token itself, for logging out.
    pub id_token: String,
}

/// What is remembered of one IdP.
struct Known {
    metadata: Arc<Metadata>,
    fetched: Instant,
}

#[derive(Default)]
struct Memory {
    known: Option<Known>,
    tried: Option<Instant>,
    failed: Option<(Instant, UpstreamFault)>,
}

struct Slot {
    upstream: Upstream,
    memory: Mutex<Memory>,
}

/// Every IdP.
pub struct Upstreams {
    slots: BTreeMap<UpstreamId, Slot>,
    transport: Transport,
    freshness: Freshness,
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.slots.keys()).finish()
    }
}

impl Upstreams {
    /// The IdPs of the settings; `builder` brings trust anchors. Redirects are never followed.
    ///
    /// # Errors
    /// A client that cannot be built (TLS).
    pub fn new(
        upstreams: &[Upstream],
        builder: reqwest::ClientBuilder,
        freshness: Freshness,
    ) -> Result<Self, reqwest::Error> {
        let slot = |u: &Upstream| {
            (
                u.id.clone(),
                Slot {
                    upstream: u.clone(),
                    memory: Mutex::default(),
                },
            )
        };
        Ok(Self {
            slots: upstreams.iter().map(slot).collect(),
            transport: Transport::new(builder)?,
            freshness,
        })
    }

    fn slot(&self, id: &UpstreamId) -> Result<&Slot, UpstreamFault> {
        self.slots
            .get(id)
            .ok_or_else(|| UpstreamFault::Invalid(format!("{id} is not configured")))
    }

    /// Metadata and keys; `stale` is what turned out not to know a key.
    async fn metadata(
        &self,
        slot: &Slot,
        stale: Option<&Arc<Metadata>>,
    ) -> Result<Arc<Metadata>, UpstreamFault> {
        let mut memory = slot.memory.lock().await;
        let Freshness { fresh, pause, keep } = self.freshness;
        let paused = memory.tried.is_some_and(|at| at.elapsed() < pause);
        if memory.known.as_ref().is_some_and(|k| k.fetched.elapsed() >= keep) {
            memory.known = None;
        }
        if let Some(known) = &memory.known {
            let outdated =
                known.fetched.elapsed() >= fresh || stale.is_some_and(|s| Arc::ptr_eq(s, &known.metadata));
            if !outdated || paused {
                return Ok(Arc::clone(&known.metadata));
            }
        }
        if let Some((_, fault)) = memory.failed.as_ref().filter(|(at, _)| at.elapsed() < FAILED)
            && memory.known.is_none()
        {
            return Err(fault.clone());
        }
        memory.tried = memory.known.is_some().then(Instant::now);
        match self.discover(&slot.upstream).await {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                memory.known = Some(Known {
                    metadata: Arc::clone(&metadata),
                    fetched: Instant::now(),
                });
                Ok(metadata)
            }
            Err(fault) => {
                tracing::warn!(upstream = %slot.upstream.id, %fault, "metadata of the identity provider");
                memory.failed = Some((Instant::now(), fault.clone()));
                memory
                    .known
                    .as_ref()
                    .map(|k| Arc::clone(&k.metadata))
                    .ok_or(fault)
            }
        }
    }

    async fn discover(&self, upstream: &Upstream) -> Result<Metadata, UpstreamFault> {
        let issuer =
            IssuerUrl::new(upstream.issuer.clone()).map_err(|e| UpstreamFault::Invalid(e.to_string()))?;
        let found = Metadata::discover_async(issuer, &self.transport)
            .await
            .map_err(|e| UpstreamFault::Unavailable(describe(&e)))?;
        if found.jwks().keys().is_empty() {
            return Err(UpstreamFault::Unavailable(
                "it publishes no signing key".to_owned(),
            ));
        }
        Ok(found)
    }

    /// Begins a log-in: PKCE, nonce, our `state`, and what the client asked for (contract section 4). `again` adds
    /// `prompt=login`.
    ///
    /// # Errors
    /// [`UpstreamFault`].
    pub async fn begin(
        &self,
        id: &UpstreamId,
        redirect_uri: &str,
        state: &str,
        request: Option<&AuthorizeRequest>,
        again: bool,
    ) -> Result<Begun, UpstreamFault> {
        let slot = self.slot(id)?;
        let metadata = self.metadata(slot, None).await?;
        let redirect =
            RedirectUrl::new(redirect_uri.to_owned()).map_err(|e| UpstreamFault::Invalid(e.to_string()))?;
        let client = CoreClient::from_provider_metadata(
            Metadata::clone(&metadata),
            ClientId::new(slot.upstream.client_id.clone()),
            secret(&slot.upstream),
        )
        .set_redirect_uri(redirect);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let state = state.to_owned();
        let mut asked = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                move || CsrfToken::new(state),
                Nonce::new_random,
            )
            .add_scopes(
                slot.upstream
                    .scopes
                    .iter()
                    .filter(|s| *s != "openid")
                    .cloned()
                    .map(Scope::new),
            )
            .set_pkce_challenge(challenge);
        for (name, value) in passed_on(request, again) {
            asked = asked.add_extra_param(name, value);
        }
        let (url, _, nonce) = asked.url();
        Ok(Begun {
            url: url.into(),
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret(),
        })
    }

    /// Whether the `iss` of an authorization response is this IdP's (RFC 9207 §2.4: it must be there when announced).
    ///
    /// # Errors
    /// [`UpstreamFault::Invalid`].
    pub async fn check_issuer(&self, id: &UpstreamId, iss: Option<&str>) -> Result<(), UpstreamFault> {
        let slot = self.slot(id)?;
        let announced = match self.metadata(slot, None).await {
            Ok(metadata) => {
                metadata
                    .additional_metadata()
                    .authorization_response_iss_parameter_supported
            }
            Err(_) => false,
        };
        match iss {
            Some(iss) if iss == slot.upstream.issuer => Ok(()),
            None if !announced => Ok(()),
            Some(_) => Err(UpstreamFault::Invalid(
                "the answer names another issuer".to_owned(),
            )),
            None => Err(UpstreamFault::Invalid("the answer names no issuer".to_owned())),
        }
    }

    /// Ends a log-in: the code becomes an ID token, which is checked at `now`.
    ///
    /// # Errors
    /// [`UpstreamFault`].
    pub async fn finish(
        &self,
        id: &UpstreamId,
        code: &str,
        begun: &Begun,
        redirect_uri: &str,
        now: Timestamp,
    ) -> Result<Answer, UpstreamFault> {
        let slot = self.slot(id)?;
        let metadata = self.metadata(slot, None).await?;
        let (id_token, access) = self
            .exchange(slot, &metadata, code, &begun.verifier, redirect_uri)
            .await?;
        let nonce = Nonce::new(begun.nonce.clone());
        match token::verify(&slot.upstream, &metadata, &id_token, &access, &nonce, now) {
            Err(token::Verdict::UnknownKey) => {
                let newer = self.metadata(slot, Some(&metadata)).await?;
                token::verify(&slot.upstream, &newer, &id_token, &access, &nonce, now)
            }
            verdict => verdict,
        }
        .map_err(|verdict| UpstreamFault::Invalid(verdict.to_string()))?;
        token::answer(&id_token.to_string(), now)
    }

    async fn exchange(
        &self,
        slot: &Slot,
        metadata: &Metadata,
        code: &str,
        verifier: &str,
        redirect_uri: &str,
    ) -> Result<(CoreIdToken, AccessToken), UpstreamFault> {
        let invalid = |e: &dyn std::fmt::Display| UpstreamFault::Invalid(e.to_string());
        let redirect = RedirectUrl::new(redirect_uri.to_owned()).map_err(|e| invalid(&e))?;
        let client = CoreClient::from_provider_metadata(
            metadata.clone(),
            ClientId::new(slot.upstream.client_id.clone()),
            secret(&slot.upstream),
        )
        .set_redirect_uri(redirect);
        let exchange = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .map_err(|e| invalid(&e))?;
        let response = exchange
            .set_pkce_verifier(PkceCodeVerifier::new(verifier.to_owned()))
            .request_async(&self.transport)
            .await
            .map_err(|e| match e {
                RequestTokenError::ServerResponse(refusal) => UpstreamFault::Refused(refusal.to_string()),
                other => UpstreamFault::Unavailable(describe(&other)),
            })?;
        let token = response.id_token().cloned();
        let token =
            token.ok_or_else(|| UpstreamFault::Invalid("there is no ID token in the answer".to_owned()))?;
        Ok((token, response.access_token().clone()))
    }

    /// Where a browser logs out of the IdP; `None` when it has no such place, or is not to be told.
    pub async fn end_session(
        &self,
        id: &UpstreamId,
        id_token: &str,
        back: &str,
        state: &str,
    ) -> Option<String> {
        let slot = self.slot(id).ok().filter(|s| s.upstream.end_session)?;
        let metadata = self.metadata(slot, None).await.ok()?;
        let mut url = metadata.additional_metadata().end_session_endpoint.clone()?;
        url.query_pairs_mut()
            .append_pair("id_token_hint", id_token)
            .append_pair("client_id", &slot.upstream.client_id)
            .append_pair("post_logout_redirect_uri", back)
            .append_pair("state", state);
        Some(url.into())
    }
}

fn secret(upstream: &Upstream) -> Option<ClientSecret> {
    upstream
        .client_secret
        .as_ref()
        .map(|s| ClientSecret::new(s.expose_secret().to_owned()))
}

/// An error with its causes, for the log.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// What of a request goes to the IdP.
fn passed_on(request: Option<&AuthorizeRequest>, again: bool) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    let Some(request) = request else {
        if again {
            pairs.push(("prompt", "login".to_owned()));
        }
        return pairs;
    };
    let mut prompts: Vec<&str> = request.prompt.iter().map(|p| p.as_str()).collect();
    if again && !prompts.contains(&"login") {
        prompts.insert(0, "login");
    }
    let acr_values = request.acr_values.join(" ");
    let all = [
        ("prompt", Some(prompts.join(" "))),
        ("max_age", request.max_age.map(|m| m.to_string())),
        ("acr_values", Some(acr_values)),
        ("login_hint", request.login_hint.clone()),
        ("ui_locales", request.ui_locales.clone()),
        ("claims", request.claims.clone()),
    ];
    pairs.extend(
        all.into_iter()
            .filter_map(|(n, v)| Some((n, v.filter(|v| !v.is_empty())?))),
    );
    pairs
}
