//! Values of before that somebody puts back, or takes away: whoever can write to the store has no key, but may have
//! copied what stood there once. What is older than what was stored, or missing, is a loss and never an answer (P5).

use reentry::domain::session::Grants;
use reentry::ports::seal::{Seal as _, SubjectKey};
use reentry::ports::store::{Parts, Store, Write};

use crate::house::{House, Kept, Kind};
use crate::values::{account, held, is_unsound, record, session, subject, write};

/// Stores these values.
async fn store(house: &dyn House, sub: &str, write: Write) {
    let key = house.keys().subject(&subject(sub));
    let all = Parts::ALL;
    house
        .store()
        .update(&key, all, None, &|_| Some(write.clone()))
        .await
        .unwrap();
}

/// The readings that decisions, pages and workers ask for.
async fn readings(store: &dyn Store, key: &SubjectKey) -> Vec<(&'static str, bool)> {
    let mut found = Vec::new();
    for (name, parts) in [
        ("record", Parts::RECORD),
        ("decision", Parts::DECISION),
        ("account", Parts::ACCOUNT),
        ("grants", Parts::GRANTS),
        ("all", Parts::ALL),
    ] {
        found.push((name, is_unsound(&store.read(key, parts).await)));
    }
    found
}

/// A quiet account with a session, and what stood in the store then.
async fn quiet(house: &mut dyn House, sub: &str) -> (SubjectKey, Vec<Kept>) {
    let key = house.keys().subject(&subject(sub));
    let grants = Grants {
        sessions: vec![session()],
        ..Grants::default()
    };
    let first = Write {
        grants: Some(grants),
        effects: Vec::new(),
        ..write(sub, 1)
    };
    store(house, sub, first).await;
    (key, house.kept(&key).await)
}

/// The same account, held, with its session ended.
async fn then_held(house: &mut dyn House, sub: &str) {
    let second = Write {
        record: Some(held(sub)),
        account: Some(account()),
        grants: Some(Grants::default()),
        ..Write::default()
    };
    store(house, sub, second).await;
}

/// Every reading in which this value is asked for refuses.
fn assert_refused(readings: &[(&str, bool)], within: &[&str], what: &str) {
    for (name, refused) in readings {
        if within.contains(name) {
            assert!(refused, "{what}: the reading of `{name}` believed it");
        }
    }
}

const EVERY: [&str; 5] = ["record", "decision", "account", "grants", "all"];
const WITH_ACCOUNT: [&str; 2] = ["account", "all"];
const WITH_GRANTS: [&str; 3] = ["decision", "grants", "all"];

/// The readings that ask for a kind.
fn within(kind: Kind) -> &'static [&'static str] {
    match kind {
        // The due entry has no key of its own: alone it says nothing that the record does not.
        Kind::Due => &[],
        Kind::Account => &WITH_ACCOUNT,
        Kind::Grants => &WITH_GRANTS,
        Kind::Record => &["decision", "account", "grants", "all"],
    }
}

// P5, P2: each value of before, put back beside the newer others.
pub async fn p5_an_old_value_put_back_beside_newer_ones_is_not_believed(house: &mut dyn House) {
    for kind in [Kind::Record, Kind::Account, Kind::Grants] {
        let sub = format!("old-{kind:?}").to_lowercase();
        let (key, before) = quiet(house, &sub).await;
        then_held(house, &sub).await;
        let old: Vec<Kept> = before.into_iter().filter(|k| k.kind == kind).collect();
        assert_eq!(old.len(), 1, "{kind:?} was stored");
        house.put_back(&key, &old).await;
        let found = readings(&*house.store(), &key).await;
        assert_refused(&found, within(kind), &format!("an old {kind:?}"));
    }
}

// P5: another account's record, genuine and new, in the place of a held one.
pub async fn p5_a_record_of_another_account_is_not_believed(house: &mut dyn House) {
    let (_, of_another) = quiet(house, "another").await;
    let (key, _) = quiet(house, "victim").await;
    then_held(house, "victim").await;
    let record: Vec<Kept> = of_another
        .into_iter()
        .filter(|k| k.kind == Kind::Record)
        .collect();
    house.put_back(&key, &record).await;
    house.drop_values(&key, &[Kind::Due]).await;
    let found = readings(&*house.store(), &key).await;
    assert_refused(&found, &EVERY, "another's record");
}

// P5: a record taken away with the witness that it was there.
pub async fn p5_a_record_taken_away_with_its_due_entry_is_not_believed(house: &mut dyn House) {
    let (key, _) = quiet(house, "victim").await;
    then_held(house, "victim").await;
    house.drop_values(&key, &[Kind::Record, Kind::Due]).await;
    let found = readings(&*house.store(), &key).await;
    assert_refused(&found, &EVERY, "no record");
}

// P5: a snapshot taken away would make every factor look as if it had always been there.
pub async fn p5_a_snapshot_taken_away_is_not_believed(house: &mut dyn House) {
    let (key, _) = quiet(house, "victim").await;
    house.drop_values(&key, &[Kind::Account]).await;
    let found = readings(&*house.store(), &key).await;
    assert_refused(&found, &WITH_ACCOUNT, "no snapshot");
}

/// Grants go by themselves when nobody needs them any more: without them nobody has a session, and that is all.
pub async fn grants_that_are_gone_are_no_loss(house: &mut dyn House) {
    let (key, _) = quiet(house, "ann").await;
    house.drop_values(&key, &[Kind::Grants]).await;
    let found = readings(&*house.store(), &key).await;
    assert!(found.iter().all(|(_, refused)| !refused), "{found:?}");
    let loaded = house.store().read(&key, Parts::ALL).await.unwrap();
    assert_eq!((loaded.grants, loaded.record), (None, Some(record("ann", 1))));
}

// P15: what was put back restricts its own account and no other.
pub async fn p15_an_altered_account_restricts_nobody_else(house: &mut dyn House) {
    let (key, before) = quiet(house, "victim").await;
    then_held(house, "victim").await;
    let record: Vec<Kept> = before.into_iter().filter(|k| k.kind == Kind::Record).collect();
    house.put_back(&key, &record).await;
    assert!(is_unsound(&house.store().read(&key, Parts::ALL).await));
    // One of the same partition.
    let mut other = key;
    other.0[15] ^= 1;
    assert!(house.store().read(&other, Parts::ALL).await.is_ok());
    assert_eq!(house.store().lost().await.unwrap(), Vec::new());
}

// P5, P15: the account is taken back into use by itself, on what is left of it, and what was copied before stays out.
pub async fn p5_what_was_altered_is_made_anew_and_older_values_stay_out(house: &mut dyn House) {
    let (key, before) = quiet(house, "victim").await;
    then_held(house, "victim").await;
    let newer = house.kept(&key).await;
    let of = |kept: &[Kept], kind: Kind| -> Vec<Kept> {
        kept.iter().filter(|k| k.kind == kind).cloned().collect()
    };
    house.put_back(&key, &of(&before, Kind::Record)).await;
    let store = house.store();
    assert!(is_unsound(&store.read(&key, Parts::ALL).await));
    let found = store.altered();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].key, found[0].subject.clone()),
        (key, Some(subject("victim")))
    );
    // What is left is for making it anew, and for that alone.
    let left = store.read(&key, Parts::ALL.while_rebuilding()).await.unwrap();
    assert!(left.rebuilding && left.record.is_some() && left.grants.is_none());
    assert!(store.begin_mend(&key).await.unwrap());
    assert!(
        is_unsound(&store.read(&key, Parts::RECORD).await),
        "restricted until it is done"
    );
    let parts = Parts::ACCOUNT.while_rebuilding();
    let rebuilt = |_: &_| {
        Some(Write {
            record: Some(held("victim")),
            ..Write::default()
        })
    };
    store.update(&key, parts, None, &rebuilt).await.unwrap();
    assert!(
        is_unsound(&store.read(&key, Parts::RECORD).await),
        "restricted until it is done"
    );
    assert!(store.finish_mend(&key).await.unwrap());
    assert_eq!(store.altered(), Vec::new());
    let loaded = store.read(&key, Parts::ALL).await.unwrap();
    assert_eq!(
        (loaded.record, loaded.account),
        (Some(held("victim")), Some(account()))
    );
    assert_eq!(loaded.grants, None, "nobody knows which were ended");
    assert!(!store.begin_mend(&key).await.unwrap(), "nothing is wrong with it");
    drop(store);
    for kept in [before, newer] {
        for kind in [Kind::Account, Kind::Grants] {
            let now = house.kept(&key).await;
            house.put_back(&key, &of(&kept, kind)).await;
            let found = readings(&*house.store(), &key).await;
            assert_refused(&found, within(kind), &format!("a {kind:?} of before"));
            house.drop_values(&key, &[kind]).await;
            house.put_back(&key, &now).await;
        }
    }
}

// P15: an account that nothing is left of, and whose due entry says that it was held.
pub async fn p15_an_account_of_which_nothing_is_left_can_be_mended(house: &mut dyn House) {
    let (key, _) = quiet(house, "victim").await;
    then_held(house, "victim").await;
    house
        .drop_values(&key, &[Kind::Record, Kind::Account, Kind::Grants])
        .await;
    let store = house.store();
    assert!(is_unsound(&store.read(&key, Parts::RECORD).await));
    assert_eq!(store.altered()[0].subject, None);
    assert!(store.begin_mend(&key).await.unwrap());
    let left = store.read(&key, Parts::ACCOUNT.while_rebuilding()).await.unwrap();
    assert!(left.witnessed && left.record.is_none());
    assert!(store.finish_mend(&key).await.unwrap());
    assert!(
        store.read(&key, Parts::ALL).await.is_ok(),
        "the identity provider has no such account"
    );
}

/// Only on a server: everything of an account put back at once, all of it genuine and of one moment. The process that
/// stored what came afterwards, or read it, knows better.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_all_values_of_before_put_back_together_are_not_believed_by_who_saw_newer_ones() {
    let mut house = crate::house::Redis::start().await;
    let (key, before) = quiet(&mut house, "victim").await;
    then_held(&mut house, "victim").await;
    let reader = house.other().await;
    reader.read(&key, Parts::RECORD).await.unwrap();
    house
        .drop_values(&key, &[Kind::Record, Kind::Account, Kind::Grants, Kind::Due])
        .await;
    for store in [house.store(), std::sync::Arc::clone(&reader)] {
        let found = readings(&*store, &key).await;
        assert_refused(&found, &EVERY, "nothing at all");
    }
    house.put_back(&key, &before).await;
    for store in [house.store(), reader] {
        let found = readings(&*store, &key).await;
        assert_refused(&found, &EVERY, "everything of before");
    }
    // What is heard meanwhile is stored, and revives no session of before.
    let store = house.store();
    let heard = |_: &_| {
        Some(Write {
            record: Some(held("victim")),
            ..Write::default()
        })
    };
    let parts = Parts::ACCOUNT.while_rebuilding();
    store.update(&key, parts, None, &heard).await.unwrap();
    assert!(store.begin_mend(&key).await.unwrap());
    assert!(store.finish_mend(&key).await.unwrap());
    let loaded = store.read(&key, Parts::ALL).await.unwrap();
    assert_eq!((loaded.record, loaded.grants), (Some(held("victim")), None));
}
