//! Everything in the file that is not a subject: outbox, due order, single-use state, settings, leases.

use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::fault;
use super::tables::{DUE_ORDER, EXPIRING, EXPIRY, LEASES, OUTBOX, SETTINGS, number};
use crate::domain::time::{Span, Timestamp};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Lease, PendingId, StoreError};
use crate::store::backend::Waiting;
use crate::store::shared::wall_clock;

/// Expired marks and states that one write clears away.
const CLEARED: usize = 32;

pub(super) fn outbox(
    t: &ReadTransaction,
    partitions: &[u8],
    now: Timestamp,
    max: usize,
) -> Result<Vec<Waiting>, StoreError> {
    let table = t.open_table(OUTBOX).map_err(fault)?;
    let mut found = Vec::new();
    for entry in table.range(..=(now.millis(), u64::MAX)).map_err(fault)? {
        if found.len() >= max {
            break;
        }
        let (place, value) = entry.map_err(fault)?;
        let ((until, number), (partition, sealed)) = (place.value(), value.value());
        if partitions.contains(&partition) {
            found.push(Waiting {
                at: PendingId {
                    partition,
                    entry: format!("{until}-{number}"),
                },
                sealed: sealed.to_vec(),
            });
        }
    }
    Ok(found)
}

fn place(at: &PendingId) -> Result<(i64, u64), StoreError> {
    let parts = at.entry.rsplit_once('-');
    parts
        .and_then(|(until, number)| Some((until.parse().ok()?, number.parse().ok()?)))
        .ok_or_else(|| StoreError::Unreadable(format!("`{}` is no place in the outbox", at.entry)))
}

/// Says whether there was anything to remove.
pub(super) fn remove(t: &WriteTransaction, at: &PendingId) -> Result<bool, StoreError> {
    let mut table = t.open_table(OUTBOX).map_err(fault)?;
    let removed = table.remove(place(at)?).map_err(fault)?;
    Ok(removed.is_some())
}

pub(super) fn defer(
    t: &WriteTransaction,
    at: &PendingId,
    sealed: &[u8],
    until: Timestamp,
) -> Result<bool, StoreError> {
    if !remove(t, at)? {
        return Ok(false);
    }
    let place = (until.millis(), number(t)?);
    let mut table = t.open_table(OUTBOX).map_err(fault)?;
    table.insert(place, (at.partition, sealed)).map_err(fault)?;
    Ok(true)
}

pub(super) fn due(t: &ReadTransaction, now: Timestamp, max: usize) -> Result<Vec<SubjectKey>, StoreError> {
    let table = t.open_table(DUE_ORDER).map_err(fault)?;
    let entries = table
        .range(..=(now.millis(), [u8::MAX; 16]))
        .map_err(fault)?
        .take(max);
    entries
        .map(|e| {
            let (place, ()) = e.map(|(k, v)| (k, v.value())).map_err(fault)?;
            Ok(SubjectKey(place.value().1))
        })
        .collect()
}

/// A value that has not expired.
pub(super) fn alive(
    table: &impl ReadableTable<&'static str, (i64, &'static [u8])>,
    name: &str,
) -> Result<Option<Vec<u8>>, StoreError> {
    let found = table.get(name).map_err(fault)?;
    Ok(found.and_then(|found| {
        let (until, value) = found.value();
        (wall_clock().millis() < until).then(|| value.to_vec())
    }))
}

/// Keeps a value for a while, and clears a few others away whose time is over.
pub(super) fn put_expiring(
    t: &WriteTransaction,
    name: &str,
    value: &[u8],
    keep: Span,
) -> Result<(), StoreError> {
    let now = wall_clock();
    let mut values = t.open_table(EXPIRING).map_err(fault)?;
    let mut order = t.open_table(EXPIRY).map_err(fault)?;
    let over: Vec<(i64, String)> = order
        .range(..(now.millis(), ""))
        .map_err(fault)?
        .take(CLEARED)
        .filter_map(Result::ok)
        .map(|(k, _)| (k.value().0, k.value().1.to_owned()))
        .collect();
    for (until, name) in over {
        order.remove((until, name.as_str())).map_err(fault)?;
        values.remove(name.as_str()).map_err(fault)?;
    }
    let until = now.plus(keep).millis();
    let old = values.insert(name, (until, value)).map_err(fault)?;
    if let Some(old) = old {
        order.remove((old.value().0, name)).map_err(fault)?;
    }
    order.insert((until, name), ()).map_err(fault)?;
    Ok(())
}

/// Says whether the value was put, which it is not when there is one.
pub(super) fn put_state(
    t: &WriteTransaction,
    name: &str,
    sealed: &[u8],
    keep: Span,
) -> Result<bool, StoreError> {
    if alive(&t.open_table(EXPIRING).map_err(fault)?, name)?.is_some() {
        return Ok(false);
    }
    put_expiring(t, name, sealed, keep)?;
    Ok(true)
}

pub(super) fn take_state(t: &WriteTransaction, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut values = t.open_table(EXPIRING).map_err(fault)?;
    let found = alive(&values, name)?;
    if let Some(old) = values.remove(name).map_err(fault)? {
        let mut order = t.open_table(EXPIRY).map_err(fault)?;
        order.remove((old.value().0, name)).map_err(fault)?;
    }
    Ok(found)
}

pub(super) fn setting(t: &ReadTransaction, name: &str) -> Result<Option<String>, StoreError> {
    let table = t.open_table(SETTINGS).map_err(fault)?;
    let found = table.get(name).map_err(fault)?;
    Ok(found.map(|v| v.value().to_owned()))
}

pub(super) fn set_setting(
    t: &WriteTransaction,
    name: &str,
    value: &str,
    lease: Option<&Lease>,
) -> Result<(), StoreError> {
    if let Some(lease) = lease {
        let table = t.open_table(LEASES).map_err(fault)?;
        let held = table.get(lease.name.as_str()).map_err(fault)?;
        if held.is_none_or(|h| h.value().2 != lease.fence) {
            return Err(StoreError::StaleLease(lease.name.clone()));
        }
    }
    let mut table = t.open_table(SETTINGS).map_err(fault)?;
    table.insert(name, value).map_err(fault)?;
    Ok(())
}

pub(super) fn lease(
    t: &WriteTransaction,
    name: &str,
    owner: &str,
    keep: Span,
) -> Result<Option<Lease>, StoreError> {
    let now = wall_clock();
    let mut table = t.open_table(LEASES).map_err(fault)?;
    let held = table.get(name).map_err(fault)?.map(|held| {
        let (by, until, fence) = held.value();
        (by == owner, now.millis() < until, fence)
    });
    let fence = match held {
        Some((false, true, _)) => return Ok(None),
        Some((true, true, fence)) => fence,
        Some((_, false, fence)) => fence.saturating_add(1),
        None => 1,
    };
    table
        .insert(name, (owner, now.plus(keep).millis(), fence))
        .map_err(fault)?;
    Ok(Some(Lease {
        name: name.to_owned(),
        fence,
    }))
}

/// Says whether there was anything to give back. The fence stays, for those who still think they hold it.
pub(super) fn release(t: &WriteTransaction, name: &str, owner: &str) -> Result<bool, StoreError> {
    let mut table = t.open_table(LEASES).map_err(fault)?;
    let fence = table.get(name).map_err(fault)?.and_then(|held| {
        let (by, _, fence) = held.value();
        (by == owner).then_some(fence)
    });
    if let Some(fence) = fence {
        table.insert(name, ("", 0, fence)).map_err(fault)?;
    }
    Ok(fence.is_some())
}
