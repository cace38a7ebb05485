//! Delivery of a notice over one channel, and of events to other programs.

use async_trait::async_trait;

use crate::domain::event::{Event, EventKind};
use crate::domain::notice::Notice;
use crate::domain::session::Farewell;
use crate::domain::subject::Subject;
use crate::domain::time::{Span, Timestamp};

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

/// An event on its way to one receiver.
#[derive(Clone, Debug)]
pub struct Announcement<'a> {
    /// The receiver's configured id.
    pub receiver: &'a str,
    /// Stable id of the event, the same at every try and for every receiver.
    pub id: &'a str,
    /// Whose it is.
    pub subject: &'a Subject,
    /// What happened.
    pub event: &'a Event,
    /// The time of this try.
    pub now: Timestamp,
}

/// A gateway for one or more kinds of channel.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Delivers one notice. `Ok` means that the gateway accepted it.
    ///
    /// # Errors
    /// [`NotifyError`] says whether it is worth trying again.
    async fn deliver(&self, outgoing: &Outgoing<'_>) -> Result<(), NotifyError>;

    /// The receivers that want to know of such an event.
    fn receivers(&self, _kind: EventKind) -> Vec<String> {
        Vec::new()
    }

    /// Tells one receiver. `Ok` means that it took the event.
    ///
    /// # Errors
    /// [`NotifyError`] says whether it is worth trying again.
    async fn announce(&self, announcement: &Announcement<'_>) -> Result<(), NotifyError> {
        let why = format!("there is no receiver `{}` any more", announcement.receiver);
        Err(NotifyError::Never(why))
    }

    /// Whether a relying party takes back-channel log-out.
    fn takes_logout(&self, _client: &str) -> bool {
        false
    }

    /// Tells a relying party that a session of `subject` has ended; `id` is the same at every try.
    ///
    /// # Errors
    /// [`NotifyError`] says whether it is worth trying again.
    async fn farewell(
        &self,
        _subject: &Subject,
        farewell: &Farewell,
        _id: &str,
        _now: Timestamp,
    ) -> Result<(), NotifyError> {
        let why = format!("`{}` takes no back-channel log-out", farewell.client);
        Err(NotifyError::Never(why))
    }

    /// How long a delivery is tried before it becomes a dead letter.
    fn patience(&self) -> Span {
        Span::from_days(7)
    }
}
