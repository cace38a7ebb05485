//! The audit log as a hash chain, one for each partition, since a commit is atomic within one.
//!
//! A stored line is its encoded form, in which stand its number and the hash of the line before it, and 32 octets of
//! HMAC-SHA-256 behind it. What is hashed, and by the hash authenticated, is the partition, the place in the order of
//! time, and the encoded form: a line that is changed, moved, removed, put in or brought from elsewhere no longer
//! fits, and whoever can write to the store but has not the key file cannot make one that does. The key comes from the
//! names secret, which lasts as long as the installation, so old lines can always be verified.
//!
//! The head (number, hash, place and MAC of the newest line) stands in the partition's marker and is moved on by the
//! same step that writes lines; a commit names the head that it goes on from, and is refused when another process was
//! faster. Lines that are missing at the end do not reach the head. Lines that are missing at the beginning are right
//! only when they were older than what is kept: each line says the place of the one before it. A whole partition that
//! was put back, head and all, is a store that went back in time, which the fence shows; and heads that were kept
//! elsewhere are a witness against it: what `audit verify` printed, and what leaves by itself every few minutes as a log
//! line and an event (`flow::heads`).
//!
//! **A gap says so.** A process that wrote lines, or was told by the witness how many there were, and finds fewer, writes
//! a line of its own before it goes on, numbered as if nothing were missing. So the loss stands in the log for as long as
//! lines are kept, whatever is written afterwards.

use std::sync::Arc;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::form::{order, order_span};
use crate::domain::audit::{Broken, Chain, Entry, Flaw, GAP, Head, Linked};
use crate::domain::subject::Subject;
use crate::domain::time::{Span, Timestamp};
use crate::ports::store::StoreError;
use crate::store::backend::{Backend, Batch, ChainHead, Committed, Line, Loose, Step};
use crate::store::codec;
use crate::store::seal::{Keys, hex};

/// Octets of a MAC.
const MAC_LEN: usize = 32;
/// Lines read at a time.
const PAGE: usize = 1000;
/// Lines may go this much before their time: clocks differ.
const SLACK: Span = Span::from_days(1);
/// What is hashed begins with this, so that no other hash of ours is one of these.
const LABEL: &[u8] = b"reentry audit 1";

/// Where a line stands in its chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    /// Counted from 1.
    n: u64,
    /// Hash of the line before, in hexadecimal; empty for the first.
    prev: String,
    /// Place of the line before; 0 for the first.
    after: i64,
}

/// An audit line with its subject and its link.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Audited {
    pub(super) subject: Subject,
    pub(super) entry: Entry,
    pub(super) link: Link,
}

fn hash(partition: u8, place: i64, encoded: &[u8]) -> [u8; MAC_LEN] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(LABEL);
    context.update(&[partition]);
    context.update(&place.to_be_bytes());
    context.update(encoded);
    context
        .finish()
        .as_ref()
        .first_chunk()
        .copied()
        .unwrap_or_default()
}

/// Lines as they are stored, with their places.
type Stored = Vec<(i64, Vec<u8>)>;

/// Links lines to `head`. Gives them as they are stored, and the head after them.
pub(super) fn link(
    keys: &Keys,
    partition: u8,
    head: &ChainHead,
    loose: &[Loose],
) -> Result<(Stored, ChainHead), StoreError> {
    let mut head = head.clone();
    let mut lines = Vec::with_capacity(loose.len());
    for line in loose {
        let n = head.n.saturating_add(1);
        let mut stored = codec::encode_named(&Audited {
            subject: line.subject.clone(),
            entry: line.entry.clone(),
            link: Link {
                n,
                prev: head.hash,
                after: head.place,
            },
        })?;
        let hash = hash(partition, line.place, &stored);
        let mac = keys.audit_mac(&hash);
        stored.extend(mac);
        lines.push((line.place, stored));
        head = ChainHead {
            n,
            hash: hex(&hash),
            place: line.place,
            mac: hex(&mac),
        };
    }
    Ok((lines, head))
}

/// A stored line without its MAC, decoded.
pub(super) fn read(stored: &[u8]) -> Result<Audited, StoreError> {
    let encoded = stored
        .len()
        .checked_sub(MAC_LEN)
        .and_then(|end| stored.get(..end));
    codec::decode("an audit line", encoded.unwrap_or_default())
}

/// A line whose MAC is right.
struct Sound {
    place: i64,
    hash: String,
    audited: Audited,
}

/// What is wrong with a chain, at which line.
fn broken(partition: u8, flaw: Flaw, near: Option<&Audited>) -> Broken {
    Broken {
        partition,
        flaw,
        n: near.map(|a| a.link.n),
        line: near.map(|a| a.entry.id.clone()),
    }
}

fn sound(keys: &Keys, partition: u8, line: &Line) -> Result<Sound, Broken> {
    let split = line.bytes.len().checked_sub(MAC_LEN);
    let parts = split.and_then(|at| line.bytes.split_at_checked(at));
    let strange = Broken {
        partition,
        flaw: Flaw::Strange,
        n: None,
        line: Some(format!("at place {}", line.order)),
    };
    let Some((encoded, mac)) = parts else {
        return Err(strange);
    };
    let hash = hash(partition, line.order, encoded);
    let Ok(audited) = codec::decode::<Audited>("an audit line", encoded) else {
        return Err(strange);
    };
    if !keys.is_audit_mac(&hash, mac) {
        return Err(broken(partition, Flaw::Altered, Some(&audited)));
    }
    Ok(Sound {
        place: line.order,
        hash: hex(&hash),
        audited,
    })
}

/// Judges a partition's lines, in whatever order they come, against its head. Lines older than `kept_from` may be
/// gone.
fn judge(
    keys: &Keys,
    partition: u8,
    lines: &[Line],
    head: Option<&ChainHead>,
    kept_from: i64,
) -> (Vec<Sound>, Option<Broken>) {
    let mut first_fault: Option<Broken> = None;
    let mut good = Vec::with_capacity(lines.len());
    for line in lines {
        match sound(keys, partition, line) {
            Ok(one) => good.push(one),
            Err(fault) => {
                let earlier = first_fault
                    .as_ref()
                    .is_some_and(|f| f.n.unwrap_or(0) <= fault.n.unwrap_or(0));
                if !earlier {
                    first_fault = Some(fault);
                }
            }
        }
    }
    good.sort_by_key(|line| line.audited.link.n);
    if first_fault.is_none() {
        first_fault = sequence(partition, &good, kept_from);
    }
    if first_fault.as_ref().is_none_or(|f| f.flaw == Flaw::Lost) {
        first_fault = ending(keys, partition, good.last(), head, kept_from).or(first_fault);
    }
    (good, first_fault)
}

/// Whether each line follows the one before it.
fn sequence(partition: u8, lines: &[Sound], kept_from: i64) -> Option<Broken> {
    let (mut before, mut lost): (Option<&Sound>, Option<Broken>) = (None, None);
    for line in lines {
        let link = &line.audited.link;
        let (n, hash) = before.map_or((0, ""), |b| (b.audited.link.n, b.hash.as_str()));
        let flaw = if link.n == n {
            Some(Flaw::Inserted)
        } else if link.n == n + 1 {
            (link.prev != hash).then_some(Flaw::Inserted)
        } else if line.audited.entry.action == GAP && link.prev == hash {
            // It says itself what is missing, and hides nothing that came later.
            lost = lost.or_else(|| Some(broken(partition, Flaw::Lost, Some(&line.audited))));
            None
        } else {
            (link.after >= kept_from).then_some(Flaw::Removed)
        };
        if let Some(flaw) = flaw {
            return Some(broken(partition, flaw, Some(&line.audited)));
        }
        before = Some(line);
    }
    lost
}

/// Whether the last line is the head's.
fn ending(
    keys: &Keys,
    partition: u8,
    last: Option<&Sound>,
    head: Option<&ChainHead>,
    kept_from: i64,
) -> Option<Broken> {
    let near = last.map(|l| &l.audited);
    let Some(head) = head else {
        return last.map(|_| broken(partition, Flaw::NoHead, near));
    };
    let octets = |text: &str| -> Option<Vec<u8>> {
        let pairs = text.as_bytes().chunks(2);
        pairs
            .map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok())
            .collect()
    };
    let genuine = octets(&head.hash)
        .zip(octets(&head.mac))
        .is_some_and(|(hash, mac)| keys.is_audit_mac(&hash, &mac));
    if !genuine {
        return Some(broken(partition, Flaw::NoHead, near));
    }
    match last {
        Some(last) if last.hash == head.hash && last.audited.link.n == head.n => None,
        None if head.place < kept_from => None,
        Some(last) if last.audited.link.n >= head.n => Some(broken(partition, Flaw::Inserted, near)),
        Some(_) | None => Some(Broken {
            n: Some(head.n),
            ..broken(partition, Flaw::Cut, near)
        }),
    }
}

/// What lines follow when there should be `had` of them: where fewer are, one that says so comes first, and the numbers
/// go on as if they were there.
fn after_gap(partition: u8, known: &ChainHead, had: u64, loose: &[Loose]) -> (ChainHead, Vec<Loose>) {
    let mut from = known.clone();
    let Some(first) = loose.first().filter(|_| known.n < had) else {
        return (from, loose.to_vec());
    };
    from.n = had;
    let id = format!("gap:{partition:03}:{}:{had}", known.n);
    let entry = Entry::system(id, first.entry.at, GAP, None)
        .alarming()
        .with("alarm", "audit lines that were written are gone from the store")
        .with("had", had)
        .with("has", known.n);
    let gap = Loose {
        place: first.place,
        subject: first.subject.clone(),
        entry,
    };
    (from, [&[gap], loose].concat())
}

/// How many lines a head stands for.
fn number(head: Option<&ChainHead>) -> u64 {
    head.map_or(0, |h| h.n)
}

impl<B: Backend> Shared<B> {
    /// Every line of a partition in the order of its chain, and what is wrong with it. Holds a partition in memory.
    pub(super) async fn verified(&self, partition: u8, now: Timestamp) -> Result<Chain, StoreError> {
        // The head first: lines that come meanwhile are beyond it and are left out.
        let head = self.backend.head(partition).await?;
        let (mut lines, mut before): (Vec<Line>, i64) = (Vec::new(), i64::MAX);
        loop {
            let page = self.backend.audit(Some(partition), before, PAGE).await?;
            let Some(last) = page.last() else { break };
            before = last.order;
            lines.extend(page);
        }
        // What true lines came meanwhile is beyond the head that was read, and not judged now.
        let (known, latest) = (
            number(head.as_ref()),
            number(self.backend.head(partition).await?.as_ref()),
        );
        let meanwhile = |line: &Line| {
            let n = sound(&self.keys, partition, line).map_or(0, |l| l.audited.link.n);
            known < n && n <= latest
        };
        lines.retain(|line| !meanwhile(line));
        let kept = self.backend.audit_retention();
        let kept_from = order(now)
            .saturating_sub(order_span(kept))
            .saturating_add(order_span(SLACK));
        let (good, fault) = judge(&self.keys, partition, &lines, head.as_ref(), kept_from);
        let linked = |line: Sound| Linked {
            n: line.audited.link.n,
            place: line.place,
            hash: line.hash,
            subject: line.audited.subject,
            entry: line.audited.entry,
        };
        Ok(Chain {
            lines: good.into_iter().map(linked).collect(),
            head: head.map(|h| Head { n: h.n, hash: h.hash }),
            fault,
        })
    }

    /// The newest line of every partition that has any.
    pub(super) async fn every_head(&self) -> Result<Vec<(u8, Head)>, StoreError> {
        let heads = self.backend.heads().await?;
        let of = |(partition, head): (u8, Option<ChainHead>)| {
            let ChainHead { n, hash, .. } = head?;
            Some((partition, Head { n, hash }))
        };
        Ok((0..=u8::MAX).zip(heads).filter_map(of).collect())
    }

    /// Commits lines at the head of their chain, again when another process was faster.
    pub(super) async fn linked(&self, batch: &mut Arc<Batch>) -> Result<Committed, StoreError> {
        let (partition, loose) = (batch.key.partition(), batch.loose.clone());
        let chain = self.chains.get(usize::from(partition));
        let Some(chain) = chain.filter(|_| !loose.is_empty()) else {
            return self.backend.commit(batch).await;
        };
        let mut known = chain.lock().await;
        let had = known.n.max(self.seen.lines(partition));
        if known.n < had {
            *known = self.backend.head(partition).await?.unwrap_or_default();
        }
        for attempt in 0..super::ATTEMPTS {
            let (from, loose) = after_gap(partition, &known, had, &loose);
            let (lines, next) = link(&self.keys, partition, &from, &loose)?;
            let Some(own) = Arc::get_mut(batch) else {
                return Err(StoreError::Contended);
            };
            own.audit = lines;
            own.step = Some(Step {
                from: known.clone(),
                to: next.clone(),
            });
            match self.backend.commit(batch).await? {
                Committed::Behind(found) => {
                    *known = found.unwrap_or_default();
                    super::pause(attempt).await;
                }
                stored @ Committed::Stored(_) => {
                    if known.n < had {
                        metrics::counter!("reentry_audit_lost_total").increment(1);
                        tracing::error!(
                            partition,
                            had,
                            has = known.n,
                            "audit lines that were written are gone from the store"
                        );
                    }
                    self.seen.wrote(partition, next.n);
                    *known = next;
                    return Ok(stored);
                }
                other => return Ok(other),
            }
        }
        Err(StoreError::Contended)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::subject::UpstreamId;

    const PARTITION: u8 = 7;

    fn loose(n: i64) -> Loose {
        let subject = Subject::new(UpstreamId::parse("kc").unwrap(), "ana").unwrap();
        let at = Timestamp::from_secs(1_000_000 + n);
        Loose {
            place: order(at),
            subject,
            entry: Entry::system(format!("line-{n}"), at, "x", None),
        }
    }

    /// Five lines, in two commits, and their head.
    fn five(keys: &Keys) -> (Vec<Line>, ChainHead) {
        let lines: Vec<Loose> = (1..=5).map(loose).collect();
        let (mut stored, head) = link(keys, PARTITION, &ChainHead::default(), &lines[..2]).unwrap();
        let (more, head) = link(keys, PARTITION, &head, &lines[2..]).unwrap();
        stored.extend(more);
        let line = |(order, bytes)| Line { order, bytes };
        (stored.into_iter().map(line).collect(), head)
    }

    fn fault(keys: &Keys, lines: &[Line], head: &ChainHead) -> Option<(Flaw, Option<u64>)> {
        let (_, fault) = judge(keys, PARTITION, lines, Some(head), 0);
        fault.map(|f| (f.flaw, f.n))
    }

    fn copy(line: &Line) -> Line {
        Line {
            order: line.order,
            bytes: line.bytes.clone(),
        }
    }

    #[test]
    fn a_chain_is_whole_in_whatever_order_it_is_read() {
        let keys = Keys::ephemeral().unwrap();
        let (mut lines, head) = five(&keys);
        assert_eq!(fault(&keys, &lines, &head), None);
        lines.reverse();
        assert_eq!(fault(&keys, &lines, &head), None);
    }

    #[test]
    fn every_single_octet_counts() {
        let keys = Keys::ephemeral().unwrap();
        let (lines, head) = five(&keys);
        for at in 0..lines[2].bytes.len() {
            let mut spoilt: Vec<Line> = lines.iter().map(copy).collect();
            spoilt[2].bytes[at] ^= 1;
            assert!(fault(&keys, &spoilt, &head).is_some(), "octet {at}");
        }
        let mut moved: Vec<Line> = lines.iter().map(copy).collect();
        moved[2].order += 1;
        assert_eq!(fault(&keys, &moved, &head), Some((Flaw::Altered, Some(3))));
    }

    #[test]
    fn removed_inserted_cut_and_foreign_lines_are_named() {
        let keys = Keys::ephemeral().unwrap();
        let (lines, head) = five(&keys);
        let without = |gone: &[usize]| -> Vec<Line> {
            let kept = lines.iter().enumerate().filter(|(i, _)| !gone.contains(i));
            kept.map(|(_, l)| copy(l)).collect()
        };
        assert_eq!(
            fault(&keys, &without(&[2]), &head),
            Some((Flaw::Removed, Some(4)))
        );
        assert_eq!(
            fault(&keys, &without(&[0]), &head),
            Some((Flaw::Removed, Some(2)))
        );
        assert_eq!(fault(&keys, &without(&[4]), &head), Some((Flaw::Cut, Some(5))));
        assert_eq!(
            fault(&keys, &without(&[0, 1, 2, 3, 4]), &head),
            Some((Flaw::Cut, Some(5)))
        );
        let mut twice = without(&[]);
        twice.push(copy(&lines[1]));
        assert_eq!(fault(&keys, &twice, &head), Some((Flaw::Inserted, Some(2))));
        // Somebody without the key file.
        let stranger = Keys::ephemeral().unwrap();
        let (forged, _) = link(&stranger, PARTITION, &head, &[loose(9)]).unwrap();
        let mut longer = without(&[]);
        longer.extend(forged.into_iter().map(|(order, bytes)| Line { order, bytes }));
        assert_eq!(fault(&keys, &longer, &head), Some((Flaw::Altered, Some(6))));
        // A true line of another partition.
        let (other, _) = link(&keys, 8, &ChainHead::default(), &[loose(1)]).unwrap();
        let mut mixed = without(&[0]);
        mixed.extend(other.into_iter().map(|(order, bytes)| Line { order, bytes }));
        assert_eq!(fault(&keys, &mixed, &head), Some((Flaw::Altered, Some(1))));
        let forged = ChainHead {
            n: 4,
            hash: read(&lines[4].bytes).unwrap().link.prev,
            ..head.clone()
        };
        assert_eq!(
            fault(&keys, &without(&[4]), &forged),
            Some((Flaw::NoHead, Some(4)))
        );
    }

    #[test]
    fn lines_past_their_retention_may_be_gone_and_no_others() {
        let keys = Keys::ephemeral().unwrap();
        let (lines, head) = five(&keys);
        let rest: Vec<Line> = lines[2..].iter().map(copy).collect();
        let judged = |from: i64| judge(&keys, PARTITION, &rest, Some(&head), from).1;
        assert_eq!(judged(lines[1].order + 1), None);
        assert_eq!(judged(lines[1].order).map(|f| f.flaw), Some(Flaw::Removed));
        assert_eq!(judge(&keys, PARTITION, &[], Some(&head), head.place + 1).1, None);
    }

    #[test]
    fn a_line_says_that_lines_before_it_are_gone_and_hides_nothing_after_it() {
        let keys = Keys::ephemeral().unwrap();
        let (lines, _) = five(&keys);
        // The last two are gone, with their head; a process knows better.
        let (_, third) = link(
            &keys,
            PARTITION,
            &ChainHead::default(),
            &[loose(1), loose(2), loose(3)],
        )
        .unwrap();
        let (from, all) = after_gap(PARTITION, &third, 5, &[loose(6)]);
        let (stored, head) = link(&keys, PARTITION, &from, &all).unwrap();
        let mut left: Vec<Line> = lines[..3].iter().map(copy).collect();
        left.extend(stored.into_iter().map(|(order, bytes)| Line { order, bytes }));
        assert_eq!(head.n, 7);
        assert_eq!(fault(&keys, &left, &head), Some((Flaw::Lost, Some(6))));
        left.pop();
        assert_eq!(fault(&keys, &left, &head), Some((Flaw::Cut, Some(7))));
        // Nothing is missing where nobody knew of more.
        assert_eq!(after_gap(PARTITION, &third, 3, &[loose(4)]).1.len(), 1);
        // Where everything is gone it is the first line.
        let (from, all) = after_gap(PARTITION, &ChainHead::default(), 5, &[loose(6)]);
        let (stored, head) = link(&keys, PARTITION, &from, &all).unwrap();
        let left: Vec<Line> = stored
            .into_iter()
            .map(|(order, bytes)| Line { order, bytes })
            .collect();
        assert_eq!(fault(&keys, &left, &head), Some((Flaw::Lost, Some(6))));
    }

    #[test]
    fn numbers_are_counted_once() {
        let keys = Keys::ephemeral().unwrap();
        let (lines, _) = five(&keys);
        let numbers: BTreeSet<u64> = lines.iter().map(|l| read(&l.bytes).unwrap().link.n).collect();
        assert_eq!(numbers, (1..=5).collect());
    }
}
