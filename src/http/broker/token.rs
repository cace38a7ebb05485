//! `/token`: codes and refresh tokens.

use std::collections::BTreeSet;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::flow::grant::{self, Asker, Grant, Presented, Refusal};
use crate::flow::opaque;
use crate::http::broker::{browser, oauth};
use crate::http::context::Context;
use crate::http::extract::Posted;
use crate::http::guard::{oauth_fault, oauth_unavailable};
use crate::http::peer::Peer;
use crate::oidc::params::Params;
use crate::oidc::settings::{Client, is_reserved_scope};
use crate::oidc::{claims, digest, mint};
use crate::ports::seal::{Purpose, SubjectKey};

/// `POST /token`.
pub async fn token(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Posted(params): Posted,
) -> Response {
    let (client, params) = match oauth::client(&context, peer, &headers, params).await {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let answer = match params.get("grant_type") {
        Some("authorization_code") => code(&context, client, &params).await,
        Some("refresh_token") if !client.refresh => oauth::error(
            StatusCode::BAD_REQUEST,
            "unauthorized_client",
            "this client gets no refresh tokens",
        ),
        Some("refresh_token") => refresh(&context, client, &params).await,
        Some(_) => oauth::error(StatusCode::BAD_REQUEST, "unsupported_grant_type", "not supported"),
        None => oauth::invalid_request("grant_type is missing"),
    };
    let answer = if answer.status() == StatusCode::BAD_REQUEST {
        oauth::failed(&context, peer, client, account(&context, &params), answer)
    } else {
        answer
    };
    browser::of_client(answer, &client.id)
}

/// Whose account a code or a refresh token that did not do belongs to; what is not ours is nobody's.
fn account(context: &Context, params: &Params) -> Option<SubjectKey> {
    let sealed = |name: &str, purpose| opaque::open(&context.flow, purpose, params.get(name)?);
    sealed("refresh_token", Purpose::Refresh)
        .or_else(|| sealed("code", Purpose::Code))
        .map(|token| token.key)
}

fn asker(client: &Client) -> Asker<'_> {
    Asker {
        client: &client.id,
        refuse_in_hold: client.refuse_in_hold,
    }
}

async fn code(context: &Context, client: &Client, params: &Params) -> Response {
    let (Some(code), Some(redirect_uri)) = (params.get("code"), params.get("redirect_uri")) else {
        return oauth::invalid_request("code and redirect_uri are needed");
    };
    let verifier = params.get("code_verifier");
    if verifier.is_some_and(|v| !is_verifier(v)) {
        return refused(&Refusal::Invalid);
    }
    let challenge = verifier.map(digest::s256);
    let presented = Presented {
        code,
        redirect_uri,
        challenge: challenge.as_deref(),
    };
    match grant::redeem(&context.flow, asker(client), presented).await {
        Ok(grant) => {
            let nonce = grant.family.nonce.clone();
            given(context, client, &grant, nonce.as_deref()).await
        }
        Err(refusal) => refused(&refusal),
    }
}

/// 43 to 128 unreserved characters (RFC 7636 §4.1).
fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
}

async fn refresh(context: &Context, client: &Client, params: &Params) -> Response {
    let Some(token) = params.get("refresh_token") else {
        return oauth::invalid_request("refresh_token is needed");
    };
    let words = params.words("scope");
    if words.iter().any(|w| is_reserved_scope(w)) {
        return refused(&Refusal::Scope);
    }
    let narrowed: BTreeSet<String> = words.into_iter().map(str::to_owned).collect();
    let narrowed = (!narrowed.is_empty()).then_some(&narrowed);
    match grant::refresh(&context.flow, asker(client), token, narrowed).await {
        Ok(grant) => given(context, client, &grant, None).await,
        Err(refusal) => refused(&refusal),
    }
}

/// The answer of RFC 6749 §5.1; `scope` is what was really given (ISS-3).
async fn given(context: &Context, client: &Client, grant: &Grant, nonce: Option<&str>) -> Response {
    let Some(sub) = context.broker.settings.sub(&grant.session.subject) else {
        return refused(&Refusal::Invalid);
    };
    let policy = context.flow.policy.load();
    let jti = format!("{}.{}", grant.family.id, context.flow.random::<12>());
    let minting = mint::Minting {
        client,
        sub: &sub,
        session: &grant.session,
        family: &grant.family,
        entitlement: &grant.entitlement,
        jti: &jti,
        allowed: &policy.claims,
        id_life: policy.lifetimes.id,
        nonce,
        at: grant.at,
    };
    let tokens = match mint::mint(&context.broker, minting).await {
        Ok(tokens) => tokens,
        Err(error) => {
            return oauth_fault(
                StatusCode::INTERNAL_SERVER_ERROR,
                "server_error",
                &error.to_string(),
            );
        }
    };
    let level = grant.entitlement.recovery_scope.level();
    metrics::counter!("reentry_tokens_total", "client" => client.id.clone(), "recovery_scope" => level)
        .increment(1);
    let mut body = json!({
        "access_token": tokens.access,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
        "scope": claims::words(&grant.entitlement.scopes),
    });
    if let Some(members) = body.as_object_mut() {
        members.extend(tokens.id.map(|id| ("id_token".to_owned(), json!(id))));
        members.extend(
            client
                .refresh
                .then(|| ("refresh_token".to_owned(), json!(grant.refresh))),
        );
    }
    let answer = browser::outcome(oauth::json(StatusCode::OK, &body), "tokens");
    browser::decided(answer, Some(&grant.session.subject.upstream), &grant.entitlement)
}

fn refused(refusal: &Refusal) -> Response {
    match refusal {
        Refusal::Store(error) => oauth_unavailable(&error.to_string()),
        Refusal::Scope => oauth::error(
            StatusCode::BAD_REQUEST,
            "invalid_scope",
            "nothing of the requested scope can be given now",
        ),
        Refusal::Contested | Refusal::Held => oauth::error(
            StatusCode::BAD_REQUEST,
            "invalid_grant",
            "nothing is issued for this account now",
        ),
        Refusal::Invalid | Refusal::NoSession => oauth::error(
            StatusCode::BAD_REQUEST,
            "invalid_grant",
            "the grant is not valid, or not valid any more",
        ),
    }
}
