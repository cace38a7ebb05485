//! The realm's public keys: with them it signs the tokens that hooks bring.

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use serde::Deserialize;
use serde_json::Value;

use super::{Admin, AdminError, decode, failure, receive};

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Admin {
    /// The realm's signing keys. Keys of a kind that we do not know are left out. Asked without a token: it is public.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn realm_keys(&self) -> Result<Vec<Jwk>, AdminError> {
        let what = "GET protocol/openid-connect/certs";
        let url = self.url(&["realms", &self.realm, "protocol", "openid-connect", "certs"])?;
        let reply = receive(what, self.http.get(url)).await?;
        if !reply.status.is_success() {
            return Err(failure(what, &reply));
        }
        let set: Set = decode(what, &reply.body)?;
        let known = set
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        Ok(known
            .filter(|key| !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption)))
            .collect())
    }
}
