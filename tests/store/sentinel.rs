//! The contract on a master with two replicas under three Sentinels. What a crash is to one server is a failover here:
//! the master is killed, and a replica takes its place under the running store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reentry::config::store::{Durability, Replicas};
use reentry::ports::seal::{Seal as _, SubjectKey};
use reentry::ports::store::{Loaded, Parts, Store, StoreError, Updated};
use reentry::store::redis::Settings;
use reentry::store::seal::Keys;
use reentry_test_support::redis::sentinel::SentinelSet;

use crate::house::{Behind, House, Kept, Kind, Spoil, all_raw, raw_record, recovered, settings, spoil};
use crate::values::{subject, write};

/// A set with a store on it. What is acknowledged is on all nodes.
pub struct Sentinel<'a> {
    pub servers: &'a mut SentinelSet,
    keys: Arc<Keys>,
    store: Arc<dyn Store>,
}

/// All that are connected, as is the default.
pub const ALL: Replicas = Replicas::All { at_least: 1 };

/// The store on this set, waiting for so many replicas.
pub async fn connect(servers: &SentinelSet, keys: &Arc<Keys>, replicas: Replicas) -> Arc<dyn Store> {
    let settings = Settings {
        response_timeout: Duration::from_secs(2),
        durability: Durability {
            replicas,
            ..Durability::NONE
        },
        ..settings(&servers.url())
    };
    reentry::store::redis::connect(settings, Arc::clone(keys))
        .await
        .unwrap()
}

impl<'a> Sentinel<'a> {
    /// An empty store on servers that others may have used.
    pub async fn on(servers: &'a mut SentinelSet) -> Self {
        let master = servers.master();
        servers.nodes[master].cli(&["FLUSHALL"]);
        let keys = Arc::new(Keys::ephemeral().unwrap());
        let store = connect(servers, &keys, ALL).await;
        assert!(store.init().await.unwrap());
        Self { servers, keys, store }
    }
}

impl Behind for Sentinel<'_> {
    fn run(&self, command: &redis::Cmd) -> redis::Value {
        let master = &self.servers.nodes[self.servers.master()];
        let client = redis::Client::open(master.url()).unwrap();
        command.query(&mut client.get_connection().unwrap()).unwrap()
    }

    fn flush(&self) {
        self.servers.nodes[self.servers.master()].cli(&["FLUSHALL"]);
    }

    fn names(&self) -> Vec<String> {
        let all = self.servers.nodes[self.servers.master()].cli(&["KEYS", "*"]);
        let names = all.lines().map(str::to_owned);
        names.filter(|name| !name.is_empty()).collect()
    }
}

#[async_trait]
impl House for Sentinel<'_> {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys)
    }

    async fn spoil(&mut self, what: Spoil) {
        spoil(self, what);
    }

    async fn crash(&mut self) {
        self.servers.kill_master();
        let start = Instant::now();
        recovered(&self.store, Duration::from_secs(20)).await;
        println!("    answers {:?} after a replica took over", start.elapsed());
        self.servers.revive();
    }

    async fn with_keys(&mut self, keys: Arc<Keys>) -> Arc<dyn Store> {
        connect(self.servers, &keys, ALL).await
    }

    async fn raw_record(&mut self, key: &SubjectKey) -> Option<Vec<u8>> {
        raw_record(self, key)
    }

    async fn kept(&mut self, key: &SubjectKey) -> Vec<Kept> {
        crate::house::kept(self, key)
    }

    async fn put_back(&mut self, key: &SubjectKey, kept: &[Kept]) {
        crate::house::put_back(self, key, kept);
    }

    async fn drop_values(&mut self, key: &SubjectKey, kinds: &[Kind]) {
        crate::house::drop_values(self, key, kinds);
    }

    async fn raw(&mut self) -> Vec<u8> {
        all_raw(self)
    }
}

/// Stores as soon as nobody waits any more for a node that is away: the Sentinels have to notice.
async fn eventually_stored(store: &Arc<dyn Store>, key: &SubjectKey, epoch: i64) {
    let (start, put) = (Instant::now(), |_: &Loaded| Some(write("u", epoch)));
    while let Err(fault) = store.update(key, Parts::ALL, None, &put).await {
        assert!(start.elapsed() < Duration::from_secs(20), "{fault}");
    }
}

// P1, P5: a connection that was begun while the master hung comes to stand when it wakes, and for a while more that node
// believes that it still is the master.
pub async fn a_former_master_that_wakes_is_read_from_by_nobody(servers: &mut SentinelSet) {
    let house = Sentinel::on(servers).await;
    let key = house.keys.subject(&subject("u"));
    let put = |epoch| move |_: &Loaded| Some(write("u", epoch));
    house.store.update(&key, Parts::ALL, None, &put(1)).await.unwrap();
    let old = house.servers.master();
    house.servers.nodes[old].hang();
    let patient = Settings {
        connect_timeout: Duration::from_secs(30),
        response_timeout: Duration::from_secs(2),
        ..settings(&house.servers.url())
    };
    // It connects to whom the Sentinels name still, and waits.
    let keys = Arc::clone(&house.keys);
    let waits = tokio::spawn(reentry::store::redis::connect(patient, keys));
    tokio::time::sleep(Duration::from_millis(200)).await;
    house.servers.replaced(old);
    recovered(&house.store, Duration::from_secs(20)).await;
    let newer = connect(house.servers, &house.keys, ALL).await;
    eventually_stored(&newer, &key, 2).await;
    house.servers.nodes[old].resume();
    let late = waits.await.unwrap().unwrap();
    let start = Instant::now();
    let mut read = 0;
    while read < 20 || start.elapsed() < Duration::from_secs(2) {
        if let Ok(loaded) = late.read(&key, Parts::RECORD).await {
            assert_eq!(loaded.record.unwrap().epoch, 2, "after {:?}", start.elapsed());
            read += 1;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "nobody answers");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    house.servers.settle();
}

// P1, P8: what one replica lacks is lost if that one is chosen, so all have to have it; but one that is gone cannot be
// chosen, and nobody waits for it.
pub async fn what_a_connected_replica_lacks_is_not_acknowledged(servers: &mut SentinelSet) {
    let house = Sentinel::on(servers).await;
    let key = house.keys.subject(&subject("u"));
    let master = house.servers.master();
    let replica = (0..house.servers.nodes.len()).find(|n| *n != master).unwrap();
    let put = |epoch| move |_: &Loaded| Some(write("u", epoch));
    // One that Sentinel has chosen leaves its master first, who has one fewer from then on and is asked with each pulse.
    house.servers.nodes[replica].cli(&["REPLICAOF", "NO", "ONE"]);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let update = house.store.update(&key, Parts::ALL, None, &put(1)).await;
    assert!(
        matches!(&update, Err(StoreError::Unavailable(why)) if why.contains("1 of 2 replicas")),
        "{update:?}"
    );
    let master = house.servers.nodes[master].served_port().to_string();
    house.servers.nodes[replica].cli(&["REPLICAOF", "127.0.0.1", &master]);
    house.servers.settle();
    house.servers.nodes[replica].hang();
    let update = house.store.update(&key, Parts::ALL, None, &put(1)).await;
    assert!(
        matches!(&update, Err(StoreError::Unavailable(why)) if why.contains("1 of 2 replicas")),
        "{update:?}"
    );
    let careless = connect(house.servers, &house.keys, Replicas::Just(1)).await;
    let update = careless.update(&key, Parts::ALL, None, &put(2)).await;
    assert!(matches!(update, Ok(Updated::Stored)), "{update:?}");
    house.servers.nodes[replica].kill9();
    let start = Instant::now();
    eventually_stored(&house.store, &key, 3).await;
    println!("    nobody waits for a dead replica after {:?}", start.elapsed());
    house.servers.revive();
}
