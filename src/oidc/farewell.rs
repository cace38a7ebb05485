//! Logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.4): one for each relying party of a session that ended.

use serde_json::json;

use crate::domain::time::{Span, Timestamp};
use crate::oidc::settings::{BrokerSettings, Client};
use crate::ports::signer::{Signer, SignerError};

/// `typ` of a logout token: it must never pass for another token.
pub const TYP: &str = "logout+jwt";
/// How long one is valid; §2.4 recommends at most two minutes.
const LIFE: Span = Span::from_mins(2);
/// The member of `events` that makes it one.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A logout token for `client` about its session `sid` of `sub`.
///
/// # Errors
/// [`SignerError`].
pub async fn token(
    settings: &BrokerSettings,
    signer: &dyn Signer,
    client: &Client,
    (sub, sid): (&str, &str),
    jti: &str,
    now: Timestamp,
) -> Result<String, SignerError> {
    let claims = json!({
        "iss": settings.issuer,
        "aud": client.id,
        "sub": sub,
        "sid": sid,
        "jti": jti,
        "iat": now.secs(),
        "exp": now.plus(LIFE).secs(),
        "events": { EVENT: {} },
    });
    signer
        .sign(client.id_token_alg, TYP, claims.to_string().as_bytes())
        .await
}
