//! Lines that say that everybody was signed out.
//!
//! What Keycloak does by it, seen on 26.7.4: "Sign out all sessions" ends the sessions and sets the realm's not-before to that
//! second; a realm's not-before refuses every token that was issued before it, offline ones too, and the cookie of single
//! sign-on; a client's not-before refuses that client's tokens and lets single sign-on go on. Pushing a not-before to
//! applications ends nothing at Keycloak. It only tells of a not-before that was saved, where the log leaves out what was
//! sent.

use serde_json::Value;

use crate::domain::session::signed_out::{SignOut, SignedOut};
use crate::domain::time::{Span, Timestamp};
use crate::idp::keycloak::KeycloakSettings;
use crate::idp::keycloak::admin::text;
use crate::idp::keycloak::representations::AdminEvent;

/// A not-before lies ahead of its line, and a line ahead of the server's clock, by this much at most.
const AHEAD: Span = Span::from_mins(1);

/// What these lines say of it; `clock` is now by the server's clock, in milliseconds, which is `ahead` of ours.
pub(super) fn said(
    acts: &[AdminEvent],
    settings: &KeycloakSettings,
    (clock, ahead): (i64, Span),
) -> SignedOut {
    let broker = settings.hooks.broker_client.as_deref();
    signed_out(acts, broker, (Timestamp::from_millis(clock), ahead))
}

/// The same, whatever else they say. `broker` is the client that we log people in with, `clock` now by the
/// server's clock, which is `ahead` of ours.
fn signed_out(acts: &[AdminEvent], broker: Option<&str>, (clock, ahead): (Timestamp, Span)) -> SignedOut {
    let none = SignedOut::default();
    let said = acts.iter().filter(|act| act.error.is_none());
    said.fold(none, |out, act| {
        let line = Timestamp::from_millis(act.time).min(clock.plus(AHEAD));
        let at = |instant: Timestamp| Some(SignOut::at(instant.min(line.plus(AHEAD)), ahead));
        let path: Vec<&str> = act
            .resource_path
            .iter()
            .flat_map(|path| path.split('/'))
            .collect();
        let is_realm = act.resource_type.as_deref() == Some("REALM");
        let told = match (act.operation_type.as_str(), path.as_slice()) {
            ("ACTION", ["logout-all"]) => SignedOut {
                everybody: at(line),
                ..none
            },
            // A log that leaves out what was sent tells of no not-before.
            ("ACTION", ["push-revocation"]) if act.representation.is_none() && !tells(acts) => SignedOut {
                everybody: at(line),
                ..none
            },
            ("UPDATE", [] | [""]) if is_realm => SignedOut {
                everybody: not_before(act, |_| true).and_then(at),
                ..none
            },
            ("UPDATE", ["clients", _]) if broker.is_some() => SignedOut {
                through_us: not_before(act, |sent| sent.get("clientId").and_then(Value::as_str) == broker)
                    .and_then(at),
                ..none
            },
            _ => none,
        };
        out.and(told)
    })
}

/// Whether any of these lines shows what was sent.
fn tells(acts: &[AdminEvent]) -> bool {
    acts.iter().any(|act| act.representation.is_some())
}

/// The not-before that was sent for what is meant.
fn not_before(act: &AdminEvent, is_meant: impl Fn(&Value) -> bool) -> Option<Timestamp> {
    let sent: Value = text::read(act.representation.as_deref()?.as_bytes()).ok()?;
    let seconds = sent.get("notBefore")?.as_i64()?;
    (seconds > 0 && is_meant(&sent)).then(|| Timestamp::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn heard(acts: Value) -> SignedOut {
        let acts: Vec<AdminEvent> = serde_json::from_value(acts).unwrap();
        let clock = (Timestamp::from_secs(NOW), Span::from_secs(10));
        signed_out(&acts, Some("reentry-broker"), clock)
    }

    fn line(operation: &str, kind: &str, path: Option<&str>, sent: Option<Value>) -> Value {
        let sent = sent.map(|sent| sent.to_string());
        json!([{"time": NOW * 1_000, "operationType": operation, "resourceType": kind, "resourcePath": path, "representation": sent}])
    }

    fn at(seconds: i64) -> SignOut {
        SignOut::at(Timestamp::from_secs(seconds), Span::from_secs(10))
    }

    // P16, ISS-12: by what a live server does.
    #[test]
    fn lines_that_sign_everybody_out_are_told_from_those_that_do_not() {
        let everybody = |lines: Value| heard(lines).everybody;
        let nb = |seconds: i64| Some(json!({"notBefore": seconds, "clientId": "reentry-broker"}));
        assert_eq!(
            everybody(line("ACTION", "REALM", Some("logout-all"), None)),
            Some(at(NOW))
        );
        assert_eq!(
            everybody(line("UPDATE", "REALM", None, nb(NOW - 5))),
            Some(at(NOW - 5))
        );
        assert_eq!(
            everybody(line("UPDATE", "REALM", None, nb(NOW + 1))),
            Some(at(NOW + 1))
        );
        assert_eq!(
            everybody(line("UPDATE", "REALM", None, nb(i64::MAX))),
            Some(at(NOW + 60)),
            "no lock-out"
        );
        assert_eq!(everybody(line("UPDATE", "REALM", None, nb(0))), None);
        assert_eq!(everybody(line("UPDATE", "REALM", None, None)), None);
        assert_eq!(
            everybody(line("UPDATE", "REALM", Some("events/config"), nb(5))),
            None
        );
        let push = line("ACTION", "REALM", Some("push-revocation"), None);
        assert_eq!(
            everybody(push.clone()),
            Some(at(NOW)),
            "nothing shows what was saved before it"
        );
        let saved = line("UPDATE", "USER", Some("users/u"), Some(json!({})));
        assert_eq!(
            everybody(json!([push[0], saved[0]])),
            None,
            "it ends nothing by itself"
        );
        let through_us = |lines: Value| heard(lines).through_us;
        assert_eq!(
            through_us(line("UPDATE", "CLIENT", Some("clients/c"), nb(NOW))),
            Some(at(NOW))
        );
        assert_eq!(
            everybody(line("UPDATE", "CLIENT", Some("clients/c"), nb(NOW))),
            None
        );
        let other = Some(json!({"notBefore": NOW, "clientId": "other"}));
        assert!(heard(line("UPDATE", "CLIENT", Some("clients/c"), other)).is_nobody());
        let mut failed = line("ACTION", "REALM", Some("logout-all"), None);
        failed[0]["error"] = json!("x");
        assert!(heard(failed).is_nobody());
        let mut wild = line("ACTION", "REALM", Some("logout-all"), None);
        wild[0]["time"] = json!(i64::MAX);
        assert_eq!(everybody(wild), Some(at(NOW + 60)));
    }
}
