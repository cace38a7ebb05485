//! Subjects: what is stored comes back, and nobody's write is lost.

use std::sync::atomic::{AtomicUsize, Ordering};

use reentry::domain::hold::Effect;
use reentry::domain::time::Span;
use reentry::ports::seal::Seal as _;
use reentry::ports::store::{Mark, Parts, StoreError, Updated, Write};

use crate::house::House;
use crate::values::{END, account, effect_ids, line, line_ids, record, subject, write};

pub async fn a_stored_value_comes_back(house: &mut dyn House) {
    let (store, key) = (house.store(), house.keys().subject(&subject("u")));
    let nothing = store.read(&key, Parts::ALL).await.unwrap();
    assert_eq!((nothing.record, nothing.account), (None, None));
    assert_eq!(nothing.grants, None);
    let updated = store
        .update(&key, Parts::ALL, None, &|old| {
            assert_eq!(old.record, None);
            Some(write("u", 1))
        })
        .await
        .unwrap();
    assert!(matches!(updated, Updated::Stored));
    let loaded = store.read(&key, Parts::ALL).await.unwrap();
    assert_eq!(loaded.record, Some(record("u", 1)));
    assert_eq!(loaded.account, Some(account()));
    assert!(loaded.grants.is_some());
    let only = store.read(&key, Parts::RECORD).await.unwrap();
    assert_eq!((only.account, only.grants), (None, None));
    assert_eq!(effect_ids(&*store).await, ["effect:u:1"]);
    assert_eq!(line_ids(&*store, Some(&key)).await, ["line:u:1"]);
    // What a write leaves out stays.
    store
        .update(&key, Parts::RECORD, None, &|_| {
            Some(Write {
                record: Some(record("u", 2)),
                ..Write::default()
            })
        })
        .await
        .unwrap();
    let loaded = store.read(&key, Parts::ALL).await.unwrap();
    assert_eq!(loaded.record, Some(record("u", 2)));
    assert_eq!(loaded.account, Some(account()));
    let unchanged = store.update(&key, Parts::ALL, None, &|_| None).await;
    assert!(matches!(unchanged.unwrap(), Updated::Unchanged));
}

pub async fn a_race_of_writers_loses_no_update(house: &mut dyn House) {
    const WRITERS: usize = 16;
    const EACH: usize = 8;
    let key = house.keys().subject(&subject("u"));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = house.store();
        writers.push(tokio::spawn(async move {
            for round in 0..EACH {
                let add = |old: &reentry::ports::store::Loaded| {
                    let epoch = old.record.as_ref().map_or(0, |r| r.epoch) + 1;
                    Some(Write {
                        record: Some(record("u", epoch)),
                        effects: vec![(format!("{writer}:{round}"), Effect::Converge)],
                        ..Write::default()
                    })
                };
                let done = store.update(&key, Parts::RECORD, None, &add).await;
                assert!(matches!(done.unwrap(), Updated::Stored));
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let store = house.store();
    let epoch = store.read(&key, Parts::RECORD).await.unwrap();
    let all = i64::try_from(WRITERS * EACH).unwrap();
    assert_eq!(epoch.record.map(|r| r.epoch), Some(all));
    let mut ids = effect_ids(&*store).await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), WRITERS * EACH);
}

fn mark(name: &str) -> Mark {
    Mark {
        name: name.to_owned(),
        keep: Span::from_days(1),
    }
}

pub async fn a_mark_lets_an_event_count_once(house: &mut dyn House) {
    let (store, key) = (house.store(), house.keys().subject(&subject("u")));
    let event = mark("user_events:1");
    let first = store.update(&key, Parts::RECORD, Some(&event), &|_| Some(write("u", 1)));
    assert!(matches!(first.await.unwrap(), Updated::Stored));
    let second = store.update(&key, Parts::RECORD, Some(&event), &|_| Some(write("u", 2)));
    assert!(matches!(second.await.unwrap(), Updated::Duplicate));
    let loaded = store.read(&key, Parts::RECORD).await.unwrap();
    assert_eq!(loaded.record, Some(record("u", 1)));
    assert_eq!(effect_ids(&*store).await, ["effect:u:1"]);
    // An event that changes nothing is marked too.
    let quiet = mark("user_events:2");
    let nothing = store.update(&key, Parts::RECORD, Some(&quiet), &|_| None);
    assert!(matches!(nothing.await.unwrap(), Updated::Unchanged));
    let again = store.update(&key, Parts::RECORD, Some(&quiet), &|_| Some(write("u", 3)));
    assert!(matches!(again.await.unwrap(), Updated::Duplicate));
}

pub async fn an_event_that_many_bring_at_once_counts_once(house: &mut dyn House) {
    let key = house.keys().subject(&subject("u"));
    let stored = std::sync::Arc::new(AtomicUsize::new(0));
    let mut bringers = Vec::new();
    for _ in 0..16 {
        let (store, stored) = (house.store(), std::sync::Arc::clone(&stored));
        bringers.push(tokio::spawn(async move {
            let event = mark("user_events:1");
            let done = store
                .update(&key, Parts::RECORD, Some(&event), &|_| Some(write("u", 1)))
                .await
                .unwrap();
            if matches!(done, Updated::Stored) {
                stored.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    for bringer in bringers {
        bringer.await.unwrap();
    }
    assert_eq!(stored.load(Ordering::SeqCst), 1);
    assert_eq!(effect_ids(&*house.store()).await.len(), 1);
}

pub async fn a_mark_of_one_source_is_none_of_another(house: &mut dyn House) {
    let (store, key) = (house.store(), house.keys().subject(&subject("u")));
    for (index, name) in ["user_events:1", "admin_events:1", "hook:1"].iter().enumerate() {
        let epoch = i64::try_from(index).unwrap();
        let done = store
            .update(&key, Parts::RECORD, Some(&mark(name)), &|_| {
                Some(write("u", epoch))
            })
            .await;
        assert!(matches!(done.unwrap(), Updated::Stored), "{name}");
    }
}

pub async fn a_closure_that_writes_what_it_did_not_read_sees_it_first(house: &mut dyn House) {
    let (store, key) = (house.store(), house.keys().subject(&subject("u")));
    let write_all = |_: &_| Some(write("u", 1));
    store.update(&key, Parts::ALL, None, &write_all).await.unwrap();
    let runs = AtomicUsize::new(0);
    store
        .update(&key, Parts::RECORD, None, &|old| {
            if runs.fetch_add(1, Ordering::SeqCst) > 0 {
                assert_eq!(old.account, Some(account()));
            }
            Some(Write {
                account: Some(account()),
                ..Write::default()
            })
        })
        .await
        .unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

pub async fn effects_of_a_subject_without_a_record_need_its_name(house: &mut dyn House) {
    let (store, key) = (house.store(), house.keys().subject(&subject("u")));
    let nameless = Write {
        audit: vec![line("l", 1)],
        ..Write::default()
    };
    let refused = store
        .update(&key, Parts::RECORD, None, &|_| Some(nameless.clone()))
        .await;
    assert!(matches!(refused, Err(StoreError::Unreadable(_))));
    let named = Write {
        subject: Some(subject("u")),
        ..nameless
    };
    store
        .update(&key, Parts::RECORD, None, &|_| Some(named.clone()))
        .await
        .unwrap();
    let lines = store.audit(Some(&key), END, 9).await.unwrap();
    assert_eq!(lines[0].0, subject("u"));
}
