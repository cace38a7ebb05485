//! Where log lines go: standard error, many lines at a time, by one thread that alone touches it.
//!
//! A log line must not stop what it tells of. Whoever reads standard error may be slower than we are, or may have
//! stopped reading; a write then waits for as long as it likes. So a line is only laid into a buffer, which is bounded,
//! and a thread of its own writes what is there: gathered for a moment, since one system call for each line costs more
//! than the line, and at once when a warning or an error is among them. When the buffer is full, lines are left out and
//! counted, those of requests before warnings and errors; a metric says it at once, and a line says how many as soon as
//! lines get through again. The log is no record: that is the audit log, in the store.
//!
//! `tracing-appender` does the same with a channel: an allocation and a system call for each line, and no difference
//! between lines when it is full.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long lines are gathered.
const MOMENT: Duration = Duration::from_millis(20);
/// Octets of lines that wait at most.
const MOST: usize = 256 * 1024;
/// The same when a warning or an error comes.
const MOST_URGENT: usize = 512 * 1024;
/// What the buffers keep when they are empty.
const USUAL: usize = 64 * 1024;
/// How long the last lines may take.
const LAST: Duration = Duration::from_secs(1);

/// The lines of this moment. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Out(Arc<Gathered>);

#[derive(Debug, Default)]
struct Gathered {
    waiting: Mutex<Waiting>,
    some: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// A warning or an error is among them, or the end has come.
    urgent: bool,
    /// Lines that were left out and nobody was told of.
    dropped: u64,
    /// What went before is being written.
    writing: bool,
}

impl Gathered {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays a line into the buffer, or leaves it out.
    fn add(&self, line: &[u8], urgent: bool) {
        let most = if urgent { MOST_URGENT } else { MOST };
        let mut waiting = self.waiting();
        if waiting.lines.len().saturating_add(line.len()) > most {
            waiting.dropped += 1;
            drop(waiting);
            metrics::counter!("reentry_log_lines_dropped_total").increment(1);
            return;
        }
        let wake = waiting.lines.is_empty() || (urgent && !waiting.urgent);
        waiting.lines.extend_from_slice(line);
        waiting.urgent |= urgent;
        drop(waiting);
        if wake {
            self.some.notify_one();
        }
    }

    /// Waits for lines and a moment longer, and takes them; says how many were left out before them.
    fn take(&self, into: &mut Vec<u8>) -> u64 {
        let waiting = self.waiting();
        let waiting = self.some.wait_while(waiting, |w| w.lines.is_empty());
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let gathered = self.some.wait_timeout_while(waiting, MOMENT, |w| !w.urgent);
        let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut waiting.lines, into);
        waiting.urgent = false;
        waiting.writing = true;
        std::mem::take(&mut waiting.dropped)
    }

    fn wrote(&self) {
        self.waiting().writing = false;
        self.written.notify_all();
    }
}

/// Writes for as long as the process lives. A reader that is gone is no reason to end.
fn write(gathered: &Gathered, mut to: File) {
    let mut lines = Vec::new();
    loop {
        let dropped = gathered.take(&mut lines);
        let _ = to.write_all(&lines);
        lines.clear();
        lines.shrink_to(USUAL);
        if dropped > 0 {
            tracing::warn!(
                dropped,
                "log lines were left out: nobody read standard error fast enough"
            );
        }
        gathered.wrote();
    }
}

impl Out {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// When standard error is closed, or the system gives no thread.
    pub fn start() -> io::Result<Self> {
        let out = Self::default();
        let gathered = Arc::clone(&out.0);
        // Of its own, so that nobody who writes there otherwise waits for a lock of ours.
        let to = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let writer = std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(128 * 1024);
        writer.spawn(move || write(&gathered, to))?;
        Ok(out)
    }

    /// Has everything written that has been gathered, if somebody reads it soon.
    pub fn flush(&self) {
        let mut waiting = self.0.waiting();
        waiting.urgent = true;
        self.0.some.notify_one();
        let open = |w: &mut Waiting| w.writing || !w.lines.is_empty();
        // In time or not: that is the end.
        let _ = self.0.written.wait_timeout_while(waiting, LAST, open);
    }
}

/// Takes one line in.
#[derive(Debug)]
pub struct Line<'a> {
    gathered: &'a Gathered,
    urgent: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.gathered.add(octets, self.urgent);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Out {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line {
            gathered: &self.0,
            urgent: true,
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        Line {
            gathered: &self.0,
            urgent: *meta.level() <= Level::WARN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_and_counted_and_warnings_have_room_of_their_own() {
        let gathered = Gathered::default();
        let line = [b'x'; 1024];
        for _ in 0..2 * MOST / line.len() {
            gathered.add(&line, false);
        }
        assert_eq!(gathered.waiting().lines.len(), MOST);
        gathered.add(b"WARN\n", true);
        let mut taken = Vec::new();
        assert_eq!(gathered.take(&mut taken), (MOST / line.len()) as u64);
        assert!(taken.ends_with(b"WARN\n"));
        for _ in 0..2 * MOST_URGENT / line.len() {
            gathered.add(&line, true);
        }
        assert_eq!(gathered.waiting().lines.len(), MOST_URGENT);
    }

    #[test]
    fn an_end_does_not_wait_for_a_reader_for_ever() {
        let (reader, writer) = std::io::pipe().unwrap();
        let out = Out::default();
        let gathered = Arc::clone(&out.0);
        std::thread::spawn(move || write(&gathered, File::from(std::os::fd::OwnedFd::from(writer))));
        for _ in 0..MOST / 1024 {
            out.0.add(&[b'x'; 1024], false);
        }
        out.flush();
        assert!(out.0.waiting().writing, "nobody reads");
        drop(reader);
        out.flush();
        assert!(!out.0.waiting().writing);
    }
}
