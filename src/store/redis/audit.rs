//! Audit lines in Redis, and the heads of their chains.

use redis::{Cmd, Value};

use super::link::Link;
use super::queues::{Gap, ask, scored};
use super::{keys, strange, text};
use crate::ports::store::StoreError;
use crate::store::backend::{ChainHead, Line, Step};

/// Lines asked of each partition at first when those of all are wanted.
const FIRST_PAGE: usize = 8;
/// Fields of the head in the marker: number, hash, place, MAC.
const FIELDS: [&str; 4] = ["an", "ah", "ap", "am"];

/// The arguments of the commit script about the head.
pub(super) fn add_step(call: &mut Cmd, step: &Step) {
    call.arg(step.from.n).arg(&step.from.hash);
    call.arg(step.to.n).arg(&step.to.hash);
    call.arg(step.to.place).arg(&step.to.mac);
}

/// The head of a partition's chain.
pub(super) async fn newest(link: &Link, partition: u8) -> Result<Option<ChainHead>, StoreError> {
    let mut command = redis::cmd("HMGET");
    command.arg(keys::epoch(partition)).arg(&FIELDS);
    match link.one(keys::slot(partition), command).await? {
        Value::Array(fields) => head(fields),
        _ => Err(strange("a head")),
    }
}

/// The heads of all partitions.
pub(super) async fn heads(link: &Link) -> Result<Vec<Option<ChainHead>>, StoreError> {
    let asked = (0..=u8::MAX).map(|partition| {
        let mut command = redis::cmd("HMGET");
        command.arg(keys::epoch(partition)).arg(&FIELDS);
        (keys::slot(partition), command)
    });
    let answers = link.each(asked.collect()).await.into_iter();
    let read = |answer: Result<Value, StoreError>| match answer? {
        Value::Array(fields) => head(fields),
        _ => Err(strange("a head")),
    };
    answers.map(read).collect()
}

/// A head out of its fields; absent when the first is.
pub(super) fn head(fields: Vec<Value>) -> Result<Option<ChainHead>, StoreError> {
    let mut fields = fields.into_iter();
    let mut field = || text("a head", fields.next().unwrap_or_default());
    let Some(n) = field()? else {
        return Ok(None);
    };
    Ok(Some(ChainHead {
        n: n.parse().map_err(|_| strange("a head"))?,
        hash: field()?.unwrap_or_default(),
        place: field()?.and_then(|p| p.parse().ok()).unwrap_or_default(),
        mac: field()?.unwrap_or_default(),
    }))
}

/// Audit lines before `before`, newest first; a page ends only between two places in the order.
pub(super) async fn lines(
    link: &Link,
    partition: Option<u8>,
    before: i64,
    max: usize,
) -> Result<Vec<Line>, StoreError> {
    let all: Vec<u8> = partition.map_or_else(|| (0..=u8::MAX).collect(), |p| vec![p]);
    let first = if partition.is_some() { max } else { FIRST_PAGE };
    let (mut asked, mut page) = (all, first.min(max).max(1));
    let mut found: Vec<(u8, Line)> = Vec::new();
    loop {
        let answers = ask(link, &asked, Gap::Fail, |p| before_place(p, before, page)).await?;
        found.retain(|(p, _)| !asked.contains(p));
        let mut full: Vec<(u8, i64)> = Vec::new();
        for (p, answer) in answers {
            let lines = scored(answer)?;
            if lines.len() >= page
                && let Some((_, oldest)) = lines.last()
            {
                full.push((p, *oldest));
            }
            let of = |(bytes, order)| (p, Line { order, bytes });
            found.extend(lines.into_iter().map(of));
        }
        found.sort_by_key(|(_, line)| std::cmp::Reverse(line.order));
        // A partition whose page was full may have more lines among the newest.
        let cutoff = max.checked_sub(1).and_then(|last| found.get(last));
        let cutoff = cutoff.map_or(i64::MIN, |(_, line)| line.order);
        asked = full
            .iter()
            .filter(|(_, oldest)| *oldest >= cutoff)
            .map(|(p, _)| *p)
            .collect();
        if asked.is_empty() {
            found.retain(|(_, line)| line.order >= cutoff);
            return Ok(found.into_iter().map(|(_, line)| line).collect());
        }
        page = page.saturating_mul(4);
    }
}

fn before_place(partition: u8, before: i64, count: usize) -> Cmd {
    let mut command = redis::cmd("ZREVRANGEBYSCORE");
    command
        .arg(keys::audit(partition))
        .arg(format!("({before}"))
        .arg("-inf")
        .arg("WITHSCORES")
        .arg("LIMIT")
        .arg(0)
        .arg(count);
    command
}
