//! The body of a generic push: `{"type", "timestamp", "data": {…}}`, as Standard Webhooks recommends. Closed: what
//! is not known is refused, so that nobody believes that something was understood which was not.

use jiff::Timestamp as Instant;
use serde::Deserialize;
use serde_json::Value;

use crate::domain::change::{Change, ChangeKind, Proof, Source};
use crate::domain::json;
use crate::domain::subject;
use crate::domain::subject::account::FactorClass;
use crate::domain::time::{Span, Timestamp};
use crate::ports::hook::HookRefusal;

/// An event may be this far ahead of the call that tells of it.
const AHEAD: Span = Span::from_mins(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(rename = "type")]
    kind: Kind,
    timestamp: String,
    data: Subject,
}

/// The kinds that may be pushed.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    PasswordReset,
    PasswordChanged,
    PasswordSetByAdmin,
    FactorAdded,
    FactorRemoved,
    RecoveryCodesReset,
    RecoveryCodeUsed,
    EmailChanged,
    PhoneChanged,
    FederatedLinkChanged,
}

impl Kind {
    const fn change(self) -> ChangeKind {
        match self {
            Self::PasswordReset => ChangeKind::PasswordReset,
            Self::PasswordChanged => ChangeKind::PasswordChanged,
            Self::PasswordSetByAdmin => ChangeKind::PasswordSetByAdmin,
            Self::FactorAdded => ChangeKind::FactorAdded,
            Self::FactorRemoved => ChangeKind::FactorRemoved,
            Self::RecoveryCodesReset => ChangeKind::RecoveryCodesReset,
            Self::RecoveryCodeUsed => ChangeKind::RecoveryCodeUsed,
            Self::EmailChanged => ChangeKind::EmailChanged,
            Self::PhoneChanged => ChangeKind::PhoneChanged,
            Self::FederatedLinkChanged => ChangeKind::FederatedLinkChanged,
        }
    }

    /// The class of factor where the kind alone says it.
    const fn factor(self) -> Option<FactorClass> {
        match self {
            Self::PasswordReset | Self::PasswordChanged | Self::PasswordSetByAdmin => {
                Some(FactorClass::Password)
            }
            Self::RecoveryCodesReset | Self::RecoveryCodeUsed => Some(FactorClass::RecoveryCodes),
            Self::FederatedLinkChanged => Some(FactorClass::FederatedLink),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    sub: String,
    #[serde(default)]
    event_id: Option<String>,
    #[serde(default)]
    factor: Option<FactorClass>,
    #[serde(default)]
    proof: Option<Claimed>,
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    origin: Option<String>,
    #[serde(default)]
    previous_address: Option<String>,
}

/// What a sender may say about the proof: nothing that would lighten the hold.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Claimed {
    Unproven,
    Message,
    Administrator,
}

/// Reads the body of the call `id` that was signed at `sent` and arrived at `now`.
pub(super) fn read(
    body: &[u8],
    id: &str,
    sent: Timestamp,
    now: Timestamp,
) -> Result<(String, Change), HookRefusal> {
    let malformed = |why: String| HookRefusal::Malformed(format!("the JSON body: {why}"));
    let object = json::object(body).map_err(|why| malformed(why.to_string()))?;
    let body: Body =
        serde_json::from_value(Value::Object(object)).map_err(|error| malformed(error.to_string()))?;
    let invalid = |why: &str| HookRefusal::Invalid(why.to_owned());
    let at = body
        .timestamp
        .parse::<Instant>()
        .map(|at| Timestamp::from_millis(at.as_millisecond()))
        .map_err(|_| invalid("`timestamp` is not a time like 2026-01-31T12:00:00Z (RFC 3339)"))?;
    if at > sent.plus(AHEAD) {
        return Err(invalid("`timestamp` is later than the call itself"));
    }
    let data = body.data;
    fits(&data)?;
    let kind = body.kind.change();
    let change = Change {
        id: data.event_id.unwrap_or_else(|| format!("push:{id}")),
        source: Source::Hook,
        kind,
        factor: data.factor.or(body.kind.factor()),
        at,
        offset: Span::ZERO,
        received: now,
        proof: match data.proof.unwrap_or(Claimed::Unproven) {
            Claimed::Unproven => Proof::Unproven,
            Claimed::Message => Proof::Message,
            Claimed::Administrator => Proof::Administrator,
        },
        mediated: false,
        session: data.session,
        channel: None,
        origin: data.origin,
        previous_address: data.previous_address.filter(|_| kind.is_contact()),
    };
    Ok((data.sub, change))
}

/// Whether every text is of the length and kind it has to be.
fn fits(data: &Subject) -> Result<(), HookRefusal> {
    let invalid = |why: &str| HookRefusal::Invalid(why.to_owned());
    let plain = |name: &str, value: &Option<String>, most: usize| match value {
        Some(text) if text.is_empty() || text.len() > most || text.chars().any(char::is_control) => Err(
            HookRefusal::Invalid(format!("`data.{name}` is not 1 to {most} octets of plain text")),
        ),
        _ => Ok(()),
    };
    plain("session", &data.session, 128)?;
    plain("origin", &data.origin, 64)?;
    plain("previous_address", &data.previous_address, 254)?;
    let graphic = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    if !subject::Subject::is_sub(&data.sub) {
        return Err(invalid(
            "`data.sub` is not 1 to 1020 octets without control characters",
        ));
    }
    // `#` separates the parts of a change that is several.
    if data
        .event_id
        .as_ref()
        .is_some_and(|id| !graphic(id, 100) || id.contains('#'))
    {
        return Err(invalid(
            "`data.event_id` is not 1 to 100 octets of printable ASCII without #",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> Result<(String, Change), HookRefusal> {
        let now = Timestamp::from_secs(1_700_000_000);
        read(body.as_bytes(), "m1", now, now)
    }

    fn with(data: &str) -> String {
        format!(
            r#"{{"type":"factor_removed","timestamp":"2023-11-14T22:13:20Z","data":{{"sub":"u"{data}}}}}"#
        )
    }

    #[test]
    fn every_member_is_checked_and_none_is_unknown() {
        let (sub, change) = told(&with(
            r#","factor":"otp","event_id":"e1","session":"s","origin":"Berlin""#,
        ))
        .unwrap();
        assert_eq!((sub.as_str(), change.id.as_str()), ("u", "e1"));
        assert_eq!(
            (change.kind, change.factor),
            (ChangeKind::FactorRemoved, Some(FactorClass::Otp))
        );
        assert_eq!(told(&with("")).unwrap().1.id, "push:m1");
        let malformed = [
            with(r#","more":1"#),
            with(r#","sub":"v""#),
            with(r#","proof":"eligible_factor""#),
            with(r#","proof":"recent_login""#),
            with(r#","factor":"dna""#),
            r#"{"type":"credential_initialised","timestamp":"2023-11-14T22:13:20Z","data":{"sub":"u"}}"#
                .to_owned(),
            r#"{"type":"factor_added","data":{"sub":"u"}}"#.to_owned(),
            r#"{"type":"factor_added","timestamp":"2023-11-14T22:13:20Z","data":{}}"#.to_owned(),
            "[]".to_owned(),
        ];
        for body in malformed {
            let said = told(&body);
            assert!(matches!(said, Err(HookRefusal::Malformed(_))), "{body}: {said:?}");
        }
        let invalid = [
            with(r#","event_id":"a#b""#),
            with(r#","session":"""#),
            with("").replace("\"u\"", "\"\""),
            with("").replace("\"u\"", "\"a\\nb\""),
            with("").replace("2023-11-14T22:13:20Z", "yesterday"),
            with("").replace("2023-11-14T22:13:20Z", "2023-11-14T22:18:21Z"),
        ];
        for body in invalid {
            let said = told(&body);
            assert!(matches!(said, Err(HookRefusal::Invalid(_))), "{body}: {said:?}");
        }
    }
}
