//! Hooks that Keycloak calls. Each is proven; what says that sessions have ended is believed, since it only restricts, and
//! all else only makes us look for ourselves.
//!
//! * **Back-channel logout** of the broker's client: sent when sessions are ended by an administrator or by "sign out
//!   other devices" after a reset. The realm signs it; see `logout`.
//! * **Phase Two's `keycloak-events`**, an extension: one POST per event, signed with a shared secret (HMAC-SHA256 over
//!   the body, lower-case hexadecimal, in `X-Keycloak-Signature`) or with the realm's key (a bearer token that names
//!   the body's SHA-256). It loses events while we are away and its HMAC has no time in it, so it is worth no more than
//!   a wake-up: the poller reads the log, which has everything. HMAC-SHA1, which it can be set to, is refused.
//! * The **generic hook** ([`crate::idp::generic`]) is the same for every kind of IdP.
//!
//! What was heeded once is remembered for a while by this process alone: a repetition to another replica wakes that
//! one too, which costs one poll and changes nothing.

mod jwt;
mod logout;
mod seen;

use aws_lc_rs::{digest, hmac};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use self::seen::Seen;
use super::{Keycloak, events};
use crate::domain::json;
use crate::domain::subject::Subject;
use crate::domain::time::{Span, Timestamp};
use crate::idp::generic;
use crate::ports::hook::{Heeded, HookCall, HookKind, HookRefusal};

/// The extension gives up repeating after 15 minutes; what is older, or from the future, was recorded by somebody.
const WINDOW: Span = Span::from_mins(20);

/// Which hooks are open, and what proves a call.
#[derive(Debug, Clone, Default)]
pub struct HookSettings {
    /// Secrets of the generic hook in their text form; none closes it.
    pub generic: Vec<SecretString>,
    /// Shared secrets of the extension's webhook; none refuses `X-Keycloak-Signature`.
    pub extension: Vec<SecretString>,
    /// `aud` of the extension's bearer tokens; `None` refuses them.
    pub extension_audience: Option<String>,
    /// `client_id` of the broker's client, to which logout tokens are addressed; `None` closes that hook.
    pub broker_client: Option<String>,
}

/// The hooks of one realm.
#[derive(Debug)]
pub(super) struct Hooks {
    generic: generic::Secrets,
    extension: Vec<hmac::Key>,
    extension_audience: Option<String>,
    broker_client: Option<String>,
    keys: jwt::Keys,
    seen: Seen,
}

impl Hooks {
    /// # Errors
    /// What is wrong with a secret.
    pub(super) fn new(settings: &HookSettings) -> Result<Self, String> {
        let key = |text: &SecretString| hmac::Key::new(hmac::HMAC_SHA256, text.expose_secret().as_bytes());
        Ok(Self {
            generic: generic::Secrets::new(&settings.generic)?,
            extension: settings.extension.iter().map(key).collect(),
            extension_audience: settings.extension_audience.clone(),
            broker_client: settings.broker_client.clone(),
            keys: jwt::Keys::default(),
            seen: Seen::default(),
        })
    }
}

impl Hooks {
    /// A logout token was dealt with.
    pub(super) fn heeded(&self, id: &str) {
        self.seen.first(id);
    }
}

/// Proves and reads one call.
pub(super) async fn heed(
    keycloak: &Keycloak,
    call: &HookCall<'_>,
    now: Timestamp,
) -> Result<Heeded, HookRefusal> {
    match call.kind {
        HookKind::Generic => generic::heed(&keycloak.hooks.generic, call, now),
        HookKind::Extension => extension(keycloak, call, now).await,
        HookKind::Logout => logout::heed(keycloak, call, now).await,
    }
}

async fn extension(keycloak: &Keycloak, call: &HookCall<'_>, now: Timestamp) -> Result<Heeded, HookRefusal> {
    let hooks = &keycloak.hooks;
    if hooks.extension.is_empty() && hooks.extension_audience.is_none() {
        return Err(HookRefusal::NotConfigured);
    }
    prove(keycloak, call, now).await?;
    let event =
        json::object(call.body).map_err(|why| HookRefusal::Malformed(format!("the JSON body: {why}")))?;
    let text = |name: &str| {
        event
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| text.len() <= 255)
    };
    let id = text("uid")
        .or_else(|| text("id"))
        .ok_or_else(|| HookRefusal::Malformed("the event has neither `uid` nor `id`".to_owned()))?;
    let at = event
        .get("time")
        .and_then(Value::as_i64)
        .map(Timestamp::from_millis)
        .ok_or_else(|| HookRefusal::Malformed("the event has no `time` in milliseconds".to_owned()))?;
    if text("realmName").is_some_and(|realm| realm != keycloak.settings.realm) {
        return Err(HookRefusal::Invalid("the event is of another realm".to_owned()));
    }
    if now.since(at).abs() > WINDOW {
        return Err(HookRefusal::Unproven(format!(
            "the event is not of the last {} minutes: it was recorded, or the clocks differ",
            WINDOW.secs() / 60
        )));
    }
    if !hooks.seen.first(&format!("extension:{id}")) {
        return Err(HookRefusal::Replayed("this event was heeded before".to_owned()));
    }
    Ok(Heeded::Wake { sub: whom(&event) })
}

/// Whom an event concerns: the user of a user event, the user in the path of an admin event.
fn whom(event: &Map<String, Value>) -> Option<String> {
    let kind = event.get("type").and_then(Value::as_str)?;
    let sub = if kind.starts_with("access.") {
        event.get("authDetails")?.get("userId")?.as_str()?
    } else {
        events::account_of(event.get("resourcePath")?.as_str()?)?.0
    };
    Subject::is_sub(sub).then(|| sub.to_owned())
}

/// The shared secret over the body, or the realm's key over its digest.
async fn prove(keycloak: &Keycloak, call: &HookCall<'_>, now: Timestamp) -> Result<(), HookRefusal> {
    let hooks = &keycloak.hooks;
    if let Some(bearer) = call
        .headers
        .get("authorization")
        .and_then(|value| value.strip_prefix("Bearer "))
    {
        let Some(audience) = &hooks.extension_audience else {
            return Err(HookRefusal::Unproven(
                "bearer tokens are not taken here: set `hooks.extension.audience`".to_owned(),
            ));
        };
        let token = jwt::verify(keycloak, bearer.trim(), audience, now).await?;
        token.unexpired(now)?;
        let digest = digest::digest(&digest::SHA256, call.body);
        let named = token.text("request_body_sha256").and_then(octets);
        return match named {
            Some(named) if named == digest.as_ref() => Ok(()),
            _ => Err(HookRefusal::Unproven(
                "the token names the SHA-256 of another body".to_owned(),
            )),
        };
    }
    let unproven = |why: &str| HookRefusal::Unproven(why.to_owned());
    if !call.headers.contains_key("x-keycloak-signature") {
        return Err(unproven(
            "nothing proves the call: send X-Keycloak-Signature or a bearer token",
        ));
    }
    let tag = octets(call.header("x-keycloak-signature")?).filter(|tag| tag.len() == 32);
    let tag = tag.ok_or_else(|| {
        unproven("X-Keycloak-Signature is not an HMAC-SHA256 in hexadecimal digits: set the algorithm to HmacSHA256")
    })?;
    let made = hooks.extension.iter().fold(false, |found, key| {
        found | hmac::verify(key, call.body, &tag).is_ok()
    });
    if made {
        Ok(())
    } else {
        Err(unproven(
            "X-Keycloak-Signature was not made with a secret of ours over this body",
        ))
    }
}

/// Octets in hexadecimal digits of lower case.
fn octets(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if digits.len() > 128 || !digits.len().is_multiple_of(2) {
        return None;
    }
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(value(*high)? << 4 | value(*low)?),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_read_strictly() {
        assert_eq!(octets("00ff1a"), Some(vec![0, 255, 26]));
        for wrong in ["0", "0g", "FF", "+1", "é0"] {
            assert_eq!(octets(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_event_names_its_account() {
        let of = |event: Value| whom(event.as_object().unwrap());
        let user = serde_json::json!({"type": "access.UPDATE_CREDENTIAL", "authDetails": {"userId": "u1"}});
        assert_eq!(of(user).as_deref(), Some("u1"));
        let admin = serde_json::json!({
            "type": "admin.USER-ACTION", "authDetails": {"userId": "boss"}, "resourcePath": "users/u2/reset-password",
        });
        assert_eq!(of(admin).as_deref(), Some("u2"), "not the actor");
        assert_eq!(
            of(serde_json::json!({"type": "admin.REALM-UPDATE", "resourcePath": "events/config"})),
            None
        );
        assert_eq!(
            of(serde_json::json!({"type": "access.X", "authDetails": {"userId": "a b/ü"}})).as_deref(),
            Some("a b/ü"),
            "as the identity provider has it"
        );
        assert_eq!(
            of(serde_json::json!({"type": "access.X", "authDetails": {"userId": "a\nb"}})),
            None
        );
    }
}
