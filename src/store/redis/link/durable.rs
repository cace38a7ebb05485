//! Writes that count only when they are as durable as configured.
//!
//! `WAIT` and `WAITAOF` speak of what the *same connection* wrote before, and hold up everything behind them on it.
//! So such a write goes out on a connection that nobody else uses meanwhile, together with its `WAIT`, in one round
//! trip. There are a few such connections to each node; whoever finds none free in time is told so.
//!
//! A write that did not get far enough in time is an error although the master has it: the caller repeats, and marks
//! make the repetition harmless. It is then found done, and has to be confirmed by a later write of its own
//! ([`confirmation`](crate::store::redis)), since a master's stream has one order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use super::connection::Connection;
use super::dial::Dial;
use super::node::{Live, ask_role, with_scripts};
use crate::config::store::Durability;

/// Connections to one node for writes that wait.
const CONNECTIONS: usize = 8;

/// The connections.
pub(super) struct Writers {
    dial: Arc<Dial>,
    durability: Durability,
    turns: Semaphore,
    /// Not in use, with the number of the connection that they stand beside.
    idle: Mutex<Vec<(u64, Connection)>>,
    /// Whether the server does not know `WAITAOF`.
    no_waitaof: AtomicBool,
}

fn late() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

impl Writers {
    pub(super) fn new(dial: Arc<Dial>, durability: Durability) -> Self {
        Self {
            dial,
            durability,
            turns: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
            no_waitaof: AtomicBool::new(false),
        }
    }

    /// How many replicas of this node a write has to reach.
    fn wanted(&self, live: &Live) -> u8 {
        self.durability
            .replicas
            .wanted(live.replicas.load(Ordering::Relaxed))
    }

    /// Whether a write there has anything to wait for.
    pub(super) fn waits(&self, live: &Live) -> bool {
        self.durability.fsync || self.wanted(live) > 0
    }

    /// Writes to the node that `live` is connected to. Gives the answers, and whether the write got far enough.
    pub(super) async fn write(
        &self,
        live: &Live,
        pipeline: &Pipeline,
    ) -> RedisResult<(Vec<RedisResult<Value>>, Result<(), String>)> {
        let patience = self.dial.response_timeout + self.durability.timeout;
        let turn = timeout(patience, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(late());
        };
        let connection = self.connection(live).await?;
        let wanted = self.wanted(live);
        let mut all = pipeline.clone();
        all.add_command(self.wait(wanted));
        let mut answers = with_scripts(&connection, &all).await?;
        let got_far = answers.pop().unwrap_or(Ok(Value::Nil))?;
        self.idle.lock().await.push((live.number, connection));
        Ok((answers, reached(&got_far, wanted)))
    }

    /// A connection to the same node that nobody else uses.
    async fn connection(&self, live: &Live) -> RedisResult<Connection> {
        let idle = {
            let mut idle = self.idle.lock().await;
            idle.retain(|(number, _)| *number == live.number);
            idle.pop()
        };
        if let Some((_, connection)) = idle {
            return Ok(connection);
        }
        let connection = self.dial.open(&live.at, self.durability.timeout).await?;
        // The address may lead to another node by now.
        let role = ask_role(&connection).await;
        role.map_err(|why| RedisError::from(std::io::Error::other(why)))?;
        if self.durability.fsync && !self.no_waitaof.load(Ordering::Relaxed) {
            self.probe(&connection).await?;
        }
        Ok(connection)
    }

    /// Asks whether the server knows `WAITAOF` (Redis 7.2).
    async fn probe(&self, connection: &Connection) -> RedisResult<()> {
        let mut nothing = redis::cmd("WAITAOF");
        nothing.arg(0).arg(0).arg(0);
        let mut asked = Pipeline::with_capacity(1);
        asked.add_command(nothing);
        let answer = connection.send(&asked).await?.pop();
        if let Some(Err(error)) = answer
            && error.to_string().contains("unknown command")
        {
            self.no_waitaof.store(true, Ordering::Relaxed);
            tracing::warn!(
                "the server does not know WAITAOF (Redis 7.2): writes wait for replicas only; `appendfsync always` puts them on disk before the answer"
            );
        }
        Ok(())
    }

    fn wait(&self, replicas: u8) -> Cmd {
        let millis = u64::try_from(self.durability.timeout.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        if self.durability.fsync && !self.no_waitaof.load(Ordering::Relaxed) {
            let mut wait_aof = redis::cmd("WAITAOF");
            wait_aof.arg(1).arg(replicas).arg(millis);
            return wait_aof;
        }
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas).arg(millis);
        wait
    }
}

/// Whether that many replicas and the disk have it.
fn reached(answer: &Value, wanted: u8) -> Result<(), String> {
    let numbers: Vec<i64> = match answer {
        Value::Int(replicas) => vec![1, *replicas],
        Value::Array(both) => both
            .iter()
            .map(|n| if let Value::Int(n) = n { *n } else { 0 })
            .collect(),
        _ => Vec::new(),
    };
    let [on_disk, replicas] = numbers.as_slice() else {
        return Err("Redis gave a strange answer about durability".to_owned());
    };
    if *replicas < i64::from(wanted) {
        return Err(format!(
            "the write is done, but only {replicas} of {wanted} replicas had it in time (`store.durability`)"
        ));
    }
    if *on_disk < 1 {
        return Err("the write is done, but was not on disk in time (`store.durability`)".to_owned());
    }
    Ok(())
}
