//! Messages to servers that others run and whose addresses come from settings: webhook receivers, back-channel
//! log-out of relying parties, and the keys that clients publish. The adapter reaches public addresses only, follows no redirect, and is over in time.

use async_trait::async_trait;

/// One `POST`.
#[derive(Clone, Debug)]
pub struct Post<'a> {
    /// Where to: https; http only to a loopback host that is allowed by the configuration.
    pub url: &'a str,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Further headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status; a redirect is one too, it is not followed.
    pub status: u16,
    /// The beginning of the body, as far as it came within the deadline and the cap of the adapter.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether the receiver took it (2xx).
    #[must_use]
    pub const fn taken(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The target is none that we talk to: not https, or an address that is not public.
    #[error("refused: {0}")]
    Refused(String),
    /// No connection, or no answer in time.
    #[error("no answer: {0}")]
    Failed(String),
}

/// A client for such targets.
#[async_trait]
pub trait Outbound: Send + Sync {
    /// Sends once; repeats nothing.
    ///
    /// # Errors
    /// [`OutboundError`]. The receiver may have taken the message all the same when it is [`OutboundError::Failed`].
    async fn post(&self, post: &Post<'_>) -> Result<Answer, OutboundError>;

    /// Reads a document whole, of at most `most` octets.
    ///
    /// # Errors
    /// [`OutboundError`]; an answer that breaks off or is larger is [`OutboundError::Failed`].
    async fn get(&self, url: &str, most: usize) -> Result<Answer, OutboundError>;
}
