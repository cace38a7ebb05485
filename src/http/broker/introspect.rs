//! `/introspect` (RFC 7662): the live answer, the stricter of what the token says and what is true now (ISS-8).

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::domain::entitlement::Entitlement;
use crate::flow::live::{self, Live, Refreshable};
use crate::http::broker::known::{Known, known};
use crate::http::broker::{browser, oauth};
use crate::http::context::Context;
use crate::http::extract::Posted;
use crate::http::guard::oauth_unavailable;
use crate::http::peer::Peer;
use crate::oidc::claims;
use crate::oidc::settings::Client;
use crate::oidc::verify::Verified;

/// `POST /introspect`.
pub async fn introspect(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Posted(params): Posted,
) -> Response {
    let (client, params) = match oauth::client(&context, peer, &headers, params).await {
        Ok((client, params)) if client.is_confidential() => (client, params),
        Ok(_) => {
            return oauth::error(
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                "a client with a secret is needed",
            );
        }
        Err(answer) => return answer,
    };
    let Some(token) = params.get("token") else {
        return oauth::invalid_request("token is missing");
    };
    let body = match known(&context, token) {
        // Somebody else's token: nothing is said about it (RFC 7662 §2.2).
        Some(known) if !may_see(client, &known.verified) => inactive(),
        Some(known) => match live::access(&context.flow, &known.token).await {
            Live::Inactive => inactive(),
            Live::Active {
                entitlement, session, ..
            } => {
                let body = about_access(&context, &known, &entitlement);
                let upstream = session.as_ref().map(|s| &s.subject.upstream);
                let answer = browser::decided(oauth::text(StatusCode::OK, body), upstream, &entitlement);
                return browser::of_client(answer, &client.id);
            }
        },
        None => match live::refresh(&context.flow, &client.id, token).await {
            Ok(Some(found)) => about_refresh(&context, client, &found),
            Ok(None) => inactive(),
            Err(error) => return oauth_unavailable(&error.to_string()),
        },
    };
    browser::of_client(oauth::json(StatusCode::OK, &body), &client.id)
}

/// A client sees its own tokens, those that are for it, and others where the configuration says so.
fn may_see(client: &Client, verified: &Verified) -> bool {
    let audience = |aud: &Value| match aud {
        Value::String(one) => one == client.audience() || *one == client.id,
        Value::Array(all) => all.iter().any(|a| *a == client.audience() || *a == client.id),
        _ => false,
    };
    client.may_introspect
        || verified.text("client_id") == Some(client.id.as_str())
        || verified.claims.get("aud").is_some_and(audience)
}

/// Nothing else is said (RFC 7662 §2.2).
fn inactive() -> Value {
    json!({ "active": false })
}

/// What the token says of itself and nothing changes was spelt when it was verified; what is true now comes behind it.
fn about_access(context: &Context, known: &Known, entitlement: &Entitlement) -> String {
    let alias = context.broker.settings.alias.as_deref();
    let mut now = claims::recovery(entitlement, alias);
    // A token from a hold that is over is still what it was: its own words say until when and why.
    if !entitlement.recovery_scope.is_full() {
        for name in ["recovery_until", "recovery_ref"] {
            if let Some(value) = known
                .verified
                .claims
                .get(name)
                .filter(|_| !now.contains_key(name))
            {
                now.insert(name.to_owned(), value.clone());
            }
        }
    }
    let mut body = String::with_capacity(known.fixed.len() + 256);
    body.push_str("{\"active\":true,\"token_type\":\"Bearer\",");
    body.push_str(&known.fixed);
    body.push_str(",\"scope\":");
    body.push_str(&Value::String(claims::words(&entitlement.scopes)).to_string());
    claims::rights(&mut now, entitlement);
    let now = Value::Object(now).to_string();
    body.push(',');
    body.push_str(now.strip_prefix('{').unwrap_or(&now));
    body
}

fn about_refresh(context: &Context, client: &Client, found: &Refreshable) -> Value {
    let settings = &context.broker.settings;
    let mut body = Map::new();
    body.insert("active".to_owned(), json!(true));
    body.insert("iss".to_owned(), json!(settings.issuer));
    body.insert("sub".to_owned(), json!(settings.sub(&found.session.subject)));
    body.insert("client_id".to_owned(), json!(client.id));
    body.insert("sid".to_owned(), json!(found.session.id));
    body.insert("exp".to_owned(), json!(found.family.expires.secs()));
    body.insert(
        "scope".to_owned(),
        json!(claims::words(&found.entitlement.scopes)),
    );
    body.extend(claims::recovery(&found.entitlement, settings.alias.as_deref()));
    Value::Object(body)
}
