//! Back-channel log-out of relying parties, put together: the token is the protocol's, the way there the outbound
//! client's, and everything else goes on to the gateways behind.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::event::EventKind;
use crate::domain::session::Farewell;
use crate::domain::subject::Subject;
use crate::domain::time::{Span, Timestamp};
use crate::oidc::farewell;
use crate::oidc::keys::KeyRing;
use crate::oidc::settings::BrokerSettings;
use crate::ports::notifier::{Announcement, Notifier, NotifyError, Outgoing};
use crate::ports::outbound::{Outbound, OutboundError, Post};

/// Gateways, and the relying parties that want to know when a session ends.
pub struct Farewells {
    /// Everything else.
    pub inner: Arc<dyn Notifier>,
    /// Who they are.
    pub settings: BrokerSettings,
    /// Signs.
    pub keys: Arc<KeyRing>,
    /// Goes there.
    pub outbound: Arc<dyn Outbound>,
}

#[async_trait]
impl Notifier for Farewells {
    async fn deliver(&self, outgoing: &Outgoing<'_>) -> Result<(), NotifyError> {
        self.inner.deliver(outgoing).await
    }

    fn receivers(&self, kind: EventKind) -> Vec<String> {
        self.inner.receivers(kind)
    }

    async fn announce(&self, announcement: &Announcement<'_>) -> Result<(), NotifyError> {
        self.inner.announce(announcement).await
    }

    fn patience(&self) -> Span {
        self.inner.patience()
    }

    fn takes_logout(&self, client: &str) -> bool {
        let client = self.settings.client(client);
        client.is_some_and(|c| c.backchannel_logout_uri.is_some())
    }

    async fn farewell(
        &self,
        subject: &Subject,
        farewell: &Farewell,
        id: &str,
        now: Timestamp,
    ) -> Result<(), NotifyError> {
        let never = |why: &str| NotifyError::Never(why.to_owned());
        let client = self.settings.client(&farewell.client);
        let client = client.ok_or_else(|| never("the client is not configured any more"))?;
        let url = client.backchannel_logout_uri.as_deref();
        let url = url.ok_or_else(|| never("the client takes no back-channel log-out any more"))?;
        let sub = self.settings.sub(subject);
        let sub = sub.ok_or_else(|| never("the account has no `sub` here any more"))?;
        let about = (sub.as_str(), farewell.session.as_str());
        let jti = format!("{id}:{}", now.millis());
        let token = farewell::token(&self.settings, self.keys.as_ref(), client, about, &jti, now).await;
        let token = token.map_err(|e| NotifyError::Later(e.to_string()))?;
        // A JWT needs no encoding in a form.
        let post = Post {
            url,
            content_type: "application/x-www-form-urlencoded",
            headers: Vec::new(),
            body: format!("logout_token={token}").into_bytes(),
        };
        match self.outbound.post(&post).await {
            Ok(answer) if answer.taken() => Ok(()),
            Ok(answer) => Err(NotifyError::Later(format!("the status is {}", answer.status))),
            Err(OutboundError::Refused(why)) => Err(NotifyError::Never(why)),
            Err(OutboundError::Failed(why)) => Err(NotifyError::Later(why)),
        }
    }
}
