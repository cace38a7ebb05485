//! The wall clock, the environment and the background runtime of the tests.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

/// Milliseconds since 1970, UTC.
#[expect(
    clippy::disallowed_methods,
    reason = "a test plays the outside world, whose clock is the real one"
)]
pub fn now_ms() -> u64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(elapsed.expect("a clock after 1970").as_millis())
        .expect("a clock before the year 584556019")
}

/// Seconds since 1970, UTC.
pub fn now_s() -> u64 {
    now_ms() / 1000
}

/// An environment variable of the test run; absent and empty are the same.
#[expect(
    clippy::disallowed_methods,
    reason = "the test run is configured by its environment"
)]
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Blocks this thread; for the synchronous parts of starting and stopping servers.
#[expect(
    clippy::disallowed_methods,
    reason = "only short waits for a child process, outside any hot path"
)]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Asks `probe` every 20 ms until it gives a value, or panics after `timeout` naming `what`.
pub async fn eventually<T, F>(what: &str, timeout: Duration, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(start.elapsed() < timeout, "{what}: not within {timeout:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The runtime that mailboxes and proxies live in, so that a test which blocks its own does not stop them.
pub(crate) fn background() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("test-support")
            .enable_all()
            .build()
            .expect("a runtime for the test servers")
    })
}
