//! What only a server can do: be away, hang, be demoted, go back in time, change types, serve others at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reentry::domain::hold::Effect;
use reentry::domain::session::Grants;
use reentry::domain::subject::account::Account;
use reentry::domain::time::Span;
use reentry::ports::seal::{Seal as _, SubjectKey};
use reentry::ports::store::{Loaded, Mark, Parts, Store, StoreError, Updated, Write};
use reentry::store::redis::Settings;
use reentry::store::seal::Keys;

use crate::house::{House as _, Redis, record_key, settings};
use crate::values::{END, account, at, effect_ids, held, is_unsound, line, line_ids, record, subject, write};

async fn held_account(house: &Redis) -> SubjectKey {
    let key = house.keys().subject(&subject("u"));
    let write = Write {
        record: Some(held("u")),
        ..write("u", 1)
    };
    let store = house.store();
    store
        .update(&key, Parts::ALL, None, &|_| Some(write.clone()))
        .await
        .unwrap();
    key
}

/// Everything of a partition, as the server has it.
fn partition(house: &Redis, key: &SubjectKey) -> Vec<(String, String)> {
    let pattern = format!("re:{{{:03}}}:*", key.partition());
    let mut names: Vec<String> = redis::cmd("KEYS")
        .arg(pattern)
        .query(&mut house.raw_connection())
        .unwrap();
    names.sort();
    let dump = |name: String| {
        let value: redis::Value = redis::cmd("DUMP")
            .arg(&name)
            .query(&mut house.raw_connection())
            .unwrap();
        (name, format!("{value:?}"))
    };
    names.into_iter().map(dump).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_commit_that_fails_half_way_leaves_nothing() {
    let house = Redis::start().await;
    let key = held_account(&house).await;
    for what in ["due", "out", "audit"] {
        let name = format!("re:{{{:03}}}:{what}", key.partition());
        house.server.cli(&["RENAME", &name, "kept"]);
        house.server.cli(&["SET", &name, "planted"]);
        let before = partition(&house, &key);
        let mark = Mark {
            name: "user_events:1".to_owned(),
            keep: Span::from_days(1),
        };
        let store = house.other().await;
        let answer = store
            .update(&key, Parts::ALL, Some(&mark), &|_| Some(write("u", 2)))
            .await;
        assert!(is_unsound(&answer), "{what}: {answer:?}");
        assert_eq!(partition(&house, &key), before, "{what}");
        house.server.cli(&["RENAME", "kept", &name]);
    }
    let mut full = redis::cmd("CONFIG");
    full.arg("SET").arg(&["maxmemory", "1"]);
    full.exec(&mut house.raw_connection()).unwrap();
    let before = partition(&house, &key);
    let store = house.store();
    let answer = store.update(&key, Parts::ALL, None, &|_| Some(write("u", 2)));
    assert!(matches!(answer.await, Err(StoreError::Unavailable(why)) if why.contains("OOM")));
    assert_eq!(partition(&house, &key), before, "out of memory");
    house.server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let loaded = store.read(&key, Parts::RECORD).await.unwrap();
    assert_eq!(loaded.record, Some(held("u")));
}

/// Runs an update into which another process breaks after it has looked: `theirs` is stored between the first
/// run of the closure and its commit. Gives how often the closure ran, and what it saw at last.
async fn broken_into(
    house: &Redis,
    parts: Parts,
    mark: Option<&Mark>,
    theirs: &Write,
    ours: impl Fn(usize) -> Write + Sync,
) -> (usize, Updated, Loaded) {
    let (own, other) = (house.store(), house.other().await);
    let key = house.keys().subject(&subject("u"));
    let runs = AtomicUsize::new(0);
    let saw = std::sync::Mutex::new(Loaded::default());
    let updated = own
        .update(&key, parts, mark, &|old| {
            *saw.lock().unwrap() = old.clone();
            let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
            if run == 1 {
                let theirs = |_: &_| Some(theirs.clone());
                tokio::task::block_in_place(|| {
                    let runtime = tokio::runtime::Handle::current();
                    runtime.block_on(other.update(&key, Parts::RECORD, mark, &theirs))
                })
                .unwrap();
            }
            Some(ours(run))
        })
        .await
        .unwrap();
    let saw = saw.lock().unwrap().clone();
    (runs.load(Ordering::SeqCst), updated, saw)
}

fn effect_of_run(run: usize) -> Vec<(String, Effect)> {
    vec![(format!("run {run}"), Effect::Converge)]
}

// P1: what an update saw is what it wins against; P9: the run that lost left nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p9_grants_are_not_written_on_a_record_that_changed_meanwhile() {
    for first in [false, true] {
        let house = Redis::start().await;
        if first {
            let key = house.keys().subject(&subject("u"));
            let quiet = |_: &_| {
                Some(Write {
                    record: Some(record("u", 1)),
                    ..Write::default()
                })
            };
            let store = house.store();
            store.update(&key, Parts::RECORD, None, &quiet).await.unwrap();
        }
        let hold = Write {
            record: Some(held("u")),
            ..Write::default()
        };
        let (runs, updated, saw) = broken_into(&house, Parts::GRANTS, None, &hold, |run| Write {
            subject: Some(subject("u")),
            grants: Some(Grants::default()),
            effects: effect_of_run(run),
            ..Write::default()
        })
        .await;
        assert!(matches!(updated, Updated::Stored));
        assert_eq!((runs, saw.record), (2, Some(held("u"))));
        assert_eq!(effect_ids(&*house.store()).await, ["run 2"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_sealed_values_that_changed_meanwhile_are_not_written_over() {
    let house = Redis::start().await;
    let key = held_account(&house).await;
    let named = |name: &str| Account {
        name: name.to_owned(),
        ..account()
    };
    let theirs = Write {
        account: Some(named("theirs")),
        ..Write::default()
    };
    let (runs, _, saw) = broken_into(&house, Parts::ACCOUNT, None, &theirs, |run| Write {
        account: Some(named("ours")),
        effects: effect_of_run(run),
        ..Write::default()
    })
    .await;
    assert_eq!((runs, saw.account), (2, Some(named("theirs"))));
    let loaded = house.store().read(&key, Parts::ACCOUNT).await.unwrap();
    assert_eq!(loaded.account, Some(named("ours")));
    assert_eq!(effect_ids(&*house.store()).await, ["effect:u:1", "run 2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_an_event_that_two_processes_bring_at_once_counts_once() {
    let house = Redis::start().await;
    held_account(&house).await;
    let mark = Mark {
        name: "user_events:1".to_owned(),
        keep: Span::from_days(1),
    };
    // Neither writes a value, so only the mark tells them apart.
    let theirs = Write {
        effects: effect_of_run(0),
        ..Write::default()
    };
    let (_, updated, _) = broken_into(&house, Parts::RECORD, Some(&mark), &theirs, |run| Write {
        effects: effect_of_run(run),
        ..Write::default()
    })
    .await;
    assert!(matches!(updated, Updated::Duplicate));
    assert_eq!(effect_ids(&*house.store()).await, ["effect:u:1", "run 0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_race_of_processes_loses_no_update() {
    let house = Redis::start().await;
    let key = house.keys().subject(&subject("u"));
    let mut processes = Vec::new();
    for _ in 0..4 {
        let store = house.other().await;
        processes.push(tokio::spawn(async move {
            for _ in 0..25 {
                let add = |old: &reentry::ports::store::Loaded| {
                    let epoch = old.record.as_ref().map_or(0, |r| r.epoch) + 1;
                    Some(Write {
                        effects: Vec::new(),
                        ..write("u", epoch)
                    })
                };
                store.update(&key, Parts::ALL, None, &add).await.unwrap();
            }
        }));
    }
    for process in processes {
        process.await.unwrap();
    }
    let loaded = house.store().read(&key, Parts::RECORD).await.unwrap();
    assert_eq!(loaded.record, Some(record("u", 100)));
    assert_eq!(line_ids(&*house.store(), Some(&key)).await.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_finds_the_work_within_a_second() {
    let house = Redis::start().await;
    let worker = house.other().await;
    assert!(effect_ids(&*worker).await.is_empty());
    held_account(&house).await;
    let start = Instant::now();
    while effect_ids(&*worker).await.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(1) + SLACK);
        worker.wait_for_work(Duration::from_secs(9)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_store_that_went_back_in_time_is_not_believed() {
    let house = Redis::start().await;
    let key = held_account(&house).await;
    let epoch = format!("re:{{{:03}}}:epoch", key.partition());
    let fence = house.server.cli(&["HGET", &epoch, "n"]);
    let store = house.store();
    store
        .update(&key, Parts::RECORD, None, &|_| Some(write("u", 2)))
        .await
        .unwrap();
    house.server.cli(&["HSET", &epoch, "n", &fence]);
    assert!(is_unsound(&store.read(&key, Parts::RECORD).await));
    let update = store.update(&key, Parts::RECORD, None, &|_| Some(write("u", 3)));
    assert!(is_unsound(&update.await));
    let soundness = store.check().await.unwrap();
    assert_eq!(soundness.restricted_partitions, [key.partition()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_new_installation_under_a_running_process_is_not_believed() {
    let house = Redis::start().await;
    let key = held_account(&house).await;
    house.server.cli(&["FLUSHALL"]);
    assert!(house.other().await.init().await.unwrap());
    assert!(is_unsound(&house.store().read(&key, Parts::RECORD).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_value_of_another_type_is_not_believed() {
    let house = Redis::start().await;
    let key = house.keys().subject(&subject("u"));
    house.server.cli(&["HSET", &record_key(&key), "a", "b"]);
    let store = house.store();
    assert!(is_unsound(&store.read(&key, Parts::RECORD).await));
    let update = store.update(&key, Parts::RECORD, None, &|_| Some(write("u", 1)));
    assert!(is_unsound(&update.await));
    assert_eq!(house.server.cli(&["HGET", &record_key(&key), "a"]), "b");
}

/// What a busy machine may add to anything.
const SLACK: Duration = Duration::from_millis(700);

async fn unavailable(store: &Arc<dyn Store>, key: &SubjectKey) {
    let start = Instant::now();
    let read = store.read(key, Parts::RECORD).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_is_an_error_at_once_and_comes_back() {
    let mut house = Redis::start().await;
    let key = held_account(&house).await;
    let store = house.store();
    house.server.kill9();
    unavailable(&store, &key).await;
    // Nobody queues: the next hundred are told at once.
    let start = Instant::now();
    for _ in 0..100 {
        unavailable(&store, &key).await;
    }
    assert!(start.elapsed() < SLACK);
    let pending = store.pending(END, 9).await;
    assert!(matches!(pending, Err(StoreError::Unavailable(_))));
    house.server.restart();
    let start = Instant::now();
    house.recovered().await;
    println!("answers again {:?} after the restart", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(2));
    let loaded = store.read(&key, Parts::RECORD).await.unwrap();
    assert_eq!(loaded.record, Some(held("u")));
    // A failed look at the outbox hides nothing, and scripts the server forgot are loaded again.
    assert_eq!(effect_ids(&*store).await, ["effect:u:1"]);
    house.server.cli(&["SCRIPT", "FLUSH"]);
    let update = store.update(&key, Parts::RECORD, None, &|_| Some(write("u", 2)));
    assert!(matches!(update.await.unwrap(), Updated::Stored));
    house.server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(effect_ids(&*store).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_an_error_within_the_deadline_and_comes_back() {
    let house = Redis::start().await;
    let key = held_account(&house).await;
    let deadline = Duration::from_millis(300);
    let store = house.other_within(deadline).await;
    house.server.hang();
    let start = Instant::now();
    let read = store.read(&key, Parts::RECORD).await;
    println!("a hanging server is given up after {:?}", start.elapsed());
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(start.elapsed() < deadline + SLACK);
    let start = Instant::now();
    for _ in 0..100 {
        unavailable(&store, &key).await;
    }
    assert!(start.elapsed() < SLACK);
    house.server.resume();
    let start = Instant::now();
    while store.read(&key, Parts::RECORD).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_demoted_node_is_not_read_from() {
    let house = Redis::start().await;
    let key = held_account(&house).await;
    let store = house.other_within(Duration::from_millis(500)).await;
    store.read(&key, Parts::RECORD).await.unwrap();
    // Its new master does not exist, so it keeps its values and would go on answering readings.
    house.server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    house
        .server
        .cli(&["CONFIG", "SET", "replica-serve-stale-data", "yes"]);
    unavailable(&store, &key).await;
    let update = store.update(&key, Parts::RECORD, None, &|_| Some(write("u", 2)));
    assert!(matches!(update.await, Err(StoreError::Unavailable(_))));
    tokio::time::sleep(Duration::from_millis(700)).await;
    unavailable(&store, &key).await;
    house.server.cli(&["REPLICAOF", "NO", "ONE"]);
    house.recovered().await;
    let start = Instant::now();
    while store.read(&key, Parts::RECORD).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_starts_before_its_server_waits_for_it() {
    let mut house = Redis::start().await;
    let key = held_account(&house).await;
    house.server.kill9();
    let store = house.other().await;
    unavailable(&store, &key).await;
    house.server.restart();
    let start = Instant::now();
    while store.read(&key, Parts::RECORD).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_is_one_round_trip_and_brings_the_time() {
    let house = Redis::start().await;
    let key = held_account(&house).await;
    let store = house.store();
    let reads = || -> u64 {
        let info = house.server.cli(&["INFO", "stats"]);
        let line = info
            .lines()
            .find_map(|l| l.strip_prefix("total_reads_processed:"));
        line.unwrap().trim().parse().unwrap()
    };
    let before = reads();
    for _ in 0..200 {
        let loaded = store.read(&key, Parts::ALL).await.unwrap();
        assert!(loaded.store_time.is_some());
    }
    // The pulse and our own questions are a few more.
    let trips = reads() - before;
    println!("200 readings took {trips} reads of the server");
    assert!((200..230).contains(&trips), "{trips}");
}

// P17, P1: whatever fills the store, a hold and a revocation are still stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_what_fills_the_store_leaves_room_for_what_tightens() {
    let house = Redis::start().await;
    let store = house.store();
    let key = held_account(&house).await;
    let used: u64 = memory(&house, "used_memory");
    house
        .server
        .cli(&["CONFIG", "SET", "maxmemory", &(used + (6 << 20)).to_string()]);
    let mut stored = 0;
    let refused = loop {
        assert!(store.room().await.unwrap().is_some());
        let mut last = Ok(());
        for n in 0..50 {
            let name = format!("login:{stored}:{n}");
            last = store.put_state(&name, &[7; 4096], Span::from_mins(30)).await;
        }
        stored += 50;
        match last {
            Ok(()) => assert!(stored < 100_000, "it was never refused"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&refused, StoreError::Full(why) if why.contains("kept for holds")),
        "{refused}"
    );
    let begins = |grants: Grants| Write {
        grants: Some(grants),
        ..Write::default()
    };
    let session = Grants {
        sessions: vec![crate::values::session()],
        ..Grants::default()
    };
    let sub = subject("somebody-else");
    let other = house.keys().subject(&sub);
    let log_in = store.update(&other, Parts::GRANTS, None, &|_| Some(begins(session.clone())));
    assert!(matches!(log_in.await, Err(StoreError::Full(_))));
    // Ends and holds find their room, many of them.
    let ends = store.update(&key, Parts::GRANTS, None, &|_| Some(begins(Grants::default())));
    ends.await.unwrap();
    for n in 0..100 {
        let sub = format!("victim-{n}");
        let victim = house.keys().subject(&subject(&sub));
        let write = Write {
            record: Some(held(&sub)),
            ..write(&sub, 1)
        };
        store
            .update(&victim, Parts::ALL, None, &|_| Some(write.clone()))
            .await
            .unwrap();
    }
    let faults = store.check().await.unwrap().faults.join("; ");
    assert!(faults.contains("CONFIG SET maxmemory"), "{faults}");
    // With more room, or less in it, everything goes on.
    house
        .server
        .cli(&["CONFIG", "SET", "maxmemory", &(used * 100).to_string()]);
    store.room().await.unwrap();
    let log_in = store.update(&other, Parts::GRANTS, None, &|_| Some(begins(session.clone())));
    log_in.await.unwrap();
    // What Redis itself refuses is said in words.
    house.server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = store
        .update(&key, Parts::RECORD, None, &|_| Some(write("u", 9)))
        .await;
    assert!(
        matches!(&full, Err(StoreError::Full(why)) if why.contains("maxmemory")),
        "{full:?}"
    );
}

/// A number of `INFO memory`.
fn memory(house: &Redis, name: &str) -> u64 {
    let info = house.server.cli(&["INFO", "memory"]);
    let line = info.lines().find_map(|l| l.strip_prefix(&format!("{name}:")));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_unfit_for_holds_is_named_with_what_to_do() {
    let house = Redis::start().await;
    for (name, value) in [("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")] {
        house.server.cli(&["CONFIG", "SET", name, value]);
    }
    let faults = house.store().check().await.unwrap().faults;
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults.iter().any(|f| f.contains("maxmemory-policy noeviction")));
    assert!(faults.iter().any(|f| f.contains("appendonly yes")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_due_record_never_expires_and_a_quiet_one_long_after() {
    let house = Redis::start().await;
    let key = held_account(&house).await;
    assert_eq!(house.server.cli(&["PTTL", &record_key(&key)]), "-1");
    let store = house.store();
    store
        .update(&key, Parts::ALL, None, &|_| Some(write("u", 2)))
        .await
        .unwrap();
    // A snapshot stays for ever, and what says which one it is stays as long.
    assert_eq!(house.server.cli(&["PTTL", &record_key(&key)]), "-1");
    let account = record_key(&key).replace(":s:", ":a:");
    assert_eq!(house.server.cli(&["PTTL", &account]), "-1");
    let without = house.keys().subject(&subject("without-a-snapshot"));
    let quiet = |_: &_| {
        Some(Write {
            account: None,
            ..write("without-a-snapshot", 2)
        })
    };
    store.update(&without, Parts::ALL, None, &quiet).await.unwrap();
    let life = |name: String| -> i64 { house.server.cli(&["PTTL", &name]).parse().unwrap() };
    let (left, grants) = (
        life(record_key(&without)),
        life(record_key(&without).replace(":s:", ":g:")),
    );
    assert!(left > Span::from_days(100).millis(), "{left}");
    assert!(left > grants && grants > 0, "{left} {grants}");
}

/// The rights that the store needs, for an ACL user of its own.
pub const RIGHTS: [&str; 8] = [
    "~re:*",
    "+@connection",
    "+@scripting",
    "+@read",
    "+@write",
    "+role",
    "+time",
    "+info",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_few_rights_is_enough_and_a_wrong_password_is_named() {
    let house = Redis::start().await;
    let key = held_account(&house).await;
    let rights = [&["ACL", "SETUSER", "reentry", "on", ">secret"], &RIGHTS[..]].concat();
    house.server.cli(&rights);
    house.server.cli(&["ACL", "SETUSER", "default", "off"]);
    let with = async |password: &str| {
        let url = format!("redis://reentry@{}/0", house.server.address());
        let settings = Settings {
            password: Some(password.to_owned().into()),
            ..settings(&url)
        };
        assert!(!format!("{settings:?}").contains(password));
        reentry::store::redis::connect(settings, house.keys())
            .await
            .unwrap()
    };
    let store = with("secret").await;
    assert!(!store.init().await.unwrap());
    assert!(store.check().await.unwrap().faults.is_empty());
    store
        .update(&key, Parts::ALL, None, &|_| Some(write("u", 2)))
        .await
        .unwrap();
    let pending = store.pending(END, 9).await.unwrap();
    store.retry(&pending[0], END, "x").await.unwrap();
    store.done(&pending[1].at).await.unwrap();
    assert_eq!(store.due(END, 9).await.unwrap(), []);
    assert_eq!(line_ids(&*store, None).await.len(), 2);
    store.put_state("s", b"v", Span::from_mins(1)).await.unwrap();
    assert!(store.take_state("s").await.unwrap().is_some());
    let lease = store.lease("l", "o", Span::from_mins(1)).await.unwrap();
    store.set_setting("n", "v", lease.as_ref()).await.unwrap();
    store.release("l", "o").await.unwrap();
    let refused = with("wrong").await.read(&key, Parts::RECORD).await;
    let why = refused.unwrap_err().to_string();
    assert!(
        why.contains("uthentication") || why.contains("WRONGPASS"),
        "{why}"
    );
}

/// A server that speaks TLS on another port. Its authority is the test's own; nobody has its key any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_reached_by_tls_and_only_with_an_authority_that_is_believed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/store/tls");
    let port = reentry_test_support::free_port();
    let file = |name: &str| format!("{folder}/{name}");
    let server = reentry_test_support::redis::Redis::options()
        .append_only("always")
        .arg("--tls-port")
        .arg(&port.to_string())
        .arg("--tls-cert-file")
        .arg(&file("server.pem"))
        .arg("--tls-key-file")
        .arg(&file("server.key"))
        .arg("--tls-auth-clients")
        .arg("no")
        .start();
    let keys = Arc::new(Keys::ephemeral().unwrap());
    let with = async |url: String, ca: Option<Vec<u8>>| {
        let settings = Settings { ca, ..settings(&url) };
        reentry::store::redis::connect(settings, Arc::clone(&keys))
            .await
            .unwrap()
    };
    let ca = std::fs::read(file("ca.pem")).unwrap();
    let url = format!("rediss://localhost:{port}/0");
    assert!(with(url.clone(), Some(ca)).await.init().await.unwrap());
    assert_eq!(server.cli(&["HGET", "re:{000}:epoch", "n"]), "1");
    let stranger = with(url, None).await.init().await.unwrap_err();
    assert!(matches!(&stranger, StoreError::Unavailable(_)), "{stranger}");
    assert!(stranger.to_string().contains("certificate"), "{stranger}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_that_was_left_half_made_is_completed() {
    let house = Redis::start().await;
    house.server.cli(&["HSET", "re:{control}:installation", "n", "1"]);
    house.server.cli(&["DEL", "re:{200}:epoch", "re:{201}:epoch"]);
    let store = house.store();
    let before = store.check().await.unwrap().restricted_partitions;
    assert_eq!(before, [200, 201]);
    assert!(store.init().await.unwrap());
    assert!(!store.init().await.unwrap());
    assert!(store.check().await.unwrap().faults.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_lines_go_by_age_and_not_because_one_clock_is_ahead() {
    let house = Redis::start().await;
    let settings = Settings {
        audit_retention: Span::from_hours(1),
        ..settings(&house.server.url())
    };
    let store = reentry::store::redis::connect(settings, house.keys())
        .await
        .unwrap();
    let key = house.keys().subject(&subject("u"));
    let note = async |id: &str, secs: i64| {
        store.note(&subject("u"), &key, &line(id, secs)).await.unwrap();
    };
    for (id, secs) in [("old", 0), ("young", 3000), ("new", 4000)] {
        note(id, secs).await;
    }
    assert_eq!(line_ids(&*store, Some(&key)).await, ["new", "young"]);
    // Ten years ahead: what is old is judged by the server's time, so only that goes.
    note("ahead", 315_360_000).await;
    assert_eq!(line_ids(&*store, Some(&key)).await[0], "ahead");
    house
        .server
        .cli(&["DEL", &format!("re:{{{:03}}}:audit", key.partition())]);
    let recent = Span::from_mins(1).secs();
    let server_time: i64 = house
        .server
        .cli(&["TIME"])
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let now = server_time - at(0).secs();
    note("a minute ago", now - recent).await;
    note("ahead", 315_360_000).await;
    let kept = line_ids(&*store, Some(&key)).await;
    assert_eq!(kept, ["ahead", "a minute ago"]);
}
