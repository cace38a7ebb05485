//! Dead letters in Redis: a stream in the partition, never trimmed. What nobody delivered stays until somebody has
//! looked at it.

use super::link::Link;
use super::queues::{entries, streamed};
use super::{integer, keys, script};
use crate::ports::store::{PendingId, StoreError};
use crate::store::backend::Waiting;

pub(super) async fn bury(link: &Link, at: &PendingId, sealed: &[u8]) -> Result<(), StoreError> {
    moved(
        link,
        [keys::out(at.partition), keys::dead(at.partition)],
        at,
        sealed,
    )
    .await
    .map(|_| ())
}

pub(super) async fn revive(link: &Link, at: &PendingId, sealed: &[u8]) -> Result<bool, StoreError> {
    moved(
        link,
        [keys::dead(at.partition), keys::out(at.partition)],
        at,
        sealed,
    )
    .await
}

/// From the first stream to the second, in one step.
async fn moved(link: &Link, streams: [String; 2], at: &PendingId, sealed: &[u8]) -> Result<bool, StoreError> {
    let mut call = script::call(&script::MOVED, &streams);
    call.arg(&at.entry).arg(sealed);
    let answer = link.one(keys::slot(at.partition), call).await?;
    Ok(integer("the dead letters", &answer)? == 1)
}

pub(super) async fn all(link: &Link, max: usize) -> Result<Vec<Waiting>, StoreError> {
    let mut found = entries(link, keys::dead, max).await?;
    found.truncate(max);
    Ok(found)
}

pub(super) async fn one(link: &Link, at: &PendingId) -> Result<Option<Waiting>, StoreError> {
    let mut command = redis::cmd("XRANGE");
    command
        .arg(keys::dead(at.partition))
        .arg(&at.entry)
        .arg(&at.entry);
    // An id of another form is none of ours.
    let well_formed = at
        .entry
        .split_once('-')
        .is_some_and(|(ms, n)| ms.parse::<u64>().is_ok() && n.parse::<u64>().is_ok());
    if !well_formed {
        return Ok(None);
    }
    let entries = link.one(keys::slot(at.partition), command).await?;
    Ok(streamed(at.partition, entries)?.into_iter().next())
}
