//! The store in Redis, for many nodes: one script for each commit, one round trip for each reading.
//!
//! Every value is a string, a sorted set, a stream or a marker's hash, and a key of another type is an error, not an
//! absence (`MGET` would read a hash as nil, and a held account as quiet). Readings ask for the due entry before the
//! record, since both are written in one step: an account is then never seen as due without the record that
//! belongs to it. Failed effects wait in a sorted set of their own, so those that are deferred cost nothing and never
//! stand before later ones; the stream is trimmed only by what was acknowledged.
//!
//! An ACL user needs `~re:* +@connection +@scripting +@read +@write +role +time +info`, with `store.durability` also
//! `+wait` (and `+waitaof`), in a cluster also `+cluster|info +cluster|slots +asking`, and nothing else.

mod audit;
mod check;
mod commit;
mod dead;
mod glance;
mod keys;
mod link;
mod queues;
mod script;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Pipeline, Value};
use secrecy::SecretString;

use self::link::{Dial, Link};
use super::backend::{Backend, Batch, ChainHead, Committed, Line, Raw, Waiting};
use super::marker::{GENERATION, Marker, Past};
use super::retention::AUDIT_RETENTION;
use super::seal::Keys;
use super::shared::Shared;
use crate::config::store::url::RedisUrl;
use crate::config::store::{CONNECT_TIMEOUT, Credentials, Durability, TIMEOUT};
use crate::domain::time::{Span, Timestamp};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Lease, Parts, PendingId, Room, Soundness, Store, StoreError};

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is: one server, Sentinels, or a cluster.
    pub url: RedisUrl,
    /// A password that is not in the URL.
    pub password: Option<SecretString>,
    /// Who logs in at the Sentinels.
    pub sentinel: Credentials,
    /// The certification authorities to believe, in PEM, instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// What a write has to reach before an event counts as dealt with.
    pub durability: Durability,
    /// Until when a connection has to stand.
    pub connect_timeout: Duration,
    /// Until when an answer has to be there.
    pub response_timeout: Duration,
    /// How long audit lines are kept.
    pub audit_retention: Span,
}

impl Settings {
    /// Settings for a URL, with the deadlines that a configuration has by default, and no durability beyond the
    /// master's answer.
    #[must_use]
    pub const fn new(url: RedisUrl) -> Self {
        Self {
            url,
            password: None,
            sentinel: Credentials {
                user: None,
                password: None,
            },
            ca: None,
            durability: Durability::NONE,
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: TIMEOUT,
            audit_retention: AUDIT_RETENTION,
        }
    }
}

/// How often the node is asked whether it is still the master, when nothing else asks it.
const PULSE: Duration = Duration::from_millis(500);

/// How servers and Sentinels are reached.
fn dials(settings: &Settings) -> (Dial, Dial) {
    let url = &settings.url;
    let within = url.password.clone().map(SecretString::from);
    let servers = Dial {
        user: url.user.clone(),
        password: settings.password.clone().or(within),
        database: url.database,
        tls: url.tls,
        ca: settings.ca.clone(),
        connect_timeout: settings.connect_timeout,
        response_timeout: settings.response_timeout,
    };
    let sentinels = Dial {
        user: settings.sentinel.user.clone(),
        password: settings.sentinel.password.clone(),
        database: 0,
        ..servers.clone()
    };
    (servers, sentinels)
}

/// Connects to the store in Redis. A server that is away is no error here: commands fail at once until it is back.
/// Markers are not created: that is what [`Store::init`] is for.
///
/// # Errors
/// [`StoreError::Unavailable`] when the settings cannot be used at all.
pub async fn connect(settings: Settings, keys: Arc<Keys>) -> Result<Arc<dyn Store>, StoreError> {
    let (servers, sentinels) = dials(&settings);
    servers
        .try_out()
        .map_err(|e| StoreError::Unavailable(format!("these settings of Redis cannot be used: {e}")))?;
    let pulse = settings.response_timeout.min(PULSE);
    let link = Link::start(&settings.url, servers, sentinels, pulse, settings.durability).await;
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
    let key = keys::epoch(partition);
    let mut read = Cmd::with_capacity(MARKER.len() + 2, key.len() + 16);
    read.arg("HMGET").arg(key).arg(&MARKER);
    read
}

/// A command that is given its room at once.
fn command(name: &str, arguments: &[&str]) -> Cmd {
    let octets = arguments.iter().map(|a| a.len()).sum::<usize>() + name.len();
    let mut command = Cmd::with_capacity(arguments.len() + 1, octets);
    command.arg(name);
    for argument in arguments {
        command.arg(*argument);
    }
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

impl Server {
    /// What was found done may have been done by a write that was never acknowledged. A later write of the same
    /// partition that is durable proves that the earlier ones are, since a master's stream has one order.
    async fn confirm(&self, partition: u8) -> Result<(), StoreError> {
        let slot = keys::slot(partition);
        if !self.link.waits(slot) {
            return Ok(());
        }
        let mut command = redis::cmd("SET");
        command.arg(keys::sync(partition)).arg("1").arg("PX").arg(60_000);
        self.link.durable(slot, command).await.map(|_| ())
    }
}

#[async_trait]
impl Backend for Server {
    async fn read(&self, key: &SubjectKey, parts: Parts, mark: Option<&str>) -> Result<Raw, StoreError> {
        let partition = key.partition();
        let mut asked = Pipeline::with_capacity(8);
        asked
            .add_command(command("ROLE", &[]))
            .add_command(command("TIME", &[]));
        if let Some(mark) = mark {
            asked.add_command(command("EXISTS", &[&keys::mark(partition, mark)]));
        }
        asked
            .add_command(command("ZSCORE", &[&keys::due(partition), &keys::member(key)]))
            .add_command(read_marker(partition))
            .add_command(command("GET", &[&keys::record(key)]));
        if parts.account {
            asked.add_command(command("GET", &[&keys::account(key)]));
        }
        // Where nothing beside the record is read, something has to tell an account that never was from one whose
        // record was taken away.
        let alone = !parts.account && !parts.grants;
        if alone {
            asked.add_command(command("EXISTS", &[&keys::account(key)]));
        }
        if parts.grants {
            asked.add_command(command("GET", &[&keys::grants(key)]));
        }
        let slot = keys::slot(partition);
        let mut answers = self.link.together(slot, &asked).await?.into_iter();
        let mut next = || answers.next().unwrap_or_default();
        if !link::is_master(&next()) {
            return Err(self.link.demoted(slot));
        }
        let mut raw = Raw {
            time: Some(time(next())?),
            ..Raw::default()
        };
        if mark.is_some() {
            raw.marked = integer("a mark", &next())? > 0;
        }
        if raw.marked {
            self.confirm(partition).await?;
        }
        raw.due = octets("a due entry", next())?.is_some();
        raw.marker = marker(next())?;
        raw.record = octets("a record", next())?;
        if parts.account {
            raw.account = octets("a snapshot", next())?;
        }
        if alone {
            raw.others = integer("a snapshot", &next())? > 0;
        }
        if parts.grants {
            raw.grants = octets("grants", next())?;
        }
        Ok(raw)
    }

    async fn commit(&self, batch: &Arc<Batch>) -> Result<Committed, StoreError> {
        let slot = keys::slot(batch.key.partition());
        let call = commit::call(batch, self.audit_retention);
        // What an acknowledgement rests on; grants alone are as durable as the server makes them.
        let acknowledged = batch.mark.is_some() || batch.decides || !batch.outbox.is_empty();
        let answer = if acknowledged {
            self.link.durable(slot, call).await?
        } else {
            self.link.one(slot, call).await?
        };
        let mut answer = list("a commit", answer)?.into_iter();
        let code = integer("a commit", &answer.next().unwrap_or_default())?;
        match code {
            0 => {
                let fence = integer("a commit", &answer.next().unwrap_or_default())?;
                Ok(Committed::Stored(fence.unsigned_abs()))
            }
            1 => {
                self.confirm(batch.key.partition()).await?;
                Ok(Committed::Duplicate)
            }
            2 => Ok(Committed::Conflict),
            4 => Ok(Committed::Behind(audit::head(answer.collect())?)),
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
        audit::lines(&self.link, partition, before, max).await
    }

    async fn head(&self, partition: u8) -> Result<Option<ChainHead>, StoreError> {
        audit::newest(&self.link, partition).await
    }

    async fn heads(&self) -> Result<Vec<Option<ChainHead>>, StoreError> {
        audit::heads(&self.link).await
    }

    async fn room(&self) -> Result<Option<Room>, StoreError> {
        check::room(&self.link).await
    }

    fn audit_retention(&self) -> Span {
        self.audit_retention
    }

    async fn markers_in(&self, partitions: &[u8]) -> Result<Vec<Option<Marker>>, StoreError> {
        let asked = partitions.iter().map(|p| (keys::slot(*p), read_marker(*p)));
        let answers = self.link.each(asked.collect()).await;
        answers.into_iter().map(|answer| marker(answer?)).collect()
    }

    async fn glance(&self) -> Result<Option<u64>, StoreError> {
        let connection = self.link.number();
        let marked = glance::all_marked(&self.link).await?;
        Ok(connection.filter(|_| marked == Some(true)))
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
        marker(self.link.one(keys::control(), command).await?)
    }

    async fn create_markers(&self, marker: &Marker) -> Result<(), StoreError> {
        let create = |partition| {
            let mut call = script::call(&script::MARKER, &[keys::epoch(partition)]);
            add_marker(&mut call, marker);
            (keys::slot(partition), call)
        };
        let answers = self.link.each((0..=u8::MAX).map(create).collect()).await;
        answers.into_iter().try_for_each(|answer| answer.map(|_| ()))
    }

    async fn begin(&self, partition: u8, fresh: &Marker) -> Result<Option<Marker>, StoreError> {
        let mut call = script::call(&script::BEGIN, &[keys::epoch(partition)]);
        add_marker(&mut call, fresh);
        let millis = |at: fn(&Past) -> Timestamp| fresh.loss.as_ref().map_or(0, |past| at(past).millis());
        call.arg(millis(|p| p.told_before)).arg(millis(|p| p.begun));
        marker(self.link.durable(keys::slot(partition), call).await?)
    }

    async fn finish(&self, partition: u8, generation: u64) -> Result<Option<u64>, StoreError> {
        let mut call = script::call(&script::FINISH, &[keys::epoch(partition)]);
        call.arg(generation << GENERATION);
        let answer = self.link.durable(keys::slot(partition), call).await?;
        let fence = integer("a rebuild", &answer)?;
        Ok((fence > 0).then_some(fence.unsigned_abs()))
    }

    async fn widen(&self, fingerprint: &str) -> Result<(), StoreError> {
        let widen = |(slot, name): (_, String)| {
            let mut call = script::call(&script::WIDEN, &[name]);
            call.arg(fingerprint);
            (slot, call)
        };
        let markers = (0..=u8::MAX).map(|p| (keys::slot(p), keys::epoch(p)));
        let all = markers.chain([(keys::control(), keys::INSTALLATION.to_owned())]);
        let answers = self.link.each(all.map(widen).collect()).await;
        answers.into_iter().try_for_each(|answer| answer.map(|_| ()))
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
