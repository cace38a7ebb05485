//! A client that proves who it is by a key (`private_key_jwt`).

use std::sync::Arc;

use axum::response::Response;

use crate::http::broker::once::Once;
use crate::http::context::Context;
use crate::http::guard::oauth_unavailable;
use crate::oidc::assertion::{self, Asserted, PublicKeys, Refusal};
use crate::oidc::settings::{Client, ClientAuth, ClientKeys};

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
    // Seen before, here or at another replica: a client's key has vouched for its name, so it may be kept.
    let keep = asserted
        .expires
        .plus(assertion::LONGEST)
        .since(context.flow.clock.now());
    let once = Once::of("assertion", &format!("{}\0{}", client.id, asserted.jti), keep);
    match once.is_first(&context.flow).await {
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
