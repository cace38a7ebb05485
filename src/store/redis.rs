//! The store in Redis, for many nodes: one script for each commit, one round trip for each reading.
//!
//! Every value is a string, a sorted set, a stream or a marker's hash, and a key of another type is an error, not an
//! absence (`MGET` would read a hash as nil, and a held account as quiet). Readings ask for the due entry before the
//! record, since both are written in one step: an account is then never seen as due without the record that
//! belongs to it. Failed effects wait in a sorted set of their own, so those that are deferred cost nothing and never
//! stand before later ones; the stream is trimmed only by what was acknowledged.
//!
//! An ACL user needs `~re:* +@connection +@scripting +@read +@write +role +time +info` and nothing else.

mod check;
mod commit;
mod dead;
mod keys;
mod link;
mod queues;
mod script;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, IntoConnectionInfo as _};
use redis::{Pipeline, RedisResult, TlsCertificates, Value};
use secrecy::{ExposeSecret as _, SecretString};

use self::link::{Connect, Link};
use super::backend::{Backend, Batch, Committed, Line, Raw, Waiting};
use super::marker::{GENERATION, Marker, Past};
use super::retention::AUDIT_RETENTION;
use super::seal::Keys;
use super::shared::Shared;
use crate::domain::time::{Span, Timestamp};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Lease, Parts, PendingId, Soundness, Store, StoreError};

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `redis://` or, with TLS, `rediss://`; user, password and database number may be in it.
    pub url: SecretString,
    /// A password that is not in the URL.
    pub password: Option<SecretString>,
    /// The certification authorities to believe, in PEM, instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// Until when a connection has to stand.
    pub connect_timeout: Duration,
    /// Until when an answer has to be there.
    pub response_timeout: Duration,
    /// How long audit lines are kept.
    pub audit_retention: Span,
}

impl Settings {
    /// Settings for a URL, with the default deadlines: 1 s to connect, 1 s to answer.
    #[must_use]
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            password: None,
            ca: None,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(1),
            audit_retention: AUDIT_RETENTION,
        }
    }
}

/// How often the node is asked whether it is still the master, when nothing else asks it.
const PULSE: Duration = Duration::from_millis(500);

/// A server at one address.
struct Plain {
    client: Client,
    config: AsyncConnectionConfig,
    deadline: Duration,
}

#[async_trait]
impl Connect for Plain {
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&self.config);
        match tokio::time::timeout(self.deadline, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}

impl Plain {
    fn new(settings: &Settings) -> RedisResult<Self> {
        let info: ConnectionInfo = settings.url.expose_secret().into_connection_info()?;
        let mut own = info.redis_settings().clone();
        if let Some(password) = &settings.password {
            own = own.set_password(password.expose_secret());
        }
        let info = info
            .set_redis_settings(own)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = match &settings.ca {
            Some(ca) => Client::build_with_tls(
                info,
                TlsCertificates {
                    client_tls: None,
                    root_cert: Some(ca.clone()),
                },
            )?,
            None => Client::open(info)?,
        };
        Ok(Self {
            client,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(settings.connect_timeout))
                .set_response_timeout(Some(settings.response_timeout)),
            deadline: settings.connect_timeout + settings.response_timeout,
        })
    }
}

/// Connects to the store in Redis. A server that is away is no error here: commands fail at once until it is back.
/// Markers are not created: that is what [`Store::init`] is for.
///
/// # Errors
/// [`StoreError::Unavailable`] when the settings cannot be used at all.
pub async fn connect(settings: Settings, keys: Arc<Keys>) -> Result<Arc<dyn Store>, StoreError> {
    let plain = Plain::new(&settings)
        .map_err(|e| StoreError::Unavailable(format!("the URL of Redis cannot be used: {e}")))?;
    let pulse = settings.response_timeout.min(PULSE);
    let link = Link::start(plain, pulse, settings.connect_timeout).await;
    let server = Server {
        link,
        audit_retention: settings.audit_retention,
    };
    Ok(Arc::new(Shared::new(server, keys)))
}

/// A Redis server.
struct Server {
    link: Link,
    audit_retention: Span,
}

/// An answer of a type that the command does not give.
fn strange(what: &str) -> StoreError {
    StoreError::Unsound(format!("Redis gave a strange answer about {what}"))
}

fn octets(what: &str, value: Value) -> Result<Option<Vec<u8>>, StoreError> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(octets) => Ok(Some(octets)),
        _ => Err(strange(what)),
    }
}

fn text(what: &str, value: Value) -> Result<Option<String>, StoreError> {
    let octets = octets(what, value)?;
    let text = octets.map(String::from_utf8).transpose();
    text.map_err(|_| strange(what))
}

fn integer(what: &str, value: &Value) -> Result<i64, StoreError> {
    match value {
        Value::Int(n) => Ok(*n),
        _ => Err(strange(what)),
    }
}

fn list(what: &str, value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(strange(what)),
    }
}

/// A marker out of `HMGET key i f n`; absent when any of the three is.
fn marker(fields: Value) -> Result<Option<Marker>, StoreError> {
    let mut fields = list("a marker", fields)?.into_iter();
    let mut field = || text("a marker", fields.next().unwrap_or_default());
    let (Some(incarnation), Some(fingerprint), Some(fence)) = (field()?, field()?, field()?) else {
        return Ok(None);
    };
    let fence = fence.parse().map_err(|_| strange("a marker"))?;
    let rebuilding = field()?.as_deref() == Some("r");
    let mut instant = || {
        let text = field()?.filter(|t| !t.is_empty());
        let millis = text.map(|t| t.parse().map_err(|_| strange("a marker")));
        millis.transpose().map(|at| at.map(Timestamp::from_millis))
    };
    let loss = match (instant()?, instant()?) {
        (Some(told_before), Some(begun)) => Some(Past { told_before, begun }),
        _ => None,
    };
    Ok(Some(Marker {
        incarnation,
        fingerprint,
        fence,
        rebuilding,
        loss,
    }))
}

/// The fields of a marker; see [`keys`].
const MARKER: [&str; 6] = ["i", "f", "n", "s", "l", "b"];

fn read_marker(partition: u8) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(keys::epoch(partition)).arg(&MARKER);
    command
}

/// The server's time out of an answer to `TIME`.
fn time(value: Value) -> Result<Timestamp, StoreError> {
    let parts = list("the time", value)?.into_iter();
    let numbers: Vec<i64> = parts
        .filter_map(|p| text("the time", p).ok().flatten())
        .filter_map(|p| p.parse().ok())
        .collect();
    let [secs, micros] = numbers.as_slice() else {
        return Err(strange("the time"));
    };
    Ok(Timestamp::from_millis(secs * 1000 + micros / 1000))
}

#[async_trait]
impl Backend for Server {
    async fn read(&self, key: &SubjectKey, parts: Parts, mark: Option<&str>) -> Result<Raw, StoreError> {
        let partition = key.partition();
        let mut asked = Pipeline::with_capacity(8);
        asked.cmd("ROLE").cmd("TIME");
        if let Some(mark) = mark {
            asked.cmd("EXISTS").arg(keys::mark(partition, mark));
        }
        asked
            .cmd("ZSCORE")
            .arg(keys::due(partition))
            .arg(keys::member(key))
            .add_command(read_marker(partition))
            .cmd("GET")
            .arg(keys::record(key));
        if parts.account {
            asked.cmd("GET").arg(keys::account(key));
        }
        if parts.grants {
            asked.cmd("GET").arg(keys::grants(key));
        }
        let mut answers = self.link.together(&asked).await?.into_iter();
        let mut next = || answers.next().unwrap_or_default();
        if !link::is_master(&next()) {
            return Err(self.link.demoted());
        }
        let mut raw = Raw {
            time: Some(time(next())?),
            ..Raw::default()
        };
        if mark.is_some() {
            raw.marked = integer("a mark", &next())? > 0;
        }
        raw.due = octets("a due entry", next())?.is_some();
        raw.marker = marker(next())?;
        raw.record = octets("a record", next())?;
        if parts.account {
            raw.account = octets("a snapshot", next())?;
        }
        if parts.grants {
            raw.grants = octets("grants", next())?;
        }
        Ok(raw)
    }

    async fn commit(&self, batch: &Arc<Batch>) -> Result<Committed, StoreError> {
        let answer = self.link.one(&commit::call(batch, self.audit_retention)).await?;
        let mut answer = list("a commit", answer)?.into_iter();
        let code = integer("a commit", &answer.next().unwrap_or_default())?;
        match code {
            0 => {
                let fence = integer("a commit", &answer.next().unwrap_or_default())?;
                Ok(Committed::Stored(fence.unsigned_abs()))
            }
            1 => Ok(Committed::Duplicate),
            2 => Ok(Committed::Conflict),
            _ => Ok(Committed::Unsound(marker(Value::Array(answer.collect()))?)),
        }
    }

    async fn outbox(
        &self,
        partitions: &[u8],
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<Waiting>, StoreError> {
        queues::outbox(&self.link, partitions, now, max).await
    }

    async fn peek(&self, max: usize) -> Result<Vec<Waiting>, StoreError> {
        queues::peek(&self.link, max).await
    }

    async fn remove(&self, at: &PendingId) -> Result<(), StoreError> {
        queues::remove(&self.link, at).await
    }

    async fn defer(&self, at: &PendingId, sealed: &[u8], until: Timestamp) -> Result<(), StoreError> {
        queues::defer(&self.link, at, sealed, until).await
    }

    async fn bury(&self, at: &PendingId, sealed: &[u8]) -> Result<(), StoreError> {
        dead::bury(&self.link, at, sealed).await
    }

    async fn dead(&self, max: usize) -> Result<Vec<Waiting>, StoreError> {
        dead::all(&self.link, max).await
    }

    async fn dead_one(&self, at: &PendingId) -> Result<Option<Waiting>, StoreError> {
        dead::one(&self.link, at).await
    }

    async fn revive(&self, at: &PendingId, sealed: &[u8]) -> Result<bool, StoreError> {
        dead::revive(&self.link, at, sealed).await
    }

    async fn due(&self, now: Timestamp, max: usize) -> Result<Vec<SubjectKey>, StoreError> {
        queues::due(&self.link, now, max).await
    }

    async fn put_state(&self, name: &str, sealed: &[u8], keep: Span) -> Result<(), StoreError> {
        queues::put_state(&self.link, name, sealed, keep).await
    }

    async fn take_state(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        queues::take_state(&self.link, name).await
    }

    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        queues::setting(&self.link, name).await
    }

    async fn set_setting(&self, name: &str, value: &str, lease: Option<&Lease>) -> Result<(), StoreError> {
        queues::set_setting(&self.link, name, value, lease).await
    }

    async fn lease(&self, name: &str, owner: &str, keep: Span) -> Result<Option<Lease>, StoreError> {
        queues::lease(&self.link, name, owner, keep).await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        queues::release(&self.link, name, owner).await
    }

    async fn audit(&self, partition: Option<u8>, before: i64, max: usize) -> Result<Vec<Line>, StoreError> {
        queues::audit(&self.link, partition, before, max).await
    }

    async fn markers(&self) -> Result<Vec<Option<Marker>>, StoreError> {
        let mut asked = Pipeline::with_capacity(256);
        for partition in 0..=u8::MAX {
            asked.add_command(read_marker(partition));
        }
        let answers = self.link.together(&asked).await?;
        answers.into_iter().map(marker).collect()
    }

    async fn installation(&self, fresh: Option<&Marker>) -> Result<Option<Marker>, StoreError> {
        let command = if let Some(fresh) = fresh {
            let mut call = script::call(&script::INSTALLATION, &[keys::INSTALLATION]);
            add_marker(&mut call, fresh);
            call
        } else {
            let mut command = redis::cmd("HMGET");
            command.arg(keys::INSTALLATION).arg(&MARKER);
            command
        };
        marker(self.link.one(&command).await?)
    }

    async fn create_markers(&self, marker: &Marker) -> Result<(), StoreError> {
        let mut asked = Pipeline::with_capacity(256);
        for partition in 0..=u8::MAX {
            let mut call = script::call(&script::MARKER, &[keys::epoch(partition)]);
            add_marker(&mut call, marker);
            asked.add_command(call);
        }
        self.link.together(&asked).await.map(|_| ())
    }

    async fn begin(&self, partition: u8, fresh: &Marker) -> Result<Option<Marker>, StoreError> {
        let mut call = script::call(&script::BEGIN, &[keys::epoch(partition)]);
        add_marker(&mut call, fresh);
        let millis = |at: fn(&Past) -> Timestamp| fresh.loss.as_ref().map_or(0, |past| at(past).millis());
        call.arg(millis(|p| p.told_before)).arg(millis(|p| p.begun));
        marker(self.link.one(&call).await?)
    }

    async fn finish(&self, partition: u8, generation: u64) -> Result<Option<u64>, StoreError> {
        let mut call = script::call(&script::FINISH, &[keys::epoch(partition)]);
        call.arg(generation << GENERATION);
        let fence = integer("a rebuild", &self.link.one(&call).await?)?;
        Ok((fence > 0).then_some(fence.unsigned_abs()))
    }

    async fn widen(&self, fingerprint: &str) -> Result<(), StoreError> {
        let names = (0..=u8::MAX).map(keys::epoch);
        let mut asked = Pipeline::with_capacity(257);
        for name in names.chain([keys::INSTALLATION.to_owned()]) {
            let mut call = script::call(&script::WIDEN, &[name]);
            call.arg(fingerprint);
            asked.add_command(call);
        }
        self.link.together(&asked).await.map(|_| ())
    }

    async fn check(&self) -> Result<Soundness, StoreError> {
        check::check(&self.link).await
    }
}

fn add_marker(call: &mut Cmd, marker: &Marker) {
    call.arg(&marker.incarnation)
        .arg(&marker.fingerprint)
        .arg(marker.fence);
}
