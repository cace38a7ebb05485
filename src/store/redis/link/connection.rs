//! One connection of the client's, over which many ask at the same time.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value};

/// Answers in the order of the commands.
pub(super) type Answers = Vec<RedisResult<Value>>;

/// A connection. Clones are the same; it ends with the last of them.
#[derive(Clone)]
pub(super) struct Connection(MultiplexedConnection);

impl From<MultiplexedConnection> for Connection {
    fn from(connection: MultiplexedConnection) -> Self {
        Self(connection)
    }
}

impl Connection {
    /// Sends commands in one go; each has an answer of its own.
    ///
    /// # Errors
    /// When the connection has ended, or ends, or there is no answer in time.
    pub(super) async fn send(&self, commands: &Pipeline) -> RedisResult<Answers> {
        let mut connection = self.0.clone();
        let answers = connection.send_packed_commands(commands, 0, commands.len());
        Ok(answers.await?.into_iter().map(Value::extract_error).collect())
    }

    /// Sends one command.
    ///
    /// # Errors
    /// As [`Connection::send`], and what the server says.
    pub(super) async fn one(&self, command: &Cmd) -> RedisResult<Value> {
        self.0.clone().send_packed_command(command).await?.extract_error()
    }
}
