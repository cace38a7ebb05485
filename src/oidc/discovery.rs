//! The metadata document: OIDC Discovery §3, RFC 8414 §2, RFC 9207, and ours. It lists only what is really there.

use serde_json::{Value, json};

use crate::domain::policy::Policy;
use crate::oidc::Broker;
use crate::oidc::assertion::Alg;
use crate::ports::signer::Signer as _;

/// `prompt` values that mean something here; once listed, all of them are (OIDC Prompt Create §4).
pub const PROMPTS: [&str; 4] = ["none", "login", "consent", "select_account"];

/// Claims our tokens have whatever the IdP says.
const CLAIMS: [&str; 14] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "sid",
    "auth_time",
    "acr",
    "amr",
    "nonce",
    "recovery_scope",
    "recovery_until",
    "recovery_epoch",
    "recovery_ref",
];

/// The document.
#[must_use]
pub fn document(broker: &Broker, policy: &Policy) -> Value {
    let s = &broker.settings;
    let algorithms: Vec<&str> = broker.keys.algorithms().iter().map(|a| a.as_str()).collect();
    let assertions = Alg::ALL.map(Alg::as_str);
    let claims: Vec<&str> = CLAIMS
        .into_iter()
        .chain(["roles", "groups"])
        .chain(policy.claims.iter().map(String::as_str))
        .collect();
    let levels: Vec<String> = std::iter::once("full".to_owned())
        .chain(policy.ceilings().iter().map(ToString::to_string))
        .collect();
    let mut document = json!({
        "issuer": s.issuer,
        "authorization_endpoint": s.url("/authorize"),
        "token_endpoint": s.url("/token"),
        "userinfo_endpoint": s.url("/userinfo"),
        "jwks_uri": s.url("/jwks"),
        "introspection_endpoint": s.url("/introspect"),
        "revocation_endpoint": s.url("/revoke"),
        "end_session_endpoint": s.url("/logout"),
        "scopes_supported": s.scopes(),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
        "token_endpoint_auth_signing_alg_values_supported": assertions,
        "introspection_endpoint_auth_signing_alg_values_supported": assertions,
        "revocation_endpoint_auth_signing_alg_values_supported": assertions,
        "code_challenge_methods_supported": ["S256"],
        "claim_types_supported": ["normal"],
        "claims_supported": claims,
        "claims_parameter_supported": true,
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
        "backchannel_logout_supported": true,
        "backchannel_logout_session_supported": true,
        "prompt_values_supported": PROMPTS,
        "authorization_response_iss_parameter_supported": true,
        "recovery_scope_values_supported": levels,
        "recovery_info_uri": s.url("/account"),
    });
    if let Some(members) = document.as_object_mut().filter(|_| !s.acr_values.is_empty()) {
        members.insert("acr_values_supported".to_owned(), json!(s.acr_values));
    }
    document
}
