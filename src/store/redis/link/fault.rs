//! What an error of the client means.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::ports::store::StoreError;

/// What an error means: for the caller, and whether the connection is of no use any more.
pub(super) fn judge(error: &RedisError) -> (StoreError, bool) {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Server(
            ServerErrorKind::ReadOnly
            | ServerErrorKind::MasterDown
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::ClusterDown,
        ) => (StoreError::Unavailable(text), true),
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::TryAgain) => (
            StoreError::Unavailable(format!(
                "{text} (a node of a Redis Cluster: `store.url` has to say redis+cluster://)"
            )),
            false,
        ),
        _ if error.code() == Some("OOM") || text.contains("OOM command not allowed") => (
            StoreError::Full(
                "Redis has used all of its `maxmemory`, and nothing can be stored: give it more (`CONFIG SET maxmemory`)"
                    .to_owned(),
            ),
            false,
        ),
        // A replica that left while a write waited for it: the node was demoted meanwhile.
        _ if error.code() == Some("UNBLOCKED") => (StoreError::Unavailable(text), true),
        _ if error.code() == Some("WRONGTYPE") || text.contains("WRONGTYPE") => {
            (StoreError::Unsound(text), false)
        }
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => (StoreError::Unsound(text), true),
        _ => {
            let fatal = error.is_timeout()
                || error.is_io_error()
                || error.is_connection_dropped()
                || error.is_unrecoverable_error();
            (StoreError::Unavailable(text), fatal)
        }
    }
}

pub(super) fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether a cluster says that the slot is elsewhere, is moving, or cannot be had whole just now.
pub(super) fn is_redirection(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::TryAgain)
    )
}
