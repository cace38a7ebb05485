//! The log-out request of a relying party (OIDC RP-Initiated Logout §2, §3).

use url::Url;

use crate::oidc::params::Params;
use crate::oidc::settings::{BrokerSettings, Client};
use crate::oidc::verify::Verified;

/// What is asked for, and who vouches for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogoutRequest {
    /// The client, by the hint or by `client_id`.
    pub client: Option<String>,
    /// Where to go afterwards: one of the client's, with `state`.
    pub back: Option<String>,
    /// The session and `sub` of a valid hint.
    pub hint: Option<(String, String)>,
}

/// Reads a request. `hint` checks an ID token of ours, expired or not.
///
/// # Errors
/// What to tell the person: nothing is redirected then, and nothing has ended.
pub fn parse(
    params: &Params,
    settings: &BrokerSettings,
    hint: impl Fn(&str) -> Option<Verified>,
) -> Result<LogoutRequest, &'static str> {
    let hinted = match params.get("id_token_hint") {
        Some(token) => Some(hint(token).ok_or("The application sent a proof that is not ours.")?),
        None => None,
    };
    let audience = hinted.as_ref().and_then(|h| h.text("aud"));
    let named = params.get("client_id");
    if let (Some(named), Some(audience)) = (named, audience)
        && named != audience
    {
        return Err("The application sent the proof of another application.");
    }
    let client: Option<&Client> = named.or(audience).and_then(|id| settings.client(id));
    if named.is_some() && client.is_none() {
        return Err("The application that sent you here is not known.");
    }
    let back = match params.get("post_logout_redirect_uri") {
        Some(uri) => Some(allowed(client, uri, params.get("state"))?),
        None => None,
    };
    let hint = hinted.and_then(|h| Some((h.text("sid")?.to_owned(), h.text("sub")?.to_owned())));
    Ok(LogoutRequest {
        client: client.map(|c| c.id.clone()),
        back,
        hint,
    })
}

fn allowed(client: Option<&Client>, uri: &str, state: Option<&str>) -> Result<String, &'static str> {
    const FOREIGN: &str = "The application gave an address that is not its own.";
    let known = client.is_some_and(|c| c.post_logout_redirect_uris.iter().any(|known| known == uri));
    let mut url = Url::parse(uri).ok().filter(|_| known).ok_or(FOREIGN)?;
    if let Some(state) = state {
        url.query_pairs_mut().append_pair("state", state);
    }
    Ok(url.into())
}
