//! Whether people could log in at an IdP, found out without anybody: for `doctor`.

use super::{UpstreamFault, Upstreams};
use crate::domain::subject::UpstreamId;

/// A code that no IdP has given: with the right secret it answers `invalid_grant` (RFC 6749 §5.2).
const NO_CODE: &str = "reentry-doctor-asks-whether-the-secret-is-right";

impl Upstreams {
    /// Whether the IdP knows our client, its secret and `redirect_uri`, found out without logging anybody in: by a code
    /// that cannot exist, and by a log-in that must not ask. Each entry is a fault with what to do about it.
    ///
    /// # Errors
    /// [`UpstreamFault`] when it does not answer, or something else.
    pub async fn prove(&self, id: &UpstreamId, redirect_uri: &str) -> Result<Vec<String>, UpstreamFault> {
        let slot = self.slot(id)?;
        let client = &slot.upstream.client_id;
        let metadata = self.metadata(slot, None).await?;
        let begun = self.begin(id, redirect_uri, "doctor", None, false).await?;
        let exchange = self.exchange(slot, &metadata, NO_CODE, &begun.verifier, redirect_uri);
        match exchange.await {
            Err(UpstreamFault::Refused(why)) if why.contains("invalid_grant") => {}
            Err(UpstreamFault::Refused(why)) => {
                return Ok(vec![format!(
                    "it refuses the client `{client}` or its secret, so that nobody can log in here ({why}): put the \
                     secret of its console (Clients, {client}, Credentials) into `broker.secret_file`"
                )]);
            }
            Err(other) => return Err(other),
            Ok(_) => {
                return Err(UpstreamFault::Invalid(
                    "it took a code that it never gave".to_owned(),
                ));
            }
        }
        let silent = format!("{}&prompt=none", begun.url);
        let sent_back = self
            .transport
            .location(&silent)
            .await
            .map_err(UpstreamFault::Unavailable)?;
        let fits = sent_back.is_some_and(|to| to.starts_with(redirect_uri));
        let unfit = format!(
            "it does not send anybody back to {redirect_uri}: add that to the valid redirect URIs of the client `{client}`"
        );
        Ok(if fits { Vec::new() } else { vec![unfit] })
    }
}
