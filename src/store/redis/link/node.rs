//! One connection that is kept alive, and nobody waits for it.
//!
//! The client's own manager lets callers queue for seconds while the server is away, stays with a node that became
//! a replica, and goes on reading from it. Here a task owns the connection: while there is none, every command
//! fails at once; a command that times out, or an answer that no master in service gives, drops the connection;
//! a new one counts only after the node has said that it is a master. A pulse asks again and again, and each
//! reading asks along with its own commands, since a demoted node answers readings with whatever it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use redis::{Pipeline, RedisResult, Value};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connection::{Answers, Connection};
use super::dial::{Dial, Endpoint};
use super::durable::Writers;
use super::fault::{is_unknown_script, judge};
use super::reckoned::{Reckoned, Successors};
use crate::config::store::Durability;
use crate::ports::store::StoreError;
use crate::store::redis::script;

/// First and longest wait between two attempts to connect.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Who knows where the master is.
#[async_trait]
pub(super) trait Find: Send + Sync + 'static {
    /// Where the master is now.
    async fn master(&self) -> Result<(Endpoint, Successors), String>;

    /// Fails when somebody knows of another master than this one.
    async fn confirm(&self, _used: &Endpoint) -> Result<Successors, String> {
        Ok(Successors::Unknown)
    }
}

/// It is always there.
pub(super) struct Fixed(pub(super) Endpoint);

#[async_trait]
impl Find for Fixed {
    async fn master(&self) -> Result<(Endpoint, Successors), String> {
        Ok((self.0.clone(), Successors::Unknown))
    }
}

/// A connection in use.
pub(super) struct Live {
    pub(super) number: u64,
    pub(super) at: Endpoint,
    connection: Connection,
    /// How many replicas are reckoned with.
    pub(super) replicas: AtomicU8,
}

struct State {
    live: ArcSwapOption<Live>,
    /// Why there is none.
    why: ArcSwap<String>,
    broken: Notify,
    connected: Notify,
    numbers: AtomicU64,
}

/// The connection and the task that keeps it.
pub(super) struct Node {
    state: Arc<State>,
    keeper: JoinHandle<()>,
    writers: Writers,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Node {
    /// Starts to connect. Whoever comes too early is told so.
    pub(super) fn start(find: impl Find, dial: &Arc<Dial>, pulse: Duration, durability: Durability) -> Self {
        let state = Arc::new(State {
            live: ArcSwapOption::empty(),
            why: ArcSwap::from_pointee("not connected yet".to_owned()),
            broken: Notify::new(),
            connected: Notify::new(),
            numbers: AtomicU64::new(1),
        });
        let keeper = tokio::spawn(keep(Arc::clone(&state), find, Arc::clone(dial), pulse));
        Self {
            state,
            keeper,
            writers: Writers::new(Arc::clone(dial), durability),
        }
    }

    /// Waits for a connection, at most `patience`.
    pub(super) async fn settle(&self, patience: Duration) {
        let connected = self.state.connected.notified();
        if self.state.live.load().is_none() {
            let _ = timeout(patience, connected).await;
        }
    }

    /// Sends commands in one round trip; each has an answer of its own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no connection, or it broke.
    pub(super) async fn exchange(&self, pipeline: &Pipeline) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let live = self.live()?;
        let answers = with_scripts(&live.connection, pipeline).await;
        let answers = answers.map_err(|e| self.broke(&live, &e))?;
        self.watch_answers(&live, &answers);
        Ok(answers)
    }

    /// The same, and comes back only when what was written is as durable as configured.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], also when the write was done and did not get that far in time.
    pub(super) async fn durable(&self, pipeline: &Pipeline) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let live = self.live()?;
        if !self.writers.waits(&live) {
            return self.exchange(pipeline).await;
        }
        let answers = self.writers.write(&live, pipeline).await;
        let (answers, reached) = answers.map_err(|e| self.broke(&live, &e))?;
        self.watch_answers(&live, &answers);
        // What the server refused needs no replica.
        if answers.iter().all(Result::is_ok) {
            reached.map_err(StoreError::Unavailable)?;
        }
        Ok(answers)
    }

    /// Whether a durable write has anything to wait for; without a connection nobody knows.
    pub(super) fn waits(&self) -> bool {
        let live = self.state.live.load();
        live.as_ref().is_none_or(|live| self.writers.waits(live))
    }

    /// How many replicas are reckoned with.
    pub(super) fn replicas(&self) -> u8 {
        let live = self.state.live.load();
        live.as_ref()
            .map_or(0, |live| live.replicas.load(Ordering::Relaxed))
    }

    /// Where it is connected to.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        self.state.live.load().as_ref().map(|live| live.at.clone())
    }

    /// Which connection is in use, counted from the first.
    pub(super) fn number(&self) -> Option<u64> {
        self.state.live.load().as_ref().map(|live| live.number)
    }

    /// The node said that it is no master: drop it.
    pub(super) fn demoted(&self) -> StoreError {
        let why = NOT_MASTER.to_owned();
        if let Some(live) = self.state.live.load_full() {
            self.state.drop_live(live.number, &why);
        }
        StoreError::Unavailable(why)
    }

    fn live(&self) -> Result<Arc<Live>, StoreError> {
        self.state.live.load_full().ok_or_else(|| {
            let why = self.state.why.load();
            StoreError::Unavailable(format!("no connection to Redis: {why}"))
        })
    }

    fn broke(&self, live: &Live, error: &redis::RedisError) -> StoreError {
        let (fault, fatal) = judge(error);
        if fatal {
            self.state.drop_live(live.number, &error.to_string());
        }
        fault
    }

    /// An answer that no master in service gives drops the connection.
    fn watch_answers(&self, live: &Live, answers: &[RedisResult<Value>]) {
        for error in answers.iter().filter_map(|a| a.as_ref().err()) {
            if judge(error).1 {
                self.state.drop_live(live.number, &error.to_string());
            }
        }
    }
}

impl State {
    fn drop_live(&self, number: u64, why: &str) {
        let current = self.live.load();
        if current.as_ref().is_some_and(|live| live.number == number) {
            let found = self.live.compare_and_swap(&current, None);
            if let Some(live) = found.as_ref().filter(|found| found.number == number) {
                tracing::warn!(at = %live.at, why, "connection to Redis dropped");
                self.why.store(Arc::new(why.to_owned()));
                self.broken.notify_one();
            }
        }
    }
}

/// Sends; scripts that the server forgot are loaded again.
pub(super) async fn with_scripts(connection: &Connection, pipeline: &Pipeline) -> RedisResult<Answers> {
    let answers = connection.send(pipeline).await?;
    let mut errors = answers.iter().filter_map(|a| a.as_ref().err());
    if !errors.any(is_unknown_script) {
        return Ok(answers);
    }
    load(connection).await?;
    connection.send(pipeline).await
}

async fn load(connection: &Connection) -> RedisResult<()> {
    let mut pipeline = Pipeline::new();
    for command in script::all() {
        pipeline.add_command(command);
    }
    let loaded = connection.send(&pipeline).await?;
    loaded.into_iter().try_for_each(|a| a.map(|_| ()))
}

const NOT_MASTER: &str = "the node is not the master";

/// Whether an answer to `ROLE` is a master's.
pub(crate) fn is_master(role: &Value) -> bool {
    let Value::Array(parts) = role else {
        return false;
    };
    matches!(parts.first(), Some(Value::BulkString(name)) if name.as_slice() == b"master")
}

/// How many replicas are in step with a master that answers `ROLE` so.
fn replicas(role: &Value) -> u8 {
    let Value::Array(parts) = role else { return 0 };
    match parts.last() {
        Some(Value::Array(each)) => u8::try_from(each.len()).unwrap_or(u8::MAX),
        _ => 0,
    }
}

/// Fails for a node that is no master, and says how many replicas it has.
pub(super) async fn ask_role(connection: &Connection) -> Result<u8, String> {
    let role = connection.one(&redis::cmd("ROLE")).await;
    let role = role.map_err(|e| e.to_string())?;
    if is_master(&role) {
        Ok(replicas(&role))
    } else {
        Err(NOT_MASTER.to_owned())
    }
}

/// Connects to the master, if the node says itself that it is one and nobody knows better by then: a former master that
/// was hung takes a connection for a while before it answers, and for a while more it believes that it still is one.
async fn greet(find: &impl Find, dial: &Dial) -> Result<(Endpoint, Connection, Reckoned), String> {
    let (at, _) = find.master().await?;
    let greeted = async {
        let connection = dial.open(&at, Duration::ZERO).await;
        let connection = connection.map_err(|e| e.to_string())?;
        let connected = ask_role(&connection).await?;
        load(&connection).await.map_err(|e| e.to_string())?;
        match find.master().await? {
            (same, successors) if same == at => {
                let reckoned = Reckoned::new(connected, successors);
                Ok::<_, String>((connection, reckoned))
            }
            (other, _) => Err(format!("the master is {other} by now")),
        }
    };
    let greeted = greeted.await;
    let (connection, reckoned) = greeted.map_err(|fault| format!("{at}: {}", fault.trim()))?;
    Ok((at, connection, reckoned))
}

/// Connects for ever.
async fn keep(state: Arc<State>, find: impl Find, dial: Arc<Dial>, pulse: Duration) {
    let mut wait = BACK_OFF.0;
    let mut last: Option<(Endpoint, Reckoned)> = None;
    loop {
        match greet(&find, &dial).await {
            Ok((at, connection, mut reckoned)) => {
                wait = BACK_OFF.0;
                if let Some((last, before)) = &last {
                    if *last == at {
                        reckoned = reckoned.or(*before);
                    }
                    metrics::counter!("reentry_store_reconnects_total").increment(1);
                    if *last != at {
                        metrics::counter!("reentry_store_failovers_total").increment(1);
                        tracing::warn!(from = %last, to = %at, "Redis has another master");
                    }
                }
                let number = state.numbers.fetch_add(1, Ordering::Relaxed);
                let live = Arc::new(Live {
                    number,
                    at: at.clone(),
                    connection,
                    replicas: AtomicU8::new(reckoned.many),
                });
                state.live.store(Some(Arc::clone(&live)));
                state.connected.notify_waiters();
                tracing::info!(%at, "connected to Redis");
                watch(&state, &live, &mut reckoned, &find, pulse).await;
                last = Some((at, reckoned));
            }
            Err(why) => {
                state.why.store(Arc::new(why));
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(BACK_OFF.1);
            }
        }
    }
}

/// Stays until the connection is dropped.
async fn watch(state: &State, live: &Live, reckoned: &mut Reckoned, find: &impl Find, pulse: Duration) {
    loop {
        let current = state.live.load();
        if current
            .as_ref()
            .is_none_or(|current| current.number != live.number)
        {
            return;
        }
        drop(current);
        if timeout(pulse, state.broken.notified()).await.is_ok() {
            continue;
        }
        let sound = match ask_role(&live.connection).await {
            Ok(connected) => find.confirm(&live.at).await.map(|successors| {
                reckoned.seen(connected, successors, Instant::now());
                live.replicas.store(reckoned.many, Ordering::Relaxed);
            }),
            Err(why) => Err(why),
        };
        if let Err(why) = sound {
            state.drop_live(live.number, &why);
        }
    }
}
