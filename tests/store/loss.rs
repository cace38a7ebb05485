//! What is lost, foreign, newer or spoilt is never read as "nothing happened", and never overwritten.

use std::sync::Arc;

use reentry::domain::hold::{Effect, Record};
use reentry::domain::notice::{Content, Message, Notice};
use reentry::domain::session::Grants;
use reentry::domain::subject::UpstreamId;
use reentry::domain::subject::account::{ChannelId, ContactKind};
use reentry::domain::subject::versions::Stale;
use reentry::domain::time::Span;
use reentry::ports::seal::Seal as _;
use reentry::ports::store::{Loss, Parts, StoreError, Write};
use reentry::store::seal::Keys;

use crate::house::{House, Spoil, keys_with_other_seal};
use crate::values::{
    ADDRESS, END, account, at, effect_ids, held, is_unsound, record, session, subject, write,
};

/// Both a reading and an update refuse; the update's closure is never asked.
async fn refused(house: &dyn House, sub: &str) -> [StoreError; 2] {
    let (store, key) = (house.store(), house.keys().subject(&subject(sub)));
    let read = store.read(&key, Parts::RECORD).await.unwrap_err();
    let closure = |_: &_| panic!("a closure must not decide on what cannot be believed");
    let update = store.update(&key, Parts::RECORD, None, &closure).await;
    [read, update.unwrap_err()]
}

fn all_unsound(errors: &[StoreError; 2]) -> bool {
    errors.iter().all(|e| {
        matches!(
            e,
            StoreError::Unsound(_) | StoreError::Lost { .. } | StoreError::Altered(_)
        )
    })
}

async fn store_one(house: &dyn House, sub: &str, record: Record) {
    let key = house.keys().subject(&subject(sub));
    let write = Write {
        record: Some(record),
        ..write(sub, 1)
    };
    house
        .store()
        .update(&key, Parts::ALL, None, &|_| Some(write.clone()))
        .await
        .unwrap();
}

pub async fn p5_a_lost_marker_is_not_believed(house: &mut dyn House) {
    let partition = house.keys().subject(&subject("u")).partition();
    house.spoil(Spoil::DropMarker(partition)).await;
    assert!(all_unsound(&refused(house, "u").await));
    let soundness = house.store().check().await.unwrap();
    assert_eq!(soundness.restricted_partitions, [partition]);
    assert!(soundness.faults.iter().any(|f| f.contains("1 of 256")));
    // The values went with it: `init` does not paper over that.
    assert!(is_unsound(&house.store().init().await));
    // Other partitions are as they were.
    let other = (0..100)
        .map(|n| format!("u{n}"))
        .find(|sub| house.keys().subject(&subject(sub)).partition() != partition);
    let key = house.keys().subject(&subject(&other.unwrap()));
    assert!(house.store().read(&key, Parts::RECORD).await.is_ok());
}

pub async fn p5_a_marker_of_other_keys_is_not_believed(house: &mut dyn House) {
    let partition = house.keys().subject(&subject("u")).partition();
    house.spoil(Spoil::ForeignMarker(partition)).await;
    assert!(all_unsound(&refused(house, "u").await));
    assert!(is_unsound(&house.store().init().await));
}

pub async fn p5_a_flushed_store_is_not_believed(house: &mut dyn House) {
    store_one(house, "u", held("u")).await;
    house.spoil(Spoil::Flush).await;
    assert!(all_unsound(&refused(house, "u").await));
    let soundness = house.store().check().await.unwrap();
    assert_eq!(soundness.restricted_partitions.len(), 256);
    // A process that knows what was there begins to rebuild; one that does not says what could be meant.
    let says = |f: &String| f.contains("store init") || f.contains("being rebuilt");
    assert!(soundness.faults.iter().any(says), "{:?}", soundness.faults);
}

pub async fn p5_a_due_subject_without_a_record_is_not_believed(house: &mut dyn House) {
    store_one(house, "u", held("u")).await;
    let key = house.keys().subject(&subject("u"));
    house.spoil(Spoil::DropRecord(key)).await;
    assert!(all_unsound(&refused(house, "u").await));
}

/// Puts these octets in the place of a held account's record. Nothing is overwritten by reading or changing it.
async fn spoilt_record_is_kept(house: &mut dyn House, bytes: Vec<u8>, expected: fn(&StoreError) -> bool) {
    store_one(house, "u", held("u")).await;
    let key = house.keys().subject(&subject("u"));
    house.spoil(Spoil::Record(key, bytes.clone())).await;
    for error in refused(house, "u").await {
        assert!(expected(&error), "{error}");
    }
    assert_eq!(house.raw_record(&key).await, Some(bytes));
}

pub async fn a_newer_record_is_refused_and_kept(house: &mut dyn House) {
    store_one(house, "u", held("u")).await;
    let key = house.keys().subject(&subject("u"));
    let mut bytes = house.raw_record(&key).await.unwrap();
    bytes[0] += 1;
    house.spoil(Spoil::Record(key, bytes.clone())).await;
    for error in refused(house, "u").await {
        assert!(matches!(error, StoreError::Unreadable(_)), "{error}");
    }
    assert_eq!(house.raw_record(&key).await, Some(bytes));
    assert_eq!(house.store().altered(), Vec::new(), "it is nobody's to mend");
}

pub async fn a_record_of_garbage_is_refused_and_kept(house: &mut dyn House) {
    spoilt_record_is_kept(house, b"\x02short".to_vec(), |e| {
        matches!(e, StoreError::Altered(Stale::Record))
    })
    .await;
}

// P5: a record as it was stored before records were sealed, which anybody can write.
pub async fn p5_a_record_that_is_not_sealed_is_not_believed(house: &mut dyn House) {
    let open = reentry::store::codec::encode(&record("u", 9)).unwrap();
    spoilt_record_is_kept(house, open, |e| matches!(e, StoreError::Altered(Stale::Record))).await;
}

pub async fn a_wrong_seal_key_reads_nothing_and_loses_nothing(house: &mut dyn House) {
    // A house whose keys have a double with another seal key is needed, so it is built anew around them.
    let (own, wrong) = keys_with_other_seal();
    let key = own.subject(&subject("u"));
    let own = Arc::new(own);
    house.spoil(Spoil::Flush).await;
    let store = house.with_keys(Arc::clone(&own)).await;
    store.init().await.unwrap();
    let write_all = |_: &_| Some(write("u", 1));
    store.update(&key, Parts::ALL, None, &write_all).await.unwrap();
    drop(store);
    let store = house.with_keys(Arc::new(wrong)).await;
    // What is sealed cannot be read, and is not written over.
    let read = store.read(&key, Parts::RECORD).await;
    assert!(matches!(read, Err(StoreError::Unreadable(_))));
    assert_eq!(store.altered(), Vec::new(), "the account is not at fault");
    let read = store.read(&key, Parts::ALL).await;
    assert!(matches!(read, Err(StoreError::Unreadable(_))));
    let update = store.update(&key, Parts::ALL, None, &|_| Some(write("u", 2)));
    assert!(matches!(update.await, Err(StoreError::Unreadable(_))));
    let blind = store.update(&key, Parts::RECORD, None, &|_| Some(write("u", 2)));
    assert!(matches!(blind.await, Err(StoreError::Unreadable(_))));
    assert!(store.pending(at(10), 9).await.unwrap().is_empty());
    drop(store);
    let store = house.with_keys(own).await;
    let loaded = store.read(&key, Parts::ALL).await.unwrap();
    assert_eq!(loaded.record, Some(record("u", 1)));
    assert_eq!(loaded.account, Some(account()));
    assert_eq!(store.pending(END, 9).await.unwrap().len(), 1);
}

pub async fn wrong_names_read_nothing(house: &mut dyn House) {
    store_one(house, "u", held("u")).await;
    let wrong = Arc::new(Keys::ephemeral().unwrap());
    let key = wrong.subject(&subject("u"));
    let store = house.with_keys(wrong).await;
    assert!(is_unsound(&store.read(&key, Parts::RECORD).await));
    assert!(is_unsound(&store.init().await));
    let soundness = store.check().await.unwrap();
    assert_eq!(soundness.restricted_partitions.len(), 256);
}

/// The whole of what Reentry keeps about people.
fn with_addresses_everywhere() -> Write {
    let notice = Notice {
        case: "case".to_owned(),
        channel: ChannelId("c1".to_owned()),
        kind: ContactKind::Email,
        address: ADDRESS.to_owned(),
        before: true,
        link: true,
        content: Content {
            message: Message::PasswordChanged,
            change: None,
            at: at(0),
            origin: None,
            allowed: None,
            until: None,
            locale: None,
            name: "Alice".to_owned(),
            count: None,
            frozen: false,
            ended: None,
            at_end: None,
        },
    };
    Write {
        grants: Some(Grants {
            sessions: vec![session()],
            ..Grants::default()
        }),
        effects: vec![("n".to_owned(), Effect::Notice(Box::new(notice)))],
        ..write("the-sub-itself", 1)
    }
}

pub async fn no_address_can_be_read_in_what_is_stored(house: &mut dyn House) {
    let (store, key) = (house.store(), house.keys().subject(&subject("the-sub-itself")));
    let wrote = with_addresses_everywhere();
    store
        .update(&key, Parts::ALL, None, &|_| Some(wrote.clone()))
        .await
        .unwrap();
    let pending = store.pending(END, 9).await.unwrap();
    store
        .retry(&pending[0], at(9), &format!("550 no mailbox {ADDRESS}"))
        .await
        .unwrap();
    store
        .put_state("login", ADDRESS.as_bytes(), Span::from_mins(9))
        .await
        .unwrap();
    drop(store);
    let raw = house.raw().await;
    let has = |what: &str| raw.windows(what.len()).any(|w| w == what.as_bytes());
    assert!(has("the-sub-itself"), "the dump is not what it should be");
    for secret in [ADDRESS, "alice", "Alice", "example.com"] {
        assert!(!has(secret), "`{secret}` can be read");
    }
    // ... and it is all still there, for those who have the keys.
    let store = house.store();
    let loaded = store.read(&key, Parts::ALL).await.unwrap();
    assert_eq!(loaded.account, Some(account()));
    let pending = store.pending(END, 9).await.unwrap();
    assert!(pending[0].failure.as_ref().unwrap().contains(ADDRESS));
    let state = store.take_state("login").await.unwrap();
    assert_eq!(state.as_deref(), Some(ADDRESS.as_bytes()));
}

pub async fn init_is_for_the_first_time_and_confirms_afterwards(house: &mut dyn House) {
    store_one(house, "u", held("u")).await;
    assert!(!house.store().init().await.unwrap());
    let soundness = house.store().check().await.unwrap();
    assert!(soundness.restricted_partitions.is_empty());
    assert_eq!(soundness.faults, Vec::<String>::new());
    house.crash().await;
    assert!(!house.store().init().await.unwrap());
    let key = house.keys().subject(&subject("u"));
    let loaded = house.store().read(&key, Parts::RECORD).await.unwrap();
    assert_eq!(loaded.record, Some(held("u")));
}

/// Everything of an account: a hold, a snapshot, a session, an effect that waits.
async fn store_all(house: &dyn House, sub: &str) {
    let key = house.keys().subject(&subject(sub));
    let write = Write {
        record: Some(held(sub)),
        grants: Some(Grants {
            sessions: vec![session()],
            ..Grants::default()
        }),
        ..write(sub, 1)
    };
    let store = house.store();
    store
        .update(&key, Parts::ALL, None, &|_| Some(write.clone()))
        .await
        .unwrap();
}

pub async fn p5_a_lost_partition_is_refused_until_it_was_rebuilt(house: &mut dyn House) {
    store_all(house, "u").await;
    let key = house.keys().subject(&subject("u"));
    house.spoil(Spoil::DropMarker(key.partition())).await;
    let store = house.store();
    let lost = store.lost().await.unwrap();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(
        (lost[0].partition, &lost[0].loss, lost[0].heals),
        (key.partition(), &Loss::Missing, true)
    );
    let blind = store.read(&key, Parts::RECORD.while_rebuilding()).await;
    assert!(is_unsound(&blind), "not before the rebuild was begun: {blind:?}");

    let begun = session().began.plus(Span::from_secs(1));
    let rebuild = store.begin_rebuild(key.partition(), begun, begun).await.unwrap();
    assert!(
        all_unsound(&refused(house, "u").await),
        "nothing is issued meanwhile"
    );
    let loaded = store.read(&key, Parts::ALL.while_rebuilding()).await.unwrap();
    assert_eq!(loaded.record, Some(held("u")), "what is left stays");
    assert!(loaded.rebuilding && loaded.told_before == Some(begun));
    assert!(
        loaded.grants.unwrap().sessions.is_empty(),
        "no session counts again"
    );
    assert!(
        store.pending(END, 9).await.unwrap().is_empty(),
        "no effect is done meanwhile"
    );
    let soundness = store.check().await.unwrap();
    assert_eq!(soundness.restricted_partitions, [key.partition()]);
    let parts = Parts::RECORD.while_rebuilding();
    let taken_in = Write {
        record: Some(record("u", 7)),
        ..Write::default()
    };
    store
        .update(&key, parts, None, &|_| Some(taken_in.clone()))
        .await
        .unwrap();

    // Somebody else takes it over: the first one can no longer release it.
    let again = store
        .begin_rebuild(key.partition(), begun.plus(Span::from_secs(60)), begun)
        .await
        .unwrap();
    assert_eq!(
        again.told_before, begun,
        "what was told before the loss stays what it was"
    );
    assert!(!store.finish_rebuild(&rebuild).await.unwrap());
    assert!(all_unsound(&refused(house, "u").await));
    assert!(store.finish_rebuild(&again).await.unwrap());
    assert!(!store.finish_rebuild(&again).await.unwrap(), "once");
    let loaded = store.read(&key, Parts::ALL).await.unwrap();
    assert_eq!(loaded.record, Some(record("u", 7)));
    assert!(loaded.grants.unwrap().sessions.is_empty());
    assert!(store.lost().await.unwrap().is_empty());
    assert_eq!(
        effect_ids(&*store).await,
        ["effect:u:1"],
        "what waited still waits"
    );
    // ... and it stays released for a process that starts now.
    drop(store);
    house.crash().await;
    assert!(house.store().read(&key, Parts::ALL).await.is_ok());
}

// P5: an account under another id of its IdP looks like one to which nothing happened.
pub async fn p5_a_store_made_for_other_upstreams_is_not_believed_and_says_what_to_do(house: &mut dyn House) {
    let ids = ["company", "staff"].map(|id| UpstreamId::parse(id).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    Keys::create(&path).unwrap();
    let of = |ids: &[UpstreamId]| Arc::new(Keys::load(&path).unwrap().of(ids));
    house.spoil(Spoil::Flush).await;
    let store = house.with_keys(of(&ids[..1])).await;
    store.init().await.unwrap();
    let key = of(&ids).subject(&subject("u"));
    drop(store);
    let store = house.with_keys(of(&ids)).await;
    let refused = store.read(&key, Parts::RECORD).await.unwrap_err().to_string();
    for word in ["`company`", "`staff`", "store init", "change it back"] {
        assert!(refused.contains(word), "{word} in {refused}");
    }
    let lost = store.lost().await.unwrap();
    assert!(
        lost.len() == 256 && lost.iter().all(|l| !l.heals),
        "never rebuilt by itself"
    );
    let begun = store.begin_rebuild(0, at(1), at(1)).await;
    assert!(is_unsound(&begun), "{begun:?}");
    // The operator says that it is a new one.
    assert!(!store.init().await.unwrap());
    assert!(store.read(&key, Parts::RECORD).await.is_ok());
    drop(store);
    let store = house.with_keys(of(&ids[..1])).await;
    assert!(
        store.read(&key, Parts::RECORD).await.is_ok(),
        "one less is no harm"
    );
}

// P5: a copy of an installation, with its keys and its ids, that serves another realm.
pub async fn p5_a_store_of_another_idp_of_the_same_id_is_not_led_and_says_what_to_do(house: &mut dyn House) {
    let id = UpstreamId::parse("company").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    Keys::create(&path).unwrap();
    let of = |realm: &str| {
        let identity = format!("keycloak https://id.example.com {realm}");
        Arc::new(Keys::load(&path).unwrap().identified([(&id, identity)]))
    };
    house.spoil(Spoil::Flush).await;
    let store = house.with_keys(of("live")).await;
    store.init().await.unwrap();
    let key = of("live").subject(&subject("u"));
    assert!(
        store
            .lease("poll:company", "live", Span::from_secs(1))
            .await
            .unwrap()
            .is_some()
    );
    store.release("poll:company", "live").await.unwrap();
    drop(store);
    let clone = house.with_keys(of("staging")).await;
    for refused in [
        clone.read(&key, Parts::RECORD).await.map(|_| ()),
        clone
            .lease("poll:company", "clone", Span::from_secs(60))
            .await
            .map(|_| ()),
        clone.init().await.map(|_| ()),
        clone.begin_rebuild(0, at(1), at(1)).await.map(|_| ()),
    ] {
        let why = refused.unwrap_err().to_string();
        for word in ["`company`", "a store of its own", "store init --moved company"] {
            assert!(why.contains(word), "{word} in {why}");
        }
    }
    let lost = clone.lost().await.unwrap();
    assert!(lost.len() == 256 && lost.iter().all(|l| !l.heals));
    let faults = clone.check().await.unwrap().faults.join("; ");
    assert!(faults.contains("--moved company"), "{faults}");
    drop(clone);
    // The first one goes on, and a realm that moved is the same one when an operator says so.
    let store = house.with_keys(of("live")).await;
    assert!(
        store
            .lease("poll:company", "live", Span::from_secs(60))
            .await
            .unwrap()
            .is_some()
    );
    drop(store);
    let moved = house.with_keys(of("moved")).await;
    assert!(is_unsound(&moved.read(&key, Parts::RECORD).await));
    moved.moved(&id).await.unwrap();
    assert!(moved.read(&key, Parts::RECORD).await.is_ok());
    assert!(moved.lost().await.unwrap().is_empty());
}

// P5: a process that starts after the loss knows what was there before.
pub async fn p5_what_was_seen_outlives_the_process(house: &mut dyn House) {
    store_one(house, "u", held("u")).await;
    let witness = house.store().witness().unwrap();
    house.spoil(Spoil::Flush).await;
    let store = house.with_keys(house.keys()).await;
    let lost = store.lost().await.unwrap();
    assert!(
        lost.iter().all(|l| !l.heals),
        "a first install looks like this too"
    );
    store.remember(&witness);
    let lost = store.lost().await.unwrap();
    assert!(
        lost.len() == 256 && lost.iter().all(|l| l.heals),
        "and this is none"
    );
    for partition in 0..=u8::MAX {
        let rebuild = store.begin_rebuild(partition, at(1), at(1)).await.unwrap();
        assert!(store.finish_rebuild(&rebuild).await.unwrap());
    }
    assert!(store.lost().await.unwrap().is_empty());
    assert!(!store.init().await.unwrap(), "the same installation");
}
