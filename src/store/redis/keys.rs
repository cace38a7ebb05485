//! Names of keys. Everything that changes in one step has one hash tag, so that one script can change it, on a
//! plain server as in a cluster:
//!
//! | key | type | what |
//! |---|---|---|
//! | `re:{NNN}:s:<subject>` | string | record, behind what says which snapshot and grants belong to it, sealed |
//! | `re:{NNN}:a:<subject>` | string | snapshot of contacts and factors, sealed |
//! | `re:{NNN}:g:<subject>` | string | grants, sealed |
//! | `re:{NNN}:m:<source>:<hash>` | string | dedupe mark |
//! | `re:{NNN}:due` | sorted set | subjects by the time they are due |
//! | `re:{NNN}:out` | stream | effects to be done now, sealed |
//! | `re:{NNN}:later` | sorted set | effects that failed, by the time of the next try, sealed |
//! | `re:{NNN}:dead` | stream | effects that are not tried again by themselves, sealed |
//! | `re:{NNN}:audit` | sorted set | audit lines by time |
//! | `re:{NNN}:epoch` | hash | marker: `i` incarnation, `f` fingerprint, `n` fence; of a loss `s` = `r` while it is rebuilt, `l` changes before this instant were told, `b` grants until this instant are gone |
//! | `re:{NNN}:sync` | string | written and waited for, to prove that earlier writes are durable |
//! | `re:{control}:installation` | hash | as a marker |
//! | `re:{control}:setting:<name>`, `re:{control}:lease:<name>` | string, hash | a setting is written only under the newest lease |
//! | `re:state:<hash>` | string | single-use state, sealed; no tag, so that a cluster spreads it |

use std::sync::LazyLock;

use super::link::{Slot, slot_of};
use crate::ports::seal::SubjectKey;
use crate::store::seal::{hex, hex_into};

/// The slot of everything that a partition has.
pub(super) fn slot(partition: u8) -> Slot {
    static SLOTS: LazyLock<Vec<Slot>> = LazyLock::new(|| (0..=u8::MAX).map(|p| slot_of(&epoch(p))).collect());
    SLOTS
        .get(usize::from(partition))
        .copied()
        .unwrap_or_else(|| slot_of(&epoch(partition)))
}

/// The slot of settings, leases and the installation's note.
pub(super) fn control() -> Slot {
    static CONTROL: LazyLock<Slot> = LazyLock::new(|| slot_of(INSTALLATION));
    *CONTROL
}

/// The installation's own note of who it is.
pub(super) const INSTALLATION: &str = "re:{control}:installation";

pub(super) fn record(key: &SubjectKey) -> String {
    value(key, 's')
}

pub(super) fn account(key: &SubjectKey) -> String {
    value(key, 'a')
}

pub(super) fn grants(key: &SubjectKey) -> String {
    value(key, 'g')
}

fn value(key: &SubjectKey, kind: char) -> String {
    let mut name = tagged(key.partition());
    name.push(kind);
    name.push(':');
    hex_into(&mut name, &key.0);
    name
}

/// What every name of a partition begins with. Each reading makes four of them: without the formatter's detours.
fn tagged(partition: u8) -> String {
    let digit = |n: u8| char::from(b'0' + n % 10);
    let mut name = String::with_capacity(48);
    name.push_str("re:{");
    name.push(digit(partition / 100));
    name.push(digit(partition / 10));
    name.push(digit(partition));
    name.push_str("}:");
    name
}

/// The subject in a sorted set.
pub(super) fn member(key: &SubjectKey) -> String {
    hex(&key.0)
}

/// The subject that a member of the due queue is.
pub(super) fn subject(member: &[u8]) -> Option<SubjectKey> {
    let (pairs, []) = member.as_chunks::<2>() else {
        return None;
    };
    let octet = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let octets: Vec<u8> = pairs.iter().map(octet).collect::<Option<_>>()?;
    octets.try_into().ok().map(SubjectKey)
}

pub(super) fn mark(partition: u8, name: &str) -> String {
    format!("re:{{{partition:03}}}:m:{name}")
}

pub(super) fn due(partition: u8) -> String {
    of_partition(partition, "due")
}

pub(super) fn out(partition: u8) -> String {
    of_partition(partition, "out")
}

pub(super) fn later(partition: u8) -> String {
    of_partition(partition, "later")
}

pub(super) fn dead(partition: u8) -> String {
    of_partition(partition, "dead")
}

pub(super) fn audit(partition: u8) -> String {
    of_partition(partition, "audit")
}

pub(super) fn epoch(partition: u8) -> String {
    of_partition(partition, "epoch")
}

pub(super) fn sync(partition: u8) -> String {
    of_partition(partition, "sync")
}

fn of_partition(partition: u8, what: &str) -> String {
    let mut name = tagged(partition);
    name.push_str(what);
    name
}

pub(super) fn state(name: &str) -> String {
    format!("re:state:{name}")
}

pub(super) fn setting(name: &str) -> String {
    format!("re:{{control}}:setting:{name}")
}

pub(super) fn lease(name: &str) -> String {
    format!("re:{{control}}:lease:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_a_subject_has_the_tag_of_its_partition() {
        let key = SubjectKey([7; 16]);
        let names = [
            record(&key),
            account(&key),
            grants(&key),
            mark(7, "user_events:x"),
            due(7),
            out(7),
            later(7),
            dead(7),
            audit(7),
            epoch(7),
        ];
        for name in names {
            assert!(name.starts_with("re:{007}:"), "{name}");
        }
        assert_eq!(record(&key).len(), 43);
    }

    #[test]
    fn a_member_of_the_due_queue_is_the_subject_again() {
        let key = SubjectKey([0xa7; 16]);
        assert_eq!(subject(member(&key).as_bytes()), Some(key));
        assert_eq!(subject(b"zz"), None);
        assert_eq!(subject(b""), None);
    }
}
