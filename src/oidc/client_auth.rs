//! How a client proves who it is (RFC 6749 §2.3, OIDC Core §9): by exactly one method per request.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::oidc::assertion;
use crate::oidc::params::Params;
use crate::oidc::settings::{BrokerSettings, Client, ClientAuth, SecretHash};

/// Why nobody was recognised. All of them are `invalid_client` outside, but for a request that mixes methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More than one method, or two names.
    #[error("use exactly one way of client authentication")]
    Mixed,
    /// Unknown client, wrong secret, wrong method.
    #[error("client authentication failed")]
    Unknown,
}

/// An `Authorization` header, read once. It holds a secret, so there is no way to print it.
pub struct Authorization(Option<(String, String)>);

impl Authorization {
    /// Reads it; what is no `Basic` header proves nothing.
    #[must_use]
    pub fn read(header: &str) -> Self {
        Self(basic(header))
    }
}

/// Recognises the client. `authorization` is the header, if there is one.
///
/// # Errors
/// [`Refusal`].
pub fn authenticate<'a>(
    settings: &'a BrokerSettings,
    authorization: Option<&Authorization>,
    params: &Params,
) -> Result<&'a Client, Refusal> {
    let posted_secret = params.get("client_secret");
    if params.get("client_assertion").is_some() || params.get("client_assertion_type").is_some() {
        return Err(Refusal::Unknown);
    }
    if let Some(Authorization(credentials)) = authorization {
        let (id, secret) = credentials.as_ref().ok_or(Refusal::Unknown)?;
        if posted_secret.is_some() || params.get("client_id").is_some_and(|named| named != id) {
            return Err(Refusal::Mixed);
        }
        return proven(settings, id, secret, |auth| {
            matches!(auth, ClientAuth::Secret { basic: true, .. })
        });
    }
    let id = params.get("client_id").ok_or(Refusal::Unknown)?;
    if let Some(secret) = posted_secret {
        return proven(settings, id, secret, |auth| {
            matches!(auth, ClientAuth::Secret { post: true, .. })
        });
    }
    settings
        .client(id)
        .filter(|c| c.auth == ClientAuth::None)
        .ok_or(Refusal::Unknown)
}

/// The client that somebody says to be, by whatever way; nothing is proven by it.
#[must_use]
pub fn claimed<'a>(authorization: Option<&'a Authorization>, params: &'a Params) -> Option<Cow<'a, str>> {
    let by_header = || Some(authorization?.0.as_ref()?.0.as_str().into());
    let by_assertion = || params.get("client_assertion").and_then(assertion::claimed);
    let named = params.get("client_id").map(Cow::from);
    named.or_else(by_header).or_else(|| by_assertion().map(Cow::from))
}

fn proven<'a>(
    settings: &'a BrokerSettings,
    id: &str,
    secret: &str,
    method: impl Fn(&ClientAuth) -> bool,
) -> Result<&'a Client, Refusal> {
    let client = settings.client(id).filter(|c| method(&c.auth));
    let Some((client, ClientAuth::Secret { secrets, .. })) = client.map(|c| (c, &c.auth)) else {
        // As much work for an unknown client as for a known one.
        let _ = SecretHash::of(id).is(secret);
        return Err(Refusal::Unknown);
    };
    let right = secrets
        .iter()
        .fold(false, |found, known| known.is(secret) | found);
    if right { Ok(client) } else { Err(Refusal::Unknown) }
}

/// `client_id` and secret of a `Basic` header, both form-decoded (RFC 6749 §2.3.1).
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > 2048 {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((form_decode(id)?, form_decode(secret)?))
}

fn form_decode(text: &str) -> Option<String> {
    // One value of a form, decoded by the same rules as a body: `&` and `=` cannot be there unencoded.
    if text.contains(['&', '=']) {
        return Some(text.to_owned());
    }
    let mut pairs = url::form_urlencoded::parse(text.as_bytes());
    let (value, rest) = pairs.next().unwrap_or_default();
    rest.is_empty().then(|| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::subject::UpstreamId;
    use crate::oidc::settings::Upstream;

    fn settings() -> BrokerSettings {
        let confidential =
            Client::confidential("bank app", "s:e c%ret", "https://bank.example/cb", &["openid"]);
        let public = Client::public("spa", "https://spa.example/cb", &["openid"]);
        let upstream = Upstream {
            id: UpstreamId::parse("kc").unwrap(),
            name: "kc".to_owned(),
            issuer: "https://id.example".to_owned(),
            client_id: "reentry".to_owned(),
            client_secret: None,
            scopes: Vec::new(),
            subject_prefix: String::new(),
            end_session: true,
        };
        BrokerSettings::new(
            "https://login.example",
            vec![confidential, public],
            vec![upstream],
        )
        .unwrap()
    }

    fn header(raw: &str) -> Authorization {
        Authorization::read(&format!("Basic {}", STANDARD.encode(raw)))
    }

    fn params(text: &str) -> Params {
        Params::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn basic_credentials_are_form_decoded() {
        let s = settings();
        let right = header("bank+app:s%3Ae+c%25ret");
        assert_eq!(
            authenticate(&s, Some(&right), &params("")).unwrap().id,
            "bank app"
        );
        let wrong = header("bank+app:other");
        assert_eq!(
            authenticate(&s, Some(&wrong), &params("")).unwrap_err(),
            Refusal::Unknown
        );
    }

    #[test]
    fn one_method_per_request() {
        let s = settings();
        let right = header("bank+app:s%3Ae+c%25ret");
        let both = params("client_id=bank+app&client_secret=s:e+c%25ret");
        assert_eq!(authenticate(&s, Some(&right), &both).unwrap_err(), Refusal::Mixed);
        assert_eq!(authenticate(&s, None, &both).unwrap().id, "bank app");
        let other = params("client_id=spa");
        assert_eq!(
            authenticate(&s, Some(&right), &other).unwrap_err(),
            Refusal::Mixed
        );
    }

    #[test]
    fn a_confidential_client_is_nobody_without_its_secret() {
        let s = settings();
        assert_eq!(
            authenticate(&s, None, &params("client_id=bank+app")).unwrap_err(),
            Refusal::Unknown
        );
        assert_eq!(
            authenticate(&s, None, &params("client_id=spa")).unwrap().id,
            "spa"
        );
        let secret = params("client_id=spa&client_secret=x");
        assert_eq!(authenticate(&s, None, &secret).unwrap_err(), Refusal::Unknown);
        assert_eq!(
            authenticate(
                &s,
                Some(&Authorization::read("Bearer x")),
                &params("client_id=spa")
            )
            .unwrap_err(),
            Refusal::Unknown
        );
    }
}
