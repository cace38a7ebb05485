//! What in Redis is not a subject: outbox, due queues, single-use state, settings, leases.

use redis::{Cmd, Value};

use super::link::{Link, slot_of};
use super::{glance, integer, keys, list, octets, script, strange, text};
use crate::domain::time::{Span, Timestamp};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Lease, PendingId, StoreError};
use crate::store::backend::Waiting;

/// Entries asked of one partition at a time; more come with the next call.
const PER_PARTITION: usize = 128;

/// What to do about partitions that cannot be reached while others can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// Leave them out: a node that is away must not hold up the work of the others.
    Skip,
    /// Fail: half an answer would be taken for a whole one.
    Fail,
}

/// Sends a command to each partition, and leaves out those whose queue is spoilt: it must not hold up the others.
/// When none can be reached it fails.
pub(super) async fn ask(
    link: &Link,
    partitions: &[u8],
    gap: Gap,
    command: impl Fn(u8) -> Cmd,
) -> Result<Vec<(u8, Value)>, StoreError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let asked = partitions.iter().map(|p| (keys::slot(*p), command(*p)));
    let answered = link.each(asked.collect()).await;
    let (mut answers, mut away) = (Vec::new(), None);
    for (partition, answer) in partitions.iter().zip(answered) {
        match answer {
            Ok(answer) => answers.push((*partition, answer)),
            Err(StoreError::Unsound(why)) => {
                tracing::error!(partition, why, "a queue cannot be read");
            }
            Err(other) => away = Some(other),
        }
    }
    match away {
        Some(fault) if gap == Gap::Fail || answers.is_empty() => Err(fault),
        Some(fault) => {
            tracing::warn!(%fault, "some queues cannot be reached");
            Ok(answers)
        }
        None => Ok(answers),
    }
}

pub(super) async fn outbox(
    link: &Link,
    partitions: &[u8],
    now: Timestamp,
    max: usize,
) -> Result<Vec<Waiting>, StoreError> {
    let most = max.min(PER_PARTITION);
    let partitions = glance::with_effects(link, partitions).await?;
    let answers = ask(link, &partitions, Gap::Skip, |p| {
        let mut call = script::call(&script::OUTBOX, &[keys::out(p), keys::later(p)]);
        call.arg(now.millis()).arg(most);
        call
    })
    .await?;
    let mut found = Vec::new();
    for (partition, entries) in answers {
        found.extend(streamed(partition, entries)?);
    }
    found.truncate(max);
    Ok(found)
}

/// Entries of a partition's stream.
pub(super) fn streamed(partition: u8, entries: Value) -> Result<Vec<Waiting>, StoreError> {
    let read = |entry| {
        let mut entry = list("the outbox", entry)?.into_iter();
        let id = text("the outbox", entry.next().unwrap_or_default())?;
        let fields = list("the outbox", entry.next().unwrap_or_default())?;
        let sealed = octets("the outbox", fields.into_iter().nth(1).unwrap_or_default())?;
        let (Some(entry), Some(sealed)) = (id, sealed) else {
            return Err(strange("the outbox"));
        };
        let at = PendingId { partition, entry };
        Ok(Waiting { at, sealed })
    };
    list("the outbox", entries)?.into_iter().map(read).collect()
}

/// What is to be done now and what waits for its next try, and nothing moves. The second sort has no place in the
/// stream yet, so it can be looked at only.
pub(super) async fn peek(link: &Link, max: usize) -> Result<Vec<Waiting>, StoreError> {
    let mut found = entries(link, keys::out, max).await?;
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let all = glance::with_keys(link, &all, keys::later).await?;
    let later = ask(link, &all, Gap::Fail, |p| {
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(keys::later(p)).arg("-inf").arg("+inf");
        command.arg("WITHSCORES").arg("LIMIT").arg(0).arg(max);
        command
    });
    for (partition, entries) in later.await? {
        let set_aside = |(sealed, until)| Waiting {
            at: PendingId {
                partition,
                entry: format!("not before {until}"),
            },
            sealed,
        };
        found.extend(scored(entries)?.into_iter().map(set_aside));
    }
    found.truncate(max);
    Ok(found)
}

/// At most `max` entries of the stream that each partition has under this name.
pub(super) async fn entries(
    link: &Link,
    name: fn(u8) -> String,
    max: usize,
) -> Result<Vec<Waiting>, StoreError> {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let all = glance::with_entries(link, &all, name).await?;
    let answers = ask(link, &all, Gap::Fail, |p| {
        let mut command = redis::cmd("XRANGE");
        command.arg(name(p)).arg("-").arg("+").arg("COUNT").arg(max);
        command
    });
    let mut found = Vec::new();
    for (partition, entries) in answers.await? {
        found.extend(streamed(partition, entries)?);
    }
    Ok(found)
}

pub(super) async fn remove(link: &Link, at: &PendingId) -> Result<(), StoreError> {
    let mut command = redis::cmd("XDEL");
    command.arg(keys::out(at.partition)).arg(&at.entry);
    link.one(keys::slot(at.partition), command).await.map(|_| ())
}

pub(super) async fn defer(
    link: &Link,
    at: &PendingId,
    sealed: &[u8],
    until: Timestamp,
) -> Result<(), StoreError> {
    let names = [keys::out(at.partition), keys::later(at.partition)];
    let mut call = script::call(&script::DEFER, &names);
    call.arg(&at.entry).arg(sealed).arg(until.millis());
    link.one(keys::slot(at.partition), call).await.map(|_| ())
}

pub(super) async fn due(link: &Link, now: Timestamp, max: usize) -> Result<Vec<SubjectKey>, StoreError> {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let all = glance::with_keys(link, &all, keys::due).await?;
    let answers = ask(link, &all, Gap::Skip, |p| {
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command
            .arg(keys::due(p))
            .arg("-inf")
            .arg(now.millis())
            .arg("WITHSCORES")
            .arg("LIMIT")
            .arg(0)
            .arg(max);
        command
    })
    .await?;
    let mut found = Vec::new();
    for (_, members) in answers {
        for (member, score) in scored(members)? {
            let key = keys::subject(&member).ok_or_else(|| strange("the due queue"))?;
            found.push((score, key));
        }
    }
    found.sort_unstable();
    found.truncate(max);
    Ok(found.into_iter().map(|(_, key)| key).collect())
}

/// Members of a sorted set with their scores.
pub(super) fn scored(answer: Value) -> Result<Vec<(Vec<u8>, i64)>, StoreError> {
    let mut members = list("a queue", answer)?.into_iter();
    let mut found = Vec::new();
    while let (Some(member), Some(score)) = (members.next(), members.next()) {
        let member = octets("a queue", member)?.ok_or_else(|| strange("a queue"))?;
        let score = text("a queue", score)?.and_then(|s| s.parse::<f64>().ok());
        #[expect(
            clippy::cast_possible_truncation,
            reason = "scores are whole numbers below 2^53, and beyond that only their order counts"
        )]
        let score = score.ok_or_else(|| strange("a queue"))? as i64;
        found.push((member, score));
    }
    Ok(found)
}

pub(super) async fn put_state(link: &Link, name: &str, sealed: &[u8], keep: Span) -> Result<(), StoreError> {
    let mut command = redis::cmd("SET");
    let key = keys::state(name);
    command
        .arg(&key)
        .arg(sealed)
        .arg("NX")
        .arg("PX")
        .arg(keep.millis().max(1));
    link.one(slot_of(&key), command).await.map(|_| ())
}

pub(super) async fn take_state(link: &Link, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut command = redis::cmd("GETDEL");
    let key = keys::state(name);
    command.arg(&key);
    octets("a state", link.one(slot_of(&key), command).await?)
}

pub(super) async fn setting(link: &Link, name: &str) -> Result<Option<String>, StoreError> {
    let mut command = redis::cmd("GET");
    command.arg(keys::setting(name));
    text("a setting", link.one(keys::control(), command).await?)
}

pub(super) async fn set_setting(
    link: &Link,
    name: &str,
    value: &str,
    lease: Option<&Lease>,
) -> Result<(), StoreError> {
    let of = lease.map_or(name, |l| l.name.as_str());
    let mut call = script::call(&script::SETTING, &[keys::setting(name), keys::lease(of)]);
    call.arg(value);
    match lease {
        Some(lease) => call.arg(lease.fence),
        None => call.arg(""),
    };
    // A poll's cursor acknowledges to the IdP what it has passed.
    if integer("a setting", &link.durable(keys::control(), call).await?)? == 1 {
        Ok(())
    } else {
        Err(StoreError::StaleLease(of.to_owned()))
    }
}

pub(super) async fn lease(
    link: &Link,
    name: &str,
    owner: &str,
    keep: Span,
) -> Result<Option<Lease>, StoreError> {
    let mut call = script::call(&script::LEASE, &[keys::lease(name)]);
    call.arg(owner).arg(keep.millis().max(1));
    // A fence that was given away must not be given away again by a node that never heard of it.
    let fence = integer("a lease", &link.durable(keys::control(), call).await?)?.unsigned_abs();
    Ok((fence > 0).then(|| Lease {
        name: name.to_owned(),
        fence,
    }))
}

pub(super) async fn release(link: &Link, name: &str, owner: &str) -> Result<(), StoreError> {
    let mut call = script::call(&script::RELEASE, &[keys::lease(name)]);
    call.arg(owner);
    link.one(keys::control(), call).await.map(|_| ())
}
