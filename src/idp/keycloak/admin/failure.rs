//! Why an admin call fails.

use reqwest::StatusCode;

use super::Reply;

/// Longest part of an unexpected answer that goes into an error, in characters.
const EXCERPT: usize = 300;

/// Why an admin call failed. `what` is the method and the path below the realm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// No connection: refused, name not found, TLS failure, cut off.
    #[error("Keycloak is not reachable ({what}): {reason}")]
    Unreachable {
        /// The call.
        what: String,
        /// The cause, as the transport tells it.
        reason: String,
    },
    /// No answer before the deadline. Whether the call took effect is not known.
    #[error("Keycloak did not answer in time ({what})")]
    Timeout {
        /// The call.
        what: String,
    },
    /// The credentials were refused, or a fresh token was.
    #[error("Keycloak refused the credentials ({what}): {reason}")]
    Unauthorized {
        /// The call.
        what: String,
        /// The server's error code or text.
        reason: String,
    },
    /// The account lacks a role for this call.
    #[error("the account may not do this: {what}")]
    Forbidden {
        /// The call.
        what: String,
    },
    /// No such realm, user, role …
    #[error("not found: {what}")]
    NotFound {
        /// The call.
        what: String,
    },
    /// Something of that name exists, or the state does not allow it.
    #[error("conflict: {what}: {reason}")]
    Conflict {
        /// The call.
        what: String,
        /// The server's message.
        reason: String,
    },
    /// Any other status.
    #[error("unexpected answer {status} to {what}: {excerpt}")]
    Unexpected {
        /// The call.
        what: String,
        /// HTTP status.
        status: u16,
        /// Beginning of the body.
        excerpt: String,
    },
    /// An answer that is not what the API promises, or is larger than [`BODY_LIMIT`](super::BODY_LIMIT).
    #[error("malformed answer to {what}: {reason}")]
    Malformed {
        /// The call.
        what: String,
        /// What was wrong.
        reason: String,
    },
    /// The client could not be built from its settings.
    #[error("the Keycloak client cannot be set up: {reason}")]
    Settings {
        /// What was wrong.
        reason: String,
    },
}

impl AdminError {
    /// May the same call succeed later without anybody changing a setting?
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } => true,
            Self::Unexpected { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    /// May it be about this one answer, so that another call succeeds?
    #[must_use]
    pub fn is_of_one_answer(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Malformed { .. } => true,
            Self::Unexpected { status, .. } => *status >= 400,
            _ => false,
        }
    }

    pub(super) fn transport(what: &str, error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout {
                what: what.to_owned(),
            };
        }
        // The outermost text says only "error sending request"; the cause is at the bottom.
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        Self::Unreachable {
            what: what.to_owned(),
            reason: cause.to_string(),
        }
    }
}

pub(super) fn failure(what: &str, reply: &Reply) -> AdminError {
    let what = what.to_owned();
    let excerpt = || -> String {
        String::from_utf8_lossy(&reply.body)
            .chars()
            .take(EXCERPT)
            .collect()
    };
    match reply.status {
        StatusCode::UNAUTHORIZED => AdminError::Unauthorized {
            what,
            reason: excerpt(),
        },
        StatusCode::FORBIDDEN => AdminError::Forbidden { what },
        StatusCode::NOT_FOUND => AdminError::NotFound { what },
        StatusCode::CONFLICT => AdminError::Conflict {
            what,
            reason: excerpt(),
        },
        status => AdminError::Unexpected {
            what,
            status: status.as_u16(),
            excerpt: excerpt(),
        },
    }
}
