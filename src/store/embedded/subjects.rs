//! Subjects and markers in the file.

use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::fault;
use super::tables::{
    ACCOUNT, DUE, DUE_ORDER, EXPIRING, GRANTS, INSTALLATION, LOSSES, MARKERS, Name, OUTBOX, RECORD,
    StoredMarker, VALUES, bytes, number,
};
use super::{audit, queues};
use crate::domain::time::Timestamp;
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Parts, StoreError};
use crate::store::backend::{Batch, Committed, Due, Former, Put, Raw};
use crate::store::marker::{GENERATION, Marker, Past, keys_of, next_generation, united};

pub(super) fn read(
    t: &ReadTransaction,
    key: &SubjectKey,
    parts: Parts,
    mark: Option<&str>,
) -> Result<Raw, StoreError> {
    let values = t.open_table(VALUES).map_err(fault)?;
    let value = |kind: u8, wanted: bool| {
        if wanted {
            bytes(&values, (kind, key.0))
        } else {
            Ok(None)
        }
    };
    let marked = match mark {
        Some(mark) => queues::alive(&t.open_table(EXPIRING).map_err(fault)?, mark)?.is_some(),
        None => false,
    };
    let due = t.open_table(DUE).map_err(fault)?;
    Ok(Raw {
        marker: marker(
            &t.open_table(MARKERS).map_err(fault)?,
            &t.open_table(LOSSES).map_err(fault)?,
            key.partition(),
        )?,
        marked,
        due: due.get(key.0).map_err(fault)?.is_some(),
        record: value(RECORD, true)?,
        others: !parts.account && !parts.grants && value(ACCOUNT, true)?.is_some(),
        account: value(ACCOUNT, parts.account)?,
        grants: value(GRANTS, parts.grants)?,
        time: None,
    })
}

pub(super) fn marker(
    table: &impl ReadableTable<u8, StoredMarker>,
    losses: &impl ReadableTable<u8, (u8, i64, i64)>,
    partition: u8,
) -> Result<Option<Marker>, StoreError> {
    let found = table.get(partition).map_err(fault)?;
    let loss = losses.get(partition).map_err(fault)?.map(|loss| loss.value());
    Ok(found.map(|found| {
        let (incarnation, fingerprint, fence) = found.value();
        Marker {
            incarnation: incarnation.to_owned(),
            fingerprint: fingerprint.to_owned(),
            fence,
            rebuilding: loss.is_some_and(|(state, ..)| state == 1),
            loss: loss.map(|(_, told_before, begun)| Past {
                told_before: Timestamp::from_millis(told_before),
                begun: Timestamp::from_millis(begun),
            }),
        }
    }))
}

fn put_loss(t: &WriteTransaction, partition: u8, rebuilding: bool, past: Past) -> Result<(), StoreError> {
    let value = (
        u8::from(rebuilding),
        past.told_before.millis(),
        past.begun.millis(),
    );
    let mut losses = t.open_table(LOSSES).map_err(fault)?;
    losses.insert(partition, value).map_err(fault)?;
    Ok(())
}

fn known(t: &WriteTransaction, partition: u8) -> Result<Option<Marker>, StoreError> {
    marker(
        &t.open_table(MARKERS).map_err(fault)?,
        &t.open_table(LOSSES).map_err(fault)?,
        partition,
    )
}

pub(super) fn begin(
    t: &WriteTransaction,
    partition: u8,
    fresh: &Marker,
) -> Result<(Option<Marker>, bool), StoreError> {
    let known = known(t, partition)?;
    let mut next = fresh.clone();
    if let Some(known) = known {
        if keys_of(&known.fingerprint) != keys_of(&fresh.fingerprint) {
            return Ok((Some(known), false));
        }
        next.fence = next.fence.max(next_generation(known.fence));
        if let (true, Some(old), Some(new)) = (known.rebuilding, known.loss, next.loss.as_mut()) {
            new.told_before = new.told_before.min(old.told_before);
        }
        next.fingerprint = known.fingerprint;
    }
    put_marker(&mut t.open_table(MARKERS).map_err(fault)?, partition, &next)?;
    if let Some(past) = next.loss {
        put_loss(t, partition, true, past)?;
    }
    Ok((Some(next), true))
}

pub(super) fn finish(
    t: &WriteTransaction,
    partition: u8,
    generation: u64,
) -> Result<(Option<u64>, bool), StoreError> {
    let ours = |m: &Marker| m.rebuilding && m.fence >> GENERATION == generation;
    let Some(mut marker) = known(t, partition)?.filter(ours) else {
        return Ok((None, false));
    };
    marker.fence += 1;
    put_marker(&mut t.open_table(MARKERS).map_err(fault)?, partition, &marker)?;
    if let Some(past) = marker.loss {
        put_loss(t, partition, false, past)?;
    }
    Ok((Some(marker.fence), true))
}

pub(super) fn widen(t: &WriteTransaction, fingerprint: &str) -> Result<bool, StoreError> {
    for partition in 0..=u8::MAX {
        if let Some(mut marker) = known(t, partition)? {
            marker.fingerprint = united(fingerprint, &marker.fingerprint);
            put_marker(&mut t.open_table(MARKERS).map_err(fault)?, partition, &marker)?;
        }
    }
    let (note, _) = installation(t, None)?;
    if let Some(mut note) = note {
        note.fingerprint = united(fingerprint, &note.fingerprint);
        put_marker(&mut t.open_table(INSTALLATION).map_err(fault)?, 0, &note)?;
    }
    Ok(true)
}

/// Compares, then writes. The transaction is one, and alone: what was compared cannot change before the commit.
pub(super) fn commit(t: &WriteTransaction, batch: &Batch) -> Result<Committed, StoreError> {
    let partition = batch.key.partition();
    let found = known(t, partition)?;
    let mut markers = t.open_table(MARKERS).map_err(fault)?;
    let Some(found) = found.clone().filter(|m| batch.marker.fault(Some(m)).is_none()) else {
        return Ok(Committed::Unsound(found));
    };
    if let Some(behind) = audit::behind(t, batch)? {
        return Ok(behind);
    }
    if let Some((mark, keep)) = &batch.mark {
        let there = queues::alive(&t.open_table(EXPIRING).map_err(fault)?, mark)?;
        if there.is_some() {
            return Ok(Committed::Duplicate);
        }
        queues::put_expiring(t, mark, &[], *keep)?;
    }
    let cells = [
        (RECORD, &batch.record),
        (ACCOUNT, &batch.account),
        (GRANTS, &batch.grants),
    ];
    {
        let mut values = t.open_table(VALUES).map_err(fault)?;
        for (kind, cell) in cells {
            if cell.former != Former::Unseen
                && Former::seen(bytes(&values, (kind, batch.key.0))?) != cell.former
            {
                return Ok(Committed::Conflict);
            }
            let place = (kind, batch.key.0);
            match &cell.put {
                Put::Leave => {}
                Put::Set(put) => drop(values.insert(place, put.as_slice()).map_err(fault)?),
                Put::Remove => drop(values.remove(place).map_err(fault)?),
            }
        }
    }
    set_due(t, batch.key.0, batch.due)?;
    for sealed in &batch.outbox {
        let place = (0, number(t)?);
        t.open_table(OUTBOX)
            .map_err(fault)?
            .insert(place, (partition, sealed.as_slice()))
            .map_err(fault)?;
    }
    audit::add(t, batch)?;
    let fence = found.fence.saturating_add(1);
    markers
        .insert(
            partition,
            (found.incarnation.as_str(), found.fingerprint.as_str(), fence),
        )
        .map_err(fault)?;
    Ok(Committed::Stored(fence))
}

fn set_due(t: &WriteTransaction, name: Name, due: Due) -> Result<(), StoreError> {
    if due == Due::Leave {
        return Ok(());
    }
    let mut times = t.open_table(DUE).map_err(fault)?;
    let mut order = t.open_table(DUE_ORDER).map_err(fault)?;
    if let Some(old) = times.remove(name).map_err(fault)? {
        order.remove((old.value(), name)).map_err(fault)?;
    }
    if let Due::At(at) = due {
        times.insert(name, at.millis()).map_err(fault)?;
        order.insert((at.millis(), name), ()).map_err(fault)?;
    }
    Ok(())
}

pub(super) fn installation(
    t: &WriteTransaction,
    fresh: Option<&Marker>,
) -> Result<(Option<Marker>, bool), StoreError> {
    let mut table = t.open_table(INSTALLATION).map_err(fault)?;
    let nothing = t.open_table(LOSSES).map_err(fault)?;
    let known = marker(&table, &nothing, 0)?.map(|note| Marker {
        rebuilding: false,
        loss: None,
        ..note
    });
    let Some(fresh) = fresh else {
        return Ok((known, false));
    };
    let better = known
        .as_ref()
        .is_none_or(|k| k.incarnation == fresh.incarnation && k.fence < fresh.fence);
    if !better {
        return Ok((known, false));
    }
    put_marker(&mut table, 0, fresh)?;
    Ok((Some(fresh.clone()), true))
}

pub(super) fn create_markers(t: &WriteTransaction, fresh: &Marker) -> Result<bool, StoreError> {
    let mut table = t.open_table(MARKERS).map_err(fault)?;
    for partition in 0..=u8::MAX {
        if table.get(partition).map_err(fault)?.is_none() {
            put_marker(&mut table, partition, fresh)?;
        }
    }
    Ok(true)
}

fn put_marker(
    table: &mut redb::Table<'_, u8, StoredMarker>,
    partition: u8,
    marker: &Marker,
) -> Result<(), StoreError> {
    let value = (
        marker.incarnation.as_str(),
        marker.fingerprint.as_str(),
        marker.fence,
    );
    table.insert(partition, value).map_err(fault)?;
    Ok(())
}
