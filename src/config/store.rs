//! `store`: where state lives.

pub mod url;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use self::url::{RedisUrl, Topology};
use super::reader::Section;
use super::values::deadline;
use super::words::filled;

/// Longest wait for an answer, unless configured otherwise.
pub const TIMEOUT: Duration = Duration::from_millis(500);
/// Longest wait for a connection, unless configured otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for replicas or disk, unless configured otherwise.
pub const DURABILITY_TIMEOUT: Duration = Duration::from_secs(1);
/// The most replicas that a write may wait for.
const MOST_REPLICAS: u8 = 16;

/// The section `store`.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Which store.
    pub kind: StoreKind,
    /// File with the keys that name subjects, seal tokens and encrypt addresses. Made by `reentry store init`.
    pub keys_file: PathBuf,
    /// File in which each process keeps the highest fences it saw, so that a store that went back in time while nobody
    /// ran is noticed at the next start.
    pub witness_file: Option<PathBuf>,
}

/// Redis, or a file for one process.
#[derive(Clone, Debug)]
pub enum StoreKind {
    /// A Redis server, a set under Sentinel, or a cluster.
    Redis(Box<RedisSettings>),
    /// A redb file: one process, no other server.
    Embedded {
        /// The file.
        path: PathBuf,
    },
}

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Where it is; never with a password.
    pub url: RedisUrl,
    /// Redis' password.
    pub password: Option<SecretString>,
    /// The Sentinels' user and password.
    pub sentinel: Credentials,
    /// The certification authorities to believe (PEM) instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// What a write has to reach before it is acknowledged.
    pub durability: Durability,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
}

/// Who logs in.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// User.
    pub user: Option<String>,
    /// Password.
    pub password: Option<SecretString>,
}

/// How many replicas a write has to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    /// All that could be the next master, and never fewer than this.
    All {
        /// The fewest.
        at_least: u8,
    },
    /// So many, whoever else there is.
    Just(u8),
}

impl Replicas {
    /// How many that is for a master with so many.
    #[must_use]
    pub fn wanted(self, replicas: u8) -> u8 {
        match self {
            Self::All { at_least } => replicas.max(at_least),
            Self::Just(many) => many,
        }
    }
}

/// What a write has to reach before an event counts as dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durability {
    /// So many replicas have it (`WAIT`).
    pub replicas: Replicas,
    /// The master and those replicas have it on disk (`WAITAOF`, Redis 7.2).
    pub fsync: bool,
    /// Longest wait for it.
    pub timeout: Duration,
}

impl Durability {
    /// Nothing beyond the master's own answer.
    pub const NONE: Self = Self {
        replicas: Replicas::Just(0),
        fsync: false,
        timeout: DURABILITY_TIMEOUT,
    };
}

fn redis_url(text: &str) -> Result<RedisUrl, String> {
    let url = RedisUrl::parse(text)?;
    if url.password.is_some() {
        return Err("has a password in it; name a file with `store.password_file`".to_owned());
    }
    Ok(url)
}

/// `all`, or how many.
fn replicas(text: &str, all: Replicas) -> Result<Replicas, String> {
    if text == "all" {
        return Ok(all);
    }
    let many = text.parse().ok().filter(|n| *n <= MOST_REPLICAS);
    many.map(Replicas::Just)
        .ok_or_else(|| format!("is `{text}`, not `all` or a number from 0 to {MOST_REPLICAS}"))
}

/// The keys that only Redis has.
const REDIS_KEYS: [&str; 7] = [
    "url",
    "user",
    "password",
    "password_file",
    "ca_file",
    "sentinel",
    "durability",
];

impl StoreSettings {
    pub(super) fn read(s: &Section<'_>) -> Option<Self> {
        let is_redis = s.choice("kind", true, &[("redis", true), ("embedded", false)]);
        let keys_file = s.file("keys_file").and_then(|f| {
            if f.is_none() {
                s.fault(
                    "keys_file",
                    "is missing",
                    "write for example `keys_file: store-keys` and run `reentry store init`",
                );
            }
            f
        });
        if let Some(file) = &keys_file {
            s.kept_private("keys_file", file);
        }
        let path = s.file("path");
        if let Some(Some(file)) = &path {
            s.kept_private("path", file);
        }
        let witness_file = s.file("witness_file");
        let redis = redis(s, is_redis == Some(true));
        let kind = if is_redis? {
            if matches!(path, Some(Some(_))) {
                s.fault(
                    "path",
                    "belongs to `kind: embedded`",
                    "take it away, or set `kind: embedded`",
                );
            }
            StoreKind::Redis(Box::new(redis?))
        } else {
            if matches!(path, Some(None)) {
                s.fault("path", "is missing", "write for example `path: reentry.redb`");
            }
            for key in REDIS_KEYS {
                if s.node(key).is_some() {
                    s.fault(
                        key,
                        "belongs to `kind: redis`",
                        "take it away, or set `kind: redis`",
                    );
                }
            }
            StoreKind::Embedded { path: path?? }
        };
        Some(Self {
            kind,
            keys_file: keys_file?,
            witness_file: witness_file?,
        })
    }
}

/// Everything about Redis. `wanted`: a URL has to be there.
fn redis(s: &Section<'_>, wanted: bool) -> Option<RedisSettings> {
    let url = s.optional("url", redis_url);
    let user = s.optional("user", filled);
    let password = s.secret("password");
    let ca = s.contents("ca_file");
    let sentinel = sentinel(&s.section("sentinel"));
    let timeout = s.or("timeout", TIMEOUT, deadline);
    let connect_timeout = s.or("connect_timeout", CONNECT_TIMEOUT, deadline);
    let known = url.as_ref().and_then(Option::as_ref);
    let under_sentinel = known.is_some_and(|u| matches!(u.topology, Topology::Sentinel { .. }));
    let durability = durability(&s.section("durability"), under_sentinel);
    if wanted && matches!(url, Some(None)) {
        s.fault(
            "url",
            "is missing",
            "write for example `url: redis://localhost:6379/0`",
        );
    }
    let (mut url, user) = (url??, user?);
    if let Some(user) = user {
        if url.user.is_some() {
            s.fault("user", "is given twice, also in `store.url`", "keep one of them");
            return None;
        }
        url.user = Some(user);
    }
    if !under_sentinel && s.section("sentinel").is_present() {
        s.fault(
            "sentinel",
            "is there, but `store.url` is not of Sentinels",
            "take it away, or write redis+sentinel://host:26379,host:26379/mymaster",
        );
    }
    let ca = ca?;
    if ca.is_some() && !url.tls {
        s.fault(
            "ca_file",
            "is there, but `store.url` is without TLS",
            "write rediss:// with two `s`",
        );
    }
    Some(RedisSettings {
        url,
        password: password?,
        sentinel: sentinel?,
        ca: ca.map(|(_, text)| text.into_bytes()),
        durability: durability?,
        timeout: timeout?,
        connect_timeout: connect_timeout?,
    })
}

fn sentinel(s: &Section<'_>) -> Option<Credentials> {
    let user = s.optional("user", filled);
    let password = s.secret("password");
    let (user, password) = (user?, password?);
    if user.is_some() && password.is_none() {
        let problem = "is missing, but there is a user";
        s.fault("password_file", problem, "name a file with the password");
        return None;
    }
    Some(Credentials { user, password })
}

/// Where Sentinel may replace the master, a write that no replica has would be lost with it: a master without any is one
/// that was cut off.
fn durability(s: &Section<'_>, under_sentinel: bool) -> Option<Durability> {
    let all = Replicas::All {
        at_least: u8::from(under_sentinel),
    };
    let replicas = s.or("replicas", all, |text| replicas(text, all));
    let fsync = s.flag("fsync", false);
    let timeout = s.or("timeout", DURABILITY_TIMEOUT, deadline);
    Some(Durability {
        replicas: replicas?,
        fsync: fsync?,
        timeout: timeout?,
    })
}
