//! One connection: commands out, answers back in the order in which they were sent.
//!
//! Whoever asks writes its commands behind those of the others, and a task of the connection's own sends them all in
//! one go, so that many who ask at the same time cost the server and us one system call. The client's own connection
//! does the same with a message, a copy and a timer for each request and a parser of combinators behind it; a decision
//! is one round trip, so what that costs, each decision would cost (`make bench`). Here a request is two locks, and one
//! timer watches the one that has waited longest.
//!
//! The task ends with the connection, and with it whoever waits; or with the last of those who hold it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

use super::resp::{self, Found};

/// Octets that are read at once. What a long answer needed beyond is given back after it.
const READ: usize = 16 * 1024;
/// The longest answer in octets.
const LONGEST: usize = 256 * 1024 * 1024;
/// Octets that may wait to be sent; whoever comes then is told that the server does not keep up.
const MOST: usize = 16 * 1024 * 1024;

/// Answers in the order of the commands.
pub(super) type Answers = Vec<RedisResult<Value>>;

/// A connection. Clones are the same; it ends with the last of them.
#[derive(Clone)]
pub(super) struct Connection(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    driver: AbortHandle,
    patience: Duration,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    news: AtomicWaker,
}

#[derive(Default)]
struct Queue {
    /// What has not been given to the system yet.
    octets: Vec<u8>,
    /// Who waits for it.
    waiting: VecDeque<Waiting>,
    /// Why the connection has ended.
    ended: Option<RedisError>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits, and what has come so far.
struct Waiting {
    /// `None`: it has been told that it took too long.
    tell: Option<oneshot::Sender<RedisResult<Answers>>>,
    answers: Answers,
    wanted: usize,
    deadline: Instant,
}

impl Connection {
    /// Over this stream; an answer that takes longer than `patience` is an error.
    pub(super) fn over<S>(stream: S, patience: Duration) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shared = Arc::new(Shared::default());
        let driver = Driver {
            stream,
            shared: Arc::clone(&shared),
            writing: Vec::new(),
            written: 0,
            flushed: true,
            reading: vec![0; READ],
            filled: 0,
            under_way: VecDeque::new(),
            timer: None,
        };
        let driver = tokio::spawn(driver).abort_handle();
        Self(Arc::new(Handle {
            shared,
            driver,
            patience,
        }))
    }

    /// Sends commands in one go; each has an answer of its own.
    ///
    /// # Errors
    /// When the connection has ended, or ends, or there is no answer in time.
    pub(super) async fn send(&self, commands: &Pipeline) -> RedisResult<Answers> {
        self.ask(commands.cmd_iter()).await
    }

    /// Sends one command.
    ///
    /// # Errors
    /// As [`Connection::send`], and what the server says.
    pub(super) async fn one(&self, command: &Cmd) -> RedisResult<Value> {
        let mut answers = self.ask(std::iter::once(command)).await?;
        answers.pop().unwrap_or(Ok(Value::Nil))
    }

    async fn ask(&self, commands: impl Iterator<Item = &Cmd>) -> RedisResult<Answers> {
        let shared = &self.0.shared;
        let (tell, told) = oneshot::channel();
        {
            let mut queue = shared.queue();
            if let Some(why) = &queue.ended {
                return Err(why.clone());
            }
            if queue.octets.len() > MOST {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            let mut wanted = 0;
            for command in commands {
                command.write_packed_command(&mut queue.octets);
                wanted += 1;
            }
            if wanted == 0 {
                return Ok(Vec::new());
            }
            queue.waiting.push_back(Waiting {
                tell: Some(tell),
                answers: Vec::with_capacity(wanted),
                wanted,
                deadline: Instant::now() + self.0.patience,
            });
        }
        shared.news.wake();
        told.await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::BrokenPipe).into()))
    }
}

/// What a connection does.
struct Driver<S> {
    stream: S,
    shared: Arc<Shared>,
    writing: Vec<u8>,
    written: usize,
    flushed: bool,
    /// Octets that came; those behind `filled` mean nothing.
    reading: Vec<u8>,
    filled: usize,
    under_way: VecDeque<Waiting>,
    /// Runs while anybody waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.shared.news.register(context.waker());
        let why = match self.work(context) {
            Ok(()) => {
                self.watch(context);
                return Poll::Pending;
            }
            Err(why) => why,
        };
        self.end(&why);
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Sends and receives until neither goes any further.
    fn work(&mut self, context: &mut Context<'_>) -> RedisResult<()> {
        loop {
            let sent = self.send(context)?;
            let received = self.receive(context)?;
            if !sent && !received {
                return Ok(());
            }
        }
    }

    /// Gives what waits to the system. Says whether there was anything that it took.
    fn send(&mut self, context: &mut Context<'_>) -> RedisResult<bool> {
        let mut some = false;
        loop {
            if self.written == self.writing.len() && !self.take() {
                break;
            }
            let rest = self.writing.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(context, rest) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    self.flushed = false;
                    some = true;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
        }
        if !self.flushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(context)
        {
            flushed?;
            self.flushed = true;
        }
        Ok(some)
    }

    /// Takes over what was asked since. Says whether there was anything.
    fn take(&mut self) -> bool {
        self.writing.clear();
        self.written = 0;
        if self.writing.capacity() > MOST / 64 {
            self.writing = Vec::new();
        }
        let mut queue = self.shared.queue();
        std::mem::swap(&mut queue.octets, &mut self.writing);
        self.under_way.append(&mut queue.waiting);
        !self.writing.is_empty()
    }

    /// Reads what came, and hands it out. Says whether anything came.
    fn receive(&mut self, context: &mut Context<'_>) -> RedisResult<bool> {
        let mut some = false;
        loop {
            let mut room = ReadBuf::new(self.reading.get_mut(self.filled..).unwrap_or_default());
            let read = Pin::new(&mut self.stream).poll_read(context, &mut room);
            let count = room.filled().len();
            match read {
                Poll::Pending => return Ok(some),
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Ready(Ok(())) if count == 0 => {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                Poll::Ready(Ok(())) => {}
            }
            self.filled += count;
            some = true;
            self.hand_out()?;
        }
    }

    /// Gives every whole answer to whom it is for, and makes room for more.
    fn hand_out(&mut self) -> RedisResult<()> {
        let (mut at, mut least) = (0, 0);
        while at < self.filled {
            match resp::read(self.reading.get(at..self.filled).unwrap_or_default())? {
                Found::Value(value, used) => {
                    at += used;
                    self.answer(value)?;
                }
                Found::Less(needed) => {
                    least = needed;
                    break;
                }
            }
        }
        self.reading.copy_within(at..self.filled, 0);
        self.filled -= at;
        if self.filled == 0 && self.reading.len() > READ {
            self.reading = vec![0; READ];
        } else if least > self.reading.len() || self.filled == self.reading.len() {
            let more = self.reading.len().saturating_mul(2).max(least);
            if more > LONGEST {
                return Err(io::Error::from(io::ErrorKind::InvalidData).into());
            }
            self.reading.resize(more, 0);
        }
        Ok(())
    }

    fn answer(&mut self, value: Value) -> RedisResult<()> {
        let Some(first) = self.under_way.front_mut() else {
            return Err(RedisError::from((
                redis::ErrorKind::Parse,
                "an answer to nothing that was asked",
            )));
        };
        first.answers.push(match value {
            Value::ServerError(error) => Err(error.into()),
            value => Ok(value),
        });
        if first.answers.len() == first.wanted
            && let Some(Waiting { tell, answers, .. }) = self.under_way.pop_front()
            && let Some(tell) = tell
        {
            // Whoever gave up meanwhile needs no answer.
            let _ = tell.send(Ok(answers));
        }
        Ok(())
    }

    /// Tells those who have waited too long, and keeps the timer on the next of them.
    fn watch(&mut self, context: &mut Context<'_>) {
        loop {
            let next = self.under_way.iter().find(|w| w.tell.is_some());
            let Some(deadline) = next.map(|w| w.deadline) else {
                // Left as it is: the next who asks would only have to set it again.
                return;
            };
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if timer.as_mut().poll(context).is_pending() {
                return;
            }
            let now = Instant::now();
            for late in self.under_way.iter_mut().take_while(|w| w.deadline <= now) {
                if let Some(tell) = late.tell.take() {
                    let _ = tell.send(Err(io::Error::from(io::ErrorKind::TimedOut).into()));
                }
            }
            self.timer = None;
        }
    }

    /// Tells everybody why there will be no answer.
    fn end(&mut self, why: &RedisError) {
        let mut queue = self.shared.queue();
        queue.ended = Some(why.clone());
        self.under_way.append(&mut queue.waiting);
        drop(queue);
        for waiting in self.under_way.drain(..) {
            if let Some(tell) = waiting.tell {
                let _ = tell.send(Err(why.clone()));
            }
        }
    }
}
