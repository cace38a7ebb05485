//! Logout tokens (`OpenID` Connect Back-Channel Logout 1.0 §2.6).
//!
//! A token that passes says that sessions of an account were ended, and they end here before it is answered (section 2.7).
//! One that names a session ends that one, one that names only an account ends all of it; families that outlive their
//! session are spared unless the token says otherwise. After "sign out other devices" a reset has just happened, so it
//! wakes the poller too. Sent again it ends nothing more: sessions of later log-ins are not meant.

use serde_json::Value;

use super::jwt;
use crate::domain::session::Withdrawal;
use crate::domain::time::{Span, Timestamp};
use crate::idp::keycloak::Keycloak;
use crate::ports::hook::{Heeded, HookCall, HookRefusal};
use crate::ports::idp::{Heard, Line};

/// The event that a logout token is about.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// A token issued longer ago than this is refused (§2.6, step 9: recently issued), whatever its `exp`.
const RECENT: Span = Span::from_mins(5);

/// Proves a logout token, which is the call's body.
pub(super) async fn heed(
    keycloak: &Keycloak,
    call: &HookCall<'_>,
    now: Timestamp,
) -> Result<Heeded, HookRefusal> {
    let Some(client) = &keycloak.hooks.broker_client else {
        return Err(HookRefusal::NotConfigured);
    };
    let malformed = |why: &str| HookRefusal::Malformed(why.to_owned());
    let token = std::str::from_utf8(call.body).map_err(|_| malformed("logout_token is not UTF-8"))?;
    if token.is_empty() {
        return Err(malformed("logout_token is missing"));
    }
    let token = jwt::verify(keycloak, token, client, now).await?;
    token.unexpired(now)?;
    let unproven = |why: &str| HookRefusal::Unproven(why.to_owned());
    // Keycloak writes `JWT` there and its own kind into the payload; a newer one may write what §2.4 recommends.
    if !matches!(token.typ.as_deref(), None | Some("JWT" | "logout+jwt")) {
        return Err(unproven("the token is of another kind"));
    }
    if token.text("typ").is_some_and(|kind| kind != "Logout") {
        return Err(unproven("the token is of another kind"));
    }
    let event = token.claims.get("events").and_then(|events| events.get(EVENT));
    if !event.is_some_and(Value::is_object) {
        return Err(unproven("the token is not about a logout"));
    }
    if token.claims.contains_key("nonce") {
        return Err(unproven("the token has a `nonce`, as an ID token has"));
    }
    let Some(at) = token.instant("iat").filter(|iat| now.since(*iat) <= RECENT) else {
        return Err(unproven("the token was issued too long ago"));
    };
    let (sub, sid) = (token.text("sub"), token.text("sid"));
    if sub.is_none() && sid.is_none() {
        return Err(malformed("the token names neither `sub` nor `sid`"));
    }
    let Some(jti) = token.text("jti").filter(|jti| jti.len() <= 255) else {
        return Err(malformed("the token has no `jti`"));
    };
    let id = format!("logout:{jti}");
    if keycloak.hooks.seen.knows(&id) {
        return Err(HookRefusal::Replayed("this token was heeded before".to_owned()));
    }
    // Sessions are found by their account. Keycloak names it always; without one the log has to say whose it was.
    let Some(sub) = sub else {
        keycloak.hooks.heeded(&id);
        return Ok(Heeded::Wake { sub: None });
    };
    let what = meant(event, sid, at);
    Ok(Heeded::Told(Line {
        sub: sub.to_owned(),
        heard: Heard::Withdrawn { id, what },
    }))
}

/// What the token says has ended.
fn meant(event: Option<&Value>, sid: Option<&str>, at: Timestamp) -> Withdrawal {
    let offline = event.and_then(|e| e.get("revoke_offline_access")) == Some(&Value::Bool(true));
    match sid {
        Some(sid) => Withdrawal::Session {
            sid: sid.to_owned(),
            at,
            offline,
        },
        None => Withdrawal::Sessions { at, offline },
    }
}
