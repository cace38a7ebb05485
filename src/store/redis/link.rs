//! One connection that is kept alive, and nobody waits for it.
//!
//! The client's own manager lets callers queue for seconds while the server is away, stays with a node that became
//! a replica, and goes on reading from it. Here a task owns the connection: while there is none, every command
//! fails at once; a command that times out, or an answer that no master in service gives, drops the connection;
//! a new one counts only after the node has said that it is a master. A pulse asks again and again, and each
//! reading asks along with its own commands, since a demoted node answers readings with whatever it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::script;
use crate::ports::store::StoreError;

/// First and longest wait between two attempts to connect.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// How to reach the node that is the master now. A plain server is one address; others ask around first.
#[async_trait]
pub(super) trait Connect: Send + Sync + 'static {
    /// A new connection, with deadlines.
    async fn connect(&self) -> RedisResult<MultiplexedConnection>;
}

/// A connection in use.
struct Live {
    number: u64,
    connection: MultiplexedConnection,
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
pub(super) struct Link {
    state: Arc<State>,
    keeper: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Link {
    /// Starts to connect, and waits for the first connection at most `patience`. Without one it goes on trying.
    pub(super) async fn start(connect: impl Connect, pulse: Duration, patience: Duration) -> Self {
        let state = Arc::new(State {
            live: ArcSwapOption::empty(),
            why: ArcSwap::from_pointee("not connected yet".to_owned()),
            broken: Notify::new(),
            connected: Notify::new(),
            numbers: AtomicU64::new(1),
        });
        let connected = state.connected.notified();
        let keeper = tokio::spawn(keep(Arc::clone(&state), connect, pulse));
        // Whoever comes too early is told so.
        let _ = timeout(patience, connected).await;
        Self {
            state: Arc::clone(&state),
            keeper,
        }
    }

    /// Sends one command.
    pub(super) async fn one(&self, command: &Cmd) -> Result<Value, StoreError> {
        let live = self.live()?;
        let mut connection = live.connection.clone();
        let answer = connection.send_packed_command(command).await;
        let answer = match answer.and_then(Value::extract_error) {
            Err(e) if is_unknown_script(&e) => {
                load(&mut connection).await.map_err(|e| self.fault(&live, &e))?;
                connection
                    .send_packed_command(command)
                    .await
                    .and_then(Value::extract_error)
            }
            answer => answer,
        };
        answer.map_err(|e| self.fault(&live, &e))
    }

    /// Sends several commands of one slot in one round trip; the first fault fails them all.
    pub(super) async fn together(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let answers = self.each(pipeline).await?;
        answers.into_iter().collect()
    }

    /// Sends several commands in one round trip; each has an answer of its own. A cluster would split them.
    pub(super) async fn each(
        &self,
        pipeline: &Pipeline,
    ) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let live = self.live()?;
        let mut connection = live.connection.clone();
        let mut answers = send(&mut connection, pipeline)
            .await
            .map_err(|e| self.fault(&live, &e))?;
        if answers
            .iter()
            .filter_map(|a| a.as_ref().err())
            .any(is_unknown_script)
        {
            load(&mut connection).await.map_err(|e| self.fault(&live, &e))?;
            answers = send(&mut connection, pipeline)
                .await
                .map_err(|e| self.fault(&live, &e))?;
        }
        let judge = |a: RedisResult<Value>| a.map_err(|e| self.fault(&live, &e));
        Ok(answers.into_iter().map(judge).collect())
    }

    /// The node said that it is no master: drop it.
    pub(super) fn demoted(&self) -> StoreError {
        let why = "the node is not the master".to_owned();
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

    /// What an error means, for the caller and for the connection.
    fn fault(&self, live: &Live, error: &RedisError) -> StoreError {
        let (fault, fatal) = judge(error);
        if fatal {
            self.state.drop_live(live.number, &error.to_string());
        }
        fault
    }
}

impl State {
    fn drop_live(&self, number: u64, why: &str) {
        let current = self.live.load();
        if current.as_ref().is_some_and(|live| live.number == number) {
            let found = self.live.compare_and_swap(&current, None);
            if found.as_ref().is_some_and(|found| found.number == number) {
                tracing::warn!(why, "connection to Redis dropped");
                self.why.store(Arc::new(why.to_owned()));
                self.broken.notify_one();
            }
        }
    }
}

/// What an error means: for the caller, and whether the connection is of no use any more.
fn judge(error: &RedisError) -> (StoreError, bool) {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Server(
            ServerErrorKind::ReadOnly
            | ServerErrorKind::MasterDown
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::ClusterDown,
        ) => (StoreError::Unavailable(text), true),
        _ if error.code() == Some("WRONGTYPE") || text.contains("WRONGTYPE") => {
            (StoreError::Unsound(text), false)
        }
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => (StoreError::Unsound(text), true),
        _ => {
            let fatal = error.is_timeout()
                || error.is_io_error()
                || error.is_connection_dropped()
                || error.is_unrecoverable_error();
            (StoreError::Unavailable(text), fatal)
        }
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

async fn send(
    connection: &mut MultiplexedConnection,
    pipeline: &Pipeline,
) -> RedisResult<Vec<RedisResult<Value>>> {
    let answers = connection
        .send_packed_commands(pipeline, 0, pipeline.len())
        .await?;
    Ok(answers.into_iter().map(Value::extract_error).collect())
}

async fn load(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let mut pipeline = Pipeline::new();
    for command in script::all() {
        pipeline.add_command(command);
    }
    let loaded = send(connection, &pipeline).await?;
    loaded.into_iter().try_for_each(|a| a.map(|_| ()))
}

/// Whether an answer to `ROLE` is a master's.
pub(super) fn is_master(role: &Value) -> bool {
    let Value::Array(parts) = role else {
        return false;
    };
    matches!(parts.first(), Some(Value::BulkString(name)) if name.as_slice() == b"master")
}

/// Connects, and takes only a node that says it is a master in service.
async fn greet(connect: &impl Connect) -> Result<MultiplexedConnection, String> {
    let mut connection = connect.connect().await.map_err(|e| e.to_string())?;
    pulse_of(&mut connection).await?;
    load(&mut connection).await.map_err(|e| e.to_string())?;
    Ok(connection)
}

async fn pulse_of(connection: &mut MultiplexedConnection) -> Result<(), String> {
    let role = connection
        .send_packed_command(&redis::cmd("ROLE"))
        .await
        .and_then(Value::extract_error)
        .map_err(|e| e.to_string())?;
    if is_master(&role) {
        Ok(())
    } else {
        Err("the node is not the master".to_owned())
    }
}

/// Connects for ever.
async fn keep(state: Arc<State>, connect: impl Connect, pulse: Duration) {
    let mut wait = BACK_OFF.0;
    loop {
        match greet(&connect).await {
            Ok(connection) => {
                wait = BACK_OFF.0;
                let number = state.numbers.fetch_add(1, Ordering::Relaxed);
                let live = Live {
                    number,
                    connection: connection.clone(),
                };
                state.live.store(Some(Arc::new(live)));
                state.connected.notify_waiters();
                tracing::info!("connected to Redis");
                watch(&state, number, connection, pulse).await;
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
async fn watch(state: &State, number: u64, mut connection: MultiplexedConnection, pulse: Duration) {
    loop {
        let current = state.live.load();
        if current.as_ref().is_none_or(|live| live.number != number) {
            return;
        }
        drop(current);
        if timeout(pulse, state.broken.notified()).await.is_ok() {
            continue;
        }
        if let Err(why) = pulse_of(&mut connection).await {
            state.drop_live(number, &why);
        }
    }
}
