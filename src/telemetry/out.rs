//! Where log lines go: standard error, many lines at a time.
//!
//! One system call for each line costs more than the line. Lines are gathered for a moment and written together by a
//! thread of their own; a warning or an error takes everything before it along at once, so that what explains an end is
//! never lost. When whoever reads is slower than we are, the writer waits for it: no line is dropped and nothing grows.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long lines are gathered.
const MOMENT: Duration = Duration::from_millis(20);
/// From here on the writer of a line writes all of them itself.
const MOST: usize = 64 * 1024;

/// The lines of this moment. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Out(Arc<Gathered>);

#[derive(Debug, Default)]
struct Gathered {
    lines: Mutex<Vec<u8>>,
    some: Condvar,
}

impl Gathered {
    fn lines(&self) -> MutexGuard<'_, Vec<u8>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes and forgets them. The lock is held meanwhile, so that lines stay in order. A reader that is gone is no
/// reason to end.
fn write(lines: &mut Vec<u8>) {
    if !lines.is_empty() {
        let _ = io::stderr().lock().write_all(lines);
        lines.clear();
    }
}

impl Out {
    /// Starts the thread that writes. Without one every line is written at once.
    #[must_use]
    pub fn start() -> Self {
        let out = Self::default();
        let gathered = Arc::clone(&out.0);
        let writer = std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(64 * 1024);
        let started = writer.spawn(move || {
            loop {
                let lines = gathered.lines();
                let waited = gathered.some.wait_while(lines, |lines| lines.is_empty());
                drop(waited.unwrap_or_else(PoisonError::into_inner));
                std::thread::park_timeout(MOMENT);
                write(&mut gathered.lines());
            }
        });
        if started.is_err() {
            tracing::warn!("no thread for log lines");
        }
        out
    }

    /// Writes what has been gathered.
    pub fn flush(&self) {
        write(&mut self.0.lines());
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
        let mut lines = self.gathered.lines();
        let first = lines.is_empty();
        lines.extend_from_slice(octets);
        if self.urgent || lines.len() >= MOST {
            write(&mut lines);
        } else if first {
            self.gathered.some.notify_one();
        }
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
