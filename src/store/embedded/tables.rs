//! The tables of the file.

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::fault;
use crate::ports::store::StoreError;

/// Octets of a subject's keyed name.
pub(super) type Name = [u8; 16];

/// Records, snapshots and grants: kind and subject.
pub(super) const VALUES: TableDefinition<(u8, Name), &[u8]> = TableDefinition::new("values");
/// Kind of a record in [`VALUES`].
pub(super) const RECORD: u8 = 0;
/// Kind of a snapshot.
pub(super) const ACCOUNT: u8 = 1;
/// Kind of grants.
pub(super) const GRANTS: u8 = 2;

/// A marker: incarnation, fingerprint, fence.
pub(super) type StoredMarker = (&'static str, &'static str, u64);
/// Markers by partition.
pub(super) const MARKERS: TableDefinition<u8, StoredMarker> = TableDefinition::new("markers");
/// Of partitions that were lost once: whether it is being rebuilt (1), changes told before (ms), grants gone until (ms).
pub(super) const LOSSES: TableDefinition<u8, (u8, i64, i64)> = TableDefinition::new("losses");
/// The installation's note of who it is, at place 0.
pub(super) const INSTALLATION: TableDefinition<u8, StoredMarker> = TableDefinition::new("installation");

/// When a subject is due, in ms.
pub(super) const DUE: TableDefinition<Name, i64> = TableDefinition::new("due");
/// The same in the order of time.
pub(super) const DUE_ORDER: TableDefinition<(i64, Name), ()> = TableDefinition::new("due_order");

/// Outbox: not before (ms; 0 for the first try) and a running number, to partition and sealed entry.
pub(super) const OUTBOX: TableDefinition<(i64, u64), (u8, &[u8])> = TableDefinition::new("outbox");
/// Dead letters: partition and a running number, to the sealed entry.
pub(super) const DEAD: TableDefinition<(u8, u64), &[u8]> = TableDefinition::new("dead");
/// Audit: order of time and a running number, to partition and line.
pub(super) const AUDIT: TableDefinition<(i64, u64), (u8, &[u8])> = TableDefinition::new("audit");

/// The newest audit line of a partition: number, hash, place, MAC.
pub(super) type StoredHead = (u64, &'static str, i64, &'static str);
/// Heads of audit chains by partition.
pub(super) const CHAINS: TableDefinition<u8, StoredHead> = TableDefinition::new("chains");

/// Marks and state: until when (ms) and what.
pub(super) const EXPIRING: TableDefinition<&str, (i64, &[u8])> = TableDefinition::new("expiring");
/// The same in the order of expiry.
pub(super) const EXPIRY: TableDefinition<(i64, &str), ()> = TableDefinition::new("expiry");

/// Settings.
pub(super) const SETTINGS: TableDefinition<&str, &str> = TableDefinition::new("settings");
/// Leases: owner, until when (ms), fence.
pub(super) const LEASES: TableDefinition<&str, (&str, i64, u64)> = TableDefinition::new("leases");
/// Running numbers.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");

/// Makes every table, so that reading one never fails for its absence.
pub(super) fn create(t: &WriteTransaction) -> Result<(), StoreError> {
    t.open_table(VALUES).map_err(fault)?;
    t.open_table(MARKERS).map_err(fault)?;
    t.open_table(LOSSES).map_err(fault)?;
    t.open_table(INSTALLATION).map_err(fault)?;
    t.open_table(DUE).map_err(fault)?;
    t.open_table(DUE_ORDER).map_err(fault)?;
    t.open_table(OUTBOX).map_err(fault)?;
    t.open_table(DEAD).map_err(fault)?;
    t.open_table(CHAINS).map_err(fault)?;
    t.open_table(AUDIT).map_err(fault)?;
    t.open_table(EXPIRING).map_err(fault)?;
    t.open_table(EXPIRY).map_err(fault)?;
    t.open_table(SETTINGS).map_err(fault)?;
    t.open_table(LEASES).map_err(fault)?;
    t.open_table(NUMBERS).map_err(fault)?;
    Ok(())
}

/// The next running number.
pub(super) fn number(t: &WriteTransaction) -> Result<u64, StoreError> {
    let mut numbers = t.open_table(NUMBERS).map_err(fault)?;
    let next = numbers
        .get("next")
        .map_err(fault)?
        .map_or(1, |n| n.value().saturating_add(1));
    numbers.insert("next", next).map_err(fault)?;
    Ok(next)
}

/// Octets under a key, copied out of the file.
pub(super) fn bytes<K: redb::Key + 'static>(
    table: &impl ReadableTable<K, &'static [u8]>,
    key: K::SelfType<'_>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let found = table.get(key).map_err(fault)?;
    Ok(found.map(|v| v.value().to_vec()))
}
