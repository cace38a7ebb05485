//! Audit lines in the file, and the heads of their chains.

use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::fault;
use super::tables::{AUDIT, CHAINS, StoredHead, number};
use crate::ports::store::StoreError;
use crate::store::backend::{Batch, ChainHead, Committed, Line, Step};
use crate::store::retention::AUDIT_RETENTION;
use crate::store::shared::form::{order, order_span};
use crate::store::shared::wall_clock;

pub(super) fn head(
    table: &impl ReadableTable<u8, StoredHead>,
    partition: u8,
) -> Result<Option<ChainHead>, StoreError> {
    let found = table.get(partition).map_err(fault)?;
    Ok(found.map(|found| {
        let (n, hash, place, mac) = found.value();
        ChainHead {
            n,
            hash: hash.to_owned(),
            place,
            mac: mac.to_owned(),
        }
    }))
}

/// How the commit ends when its lines do not go on from the head.
pub(super) fn behind(t: &WriteTransaction, batch: &Batch) -> Result<Option<Committed>, StoreError> {
    let Some(step) = &batch.step else {
        return Ok(None);
    };
    let table = t.open_table(CHAINS).map_err(fault)?;
    let found = head(&table, batch.key.partition())?;
    let same = found.clone().unwrap_or_default();
    let fits = (same.n, &same.hash) == (step.from.n, &step.from.hash);
    Ok((!fits).then_some(Committed::Behind(found)))
}

/// Adds audit lines, and drops those past their retention: counted from the older of the real time and the newest
/// line, so that one clock that is far ahead cannot empty the log.
pub(super) fn add(t: &WriteTransaction, batch: &Batch) -> Result<(), StoreError> {
    let Some(newest) = batch.audit.iter().map(|(place, _)| *place).max() else {
        return Ok(());
    };
    let partition = batch.key.partition();
    for (place, line) in &batch.audit {
        let place = (*place, number(t)?);
        t.open_table(AUDIT)
            .map_err(fault)?
            .insert(place, (partition, line.as_slice()))
            .map_err(fault)?;
    }
    if let Some(Step { to, .. }) = &batch.step {
        let head = (to.n, to.hash.as_str(), to.place, to.mac.as_str());
        t.open_table(CHAINS)
            .map_err(fault)?
            .insert(partition, head)
            .map_err(fault)?;
    }
    let cutoff = newest
        .min(order(wall_clock()))
        .saturating_sub(order_span(AUDIT_RETENTION));
    let mut lines = t.open_table(AUDIT).map_err(fault)?;
    lines.retain_in(..(cutoff, 0), |_, _| false).map_err(fault)?;
    Ok(())
}

pub(super) fn lines(
    t: &ReadTransaction,
    partition: Option<u8>,
    before: i64,
    max: usize,
) -> Result<Vec<Line>, StoreError> {
    let table = t.open_table(AUDIT).map_err(fault)?;
    let mut found: Vec<Line> = Vec::new();
    for entry in table.range(..(before, 0)).map_err(fault)?.rev() {
        let (place, value) = entry.map_err(fault)?;
        let ((order, _), (of, bytes)) = (place.value(), value.value());
        // A page ends only between two instants, so that the next one can begin before the last.
        if found.len() >= max && found.last().is_none_or(|last| last.order != order) {
            break;
        }
        if partition.is_none_or(|p| p == of) {
            found.push(Line {
                order,
                bytes: bytes.to_vec(),
            });
        }
    }
    Ok(found)
}
