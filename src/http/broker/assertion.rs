//! A client that proves who it is by a key (`private_key_jwt`).

use std::sync::Arc;

use axum::response::Response;

use crate::domain::time::Span;
use crate::flow::Flow;
use crate::http::context::Context;
use crate::http::guard::oauth_unavailable;
use crate::oidc::assertion::{self, Asserted, PublicKeys, Refusal};
use crate::oidc::digest;
use crate::oidc::settings::{Client, ClientAuth, ClientKeys};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Mark, Parts, StoreError, Updated};

/// The client of an assertion; `Ok(None)` when it proves nothing.
///
/// # Errors
/// The answer when the client's keys or the store cannot be had: it may be better later.
pub async fn client<'a>(context: &'a Context, token: &str) -> Result<Option<&'a Client>, Response> {
    let settings = &context.broker.settings;
    let Some(client) = assertion::claimed(token).and_then(|id| settings.client(&id)) else {
        return Ok(None);
    };
    let asserted = match asserted(context, client, token).await? {
        Ok(asserted) => asserted,
        Err(refusal) => {
            tracing::info!(client = client.id, %refusal, "a client assertion is refused");
            return Ok(None);
        }
    };
    match first_use(&context.flow, &client.id, &asserted).await {
        Ok(true) => Ok(Some(client)),
        Ok(false) => {
            tracing::warn!(client = client.id, "a client assertion came a second time");
            Ok(None)
        }
        Err(error) => Err(oauth_unavailable(&error.to_string())),
    }
}

async fn asserted(
    context: &Context,
    client: &Client,
    token: &str,
) -> Result<Result<Asserted, Refusal>, Response> {
    let ClientAuth::PrivateKey { keys, algorithms } = &client.auth else {
        return Ok(Err(Refusal::UnknownKey));
    };
    let settings = &context.broker.settings;
    let (now, endpoint) = (context.flow.clock.now(), settings.url("/token"));
    let audiences = [settings.issuer.as_str(), endpoint.as_str()];
    let verify = |keys: &PublicKeys| assertion::verify(token, &client.id, keys, algorithms, &audiences, now);
    let url = match keys {
        ClientKeys::Inline(keys) => return Ok(verify(keys)),
        ClientKeys::Published(url) => url,
    };
    let published = async |stale: Option<&Arc<PublicKeys>>| {
        let found = context.broker.published.of(&client.id, url, stale).await;
        found.map_err(|error| oauth_unavailable(&error.to_string()))
    };
    let known = published(None).await?;
    match verify(&known) {
        Err(Refusal::UnknownKey) => Ok(verify(published(Some(&known)).await?.as_ref())),
        verdict => Ok(verdict),
    }
}

/// Whether an assertion has not been seen before, here or at another replica; from now on it has.
async fn first_use(flow: &Flow, client: &str, asserted: &Asserted) -> Result<bool, StoreError> {
    let name = digest::sha256(format!("client assertion\0{client}\0{}", asserted.jti).as_bytes());
    let mut key = [0; 16];
    for (to, from) in key.iter_mut().zip(&name) {
        *to = *from;
    }
    let mark = Mark {
        name: format!(
            "assertion:{}",
            digest::s256(&format!("{client}\0{}", asserted.jti))
        ),
        keep: asserted
            .expires
            .plus(assertion::LONGEST)
            .since(flow.clock.now())
            .max(Span::ZERO),
    };
    let updated = flow
        .store
        .update(&SubjectKey(key), Parts::RECORD, Some(&mark), &|_| None)
        .await?;
    Ok(!matches!(updated, Updated::Duplicate))
}
