//! Access tokens of ours as the use cases know them, verified once.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::flow::live::Access;
use crate::http::context::Context;
use crate::oidc::remember::Remembered;
use crate::oidc::verify::{self, MAX_TOKEN, Verified};
use crate::oidc::{claims, digest};

/// Tokens that are remembered at least, at one or two KiB each; at most twice as many.
pub const MOST: usize = 4096;

/// Members of an introspection answer that a token says of itself and that nothing changes.
const FIXED: [&str; 10] = [
    "iss",
    "sub",
    "aud",
    "client_id",
    "iat",
    "exp",
    "jti",
    "sid",
    "acr",
    "auth_time",
];

/// A token whose signature was right. What it may be used for now is asked each time (P1).
#[derive(Debug)]
pub struct Known {
    /// As the use cases ask about it.
    pub token: Access,
    /// What it says.
    pub verified: Verified,
    /// The fixed members of an introspection answer, as JSON without braces.
    pub fixed: String,
}

/// The tokens that were verified.
pub type KnownTokens = Remembered<Known>;

/// An access token of ours that is valid by itself: signed with a key that is ours now, and in its time.
#[must_use]
pub fn known(context: &Context, token: &str) -> Option<Arc<Known>> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let now = context.flow.clock.now();
    let name = digest::sha256(token.as_bytes());
    if let Some(known) = context.known.get(&name) {
        if verify::still(&context.broker.keys, &known.verified, now).is_ok() {
            return Some(known);
        }
        context.known.forget(&name);
        return None;
    }
    let verified = context.broker.access_token(token, None, now).ok()?;
    let known = Arc::new(read(context, verified)?);
    context.known.put(name, Arc::clone(&known));
    Some(known)
}

fn read(context: &Context, verified: Verified) -> Option<Known> {
    let subject = context.broker.settings.subject(verified.text("sub")?)?;
    let token = Access {
        key: context.flow.key(&subject),
        subject,
        client: verified.text("client_id")?.to_owned(),
        sid: verified.text("sid")?.to_owned(),
        jti: verified.text("jti")?.to_owned(),
        scopes: claims::set(&verified.claims, "scope"),
        roles: claims::set(&verified.claims, "roles"),
        groups: claims::set(&verified.claims, "groups"),
        issued: claims::issued(&verified.claims),
    };
    let member = |name: &&str| Some(((*name).to_owned(), verified.claims.get(*name)?.clone()));
    let fixed: Map<String, Value> = FIXED.iter().filter_map(member).collect();
    let fixed = Value::Object(fixed).to_string();
    let fixed = fixed.strip_prefix('{')?.strip_suffix('}')?.to_owned();
    Some(Known {
        token,
        verified,
        fixed,
    })
}
