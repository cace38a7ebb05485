//! `/revoke` (RFC 7009).

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::flow::live;
use crate::http::broker::known::known;
use crate::http::broker::{browser, oauth};
use crate::http::context::Context;
use crate::http::extract::Posted;
use crate::http::guard::oauth_unavailable;
use crate::http::peer::Peer;

/// `POST /revoke`. Tokens that are unknown, or somebody else's, are answered like revoked ones.
pub async fn revoke(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Posted(params): Posted,
) -> Response {
    let (client, params) = match oauth::client(&context, peer, &headers, params).await {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let Some(token) = params.get("token") else {
        return oauth::invalid_request("token is missing");
    };
    let revoked = match known(&context, token) {
        Some(known) if known.token.client == client.id => {
            live::revoke_access(&context.flow, &known.token).await
        }
        Some(_) => Ok(()),
        None => live::revoke_refresh(&context.flow, &client.id, token)
            .await
            .map(|_| ()),
    };
    match revoked {
        Ok(()) => browser::of_client(StatusCode::OK.into_response(), &client.id),
        Err(error) => oauth_unavailable(&error.to_string()),
    }
}
