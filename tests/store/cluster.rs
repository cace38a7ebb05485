//! The contract on a real Redis Cluster of three masters, and what only a cluster can do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reentry::ports::seal::{Seal as _, SubjectKey};
use reentry::ports::store::{Parts, Store, StoreError, Updated, Write};
use reentry::store::redis::Settings;
use reentry::store::seal::Keys;
use reentry_test_support::redis::cluster::Cluster as Servers;

use crate::house::{
    Behind, House, Kept, Kind, Spoil, all_raw, raw_record, record_key, recovered, settings, spoil,
};
use crate::values::{effect_ids, held, subject, write};

/// A cluster with a store on it.
pub struct Cluster<'a> {
    servers: &'a mut Servers,
    keys: Arc<Keys>,
    store: Arc<dyn Store>,
}

async fn connect(servers: &Servers, keys: &Arc<Keys>) -> Arc<dyn Store> {
    let settings = Settings {
        response_timeout: Duration::from_secs(5),
        ..settings(&servers.url())
    };
    reentry::store::redis::connect(settings, Arc::clone(keys))
        .await
        .unwrap()
}

impl<'a> Cluster<'a> {
    /// An empty store on servers that others may have used.
    pub async fn on(servers: &'a mut Servers) -> Self {
        servers.flush();
        let keys = Arc::new(Keys::ephemeral().unwrap());
        let store = connect(servers, &keys).await;
        assert!(store.init().await.unwrap());
        Self { servers, keys, store }
    }
}

impl Behind for Cluster<'_> {
    fn run(&self, command: &redis::Cmd) -> redis::Value {
        for node in &self.servers.nodes {
            let client = redis::Client::open(node.url()).unwrap();
            match command.query(&mut client.get_connection().unwrap()) {
                Err(e) if e.redirect_node().is_some() => {}
                answer => return answer.unwrap(),
            }
        }
        panic!("nobody has the key of this command")
    }

    fn flush(&self) {
        self.servers.flush();
    }

    fn names(&self) -> Vec<String> {
        let masters = self.servers.masters().into_iter();
        let names = masters.flat_map(|index| {
            let all = self.servers.nodes[index].cli(&["KEYS", "*"]);
            all.lines().map(str::to_owned).collect::<Vec<_>>()
        });
        names.filter(|name| !name.is_empty()).collect()
    }
}

#[async_trait]
impl House for Cluster<'_> {
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
        self.servers.crash();
        recovered(&self.store, Duration::from_secs(20)).await;
    }

    async fn with_keys(&mut self, keys: Arc<Keys>) -> Arc<dyn Store> {
        connect(self.servers, &keys).await
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

/// How often commands of one name were run, by all masters.
fn calls(servers: &Servers, of: &str) -> u64 {
    let masters = servers.masters().into_iter();
    masters
        .map(|index| {
            let info = servers.nodes[index].cli(&["INFO", "commandstats"]);
            let line = info.lines().find(|l| l.starts_with(&format!("cmdstat_{of}:")));
            let calls = line.and_then(|l| l.split("calls=").nth(1)?.split(',').next()?.parse().ok());
            calls.unwrap_or(0)
        })
        .sum()
}

/// How many packets of questions all masters have read.
fn reads(servers: &Servers) -> u64 {
    let masters = servers.masters().into_iter();
    masters
        .map(|index| {
            let info = servers.nodes[index].cli(&["INFO", "stats"]);
            let line = info
                .lines()
                .find_map(|l| l.strip_prefix("total_reads_processed:"));
            line.unwrap().trim().parse::<u64>().unwrap()
        })
        .sum()
}

pub async fn a_reading_is_one_round_trip_to_one_slot(servers: &mut Servers) {
    let house = Cluster::on(servers).await;
    let store = house.store();
    let keys: Vec<SubjectKey> = (0..200)
        .map(|n| house.keys.subject(&subject(&format!("u{n}"))))
        .collect();
    let (before, gets) = (reads(house.servers), calls(house.servers, "get"));
    for key in &keys {
        store.read(key, Parts::ALL).await.unwrap();
    }
    let (trips, gets) = (reads(house.servers) - before, calls(house.servers, "get") - gets);
    println!("200 readings all over a cluster took {trips} reads of its servers and {gets} GETs");
    // Pulses, the map and our own questions are a few more.
    assert!((200..260).contains(&trips), "{trips}");
    assert_eq!(gets, 600);
}

/// An account that is held, whose partition is at the master with this number.
async fn held_at(house: &Cluster<'_>, index: usize) -> (String, SubjectKey) {
    for n in 0..200 {
        let sub = format!("u{n}");
        let key = house.keys.subject(&subject(&sub));
        if house.servers.owner(&record_key(&key)) == index {
            let write = Write {
                record: Some(held(&sub)),
                ..write(&sub, 1)
            };
            let one = |_: &_| Some(write.clone());
            house.store().update(&key, Parts::ALL, None, &one).await.unwrap();
            return (sub, key);
        }
    }
    panic!("nobody is at master {index}")
}

/// `MOVED` and `ASK`: a slot goes from one master to another under a running store.
pub async fn a_slot_that_moves_is_followed(servers: &mut Servers) {
    let house = Cluster::on(servers).await;
    let store = house.store();
    let (sub, key) = held_at(&house, 0).await;
    let name = record_key(&key);
    let slot = house.servers.nodes[0].cli(&["CLUSTER", "KEYSLOT", &name]);
    let ids: Vec<String> = (0..2)
        .map(|i| house.servers.nodes[i].cli(&["CLUSTER", "MYID"]))
        .collect();
    let setslot = |node: usize, how: &[&str]| {
        let command = [&["CLUSTER", "SETSLOT", &slot], how].concat();
        house.servers.nodes[node].cli(&command);
    };
    setslot(1, &["IMPORTING", &ids[0]]);
    setslot(0, &["MIGRATING", &ids[1]]);
    // Half of it is there, half of it still here: all of it is read, and nothing is written over.
    let port = house.servers.nodes[1].port().to_string();
    house.servers.nodes[0].cli(&["MIGRATE", "127.0.0.1", &port, &name, "0", "5000"]);
    let loaded = store.read(&key, Parts::ALL).await.unwrap();
    assert_eq!(loaded.record, Some(held(&sub)));
    assert!(loaded.account.is_some());
    let update = store
        .update(&key, Parts::ALL, None, &|_| Some(write(&sub, 2)))
        .await;
    assert!(matches!(update, Err(StoreError::Unavailable(_))), "{update:?}");
    let rest = house.servers.nodes[0].cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]);
    for name in rest.lines() {
        house.servers.nodes[0].cli(&["MIGRATE", "127.0.0.1", &port, name, "0", "5000"]);
    }
    for node in [1, 0, 2] {
        setslot(node, &["NODE", &ids[1]]);
    }
    let update = store
        .update(&key, Parts::ALL, None, &|_| Some(write(&sub, 2)))
        .await;
    assert!(matches!(update, Ok(Updated::Stored)), "{update:?}");
    assert_eq!(effect_ids(&*store).await.len(), 2);
    assert_eq!(house.servers.owner(&name), 1);
    assert!(store.check().await.unwrap().faults.is_empty());
}

/// A node killed: its partitions fail at once, the others go on, and all is well when it is back.
pub async fn a_node_killed_takes_only_its_own_partitions_along(servers: &mut Servers) {
    let house = Cluster::on(servers).await;
    let store = house.store();
    let (_, here) = held_at(&house, 0).await;
    let (_, there) = held_at(&house, 1).await;
    house.servers.nodes[0].kill9();
    let gone = store.read(&here, Parts::RECORD).await;
    assert!(matches!(gone, Err(StoreError::Unavailable(_))), "{gone:?}");
    let start = Instant::now();
    for _ in 0..100 {
        assert!(store.read(&here, Parts::RECORD).await.is_err());
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(store.read(&there, Parts::RECORD).await.unwrap().record.is_some());
    // The outbox of those that can be reached is worked on.
    assert_eq!(effect_ids(&*store).await.len(), 1);
    house.servers.nodes[0].restart();
    let start = Instant::now();
    recovered(&store, Duration::from_secs(20)).await;
    println!(
        "all partitions answer again {:?} after the restart",
        start.elapsed()
    );
    assert!(store.read(&here, Parts::RECORD).await.unwrap().record.is_some());
    house.servers.settle();
}
