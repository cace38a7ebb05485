//! What happens to Redis in a bad week. Each trouble: a clear error at once or within the deadline, a restricted
//! answer, nothing lost of what was acknowledged, and all well again afterwards by itself.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reentry::app::clock::SystemClock;
use reentry::config::store::{Durability, Replicas};
use reentry::domain::change::ChangeKind;
use reentry::domain::entitlement::Request;
use reentry::domain::hold::Record;
use reentry::domain::time::Span;
use reentry::flow::ingest::{self, Era};
use reentry::flow::{FlowError, entitle};
use reentry::ports::clock::Clock as _;
use reentry::ports::idp::{Heard, Line};
use reentry::ports::notifier::{Notifier, NotifyError, Outgoing};
use reentry::ports::seal::{Seal as _, SubjectKey};
use reentry::ports::store::{Mark, Parts, Store, StoreError, Updated, Write};
use reentry::store::redis::Settings;
use reentry::store::seal::Keys;
use reentry_test_support::proxy::Proxy;
use reentry_test_support::redis::Redis as Server;
use reentry_test_support::redis::cluster::Cluster;
use reentry_test_support::redis::sentinel::SentinelSet;

use crate::house::{recovered, settings};
use crate::replicas::flow;
use crate::sentinel;
use crate::values::{at, change, effect_ids, held, is_unsound, line_ids, record, subject, write};

/// Within this time all is well again.
const SOON: Duration = Duration::from_secs(10);
/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(1);

struct Silence;

#[async_trait]
impl Notifier for Silence {
    async fn deliver(&self, _: &Outgoing<'_>) -> Result<(), NotifyError> {
        Ok(())
    }
}

/// A hold that began when the tests did.
fn held_now() -> Record {
    static HELD: LazyLock<Record> = LazyLock::new(|| {
        let mut record = held("u");
        for cause in &mut record.causes {
            cause.at = SystemClock.now();
        }
        record
    });
    HELD.clone()
}

/// A store on some URL, as `serve` has it by default.
async fn on(url: &str, keys: &Arc<Keys>) -> Arc<dyn Store> {
    reentry::store::redis::connect(settings(url), Arc::clone(keys))
        .await
        .unwrap()
}

/// A new installation on one server, with an account that is held and one that is quiet.
async fn installed(url: &str) -> (Arc<dyn Store>, Arc<Keys>, SubjectKey) {
    let keys = Arc::new(Keys::ephemeral().unwrap());
    let store = on(url, &keys).await;
    assert!(store.init().await.unwrap());
    let key = hold(&store, &keys).await;
    (store, keys, key)
}

async fn hold(store: &Arc<dyn Store>, keys: &Keys) -> SubjectKey {
    let key = keys.subject(&subject("u"));
    let write = Write {
        record: Some(held_now()),
        ..write("u", 1)
    };
    store
        .update(&key, Parts::ALL, None, &|_| Some(write.clone()))
        .await
        .unwrap();
    key
}

/// What a token may be used for now.
async fn ceiling(store: &Arc<dyn Store>, keys: &Arc<Keys>, key: &SubjectKey) -> String {
    let (nothing, flow) = (
        BTreeSet::new(),
        flow(Arc::clone(store), Arc::clone(keys), Arc::new(Silence)),
    );
    let request = Request {
        client: "bank",
        session: None,
        scopes: &nothing,
        roles: &nothing,
        groups: &nothing,
        issued: None,
    };
    entitle::entitle(&flow, key, &request)
        .await
        .recovery_scope
        .to_string()
}

/// A write that is refused in good time; gives why.
async fn refused(store: &Arc<dyn Store>, key: &SubjectKey, within: Duration) -> String {
    let start = Instant::now();
    let update = store
        .update(key, Parts::ALL, None, &|_| Some(write("u", 2)))
        .await;
    assert!(start.elapsed() < within, "{:?}", start.elapsed());
    match update {
        Err(StoreError::Unavailable(why) | StoreError::Full(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// Nothing was lost, and writing works: within some time, by itself.
async fn well_again(store: &Arc<dyn Store>, keys: &Arc<Keys>, key: &SubjectKey) {
    let start = Instant::now();
    recovered(store, SOON).await;
    let loaded = store.read(key, Parts::RECORD).await.unwrap();
    assert_eq!(loaded.record, Some(held_now()));
    assert_eq!(effect_ids(&**store).await, ["effect:u:1"]);
    let other = keys.subject(&subject("v"));
    loop {
        match store
            .update(&other, Parts::ALL, None, &|_| Some(write("v", 1)))
            .await
        {
            Ok(updated) => {
                assert!(matches!(updated, Updated::Stored));
                break;
            }
            Err(why) => assert!(start.elapsed() < SOON, "{why}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("well again after {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_slow_by_2_s() {
    let server = Server::durable();
    let (direct, keys, key) = installed(&server.url()).await;
    let proxy = Proxy::before(&server.url());
    let store = on(&proxy.through(&server.url()), &keys).await;
    assert_ne!(ceiling(&store, &keys, &key).await, "none");
    proxy.slow(Duration::from_secs(2));
    // A connection that is open notices it a moment later.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    assert_eq!(ceiling(&store, &keys, &key).await, "none");
    // The deadline is half a second: nobody waits for two, and nobody queues.
    assert!(
        start.elapsed() < Duration::from_millis(500) + SLACK,
        "{:?}",
        start.elapsed()
    );
    let start = Instant::now();
    for _ in 0..100 {
        assert!(matches!(
            store.read(&key, Parts::RECORD).await,
            Err(StoreError::Unavailable(_))
        ));
    }
    assert!(
        start.elapsed() < Duration::from_millis(500) + SLACK,
        "{:?}",
        start.elapsed()
    );
    println!("slow: {}", refused(&store, &key, SLACK).await);
    proxy.pass();
    well_again(&store, &keys, &key).await;
    drop(direct);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_read_only() {
    let server = Server::durable();
    let (store, keys, key) = installed(&server.url()).await;
    // Demoted in place: our socket stays open, and its new master does not exist.
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(ceiling(&store, &keys, &key).await, "none");
    let why = refused(&store, &key, SLACK).await;
    println!("read-only: {why}");
    assert!(
        why.contains("not the master") || why.contains("READONLY"),
        "{why}"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ceiling(&store, &keys, &key).await, "none");
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    well_again(&store, &keys, &key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masterdown_and_loading() {
    let mut server = Server::options().append_only("always").start();
    let (store, keys, key) = installed(&server.url()).await;
    server.cli(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(
        server
            .try_cli(&["GET", "x"])
            .is_err_and(|why| why.contains("MASTERDOWN"))
    );
    assert_eq!(ceiling(&store, &keys, &key).await, "none");
    println!("masterdown: {}", refused(&store, &key, SLACK).await);
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    recovered(&store, SOON).await;
    assert_ne!(ceiling(&store, &keys, &key).await, "none");
    // It reads its file for some seconds, and says that it is the master all the while.
    server.set_option("--key-load-delay");
    server.set_option("10000");
    server.set_option("--loading-process-events-interval-bytes");
    server.set_option("1024");
    let start = Instant::now();
    server.restart_without_waiting();
    let mut loading = 0;
    while ceiling(&store, &keys, &key).await == "none" {
        assert!(start.elapsed() < SOON, "it is never believed again");
        loading += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("loading was seen {loading} times in {:?}", start.elapsed());
    let state = server.cli(&["INFO", "persistence"]);
    assert!(
        loading > 0 && state.contains("\nloading:0"),
        "{loading} times: {state}"
    );
    well_again(&store, &keys, &key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk() {
    // `everysec`: Redis lives on and refuses writes. (`always`: it ends itself, which is a node killed.)
    let server = Server::options()
        .append_only("everysec")
        .disk_of(192 * 1024)
        .start();
    let (store, keys, key) = installed(&server.url()).await;
    let fill = "x".repeat(16 * 1024);
    let start = Instant::now();
    while server.try_cli(&["SET", "fill", &fill]).is_ok() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the disk is never full"
        );
    }
    let why = refused(&store, &key, SLACK).await;
    println!("full disk: {why}");
    assert!(why.contains("MISCONF"), "{why}");
    // What it has in memory is true, and is decided on; it restricts this account.
    assert_eq!(ceiling(&store, &keys, &key).await, "read write");
    let faults = store.check().await.unwrap().faults;
    assert!(
        faults
            .iter()
            .any(|f| f.contains("cannot write its append-only file")),
        "{faults:?}"
    );
    server.free_disk();
    well_again(&store, &keys, &key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_over_its_memory() {
    let server = Server::options()
        .append_only("always")
        .arg("--maxmemory-policy")
        .arg("noeviction")
        .start();
    let (store, keys, key) = installed(&server.url()).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let why = refused(&store, &key, SLACK).await;
    println!("over its memory: {why}");
    assert!(why.contains("CONFIG SET maxmemory"), "{why}");
    let lease = store.lease("poll:keycloak", "one", Span::from_mins(1)).await;
    assert!(matches!(lease, Err(StoreError::Full(_))), "{lease:?}");
    assert_eq!(ceiling(&store, &keys, &key).await, "read write");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    well_again(&store, &keys, &key).await;
}

/// A node of a cluster is killed: its replica takes over, and nobody starts anything again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed() {
    let mut servers = Cluster::with_replicas();
    let keys = Arc::new(Keys::ephemeral().unwrap());
    let settings = Settings {
        durability: Durability {
            replicas: Replicas::Just(1),
            ..Durability::NONE
        },
        ..settings(&servers.url())
    };
    let store = reentry::store::redis::connect(settings, Arc::clone(&keys))
        .await
        .unwrap();
    assert!(store.init().await.unwrap());
    let key = hold(&store, &keys).await;
    let owner = servers.owner(&crate::house::record_key(&key));
    servers.nodes[owner].kill9();
    assert_eq!(ceiling(&store, &keys, &key).await, "none");
    let start = Instant::now();
    recovered(&store, Duration::from_secs(20)).await;
    println!("a replica serves its slots {:?} after the kill", start.elapsed());
    let loaded = store.read(&key, Parts::RECORD).await.unwrap();
    assert_eq!(loaded.record, Some(held_now()));
    assert_eq!(effect_ids(&*store).await, ["effect:u:1"]);
    // Its only replica is the master now: what cannot be made durable is not acknowledged.
    println!(
        "without a replica: {}",
        refused(&store, &key, Duration::from_secs(3)).await
    );
    servers.nodes[owner].restart();
    servers.settle();
    let update = store
        .update(&key, Parts::ALL, None, &|_| Some(write("u", 3)))
        .await;
    assert!(matches!(update, Ok(Updated::Stored)), "{update:?}");
}

fn mark(n: usize) -> Mark {
    Mark {
        name: format!("user_events:{n}"),
        keep: Span::from_days(1),
    }
}

/// Masters are killed, or replaced while they live, while events come in: each is repeated until it is acknowledged, as a poll is, and
/// each counts exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_in_the_middle_of_writes() {
    let mut servers = SentinelSet::start();
    let keys = Arc::new(Keys::ephemeral().unwrap());
    let store = sentinel::connect(&servers, &keys, sentinel::ALL).await;
    assert!(store.init().await.unwrap());
    let (writer, names) = (Arc::clone(&store), Arc::clone(&keys));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writing = tokio::spawn(async move {
        let (mut events, mut failed, mut taken) = (0, 0, Vec::new());
        while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
            let sub = format!("u{}", events % 40);
            let key = names.subject(&subject(&sub));
            let epoch = i64::try_from(events).unwrap();
            let one = |_: &_| Some(write(&sub, epoch));
            match writer.update(&key, Parts::ALL, Some(&mark(events)), &one).await {
                Ok(_) => {
                    taken.push(format!("line:{sub}:{epoch}"));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    events += 1;
                }
                // The new master lacks what was seen of the old one: restricted, until it is rebuilt.
                Err(StoreError::Lost { .. }) => events += 1,
                Err(StoreError::Unavailable(_)) => {
                    failed += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
        (taken, failed)
    });
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        // A replica that is chosen while its master lives leaves it first: what those who are left have is not enough.
        if round % 2 == 0 {
            servers.kill_master();
        } else {
            servers.failover();
        }
        recovered(&store, SOON).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        servers.revive();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let (taken, failed) = writing.await.unwrap();
    println!(
        "{} events over {} failovers, {failed} attempts failed",
        taken.len(),
        servers.failovers
    );
    assert!(taken.len() > 50 && failed > 0 && servers.failovers == 4);
    recovered(&store, SOON).await;
    let ids = line_ids(&*store, None).await;
    for id in &taken {
        let times = ids.iter().filter(|found| *found == id).count();
        assert_eq!(times, 1, "{id}, which was acknowledged");
    }
}

/// The master is alone when it takes a write, and gone when somebody asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_lost_acknowledged_writes() {
    let mut servers = SentinelSet::start();
    let keys = Arc::new(Keys::ephemeral().unwrap());
    let durable = sentinel::connect(&servers, &keys, sentinel::ALL).await;
    assert!(durable.init().await.unwrap());
    let key = hold(&durable, &keys).await;
    let careless = sentinel::connect(&servers, &keys, Replicas::Just(0)).await;
    careless.read(&key, Parts::RECORD).await.unwrap();
    let old = servers.master();
    // The replicas are cut off; they hear nothing more, and the master takes writes all the same.
    servers.nodes[old].cli(&["ACL", "SETUSER", "default", "-psync", "-sync", "-replconf"]);
    servers.nodes[old].cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    // That a line of the log is there already does not make it durable: an earlier try may have stored it in vain.
    let flow = flow(Arc::clone(&durable), Arc::clone(&keys), Arc::new(Silence));
    let line = Line {
        sub: "u".to_owned(),
        heard: Heard::Change(change("c-1", ChangeKind::PasswordReset, at(0))),
    };
    let taken = ingest::line(&flow, &subject("u").upstream, &line, Era::Ours).await;
    assert!(
        matches!(&taken, Err(FlowError::Store(StoreError::Unavailable(why))) if why.contains("only 0 of")),
        "{taken:?}"
    );
    // With durability the write is not acknowledged: the IdP is asked for the event again.
    let update = durable
        .update(&key, Parts::ALL, Some(&mark(1)), &|_| Some(write("u", 2)))
        .await;
    assert!(
        matches!(&update, Err(StoreError::Unavailable(why)) if why.contains("only 0 of")),
        "{update:?}"
    );
    // Nor is its repetition, which finds the mark of the first try.
    let again = durable
        .update(&key, Parts::ALL, Some(&mark(1)), &|_| Some(write("u", 2)))
        .await;
    assert!(matches!(again, Err(StoreError::Unavailable(_))), "{again:?}");
    // Without, it is acknowledged, and will be lost.
    let update = careless
        .update(&key, Parts::ALL, Some(&mark(2)), &|_| Some(write("u", 3)))
        .await;
    assert!(matches!(update, Ok(Updated::Stored)), "{update:?}");
    servers.nodes[old].kill9();
    servers.replaced(old);
    recovered(&durable, Duration::from_secs(20)).await;
    recovered(&careless, Duration::from_secs(20)).await;
    // Who saw the fence of the lost write knows that the store went back in time.
    let read = careless.read(&key, Parts::RECORD).await;
    assert!(is_unsound(&read), "{read:?}");
    assert_eq!(ceiling(&careless, &keys, &key).await, "none");
    let other = keys.subject(&subject("somebody-else"));
    assert!(careless.read(&other, Parts::RECORD).await.is_ok());
    // A process that starts now cannot know; what was acknowledged to it is all there.
    let fresh = sentinel::connect(&servers, &keys, sentinel::ALL).await;
    let loaded = fresh.read(&key, Parts::RECORD).await.unwrap();
    assert_eq!(loaded.record, Some(held_now()));
    servers.revive();
    // The event comes again, and counts.
    let update = fresh
        .update(&key, Parts::ALL, Some(&mark(1)), &|_| Some(write("u", 2)))
        .await;
    assert!(matches!(update, Ok(Updated::Stored)), "{update:?}");
    let loaded = fresh.read(&key, Parts::RECORD).await.unwrap();
    assert_eq!(loaded.record, Some(record("u", 2)));
}
