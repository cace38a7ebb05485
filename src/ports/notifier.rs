//! Delivery of a notice over one channel.

use async_trait::async_trait;

use crate::domain::notice::Notice;

/// Why a notice was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// It may go through later: tried again with back-off.
    #[error("not delivered now: {0}")]
    Later(String),
    /// It will never go through as it is: visible to operators, not tried again.
    #[error("cannot be delivered: {0}")]
    Never(String),
}

/// A notice with what is needed to render it.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// Stable id of the effect: becomes the `Message-ID`, so a repeated delivery is recognisable.
    pub id: &'a str,
    /// The notice.
    pub notice: &'a Notice,
    /// The "this was not me" link, when the channel gets one.
    pub link: Option<String>,
    /// The owner's page.
    pub account_page: String,
}

/// A gateway for one or more kinds of channel.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Delivers one notice. `Ok` means that the gateway accepted it.
    ///
    /// # Errors
    /// [`NotifyError`] says whether it is worth trying again.
    async fn deliver(&self, outgoing: &Outgoing<'_>) -> Result<(), NotifyError>;
}
