//! Dead letters in the file.

use redb::{ReadTransaction, WriteTransaction};

use super::tables::{DEAD, OUTBOX, number};
use super::{fault, queues};
use crate::ports::store::{PendingId, StoreError};
use crate::store::backend::Waiting;

/// Its number, when it is one.
fn place(at: &PendingId) -> Option<(u8, u64)> {
    Some((at.partition, at.entry.parse().ok()?))
}

/// Says whether there was anything to bury.
pub(super) fn bury(t: &WriteTransaction, at: &PendingId, sealed: &[u8]) -> Result<bool, StoreError> {
    if !queues::remove(t, at)? {
        return Ok(false);
    }
    let place = (at.partition, number(t)?);
    let mut table = t.open_table(DEAD).map_err(fault)?;
    table.insert(place, sealed).map_err(fault)?;
    Ok(true)
}

pub(super) fn all(t: &ReadTransaction, max: usize) -> Result<Vec<Waiting>, StoreError> {
    let table = t.open_table(DEAD).map_err(fault)?;
    let entries = table.range((0, 0)..).map_err(fault)?.take(max);
    entries
        .map(|entry| {
            let (place, sealed) = entry.map_err(fault)?;
            let (partition, number) = place.value();
            Ok(waiting(partition, number, sealed.value()))
        })
        .collect()
}

pub(super) fn one(t: &ReadTransaction, at: &PendingId) -> Result<Option<Waiting>, StoreError> {
    let Some(place) = place(at) else {
        return Ok(None);
    };
    let table = t.open_table(DEAD).map_err(fault)?;
    let found = table.get(place).map_err(fault)?;
    Ok(found.map(|sealed| waiting(place.0, place.1, sealed.value())))
}

fn waiting(partition: u8, number: u64, sealed: &[u8]) -> Waiting {
    Waiting {
        at: PendingId {
            partition,
            entry: number.to_string(),
        },
        sealed: sealed.to_vec(),
    }
}

/// Says whether it was there.
pub(super) fn revive(t: &WriteTransaction, at: &PendingId, sealed: &[u8]) -> Result<bool, StoreError> {
    let Some(dead) = place(at) else {
        return Ok(false);
    };
    let removed = {
        let mut table = t.open_table(DEAD).map_err(fault)?;
        table.remove(dead).map_err(fault)?.is_some()
    };
    if removed {
        let place = (0, number(t)?);
        let mut table = t.open_table(OUTBOX).map_err(fault)?;
        table.insert(place, (at.partition, sealed)).map_err(fault)?;
    }
    Ok(removed)
}
