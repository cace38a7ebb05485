//! How the access tokens of an issuer are told from its other tokens (contract section 2, rule 1).
//!
//! Every issuer signs ID tokens, refresh tokens and logout tokens with the same keys; a signature alone says
//! nothing about what a token is for (RFC 8725 §3.11).

use serde_json::{Map, Value};

/// An issuer's way of marking access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Reentry, and any issuer of RFC 9068: header `typ` is `at+jwt`.
    Reentry,
    /// Keycloak: payload `typ` is `Bearer` (an ID token says `ID`, a refresh token `Refresh` or `Offline`).
    Keycloak,
    /// Cognito: payload `token_use` is `access` (an ID token says `id`).
    Cognito,
}

impl Profile {
    /// Whether header and payload are an access token's. To be asked after the signature was checked.
    #[must_use]
    pub fn accepts(self, header: &Map<String, Value>, claims: &Map<String, Value>) -> bool {
        let says = |object: &Map<String, Value>, name: &str, word: &str| {
            object
                .get(name)
                .and_then(Value::as_str)
                .is_some_and(|said| said == word)
        };
        let access = match self {
            // RFC 9068 §4: with or without `application/`; RFC 7515 §4.1.9: media types ignore case.
            Self::Reentry => header.get("typ").and_then(Value::as_str).is_some_and(|typ| {
                typ.eq_ignore_ascii_case("at+jwt") || typ.eq_ignore_ascii_case("application/at+jwt")
            }),
            Self::Keycloak => says(claims, "typ", "Bearer"),
            Self::Cognito => says(claims, "token_use", "access"),
        };
        access && !critical(header)
    }

    /// Whether this issuer's tokens carry `recovery_lift`. Keycloak's never do: always 403 (rule 8).
    #[must_use]
    pub const fn carries_lift(self) -> bool {
        matches!(self, Self::Reentry | Self::Cognito)
    }

    /// Whether this issuer's tokens carry `recovery_epoch` (contract section 3, "Profiles").
    #[must_use]
    pub const fn carries_epoch(self) -> bool {
        matches!(self, Self::Reentry | Self::Cognito)
    }
}

/// Whether the header demands an extension: we understand none (RFC 7515 §4.1.11).
#[must_use]
pub fn critical(header: &Map<String, Value>) -> bool {
    header.contains_key("crit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::object;

    fn accepts(profile: Profile, header: &str, claims: &str) -> bool {
        profile.accepts(
            &object(header.as_bytes()).unwrap(),
            &object(claims.as_bytes()).unwrap(),
        )
    }

    // contract section 2, rule 1: an ID token is never an access token.
    #[test]
    fn each_profile_knows_its_access_tokens() {
        assert!(accepts(Profile::Reentry, r#"{"typ":"at+jwt"}"#, "{}"));
        assert!(accepts(Profile::Reentry, r#"{"typ":"application/AT+JWT"}"#, "{}"));
        assert!(accepts(
            Profile::Keycloak,
            r#"{"typ":"JWT"}"#,
            r#"{"typ":"Bearer"}"#
        ));
        assert!(accepts(Profile::Cognito, "{}", r#"{"token_use":"access"}"#));
    }

    #[test]
    fn no_other_token_passes_as_one() {
        for profile in [Profile::Reentry, Profile::Keycloak, Profile::Cognito] {
            for (header, claims) in [
                (r#"{"typ":"JWT"}"#, r#"{"typ":"ID","token_use":"id","nonce":"n"}"#),
                (r#"{"typ":"JWT"}"#, r#"{"typ":"Refresh"}"#),
                (r#"{"typ":"logout+jwt"}"#, r#"{"typ":"Logout"}"#),
                (r#"{"typ":"secevent+jwt"}"#, "{}"),
                (
                    r#"{"typ":["at+jwt"]}"#,
                    r#"{"typ":["Bearer"],"token_use":["access"]}"#,
                ),
                ("{}", r#"{"typ":"at+jwt"}"#),
                (r#"{"typ":"Bearer","token_use":"access"}"#, "{}"),
            ] {
                assert!(!accepts(profile, header, claims), "{profile:?} {header} {claims}");
            }
        }
    }

    #[test]
    fn a_critical_extension_is_not_understood() {
        assert!(!accepts(
            Profile::Reentry,
            r#"{"typ":"at+jwt","crit":["b64"]}"#,
            "{}"
        ));
    }
}
