//! Outbox, due queue, single-use state, leases, settings, audit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reentry::domain::hold::Effect;
use reentry::domain::time::{Span, Timestamp};
use reentry::ports::seal::Seal as _;
use reentry::ports::store::{Parts, Pending, PendingId, Store, StoreError, Write};

use crate::house::{House, Spoil, keys_with_other_seal};
use crate::values::{END, at, effect_ids, held_from, line, line_ids, record, subject, write};

/// What is pending, once the store has looked into every partition again.
async fn eventually(store: &dyn Store, now: Timestamp, many: usize) -> Vec<Pending> {
    let start = Instant::now();
    loop {
        let pending = store.pending(now, 1000).await.unwrap();
        if pending.len() == many {
            return pending;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{pending:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Stores `many` effects for one subject, in one step each.
async fn effects(house: &dyn House, many: i64) {
    let key = house.keys().subject(&subject("u"));
    for n in 0..many {
        let one = |_: &_| {
            Some(Write {
                record: Some(record("u", n)),
                effects: vec![(format!("{n}"), Effect::Converge)],
                ..Write::default()
            })
        };
        let store = house.store();
        store.update(&key, Parts::RECORD, None, &one).await.unwrap();
    }
}

pub async fn the_outbox_keeps_its_order_and_gives_up_only_what_is_done(house: &mut dyn House) {
    effects(house, 5).await;
    let store = house.store();
    assert_eq!(effect_ids(&*store).await, ["0", "1", "2", "3", "4"]);
    let pending = store.pending(END, 2).await.unwrap();
    let ids: Vec<&str> = pending.iter().map(|p| p.id.as_str()).collect();
    assert_eq!(ids, ["0", "1"]);
    assert_eq!(pending[0].subject, subject("u"));
    assert_eq!(pending[0].effect, Effect::Converge);
    assert_eq!((pending[0].attempts, pending[1].since), (0, at(1)));
    store.done(&pending[1].at).await.unwrap();
    assert_eq!(effect_ids(&*store).await, ["0", "2", "3", "4"]);
    // Done twice is done.
    store.done(&pending[1].at).await.unwrap();
    assert_eq!(effect_ids(&*store).await, ["0", "2", "3", "4"]);
}

pub async fn a_deferred_effect_waits_and_holds_up_nobody(house: &mut dyn House) {
    effects(house, 3).await;
    let store = house.store();
    let pending = store.pending(at(50), 9).await.unwrap();
    store.retry(&pending[0], at(100), "451 try later").await.unwrap();
    let left = eventually(&*store, at(99), 2).await;
    assert_eq!((left[0].id.as_str(), left[1].id.as_str()), ("1", "2"));
    let all = eventually(&*store, at(100), 3).await;
    let again = all.iter().find(|p| p.id == "0").unwrap();
    assert_eq!(again.attempts, 1);
    assert_eq!(again.since, at(0));
    assert_eq!(again.failure.as_deref(), Some("451 try later"));
    // What was done meanwhile does not come back by a late retry.
    store.done(&again.at).await.unwrap();
    store.retry(again, at(101), "late").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(eventually(&*store, END, 2).await.len(), 2);
}

pub async fn what_is_put_off_was_not_tried(house: &mut dyn House) {
    effects(house, 2).await;
    let store = house.store();
    let pending = store.pending(at(50), 9).await.unwrap();
    store.postpone(&pending[0], at(100)).await.unwrap();
    assert_eq!(eventually(&*store, at(99), 1).await[0].id, "1");
    let all = eventually(&*store, at(100), 2).await;
    let again = all.iter().find(|p| p.id == "0").unwrap();
    assert_eq!((again.attempts, again.since, &again.failure), (0, at(0), &None));
}

// Dead letters are in no queue, stay for ever, and are new again when an operator says so.
pub async fn a_dead_letter_stays_until_it_is_sent_again(house: &mut dyn House) {
    effects(house, 3).await;
    {
        let store = house.store();
        let pending = store.pending(at(50), 9).await.unwrap();
        store.bury(&pending[1], "550 no such mailbox").await.unwrap();
        // Buried twice is buried once.
        store.bury(&pending[1], "again").await.unwrap();
        assert_eq!(effect_ids(&*store).await, ["0", "2"]);
    }
    house.crash().await;
    let store = house.store();
    let dead = store.dead(9).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].id.as_str(), dead[0].attempts, dead[0].since),
        ("1", 1, at(1))
    );
    assert_eq!(dead[0].failure.as_deref(), Some("550 no such mailbox"));
    let place: PendingId = dead[0].at.to_string().parse().unwrap();
    assert_eq!(place, dead[0].at, "its place can be written down");
    let other = PendingId {
        entry: "1-1".to_owned(),
        ..place.clone()
    };
    assert!(!store.revive(&other, at(900)).await.unwrap());
    assert!(store.revive(&place, at(900)).await.unwrap());
    assert!(!store.revive(&place, at(900)).await.unwrap(), "once");
    assert!(store.dead(9).await.unwrap().is_empty());
    let all = eventually(&*store, at(900), 3).await;
    let again = all.iter().find(|p| p.id == "1").unwrap();
    assert_eq!(
        (again.attempts, again.since),
        (0, at(900)),
        "with the patience of a new one"
    );
}

pub async fn looking_at_the_outbox_moves_nothing(house: &mut dyn House) {
    effects(house, 3).await;
    let store = house.store();
    let pending = store.pending(at(50), 9).await.unwrap();
    store.retry(&pending[0], at(100), "x").await.unwrap();
    let seen = store.waiting(9).await.unwrap();
    let ids: BTreeSet<&str> = seen.iter().map(|p| p.id.as_str()).collect();
    assert_eq!(ids, BTreeSet::from(["0", "1", "2"]));
    assert_eq!(store.waiting(2).await.unwrap().len(), 2);
    let left = eventually(&*store, at(99), 2).await;
    assert_eq!((left[0].id.as_str(), left[1].id.as_str()), ("1", "2"));
}

pub async fn the_outbox_survives_a_crash(house: &mut dyn House) {
    effects(house, 3).await;
    {
        let store = house.store();
        let pending = store.pending(at(50), 9).await.unwrap();
        store.done(&pending[0].at).await.unwrap();
        store.retry(&pending[1], at(100), "x").await.unwrap();
    }
    house.crash().await;
    let left = eventually(&*house.store(), at(60), 1).await;
    assert_eq!(left[0].id, "2");
    let left = eventually(&*house.store(), at(100), 2).await;
    let ids: BTreeSet<&str> = left.iter().map(|p| p.id.as_str()).collect();
    assert_eq!(ids, BTreeSet::from(["1", "2"]));
}

pub async fn an_outbox_entry_that_cannot_be_read_steps_aside_and_is_kept(house: &mut dyn House) {
    effects(house, 2).await;
    let partition = house.keys().subject(&subject("u")).partition();
    house.spoil(Spoil::Outbox(partition)).await;
    effects(house, 1).await;
    let store = house.store();
    let readable = eventually(&*store, at(0), 1).await;
    assert_eq!(readable[0].id, "0");
    store.done(&readable[0].at).await.unwrap();
    drop(store);
    let raw = house.raw().await;
    assert!(raw.windows(6).any(|w| w == b"spoilt"), "nothing is lost");
}

pub async fn the_worker_is_woken_by_a_commit(house: &mut dyn House) {
    let store = house.store();
    let waiting = tokio::spawn(async move { store.wait_for_work(Duration::from_secs(30)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    effects(house, 1).await;
    let committed = Instant::now();
    waiting.await.unwrap();
    assert!(committed.elapsed() < Duration::from_millis(500));
    // Nothing new: it comes back by itself, to look at what other processes did.
    let start = Instant::now();
    let store = house.store();
    store.wait_for_work(Duration::from_millis(50)).await;
    store.wait_for_work(Duration::from_millis(50)).await;
    assert!(start.elapsed() < Duration::from_secs(2));
}

pub async fn due_subjects_come_by_time(house: &mut dyn House) {
    let (store, keys) = (house.store(), house.keys());
    let hour = 3600;
    for (sub, start) in [("b", 20), ("a", 10), ("c", 30)] {
        let one = |_: &_| {
            Some(Write {
                record: Some(held_from(sub, at(start))),
                ..Write::default()
            })
        };
        let key = keys.subject(&subject(sub));
        store.update(&key, Parts::RECORD, None, &one).await.unwrap();
    }
    let key = |sub| keys.subject(&subject(sub));
    assert_eq!(store.due(at(2 * hour + 9), 9).await.unwrap(), []);
    let due = store.due(at(2 * hour + 20), 9).await.unwrap();
    assert_eq!(due, [key("a"), key("b")]);
    assert_eq!(store.due(END, 1).await.unwrap(), [key("a")]);
    // A quiet record is not due any more, and one that is due later moves.
    let quiet = |_: &_| {
        Some(Write {
            record: Some(record("a", 2)),
            ..Write::default()
        })
    };
    store
        .update(&key("a"), Parts::RECORD, None, &quiet)
        .await
        .unwrap();
    let later = |_: &_| {
        Some(Write {
            record: Some(held_from("b", at(40))),
            ..Write::default()
        })
    };
    store
        .update(&key("b"), Parts::RECORD, None, &later)
        .await
        .unwrap();
    assert_eq!(store.due(END, 9).await.unwrap(), [key("c"), key("b")]);
}

// P12
pub async fn a_state_is_taken_once_by_one(house: &mut dyn House) {
    let store = house.store();
    store.put_state("s", b"value", Span::from_mins(1)).await.unwrap();
    let mut takers = Vec::new();
    for _ in 0..16 {
        let store = house.store();
        takers.push(tokio::spawn(async move { store.take_state("s").await.unwrap() }));
    }
    let mut taken = Vec::new();
    for taker in takers {
        taken.extend(taker.await.unwrap());
    }
    assert_eq!(taken, [b"value"]);
    assert_eq!(store.take_state("never").await.unwrap(), None);
}

pub async fn a_state_ends_and_is_never_overwritten(house: &mut dyn House) {
    let store = house.store();
    let short = Span::from_millis(200);
    store.put_state("a", b"1", short).await.unwrap();
    store.put_state("b", b"1", Span::from_mins(1)).await.unwrap();
    store.put_state("b", b"2", Span::from_mins(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(store.take_state("a").await.unwrap(), None);
    let kept = store.take_state("b").await.unwrap();
    assert_eq!(kept.as_deref(), Some(b"1".as_slice()));
    // A name whose time is over is free again.
    store.put_state("c", b"1", short).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    store.put_state("c", b"2", Span::from_mins(1)).await.unwrap();
    let kept = store.take_state("c").await.unwrap();
    assert_eq!(kept.as_deref(), Some(b"2".as_slice()));
}

pub async fn a_lease_has_one_holder_and_a_growing_fence(house: &mut dyn House) {
    let store = house.store();
    let long = Span::from_mins(1);
    let first = store.lease("poll", "one", long).await.unwrap().unwrap();
    assert_eq!(store.lease("poll", "two", long).await.unwrap(), None);
    let extended = store.lease("poll", "one", Span::from_millis(200)).await;
    assert_eq!(extended.unwrap(), Some(first.clone()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let second = store.lease("poll", "two", long).await.unwrap().unwrap();
    assert!(second.fence > first.fence);
    assert_eq!(store.lease("poll", "one", long).await.unwrap(), None);
    // Only its holder gives it back.
    store.release("poll", "one").await.unwrap();
    assert_eq!(store.lease("poll", "one", long).await.unwrap(), None);
    store.release("poll", "two").await.unwrap();
    let third = store.lease("poll", "one", long).await.unwrap().unwrap();
    assert!(third.fence > second.fence);
    assert!(store.lease("other", "two", long).await.unwrap().is_some());
}

pub async fn a_setting_is_not_set_under_an_old_lease(house: &mut dyn House) {
    let store = house.store();
    assert_eq!(store.setting("cursor").await.unwrap(), None);
    store.set_setting("cursor", "0", None).await.unwrap();
    let short = Span::from_millis(100);
    let old = store.lease("poll", "one", short).await.unwrap().unwrap();
    store.set_setting("cursor", "1", Some(&old)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let new = store.lease("poll", "two", short).await.unwrap().unwrap();
    let late = store.set_setting("cursor", "2", Some(&old)).await;
    assert!(matches!(late, Err(StoreError::StaleLease(name)) if name == "poll"));
    assert_eq!(store.setting("cursor").await.unwrap().as_deref(), Some("1"));
    store.set_setting("cursor", "3", Some(&new)).await.unwrap();
    store.release("poll", "two").await.unwrap();
    drop(store);
    house.crash().await;
    let store = house.store();
    assert_eq!(store.setting("cursor").await.unwrap().as_deref(), Some("3"));
    let third = store.lease("poll", "x", short).await.unwrap().unwrap();
    assert!(third.fence > new.fence);
}

// P5: what decides where we read on, and who may end a freeze, is believed only when we wrote it.
pub async fn a_setting_that_others_wrote_counts_as_missing(house: &mut dyn House) {
    let store = house.store();
    store.set_setting("cursor", "far ahead", None).await.unwrap();
    assert_eq!(
        store.setting("cursor").await.unwrap().as_deref(),
        Some("far ahead")
    );
    drop(store);
    let (_, others) = keys_with_other_seal();
    let seen = house.with_keys(Arc::new(others)).await;
    assert_eq!(seen.setting("cursor").await.unwrap(), None);
}

// row I4
pub async fn audit_lines_come_newest_first_for_all_and_for_one(house: &mut dyn House) {
    let (store, keys) = (house.store(), house.keys());
    let mut all = Vec::new();
    for n in 0..60_i64 {
        let sub = format!("u{}", n % 6);
        let one = |_: &_| {
            Some(Write {
                audit: vec![line(&format!("{n}:a"), n), line(&format!("{n}:b"), n)],
                effects: Vec::new(),
                ..write(&sub, n)
            })
        };
        let key = keys.subject(&subject(&sub));
        store.update(&key, Parts::RECORD, None, &one).await.unwrap();
        all.splice(0..0, [format!("{n}:b"), format!("{n}:a")]);
    }
    let noted = line("noted", 100);
    let key = keys.subject(&subject("u0"));
    store.note(&subject("u0"), &key, &noted).await.unwrap();
    all.insert(0, "noted".to_owned());
    assert_eq!(line_ids(&*store, None).await, all);
    let found = store.audit(None, END, 7).await.unwrap();
    let ids: Vec<&str> = found.iter().map(|(_, e)| e.id.as_str()).collect();
    assert_eq!(ids, all[..7].iter().map(String::as_str).collect::<Vec<_>>());
    // Before an instant: that instant is not in it.
    let found = store.audit(None, at(30), 1).await.unwrap();
    assert_eq!(found[0].1.id, "29:b");
    let found = store.audit(Some(&key), at(30), 1).await.unwrap();
    assert_eq!((found[0].1.id.as_str(), &found[0].0), ("24:b", &subject("u0")));
    assert_eq!(line_ids(&*store, Some(&key)).await.len(), 21);
    // The same line stored again, by a repetition whose first answer was lost, is found by the same id.
    let mut ids = line_ids(&*store, None).await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all.len());
}

// Lines of every commit, of many at once, and after a crash, form one chain in each partition.
pub async fn audit_lines_form_a_chain(house: &mut dyn House) {
    for n in 0..3 {
        let store = house.store();
        let writers = (0..8_i64).map(|w| {
            let (store, keys) = (Arc::clone(&store), house.keys());
            tokio::spawn(async move {
                let subject = subject(&format!("u{}", w % 3));
                let key = keys.subject(&subject);
                for m in 0..4 {
                    let entry = line(&format!("{n}:{w}:{m}"), n * 100 + w * 10 + m);
                    store.note(&subject, &key, &entry).await.unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        drop(store);
        house.crash().await;
    }
    let store = house.store();
    let mut lines = 0;
    for partition in 0..=u8::MAX {
        let chain = store.chain(partition).await.unwrap();
        assert_eq!(chain.fault, None);
        assert_eq!(chain.head.as_ref().map_or(0, |h| h.n), chain.lines.len() as u64);
        lines += chain.lines.len();
    }
    assert_eq!(lines, 3 * 8 * 4);
}
