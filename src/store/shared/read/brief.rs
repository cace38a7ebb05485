//! Grants as a decision needs them.
//!
//! The IdP's ID token is most of what is stored of a session, and only a log-out needs it; codes are for `/token` alone.
//! A decision that only looks leaves both where they lie. What was read like this is never written back: updates read
//! everything.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::domain::session::{Family, Grants, Session};
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;

/// [`Grants`] without codes, and sessions without the IdP's ID token. The order of the fields is that of the values as
/// stored.
#[derive(Debug, Deserialize)]
#[serde(from = "Stored")]
pub(super) struct Brief(pub(super) Grants);

#[derive(Deserialize)]
struct Stored {
    sessions: Vec<BriefSession>,
    #[serde(rename = "codes")]
    _codes: IgnoredAny,
    families: Vec<Family>,
}

#[derive(Deserialize)]
struct BriefSession {
    id: String,
    subject: Subject,
    upstream_sid: Option<String>,
    began: Timestamp,
    auth_time: Option<Timestamp>,
    acr: Option<String>,
    amr: Vec<String>,
    claims: String,
    roles: BTreeSet<String>,
    groups: BTreeSet<String>,
    checked: bool,
    eligible: bool,
    cookie: Vec<u8>,
    #[serde(rename = "id_token")]
    _id_token: IgnoredAny,
    clients: BTreeSet<String>,
    ended: Option<Timestamp>,
    #[serde(default)]
    facts_at: Option<Timestamp>,
    #[serde(default)]
    closed: Option<Timestamp>,
}

impl From<Stored> for Brief {
    fn from(stored: Stored) -> Self {
        Self(Grants {
            sessions: stored.sessions.into_iter().map(Session::from).collect(),
            codes: Vec::new(),
            families: stored.families,
        })
    }
}

impl From<BriefSession> for Session {
    fn from(brief: BriefSession) -> Self {
        Self {
            id: brief.id,
            subject: brief.subject,
            upstream_sid: brief.upstream_sid,
            began: brief.began,
            auth_time: brief.auth_time,
            acr: brief.acr,
            amr: brief.amr,
            claims: brief.claims,
            roles: brief.roles,
            groups: brief.groups,
            checked: brief.checked,
            eligible: brief.eligible,
            cookie: brief.cookie,
            id_token: String::new(),
            clients: brief.clients,
            ended: brief.ended,
            facts_at: brief.facts_at,
            closed: brief.closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::session::Code;
    use crate::domain::subject::UpstreamId;
    use crate::store::codec;

    fn words(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    // P1: a decision on the brief form is the decision on the whole one.
    #[test]
    fn everything_but_codes_and_the_id_token_is_as_in_the_whole() {
        let at = Timestamp::from_millis(1_795_251_600_123);
        let session = Session {
            id: "s".to_owned(),
            subject: Subject::new(UpstreamId::parse("kc").unwrap(), "u").unwrap(),
            upstream_sid: Some("up".to_owned()),
            began: at,
            auth_time: Some(at),
            acr: Some("1".to_owned()),
            amr: vec!["pwd".to_owned()],
            claims: "{}".to_owned(),
            roles: words(&["r"]),
            groups: words(&["g", "h"]),
            checked: true,
            eligible: true,
            cookie: vec![1, 2, 3],
            id_token: "e".repeat(1200),
            clients: words(&["bank"]),
            ended: Some(at),
            facts_at: Some(at),
            closed: Some(at),
        };
        let code = Code {
            id: "c".to_owned(),
            client: "bank".to_owned(),
            redirect_uri: "https://bank.example/cb".to_owned(),
            challenge: None,
            nonce: None,
            scopes: words(&["openid"]),
            session: "s".to_owned(),
            offline: false,
            acr: None,
            expires: at,
            used: Some("f".to_owned()),
        };
        let family = Family {
            id: "f".to_owned(),
            client: "bank".to_owned(),
            session: "s".to_owned(),
            scopes: words(&["openid", "read"]),
            began: at,
            expires: at,
            offline: true,
            nonce: Some("n".to_owned()),
            generation: 7,
            rotated: at,
            revoked: Some(at),
            denied: vec!["f.1".to_owned()],
        };
        let whole = Grants {
            sessions: vec![session.clone(), session],
            codes: vec![code],
            families: vec![family],
        };
        let bytes = codec::encode(&whole).unwrap();
        let mut expected = whole;
        expected.codes.clear();
        for session in &mut expected.sessions {
            session.id_token.clear();
        }
        assert_eq!(codec::decode::<Brief>("grants", &bytes).unwrap().0, expected);
        let empty = codec::encode(&Grants::default()).unwrap();
        assert_eq!(
            codec::decode::<Brief>("grants", &empty).unwrap().0,
            Grants::default()
        );
    }
}
