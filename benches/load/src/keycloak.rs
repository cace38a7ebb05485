//! What stands in for Keycloak: a quiet log, and accounts of three months ago with a password as old. Enough for the
//! poller to catch up and for a log-in to be checked; the hot paths never ask it.

use std::net::Ipv4Addr;

use axum::Router;
use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reentry_test_support::clock::now_ms;
use serde_json::{Value, json};

/// Starts it; gives its base URL.
pub async fn start() -> anyhow::Result<String> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let base = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    Ok(base)
}

async fn answer(request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').collect();
    let long_ago = now_ms() - 90 * 86_400_000;
    let body = match segments.as_slice() {
        ["realms", _, "protocol", "openid-connect", "token"] => token(),
        [.., "events", "config"] => json!({
            "eventsEnabled": true, "adminEventsEnabled": true, "adminEventsDetailsEnabled": true,
            "eventsExpiration": 60 * 86_400,
        }),
        [.., "serverinfo"] => json!({}),
        [.., "users", "profile"] => json!({ "attributes": [] }),
        [.., "users", id] => json!({
            "id": id, "username": id, "enabled": true, "email": format!("{id}@example.com"), "emailVerified": true,
            "createdTimestamp": long_ago,
        }),
        [.., "users", _, "credentials"] => json!([
            { "id": "a-password", "type": "password", "createdDate": long_ago },
        ]),
        _ => Value::Array(Vec::new()),
    };
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn token() -> Value {
    let claims = json!({
        "iat": now_ms() / 1000, "sub": "service-account",
        "resource_access": { "realm-management": { "roles": ["manage-users", "query-users", "view-events", "view-users"] } },
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}.{}", part(&json!({ "alg": "none" })), part(&claims), "x");
    json!({ "access_token": text, "expires_in": 3600, "token_type": "Bearer" })
}
