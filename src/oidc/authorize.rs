//! The authorization request: what was asked for, and whether it may be asked for.
//!
//! Errors go to the redirect URI once client and redirect URI are known to belong together, and nowhere else before
//! (RFC 6749 §4.1.2.1, OIDC Core §3.1.2.6). Every answer names the issuer (RFC 9207).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::domain::session::Session;
use crate::domain::subject::UpstreamId;
use crate::domain::time::{Now, Span, Timestamp};
use crate::oidc::claims_request::{self, ClaimsRequest};
use crate::oidc::params::Params;
use crate::oidc::settings::{BrokerSettings, Client, is_reserved_scope};

/// Longest `state`, `nonce`, `login_hint` and the like, in octets.
const MAX_VALUE: usize = 1024;
/// Longest `claims`, in octets.
const MAX_CLAIMS: usize = 4096;
/// The difference between our clock and an IdP's that a freshness check forgives.
pub const SKEW: Span = Span::from_secs(30);

/// A `prompt` value (OIDC Core §3.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// No user interface at all.
    None,
    /// Log in again.
    Login,
    /// Ask for consent again (the IdP does).
    Consent,
    /// Choose an account (the IdP shows them).
    SelectAccount,
}

impl Prompt {
    /// The value as it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Login => "login",
            Self::Consent => "consent",
            Self::SelectAccount => "select_account",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::None, Self::Login, Self::Consent, Self::SelectAccount]
            .into_iter()
            .find(|p| p.as_str() == word)
    }
}

/// A request that may be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizeRequest {
    /// The client.
    pub client: String,
    /// Where the answer goes: one of the client's, verbatim.
    pub redirect_uri: String,
    /// `state`, verbatim.
    pub state: Option<String>,
    /// `nonce`, verbatim.
    pub nonce: Option<String>,
    /// Scopes that the client may have, whole.
    pub scopes: BTreeSet<String>,
    /// PKCE challenge (S256).
    pub challenge: Option<String>,
    /// `prompt`.
    pub prompt: BTreeSet<Prompt>,
    /// `max_age` in seconds.
    pub max_age: Option<u32>,
    /// `acr_values`, a wish.
    pub acr_values: Vec<String>,
    /// Values of which the `acr` must be one: an essential claim.
    pub essential_acr: Option<Vec<String>>,
    /// The `sub` of our tokens that it must be, from `id_token_hint` or the claims request.
    pub sub: Option<String>,
    /// `login_hint`, for the IdP.
    pub login_hint: Option<String>,
    /// `ui_locales`, for the IdP.
    pub ui_locales: Option<String>,
    /// The claims request as it goes to the IdP: without `sub` and without our words.
    pub claims: Option<String>,
    /// The IdP that was chosen, one of the client's.
    #[serde(default)]
    pub upstream: Option<UpstreamId>,
}

/// Where an answer to an authorization request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnTo {
    /// The redirect URI.
    pub redirect_uri: String,
    /// `state`, verbatim.
    pub state: Option<String>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Client or redirect URI are not known to belong together: shown to the person, never redirected.
    Page(&'static str),
    /// Told to the client.
    Redirect {
        /// Where.
        to: ReturnTo,
        /// The error code.
        error: &'static str,
        /// For the developer.
        description: String,
    },
}

impl AuthorizeRequest {
    /// Where its answer goes.
    #[must_use]
    pub fn return_to(&self) -> ReturnTo {
        ReturnTo {
            redirect_uri: self.redirect_uri.clone(),
            state: self.state.clone(),
        }
    }

    /// Whether nothing may be shown.
    #[must_use]
    pub fn silent(&self) -> bool {
        self.prompt.contains(&Prompt::None)
    }

    /// Whether a session that is there already does not do.
    #[must_use]
    pub fn wants_interaction(&self) -> bool {
        !self.prompt.is_empty() && !self.silent()
    }
}

impl ReturnTo {
    /// The URL of a successful answer.
    #[must_use]
    pub fn code(&self, code: &str, issuer: &str) -> Option<String> {
        self.with(&[("code", code)], issuer)
    }

    /// The URL of an error.
    #[must_use]
    pub fn error(&self, error: &str, description: &str, issuer: &str) -> Option<String> {
        self.with(&[("error", error), ("error_description", description)], issuer)
    }

    fn with(&self, pairs: &[(&str, &str)], issuer: &str) -> Option<String> {
        let mut url = Url::parse(&self.redirect_uri).ok()?;
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(pairs);
            if let Some(state) = &self.state {
                query.append_pair("state", state);
            }
            query.append_pair("iss", issuer);
        }
        Some(url.into())
    }
}

/// Reads a request. `hint` gives the `sub` of a valid `id_token_hint`.
///
/// # Errors
/// [`Refused`].
pub fn parse(
    params: &Params,
    settings: &BrokerSettings,
    hint: impl Fn(&str) -> Option<String>,
) -> Result<AuthorizeRequest, Refused> {
    let (client, redirect_uri) = who(params, settings)?;
    let to = ReturnTo {
        redirect_uri: redirect_uri.to_owned(),
        state: params.get("state").map(str::to_owned),
    };
    details(params, settings, client, &to, hint).map_err(|(error, description)| {
        // A state that was sent twice belongs to nobody.
        let state = to.state.clone().filter(|_| params.all("state").count() == 1);
        Refused::Redirect {
            to: ReturnTo { state, ..to.clone() },
            error,
            description,
        }
    })
}

/// The client and its redirect URI; only an exact match will do (RFC 9700 §2.1).
fn who<'a>(params: &'a Params, settings: &'a BrokerSettings) -> Result<(&'a Client, &'a str), Refused> {
    let one = |name: &'static str| {
        (params.all(name).count() == 1)
            .then(|| params.get(name))
            .flatten()
    };
    let client = one("client_id").and_then(|id| settings.client(id));
    let client = client.ok_or(Refused::Page("The application that sent you here is not known."))?;
    let uri = one("redirect_uri").filter(|uri| client.redirect_uris.iter().any(|known| known == uri));
    let uri = uri.ok_or(Refused::Page(
        "The application that sent you here gave an address that is not its own.",
    ))?;
    Ok((client, uri))
}

type Fault = (&'static str, String);

fn fault<T>(error: &'static str, description: impl Into<String>) -> Result<T, Fault> {
    Err((error, description.into()))
}

fn details(
    params: &Params,
    settings: &BrokerSettings,
    client: &Client,
    to: &ReturnTo,
    hint: impl Fn(&str) -> Option<String>,
) -> Result<AuthorizeRequest, Fault> {
    if let Err(twice) = params.clone().unique() {
        return fault("invalid_request", twice.to_string());
    }
    flow_kind(params)?;
    for (name, most) in [
        ("state", MAX_VALUE),
        ("nonce", MAX_VALUE),
        ("login_hint", MAX_VALUE),
        ("ui_locales", MAX_VALUE),
        ("acr_values", MAX_VALUE),
        ("claims", MAX_CLAIMS),
    ] {
        if params.get(name).is_some_and(|v| v.len() > most) {
            return fault("invalid_request", format!("{name} is longer than {most} octets"));
        }
    }
    let claims = match params.get("claims") {
        Some(text) => claims_request::parse(text).map_err(|e| ("invalid_request", e.to_string()))?,
        None => ClaimsRequest::default(),
    };
    let hinted = match params.get("id_token_hint") {
        Some(token) => Some(hint(token).ok_or_else(|| bad("id_token_hint is not one of our ID tokens"))?),
        None => None,
    };
    if claims.sub.is_some() && hinted.is_some() && claims.sub != hinted {
        return fault(
            "invalid_request",
            "id_token_hint and the claims request name different people",
        );
    }
    Ok(AuthorizeRequest {
        client: client.id.clone(),
        redirect_uri: to.redirect_uri.clone(),
        state: to.state.clone(),
        nonce: params.get("nonce").map(str::to_owned),
        scopes: scopes(params, client)?,
        challenge: challenge(params, client)?,
        prompt: prompt(params, settings)?,
        max_age: max_age(params)?,
        acr_values: params
            .words("acr_values")
            .into_iter()
            .map(str::to_owned)
            .collect(),
        essential_acr: claims.essential_acr,
        sub: hinted.or(claims.sub),
        login_hint: params.get("login_hint").map(str::to_owned),
        ui_locales: params.get("ui_locales").map(str::to_owned),
        claims: claims.upstream,
        upstream: upstream(params, settings, client)?,
    })
}

/// The IdP that was chosen on our page, or by the client: its own ones only.
fn upstream(
    params: &Params,
    settings: &BrokerSettings,
    client: &Client,
) -> Result<Option<UpstreamId>, Fault> {
    let Some(wanted) = params.get("upstream") else {
        return Ok(None);
    };
    let known = settings
        .upstreams_of(client)
        .into_iter()
        .find(|u| u.id.as_str() == wanted);
    let known = known.ok_or_else(|| bad("upstream is not one of this client's"))?;
    Ok(Some(known.id.clone()))
}

fn bad(description: &str) -> Fault {
    ("invalid_request", description.to_owned())
}

/// `response_type`, `response_mode`, and what is not supported by a code of its own (OIDC Core §6).
fn flow_kind(params: &Params) -> Result<(), Fault> {
    if params.get("request").is_some() {
        return fault("request_not_supported", "request objects are not supported");
    }
    if params.get("request_uri").is_some() {
        return fault("request_uri_not_supported", "request_uri is not supported");
    }
    if params.get("registration").is_some() {
        return fault(
            "registration_not_supported",
            "the registration parameter is not supported",
        );
    }
    match params.get("response_type") {
        None => return fault("invalid_request", "response_type is missing"),
        Some("code") => {}
        Some(_) => {
            return fault(
                "unsupported_response_type",
                "only response_type=code is supported",
            );
        }
    }
    match params.get("response_mode") {
        None | Some("query") => Ok(()),
        Some(_) => fault("invalid_request", "only response_mode=query is supported"),
    }
}

/// What the client may have of what it asks for. Words that are not its own are left out (OIDC Core §3.1.2.1); words
/// that are ours are refused (ISS-9).
fn scopes(params: &Params, client: &Client) -> Result<BTreeSet<String>, Fault> {
    let words = params.words("scope");
    if let Some(word) = words.iter().find(|w| is_reserved_scope(w)) {
        return fault("invalid_scope", format!("the scope {word} is reserved"));
    }
    let may = |w: &&str| *w == "openid" || client.scopes.contains(*w);
    let granted: BTreeSet<String> = words.into_iter().filter(may).map(str::to_owned).collect();
    if granted.is_empty() {
        return fault("invalid_scope", "none of the requested scopes is this client's");
    }
    Ok(granted)
}

fn challenge(params: &Params, client: &Client) -> Result<Option<String>, Fault> {
    let Some(challenge) = params.get("code_challenge") else {
        if client.pkce_required {
            return fault(
                "invalid_request",
                "code_challenge is missing: this client has to use PKCE",
            );
        }
        if params.get("code_challenge_method").is_some() {
            return fault("invalid_request", "code_challenge_method without code_challenge");
        }
        return Ok(None);
    };
    if params.get("code_challenge_method") != Some("S256") {
        return fault("invalid_request", "only code_challenge_method=S256 is supported");
    }
    let fits = challenge.len() == 43
        && challenge
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !fits {
        return fault("invalid_request", "code_challenge is not an S256 challenge");
    }
    Ok(Some(challenge.to_owned()))
}

fn prompt(params: &Params, settings: &BrokerSettings) -> Result<BTreeSet<Prompt>, Fault> {
    let mut prompts = BTreeSet::new();
    for word in params.words("prompt") {
        match Prompt::parse(word) {
            Some(prompt) => {
                prompts.insert(prompt);
            }
            None if settings.ignore_unknown_prompt => {}
            None => return fault("invalid_request", format!("prompt value {word} is not supported")),
        }
    }
    if prompts.contains(&Prompt::None) && prompts.len() > 1 {
        return fault("invalid_request", "prompt=none stands alone");
    }
    Ok(prompts)
}

fn max_age(params: &Params) -> Result<Option<u32>, Fault> {
    match params.get("max_age") {
        None => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| bad("max_age is not a number of seconds")),
    }
}

/// Whether a session answers a request as it is; the error code otherwise. `forgive` is what a difference between our
/// clock and the IdP's may be: nothing for a session that is there already, [`SKEW`] right after a log-in.
///
/// # Errors
/// `login_required` or `unmet_authentication_requirements`: a fresh log-in may do better.
pub fn satisfies(
    request: &AuthorizeRequest,
    session: &Session,
    sub: &str,
    now: Now,
    forgive: Span,
) -> Result<(), &'static str> {
    if request.sub.as_deref().is_some_and(|wanted| wanted != sub) {
        return Err("login_required");
    }
    if let Some(max_age) = request.max_age {
        let oldest = now
            .latest()
            .minus(Span::from_secs(i64::from(max_age)))
            .minus(forgive);
        // What the IdP does not say cannot be vouched for (contract section 4).
        if session.auth_time.is_none_or(|at| at < oldest) {
            return Err("login_required");
        }
    }
    acr_met(request, session.acr.as_deref())
}

/// Whether a log-in that was asked for with `prompt=login` really happened after `asked`.
///
/// # Errors
/// `login_required`: the IdP did not say, or said that it was earlier (contract section 4).
pub fn fresh(request: &AuthorizeRequest, session: &Session, asked: Timestamp) -> Result<(), &'static str> {
    let wanted = request.prompt.contains(&Prompt::Login) || request.max_age == Some(0);
    let proven = session.auth_time.is_some_and(|at| at >= asked.minus(SKEW));
    if wanted && !proven {
        Err("login_required")
    } else {
        Ok(())
    }
}

/// Whether an essential `acr` is met (OIDC Core §5.5.1.1).
///
/// # Errors
/// `unmet_authentication_requirements`.
pub fn acr_met(request: &AuthorizeRequest, acr: Option<&str>) -> Result<(), &'static str> {
    let unmet = request.essential_acr.as_ref().is_some_and(|wanted| {
        let listed = |acr: &str| wanted.is_empty() || wanted.iter().any(|w| w == acr);
        !acr.is_some_and(listed)
    });
    if unmet {
        Err("unmet_authentication_requirements")
    } else {
        Ok(())
    }
}
