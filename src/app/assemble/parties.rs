//! Relying parties and IdPs of the configuration, as the broker knows them.

use anyhow::anyhow;

use crate::config::client::auth::{AssertionAlg, ClientAuth, ClientKeys};
use crate::config::client::{Client, Unaware};
use crate::config::keys::Jws;
use crate::config::upstream::Upstream;
use crate::oidc::assertion::{Alg, PublicKeys};
use crate::oidc::settings;
use crate::ports::signer::Algorithm;

const fn algorithm(jws: Jws) -> Algorithm {
    match jws {
        Jws::Rs256 => Algorithm::Rs256,
        Jws::Es256 => Algorithm::Es256,
        Jws::EdDsa => Algorithm::EdDsa,
    }
}

const fn assertion(alg: AssertionAlg) -> Alg {
    match alg {
        AssertionAlg::Rs256 => Alg::Rs256,
        AssertionAlg::Ps256 => Alg::Ps256,
        AssertionAlg::Es256 => Alg::Es256,
        AssertionAlg::EdDsa => Alg::EdDsa,
    }
}

fn auth(client: &Client) -> anyhow::Result<settings::ClientAuth> {
    let secret = |hash: &crate::config::client::SecretHash, basic: bool| settings::ClientAuth::Secret {
        secrets: vec![settings::SecretHash::from_digest(hash.as_bytes())],
        basic,
        post: !basic,
    };
    Ok(match &client.auth {
        ClientAuth::None => settings::ClientAuth::None,
        ClientAuth::Basic(hash) => secret(hash, true),
        ClientAuth::Post(hash) => secret(hash, false),
        ClientAuth::PrivateKey { keys, algorithms } => settings::ClientAuth::PrivateKey {
            keys: match keys {
                ClientKeys::Inline(text) => settings::ClientKeys::Inline(
                    PublicKeys::parse(text)
                        .map_err(|why| anyhow!("the `jwks_file` of the client {}: {why}", client.id))?,
                ),
                ClientKeys::Published(url) => settings::ClientKeys::Published(url.to_string()),
            },
            algorithms: algorithms.iter().copied().map(assertion).collect(),
        },
    })
}

/// A relying party.
///
/// # Errors
/// When its keys cannot be used.
pub fn client(client: &Client) -> anyhow::Result<settings::Client> {
    Ok(settings::Client {
        id: client.id.clone(),
        name: client.name.clone(),
        auth: auth(client)?,
        redirect_uris: client.redirect_uris.clone(),
        post_logout_redirect_uris: client.post_logout_redirect_uris.clone(),
        scopes: client.scopes.clone(),
        audience: client.audience.clone(),
        pkce_required: client.pkce_required,
        id_token_alg: algorithm(client.id_token),
        access_token_alg: algorithm(client.access_token),
        refuse_in_hold: client.unaware == Unaware::Refuse,
        upstreams: client.upstream.iter().chain(&client.upstreams).cloned().collect(),
        refresh: client.refresh,
        may_introspect: client.may_introspect,
        backchannel_logout_uri: client.backchannel_logout_uri.clone(),
        backchannel_logout_session_required: client.backchannel_logout_session_required,
        origins: client.origins.clone(),
    })
}

/// An IdP, if users log in there.
#[must_use]
pub fn upstream(upstream: &Upstream) -> Option<settings::Upstream> {
    let broker = upstream.broker.as_ref()?;
    Some(settings::Upstream {
        id: upstream.id.clone(),
        issuer: upstream.issuer(),
        client_id: broker.client_id.clone(),
        client_secret: Some(broker.secret.clone()),
        scopes: vec!["profile".to_owned(), "email".to_owned()],
        name: upstream.name.clone(),
        subject_prefix: upstream.prefix.clone(),
        end_session: true,
    })
}
