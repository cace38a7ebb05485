//! What the tests need from an adapter besides its trait: starting it, killing it, and spoiling what it holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use reentry::config::store::url::RedisUrl;
use reentry::ports::seal::SubjectKey;
use reentry::ports::store::{Parts, Store, StoreError};
use reentry::store::redis::Settings;
use reentry::store::seal::Keys;
use reentry_test_support::redis::Redis as Server;

/// What happens to the octets behind the adapter's back.
pub enum Spoil {
    /// Everything is gone.
    Flush,
    /// A partition's marker is gone.
    DropMarker(u8),
    /// A partition's marker is somebody else's.
    ForeignMarker(u8),
    /// A record is gone.
    DropRecord(SubjectKey),
    /// A record is something else.
    Record(SubjectKey, Vec<u8>),
    /// The outbox entries of a partition are something else.
    Outbox(u8),
}

/// What is stored of one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Record,
    Account,
    Grants,
    /// Its entry in the due queue.
    Due,
}

/// One of a subject's values as it stood in the store.
#[derive(Clone, Debug)]
pub struct Kept {
    pub kind: Kind,
    /// Octets; of a due entry the time in digits.
    pub octets: Vec<u8>,
}

/// An adapter with its server or file.
#[async_trait]
pub trait House: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn Store>;
    /// The keys it uses.
    fn keys(&self) -> Arc<Keys>;
    /// Spoils what is stored.
    async fn spoil(&mut self, spoil: Spoil);
    /// Takes the power away, and brings everything back.
    async fn crash(&mut self);
    /// The same stored values, seen with other keys.
    async fn with_keys(&mut self, keys: Arc<Keys>) -> Arc<dyn Store>;
    /// A record as it is stored.
    async fn raw_record(&mut self, key: &SubjectKey) -> Option<Vec<u8>>;
    /// Everything that stands in the store of a subject.
    async fn kept(&mut self, key: &SubjectKey) -> Vec<Kept>;
    /// Puts values of before back, without any key.
    async fn put_back(&mut self, key: &SubjectKey, kept: &[Kept]);
    /// Takes values away.
    async fn drop_values(&mut self, key: &SubjectKey, kinds: &[Kind]);
    /// Every octet that is stored.
    async fn raw(&mut self) -> Vec<u8>;
}

/// Two sets of keys of the same names and different seals, and their text.
pub fn keys_with_other_seal() -> (Keys, Keys) {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("1"), folder.path().join("2"));
    let first = Keys::create(&one).unwrap();
    Keys::create(&two).unwrap();
    let line = |path, kind: &str| {
        let text = std::fs::read_to_string(path).unwrap();
        let found = text.lines().find(|l| l.starts_with(kind)).unwrap();
        found.to_owned()
    };
    let mixed = format!("{}\n{}\n", line(&one, "names"), line(&two, "seal"));
    (first, Keys::parse(&mixed).unwrap())
}

type Name = [u8; 16];
const VALUES: TableDefinition<(u8, Name), &[u8]> = TableDefinition::new("values");
const DUE: TableDefinition<Name, i64> = TableDefinition::new("due");
const DUE_ORDER: TableDefinition<(i64, Name), ()> = TableDefinition::new("due_order");

/// The number of a kind in the file's table of values; the due entry has a table of its own.
fn number(kind: Kind) -> Option<u8> {
    match kind {
        Kind::Record => Some(0),
        Kind::Account => Some(1),
        Kind::Grants => Some(2),
        Kind::Due => None,
    }
}

const MARKERS: TableDefinition<u8, (&str, &str, u64)> = TableDefinition::new("markers");
const OUTBOX: TableDefinition<(i64, u64), (u8, &[u8])> = TableDefinition::new("outbox");

/// The file.
pub struct Embedded {
    folder: tempfile::TempDir,
    keys: Arc<Keys>,
    store: Option<Arc<dyn Store>>,
}

impl Embedded {
    pub async fn start() -> Self {
        Self::start_with(Keys::ephemeral().unwrap()).await
    }

    pub async fn start_with(keys: Keys) -> Self {
        let mut house = Self {
            folder: tempfile::tempdir().unwrap(),
            keys: Arc::new(keys),
            store: None,
        };
        let keys = house.keys();
        house.open(keys).await;
        assert!(house.store().init().await.unwrap());
        house
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store.redb")
    }

    /// Opens the file anew; whoever holds the former store still has to let go of it.
    async fn open(&mut self, keys: Arc<Keys>) {
        self.store = None;
        let start = Instant::now();
        loop {
            match reentry::store::embedded::open(&self.path(), Arc::clone(&keys)).await {
                Ok(store) => {
                    self.store = Some(store);
                    return;
                }
                Err(StoreError::Unavailable(_)) if start.elapsed() < Duration::from_secs(5) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// The file as redb sees it, while the store is closed.
    async fn database(&mut self) -> redb::Database {
        self.store = None;
        let start = Instant::now();
        loop {
            match redb::Database::open(self.path()) {
                Ok(database) => return database,
                Err(redb::DatabaseError::DatabaseAlreadyOpen) if start.elapsed() < Duration::from_secs(5) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    async fn edit(&mut self, spoil: &Spoil) {
        let database = self.database().await;
        let t = database.begin_write().unwrap();
        match spoil {
            Spoil::Flush => unreachable!("the file is removed"),
            Spoil::DropMarker(p) => {
                t.open_table(MARKERS).unwrap().remove(p).unwrap().unwrap();
            }
            Spoil::ForeignMarker(p) => {
                let mut table = t.open_table(MARKERS).unwrap();
                table.insert(p, ("other", "other", 9)).unwrap().unwrap();
            }
            Spoil::DropRecord(key) => {
                let mut table = t.open_table(VALUES).unwrap();
                table.remove((0, key.0)).unwrap().unwrap();
            }
            Spoil::Record(key, bytes) => {
                let mut table = t.open_table(VALUES).unwrap();
                table.insert((0, key.0), bytes.as_slice()).unwrap();
            }
            Spoil::Outbox(p) => {
                let mut table = t.open_table(OUTBOX).unwrap();
                let all: Vec<(i64, u64)> = table.iter().unwrap().map(|e| e.unwrap().0.value()).collect();
                for place in all {
                    table.insert(place, (*p, b"spoilt".as_slice())).unwrap();
                }
            }
        }
        t.commit().unwrap();
    }
}

#[async_trait]
impl House for Embedded {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().unwrap())
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys)
    }

    async fn spoil(&mut self, spoil: Spoil) {
        if matches!(spoil, Spoil::Flush) {
            drop(self.database().await);
            std::fs::remove_file(self.path()).unwrap();
        } else {
            self.edit(&spoil).await;
        }
        self.open(self.keys()).await;
    }

    async fn crash(&mut self) {
        // What is in the file now is all that a killed process leaves: a copy of it is opened.
        let copy = self.folder.path().join("copy");
        std::fs::copy(self.path(), &copy).unwrap();
        self.store = None;
        drop(self.database().await);
        std::fs::rename(copy, self.path()).unwrap();
        self.open(self.keys()).await;
    }

    async fn with_keys(&mut self, keys: Arc<Keys>) -> Arc<dyn Store> {
        self.open(keys).await;
        self.store()
    }

    async fn raw_record(&mut self, key: &SubjectKey) -> Option<Vec<u8>> {
        let database = self.database().await;
        let found = {
            let t = database.begin_read().unwrap();
            let table = t.open_table(VALUES).unwrap();
            let found = table.get((0, key.0)).unwrap();
            found.map(|v| v.value().to_vec())
        };
        drop(database);
        self.open(self.keys()).await;
        found
    }

    async fn kept(&mut self, key: &SubjectKey) -> Vec<Kept> {
        let database = self.database().await;
        let mut kept = Vec::new();
        {
            let t = database.begin_read().unwrap();
            let values = t.open_table(VALUES).unwrap();
            for (number, kind) in [(0, Kind::Record), (1, Kind::Account), (2, Kind::Grants)] {
                if let Some(found) = values.get((number, key.0)).unwrap() {
                    let octets = found.value().to_vec();
                    kept.push(Kept { kind, octets });
                }
            }
            if let Some(at) = t.open_table(DUE).unwrap().get(key.0).unwrap() {
                let octets = at.value().to_string().into_bytes();
                kept.push(Kept {
                    kind: Kind::Due,
                    octets,
                });
            }
        }
        drop(database);
        self.open(self.keys()).await;
        kept
    }

    async fn put_back(&mut self, key: &SubjectKey, kept: &[Kept]) {
        let database = self.database().await;
        let t = database.begin_write().unwrap();
        for one in kept {
            if let Some(number) = number(one.kind) {
                let mut values = t.open_table(VALUES).unwrap();
                values.insert((number, key.0), one.octets.as_slice()).unwrap();
            } else {
                let at: i64 = String::from_utf8_lossy(&one.octets).parse().unwrap();
                t.open_table(DUE).unwrap().insert(key.0, at).unwrap();
                t.open_table(DUE_ORDER).unwrap().insert((at, key.0), ()).unwrap();
            }
        }
        t.commit().unwrap();
        drop(database);
        self.open(self.keys()).await;
    }

    async fn drop_values(&mut self, key: &SubjectKey, kinds: &[Kind]) {
        let database = self.database().await;
        let t = database.begin_write().unwrap();
        for kind in kinds {
            if let Some(number) = number(*kind) {
                t.open_table(VALUES).unwrap().remove((number, key.0)).unwrap();
            } else if let Some(at) = t.open_table(DUE).unwrap().remove(key.0).unwrap() {
                let at = at.value();
                t.open_table(DUE_ORDER).unwrap().remove((at, key.0)).unwrap();
            }
        }
        t.commit().unwrap();
        drop(database);
        self.open(self.keys()).await;
    }

    async fn raw(&mut self) -> Vec<u8> {
        drop(self.database().await);
        let raw = std::fs::read(self.path()).unwrap();
        self.open(self.keys()).await;
        raw
    }
}

/// The server.
pub struct Redis {
    pub server: Server,
    keys: Arc<Keys>,
    store: Arc<dyn Store>,
}

impl Redis {
    pub async fn start() -> Self {
        Self::start_with(Keys::ephemeral().unwrap()).await
    }

    pub async fn start_with(keys: Keys) -> Self {
        let server = Server::durable();
        let keys = Arc::new(keys);
        let store = connect(&server, &keys).await;
        assert!(store.init().await.unwrap());
        Self { server, keys, store }
    }

    /// The store as another process sees it.
    pub async fn other(&self) -> Arc<dyn Store> {
        connect(&self.server, &self.keys).await
    }

    /// The same, with another deadline.
    pub async fn other_within(&self, deadline: Duration) -> Arc<dyn Store> {
        connect_within(&self.server, &self.keys, deadline).await
    }

    /// A connection past the adapter.
    pub fn raw_connection(&self) -> redis::Connection {
        let client = redis::Client::open(self.server.url()).unwrap();
        client.get_connection().unwrap()
    }

    /// Waits until the store answers again.
    pub async fn recovered(&self) {
        recovered(&self.store, Duration::from_secs(5)).await;
    }
}

/// Waits until the store answers again, in every partition.
pub async fn recovered(store: &Arc<dyn Store>, within: Duration) {
    let start = Instant::now();
    for partition in 0..=u8::MAX {
        let mut key = [0; 16];
        key[0] = partition;
        while let Err(StoreError::Unavailable(why)) = store.read(&SubjectKey(key), Parts::RECORD).await {
            assert!(start.elapsed() < within, "{why}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn connect(server: &Server, keys: &Arc<Keys>) -> Arc<dyn Store> {
    // A machine that is busy with other tests may take its time; deadlines have a test of their own.
    connect_within(server, keys, Duration::from_secs(10)).await
}

async fn connect_within(server: &Server, keys: &Arc<Keys>, deadline: Duration) -> Arc<dyn Store> {
    let settings = Settings {
        connect_timeout: deadline.min(Duration::from_secs(1)),
        response_timeout: deadline,
        ..settings(&server.url())
    };
    reentry::store::redis::connect(settings, Arc::clone(keys))
        .await
        .unwrap()
}

/// The default settings for a URL.
pub fn settings(url: &str) -> Settings {
    Settings::new(RedisUrl::parse(url).unwrap())
}

/// Redis past the adapter, whatever it is.
pub trait Behind {
    /// Runs a command where its key is.
    fn run(&self, command: &redis::Cmd) -> redis::Value;
    /// Removes everything.
    fn flush(&self);
    /// The names of all keys.
    fn names(&self) -> Vec<String>;
}

/// Spoils what is stored.
pub fn spoil(behind: &impl Behind, spoil: Spoil) {
    let epoch = |p: &u8| format!("re:{{{p:03}}}:epoch");
    match spoil {
        Spoil::Flush => behind.flush(),
        Spoil::DropMarker(p) => drop(behind.run(redis::cmd("DEL").arg(epoch(&p)))),
        Spoil::ForeignMarker(p) => {
            let mut set = redis::cmd("HSET");
            behind.run(set.arg(epoch(&p)).arg(&["i", "other", "f", "other", "n", "9"]));
        }
        Spoil::DropRecord(key) => drop(behind.run(redis::cmd("DEL").arg(record_key(&key)))),
        Spoil::Record(key, bytes) => {
            behind.run(redis::cmd("SET").arg(record_key(&key)).arg(bytes));
        }
        Spoil::Outbox(p) => {
            let out = format!("re:{{{p:03}}}:out");
            let many = behind.run(redis::cmd("XLEN").arg(&out));
            behind.run(redis::cmd("DEL").arg(&out));
            let redis::Value::Int(many) = many else {
                panic!("{many:?}")
            };
            for _ in 0..many {
                behind.run(redis::cmd("XADD").arg(&out).arg(&["*", "b", "spoilt"]));
            }
        }
    }
}

/// A record as it is stored.
pub fn raw_record(behind: &impl Behind, key: &SubjectKey) -> Option<Vec<u8>> {
    match behind.run(redis::cmd("GET").arg(record_key(key))) {
        redis::Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// Every octet that is stored.
pub fn all_raw(behind: &impl Behind) -> Vec<u8> {
    let mut raw = Vec::new();
    for name in behind.names() {
        raw.extend(name.as_bytes());
        let kind = match behind.run(redis::cmd("TYPE").arg(&name)) {
            redis::Value::SimpleString(kind) => kind,
            other => panic!("{other:?}"),
        };
        let value = match kind.as_str() {
            "string" => behind.run(redis::cmd("GET").arg(name)),
            "hash" => behind.run(redis::cmd("HGETALL").arg(name)),
            "zset" => behind.run(redis::cmd("ZRANGE").arg(name).arg(0).arg(-1)),
            "stream" => behind.run(redis::cmd("XRANGE").arg(name).arg("-").arg("+")),
            other => panic!("a key of type {other}"),
        };
        all_octets(&value, &mut raw);
    }
    raw
}

/// The key of a record.
pub fn record_key(key: &SubjectKey) -> String {
    format!("re:{{{:03}}}:s:{}", key.partition(), name(key))
}

/// A subject's name in keys and queues.
fn name(key: &SubjectKey) -> String {
    use std::fmt::Write as _;
    let mut name = String::new();
    for b in key.0 {
        write!(name, "{b:02x}").unwrap();
    }
    name
}

/// The key of a subject's value of this kind; of the due queue for a due entry.
fn key_of(key: &SubjectKey, kind: Kind) -> String {
    let partition = key.partition();
    let kind = match kind {
        Kind::Record => 's',
        Kind::Account => 'a',
        Kind::Grants => 'g',
        Kind::Due => return format!("re:{{{partition:03}}}:due"),
    };
    format!("re:{{{partition:03}}}:{kind}:{}", name(key))
}

/// Everything that stands in Redis of a subject.
pub fn kept(behind: &impl Behind, key: &SubjectKey) -> Vec<Kept> {
    let mut kept = Vec::new();
    for kind in [Kind::Record, Kind::Account, Kind::Grants, Kind::Due] {
        let found = if kind == Kind::Due {
            behind.run(redis::cmd("ZSCORE").arg(key_of(key, kind)).arg(name(key)))
        } else {
            behind.run(redis::cmd("GET").arg(key_of(key, kind)))
        };
        if let redis::Value::BulkString(octets) = found {
            kept.push(Kept { kind, octets });
        }
    }
    kept
}

/// Puts values of before back.
pub fn put_back(behind: &impl Behind, key: &SubjectKey, kept: &[Kept]) {
    for one in kept {
        let place = key_of(key, one.kind);
        if one.kind == Kind::Due {
            behind.run(redis::cmd("ZADD").arg(place).arg(&one.octets).arg(name(key)));
        } else {
            behind.run(redis::cmd("SET").arg(place).arg(&one.octets));
        }
    }
}

/// Takes values away.
pub fn drop_values(behind: &impl Behind, key: &SubjectKey, kinds: &[Kind]) {
    for kind in kinds {
        let place = key_of(key, *kind);
        if *kind == Kind::Due {
            behind.run(redis::cmd("ZREM").arg(place).arg(name(key)));
        } else {
            behind.run(redis::cmd("DEL").arg(place));
        }
    }
}

fn all_octets(value: &redis::Value, into: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(bytes) => into.extend(bytes),
        redis::Value::SimpleString(text) => into.extend(text.as_bytes()),
        redis::Value::Array(values) => values.iter().for_each(|v| all_octets(v, into)),
        _ => {}
    }
    into.push(b'\n');
}

#[async_trait]
impl House for Redis {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys)
    }

    async fn spoil(&mut self, spoil: Spoil) {
        self::spoil(self, spoil);
    }

    async fn crash(&mut self) {
        self.server.kill9();
        self.server.restart();
        self.recovered().await;
    }

    async fn with_keys(&mut self, keys: Arc<Keys>) -> Arc<dyn Store> {
        connect(&self.server, &keys).await
    }

    async fn raw_record(&mut self, key: &SubjectKey) -> Option<Vec<u8>> {
        self::raw_record(self, key)
    }

    async fn kept(&mut self, key: &SubjectKey) -> Vec<Kept> {
        self::kept(self, key)
    }

    async fn put_back(&mut self, key: &SubjectKey, kept: &[Kept]) {
        self::put_back(self, key, kept);
    }

    async fn drop_values(&mut self, key: &SubjectKey, kinds: &[Kind]) {
        self::drop_values(self, key, kinds);
    }

    async fn raw(&mut self) -> Vec<u8> {
        all_raw(self)
    }
}

impl Behind for Redis {
    fn run(&self, command: &redis::Cmd) -> redis::Value {
        command.query(&mut self.raw_connection()).unwrap()
    }

    fn flush(&self) {
        self.server.cli(&["FLUSHALL"]);
    }

    fn names(&self) -> Vec<String> {
        let mut all = redis::cmd("KEYS");
        all.arg("*").query(&mut self.raw_connection()).unwrap()
    }
}
