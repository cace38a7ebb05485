//! The audit log's hash chain against somebody who can write to Redis, by the program that verifies it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::fs;
use std::process::{Command, Output};
use std::sync::Arc;

use reentry::config::store::url::RedisUrl;
use reentry::domain::audit::Entry;
use reentry::domain::subject::{Subject, UpstreamId};
use reentry::domain::time::Timestamp;
use reentry::ports::seal::Seal as _;
use reentry::ports::store::Store;
use reentry::store::redis::{Settings, connect};
use reentry::store::seal::Keys;
use reentry_test_support::redis::Redis;
use serde_json::Value;
use tempfile::TempDir;

const LINES: i64 = 6;

struct House {
    redis: Redis,
    folder: TempDir,
    store: Arc<dyn Store>,
    subject: Subject,
    keys: Arc<Keys>,
    partition: u8,
}

impl House {
    /// An installation with a few lines about one account.
    async fn start() -> Self {
        let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
        let default = run(&folder, &["config", "default"]);
        let text = String::from_utf8(default.stdout).unwrap();
        let text = text.replace("redis://localhost:6379/0", &redis.url());
        fs::write(folder.path().join("reentry.yaml"), text).unwrap();
        let made = run(&folder, &["store", "init"]);
        assert!(made.status.success(), "{made:?}");
        let upstream = UpstreamId::parse("keycloak").unwrap();
        let keys = Keys::load(&folder.path().join("store-keys")).unwrap();
        let keys = Arc::new(keys.of([&upstream]));
        let subject = Subject::new(upstream, "ana").unwrap();
        let store = connect(
            Settings::new(RedisUrl::parse(&redis.url()).unwrap()),
            Arc::clone(&keys),
        )
        .await
        .unwrap();
        let house = Self {
            partition: keys.subject(&subject).partition(),
            redis,
            folder,
            store,
            subject,
            keys,
        };
        for n in 1..=LINES {
            house.write(n).await;
        }
        house
    }

    async fn write(&self, n: i64) {
        let at = Timestamp::from_secs(1_795_252_320 + n);
        let entry = Entry::system(format!("line-{n}"), at, "hold_started", Some("rc_1"));
        let key = self.keys.subject(&self.subject);
        self.store.note(&self.subject, &key, &entry).await.unwrap();
    }

    /// A key of the account's partition.
    fn key(&self, what: &str) -> String {
        format!("re:{{{:03}}}:{what}", self.partition)
    }

    /// Lets a script loose on the lines and on the marker.
    fn tamper(&self, script: &str) {
        let (lines, marker) = (self.key("audit"), self.key("epoch"));
        let answer = self.redis.cli(&["EVAL", script, "2", &lines, &marker]);
        assert!(!answer.contains("ERR"), "{answer}");
    }

    /// What `verify --json` says, and its exit code.
    fn verify(&self, more: &[&str]) -> (i32, Value) {
        let arguments: Vec<&str> = ["audit", "verify", "--json"]
            .iter()
            .chain(more)
            .copied()
            .collect();
        let output = run(&self.folder, &arguments);
        let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code().unwrap(), document)
    }

    /// The flaw that is found and the line that is named.
    fn flaw(&self) -> (String, Option<u64>) {
        let (code, document) = self.verify(&[]);
        assert_eq!(code, 1, "{document}");
        assert_eq!(document["whole"], false);
        let broken = &document["broken"][0];
        assert_eq!(broken["partition"], self.partition);
        (broken["flaw"].as_str().unwrap().to_owned(), broken["n"].as_u64())
    }
}

fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reentry"))
        .args(arguments)
        .current_dir(folder.path())
        .env_clear()
        .output()
        .unwrap()
}

#[tokio::test]
async fn a_log_that_nobody_touched_is_whole_and_can_be_exported() {
    let house = House::start().await;
    let (code, document) = house.verify(&[]);
    assert_eq!((code, &document["whole"]), (0, &Value::Bool(true)), "{document}");
    assert_eq!(document["lines"], LINES);
    let head = &document["heads"][house.partition.to_string()];
    assert_eq!(head["n"], LINES);
    let said = run(&house.folder, &["audit", "verify"]);
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("whole: 6 lines in 1 partitions"));
    let exported = run(&house.folder, &["audit", "export"]);
    assert!(exported.status.success());
    let lines: Vec<Value> = String::from_utf8(exported.stdout)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(
        (&lines[5]["n"], &lines[5]["hash"]),
        (&Value::from(6), &head["hash"])
    );
    assert_eq!(
        (&lines[0]["id"], &lines[0]["sub"]),
        (&Value::from("line-1"), &Value::from("ana"))
    );
}

#[tokio::test]
async fn a_changed_line_is_found() {
    let house = House::start().await;
    house.tamper(
        "local m = redis.call('ZRANGE', KEYS[1], 2, 2, 'WITHSCORES') \
         redis.call('ZREM', KEYS[1], m[1]) \
         redis.call('ZADD', KEYS[1], m[2], (string.gsub(m[1], 'hold_started', 'hold_stopped'))) return 1",
    );
    assert_eq!(house.flaw(), ("altered".to_owned(), Some(3)));
    let exported = run(&house.folder, &["audit", "export"]);
    assert_eq!(exported.status.code(), Some(1));
    let named = String::from_utf8_lossy(&exported.stderr).into_owned();
    assert!(named.contains("line 3 (`line-3`) was changed"), "{named}");
}

#[tokio::test]
async fn a_removed_line_is_found() {
    let house = House::start().await;
    house.tamper("return redis.call('ZREMRANGEBYRANK', KEYS[1], 2, 2)");
    assert_eq!(house.flaw(), ("removed".to_owned(), Some(4)));
}

#[tokio::test]
async fn an_inserted_line_is_found() {
    let house = House::start().await;
    // A line cannot be made without the key; a true one put in a second time belongs to another place.
    house.tamper(
        "local m = redis.call('ZRANGE', KEYS[1], 2, 2, 'WITHSCORES') \
         redis.call('ZADD', KEYS[1], m[2] + 500, m[1] .. 'x') return 1",
    );
    assert_eq!(house.flaw().0, "strange");
    // A chain of another installation, with the same line at its end.
    let house = House::start().await;
    house.tamper("redis.call('ZADD', KEYS[1], 1795252320000000, 'not a line at all, but long enough to be one') return 1");
    assert_eq!(house.flaw().0, "strange");
}

#[tokio::test]
async fn a_line_that_was_moved_in_time_is_found() {
    let house = House::start().await;
    house.tamper(
        "local m = redis.call('ZRANGE', KEYS[1], 1, 1) return redis.call('ZINCRBY', KEYS[1], 3500000, m[1])",
    );
    assert_eq!(house.flaw(), ("altered".to_owned(), Some(2)));
}

#[tokio::test]
async fn a_beginning_that_was_cut_off_is_found() {
    let house = House::start().await;
    house.tamper("return redis.call('ZREMRANGEBYRANK', KEYS[1], 0, 1)");
    assert_eq!(house.flaw(), ("removed".to_owned(), Some(3)));
}

#[tokio::test]
async fn an_end_that_was_cut_off_is_found() {
    let house = House::start().await;
    house.tamper("return redis.call('ZREMRANGEBYRANK', KEYS[1], -2, -1)");
    assert_eq!(house.flaw(), ("cut".to_owned(), Some(6)));
    let house = House::start().await;
    house.tamper("return redis.call('DEL', KEYS[1])");
    assert_eq!(house.flaw(), ("cut".to_owned(), Some(6)));
}

#[tokio::test]
async fn a_head_that_was_removed_or_made_up_is_found() {
    let house = House::start().await;
    house.tamper("return redis.call('HDEL', KEYS[2], 'an')");
    assert_eq!(house.flaw(), ("no_head".to_owned(), Some(6)));
    let house = House::start().await;
    house.tamper(
        "redis.call('ZREMRANGEBYRANK', KEYS[1], -1, -1) \
         return redis.call('HSET', KEYS[2], 'an', 5, 'ah', string.rep('ab', 32))",
    );
    assert_eq!(house.flaw(), ("no_head".to_owned(), Some(5)));
}

// Whoever has kept a copy can put the whole partition back as it was: true lines, a true head. What was printed
// earlier and kept elsewhere shows it.
#[tokio::test]
async fn an_end_that_was_rolled_back_with_its_head_is_found_by_the_witness() {
    let house = House::start().await;
    let witness = run(&house.folder, &["audit", "verify", "--json"]).stdout;
    fs::write(house.folder.path().join("heads.json"), witness).unwrap();
    house.write(LINES + 1).await;
    assert_eq!(
        house.verify(&["--witness", "heads.json"]).0,
        0,
        "it has only grown"
    );
    let other = House::start().await;
    let head = ["an", "ah", "ap", "am"].map(|f| other.redis.cli(&["HGET", &other.key("epoch"), f]));
    assert!(head.iter().all(|f| !f.trim().is_empty()));
    // Rolled back by one line, with a head that was true once.
    let house = House::start().await;
    let fields = ["an", "ah", "ap", "am"];
    let before: Vec<String> = fields
        .iter()
        .map(|f| {
            house
                .redis
                .cli(&["HGET", &house.key("epoch"), f])
                .trim()
                .to_owned()
        })
        .collect();
    house.write(LINES + 1).await;
    let witness = run(&house.folder, &["audit", "verify", "--json"]).stdout;
    fs::write(house.folder.path().join("heads.json"), witness).unwrap();
    house.tamper("return redis.call('ZREMRANGEBYRANK', KEYS[1], -1, -1)");
    for (field, value) in fields.iter().zip(&before) {
        house.redis.cli(&["HSET", &house.key("epoch"), field, value]);
    }
    assert_eq!(house.verify(&[]).0, 0, "by itself it looks whole");
    let (code, document) = house.verify(&["--witness", "heads.json"]);
    assert_eq!(code, 1);
    assert_eq!(document["broken"][0]["flaw"], "rewritten");
    // The process that wrote the lines goes on from what is there; it has said that lines are gone.
    house.write(LINES + 2).await;
    // ... and it stands in the log itself, for as long as lines are kept.
    assert_eq!(house.flaw(), ("lost".to_owned(), Some(8)));
    house.write(LINES + 3).await;
    assert_eq!(house.flaw(), ("lost".to_owned(), Some(8)));
}

// A process that starts after the lines were cut off knows from the witness how many there were.
#[tokio::test]
async fn a_loss_that_came_before_the_start_is_written_down_by_the_next_process() {
    let house = House::start().await;
    let witness = house.store.witness().unwrap();
    house.tamper("redis.call('DEL', KEYS[1]) return redis.call('HDEL', KEYS[2], 'an', 'ah', 'ap', 'am')");
    let settings = Settings::new(RedisUrl::parse(&house.redis.url()).unwrap());
    let next = connect(settings, Arc::clone(&house.keys)).await.unwrap();
    next.remember(&witness);
    let at = Timestamp::from_secs(1_795_252_320 + 20);
    let entry = Entry::system("line-20".to_owned(), at, "hold_started", Some("rc_1"));
    let key = house.keys.subject(&house.subject);
    next.note(&house.subject, &key, &entry).await.unwrap();
    assert_eq!(house.flaw(), ("lost".to_owned(), Some(7)));
}

// Heads that left as log lines and events are as good a witness as what `verify` printed.
#[tokio::test]
async fn heads_in_log_lines_and_events_are_a_witness() {
    let house = House::start().await;
    let path = house.folder.path().join("kept.log");
    let words: Vec<String> = house
        .store
        .heads()
        .await
        .unwrap()
        .iter()
        .map(|(partition, head)| head.word(*partition))
        .collect();
    assert_eq!(words.len(), 1);
    fs::write(
        &path,
        format!("INFO the newest lines of the audit log heads=\"{}\"\n", words[0]),
    )
    .unwrap();
    assert_eq!(house.verify(&["--witness", "kept.log"]).0, 0);
    house.tamper("redis.call('DEL', KEYS[1]) return redis.call('HDEL', KEYS[2], 'an', 'ah', 'ap', 'am')");
    assert_eq!(
        house.verify(&[]).0,
        0,
        "by itself it looks as if there never was one"
    );
    let (code, document) = house.verify(&["--witness", "kept.log"]);
    assert_eq!(
        (code, &document["broken"][0]["flaw"]),
        (1, &Value::from("rewritten"))
    );
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_neither_whole_nor_broken() {
    let mut house = House::start().await;
    fs::write(house.folder.path().join("heads.json"), "[]").unwrap();
    assert_eq!(house.verify(&["--witness", "heads.json"]).0, 2);
    assert_eq!(house.verify(&["--witness", "nowhere.json"]).0, 2);
    house.redis.kill9();
    assert_eq!(house.verify(&[]).0, 2);
    assert_eq!(run(&house.folder, &["audit", "export"]).status.code(), Some(2));
}
