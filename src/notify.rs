//! Delivery of notices. E-mail goes out over SMTP; a channel for which there is no gateway is refused for good,
//! so that an operator sees that somebody could not be told.

pub mod mail;
pub mod outbound;
pub mod smtp;
pub mod webhook;

use async_trait::async_trait;

use crate::domain::subject::account::ContactKind;
use crate::ports::notifier::{Notifier, NotifyError, Outgoing};

/// The gateways of a deployment, by kind of channel.
pub struct Gateways {
    /// For e-mail addresses.
    pub email: smtp::Mailer,
}

#[async_trait]
impl Notifier for Gateways {
    async fn deliver(&self, outgoing: &Outgoing<'_>) -> Result<(), NotifyError> {
        match outgoing.notice.kind {
            ContactKind::Email => self.email.deliver(outgoing).await,
            ContactKind::Phone => Err(NotifyError::Never(
                "there is no gateway for text messages".to_owned(),
            )),
        }
    }
}
