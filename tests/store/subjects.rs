//! Subjects: what is stored comes back, whole or not at all.

use reentry::domain::time::Timestamp;
use reentry::ports::seal::Seal as _;
use reentry::ports::store::{Parts, Updated};

use crate::house::House;
use crate::values::{account, record, subject, write};

pub async fn a_stored_value_comes_back(house: &mut dyn House) {
    let (store, key) = (house.store(), house.keys().subject(&subject("u")));
    let nothing = store.read(&key, Parts::ALL).await.unwrap();
    assert_eq!(
        (nothing.record, nothing.account, nothing.grants),
        (None, None, None)
    );
    let updated = store
        .update(&key, Parts::ALL, None, &|_| Some(write("u", 1)))
        .await
        .unwrap();
    assert!(matches!(updated, Updated::Stored));
    let loaded = store.read(&key, Parts::ALL).await.unwrap();
    assert_eq!(loaded.record, Some(record("u", 1)));
    assert_eq!(loaded.account, Some(account()));
    assert!(loaded.grants.is_some());
    let pending = store.pending(Timestamp::from_millis(i64::MAX), 10).await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].id, "effect:u:1");
    store.done(&pending[0].at).await.unwrap();
    let pending = store.pending(Timestamp::from_millis(i64::MAX), 10).await.unwrap();
    assert!(pending.is_empty());
    let lines = store
        .audit(Some(&key), Timestamp::from_millis(i64::MAX), 10)
        .await
        .unwrap();
    assert_eq!(lines.len(), 1);
}
