//! Where there is anything at all, asked with few commands.
//!
//! The workers look again and again at queues that are nearly always empty, and there are three of them to each of 256
//! partitions: asked one by one, an idle node would send more than a thousand commands a second. One server answers for
//! many keys at once, so what is empty costs a few commands, and only what is not is asked about by itself. In a
//! cluster each partition is in a slot of its own, and no command may name several: there all of them are asked.
//!
//! A glance only ever leaves out what holds nothing. When it cannot be had (a key of another type stops `XREAD` for all
//! of them) everything is asked one by one, and the fault is found where it is.

use redis::{Cmd, Pipeline, Value};

use super::link::Link;
use super::{integer, keys, list, strange};
use crate::ports::store::StoreError;

/// So few are asked about at once.
const FEW: usize = 8;
/// Keys of one `EXISTS`: when one of them is there, all of them are looked at.
const GROUP: usize = 32;

/// Those of the partitions whose outbox has something to be done, or set aside.
pub(super) async fn with_effects(link: &Link, partitions: &[u8]) -> Result<Vec<u8>, StoreError> {
    if !worth_it(link, partitions) {
        return Ok(partitions.to_vec());
    }
    let mut asked = Pipeline::new();
    asked.add_command(first_entries(partitions, keys::out));
    for group in partitions.chunks(GROUP) {
        asked.add_command(exists(group, keys::later));
    }
    let Some(mut answers) = answered(link, &asked).await? else {
        return Ok(partitions.to_vec());
    };
    let later = answers.split_off(1);
    let mut found = with_first_entry(answers.pop().unwrap_or_default(), partitions, keys::out)?;
    found.extend(in_groups(&later, partitions)?);
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Those of the partitions whose stream of this name has an entry.
pub(super) async fn with_entries(
    link: &Link,
    partitions: &[u8],
    name: fn(u8) -> String,
) -> Result<Vec<u8>, StoreError> {
    if !worth_it(link, partitions) {
        return Ok(partitions.to_vec());
    }
    let mut asked = Pipeline::new();
    asked.add_command(first_entries(partitions, name));
    match answered(link, &asked).await? {
        Some(mut answers) => with_first_entry(answers.pop().unwrap_or_default(), partitions, name),
        None => Ok(partitions.to_vec()),
    }
}

/// Those of the partitions that may have a key of this name: of a group in which there is one, all.
pub(super) async fn with_keys(
    link: &Link,
    partitions: &[u8],
    name: fn(u8) -> String,
) -> Result<Vec<u8>, StoreError> {
    if !worth_it(link, partitions) {
        return Ok(partitions.to_vec());
    }
    let mut asked = Pipeline::new();
    for group in partitions.chunks(GROUP) {
        asked.add_command(exists(group, name));
    }
    match answered(link, &asked).await? {
        Some(answers) => in_groups(&answers, partitions),
        None => Ok(partitions.to_vec()),
    }
}

/// Whether the markers of all partitions are there, and the installation's note. `None` where that cannot be asked at
/// once.
pub(super) async fn all_marked(link: &Link) -> Result<Option<bool>, StoreError> {
    if link.is_cluster() {
        return Ok(None);
    }
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let mut command = exists(&all, keys::epoch);
    command.arg(keys::INSTALLATION);
    let there = integer("the markers", &link.one(keys::control(), command).await?)?;
    Ok(Some(
        usize::try_from(there).is_ok_and(|there| there == all.len() + 1),
    ))
}

fn worth_it(link: &Link, partitions: &[u8]) -> bool {
    partitions.len() > FEW && !link.is_cluster()
}

/// The answers; nothing when one of the keys is spoilt.
async fn answered(link: &Link, asked: &Pipeline) -> Result<Option<Vec<Value>>, StoreError> {
    match link.together(keys::control(), asked).await {
        Ok(answers) => Ok(Some(answers)),
        Err(StoreError::Unsound(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

fn first_entries(partitions: &[u8], name: fn(u8) -> String) -> Cmd {
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(1).arg("STREAMS");
    for partition in partitions {
        command.arg(name(*partition));
    }
    for _ in partitions {
        command.arg("0");
    }
    command
}

fn with_first_entry(answer: Value, partitions: &[u8], name: fn(u8) -> String) -> Result<Vec<u8>, StoreError> {
    if answer == Value::Nil {
        return Ok(Vec::new());
    }
    let mut named = Vec::new();
    for stream in list("the outbox", answer)? {
        match list("the outbox", stream)?.into_iter().next() {
            Some(Value::BulkString(name)) => named.push(name),
            _ => return Err(strange("the outbox")),
        }
    }
    let there = |p: &&u8| named.iter().any(|n| *n == name(**p).as_bytes());
    Ok(partitions.iter().filter(there).copied().collect())
}

fn exists(partitions: &[u8], name: fn(u8) -> String) -> Cmd {
    let mut command = redis::cmd("EXISTS");
    for partition in partitions {
        command.arg(name(*partition));
    }
    command
}

fn in_groups(answers: &[Value], partitions: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut found = Vec::new();
    for (group, answer) in partitions.chunks(GROUP).zip(answers) {
        if integer("a queue", answer)? > 0 {
            found.extend_from_slice(group);
        }
    }
    Ok(found)
}
