//! The built `reentry` binary as a child process.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{children, clock};

/// How to start the binary. Pass `env!("CARGO_BIN_EXE_reentry")` from the integration test.
#[derive(Debug)]
pub struct Launch {
    binary: PathBuf,
    directory: TempDir,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
}

/// How a run to the end went.
#[derive(Debug)]
pub struct Finished {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// The exit code; a death by signal panics.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("ended by a signal: {self:?}"))
    }
}

impl Launch {
    /// A launch with an empty working directory of its own.
    pub fn new(binary: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("reentry-run-")
            .tempdir()
            .expect("a directory");
        Self {
            binary: binary.into(),
            directory,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<I: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = I>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// One environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Writes a file into the working directory (relative path, folders are made).
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let target = self.path(path);
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        std::fs::write(&target, content).expect("a file in the working directory");
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(target, own).expect("a file of its owner");
        self
    }

    /// Where a file of the working directory is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Starts it and returns at once.
    pub fn start(self) -> Process {
        let mut process = Process {
            launch: self,
            child: None,
        };
        process.launch_child();
        process
    }

    /// Runs it to the end; kills it and panics when that takes longer than `timeout`.
    pub fn run(self, timeout: Duration) -> Finished {
        let mut process = self.start();
        let status = process.wait_exit(timeout);
        Finished {
            status,
            stdout: process.stdout(),
            stderr: process.stderr(),
        }
    }
}

/// A started binary; it is killed when this value is dropped.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    child: Option<Child>,
}

impl Process {
    /// The working directory.
    pub fn directory(&self) -> &Path {
        self.launch.directory.path()
    }

    /// Everything it has written to standard output, over all restarts.
    pub fn stdout(&self) -> String {
        self.read("stdout.log")
    }

    /// Everything it has written to standard error, over all restarts.
    pub fn stderr(&self) -> String {
        self.read("stderr.log")
    }

    /// Both outputs, for messages of failure and for searching.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout(), self.stderr())
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| child.try_wait().expect("its state").is_none())
    }

    /// Waits for a line that contains `text`, on either output, and gives it.
    pub async fn wait_line(&mut self, text: &str, timeout: Duration) -> String {
        let start = Instant::now();
        loop {
            let running = self.is_running();
            if let Some(line) = self.output().lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(running, "it ended before it printed {text:?}:\n{}", self.output());
            assert!(
                start.elapsed() < timeout,
                "no line with {text:?} in {timeout:?}:\n{}",
                self.output()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until `GET url` answers 2xx.
    pub async fn wait_http(&mut self, url: &str, timeout: Duration) {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(2))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("an HTTP client");
        let start = Instant::now();
        loop {
            let last = match client.get(url).send().await {
                Ok(response) if response.status().is_success() => return,
                Ok(response) => format!(
                    "{} {}",
                    response.status(),
                    response.text().await.unwrap_or_default()
                ),
                Err(error) => error.to_string(),
            };
            assert!(
                self.is_running(),
                "it ended before {url} was ready:\n{}",
                self.output()
            );
            assert!(
                start.elapsed() < timeout,
                "{url} not ready in {timeout:?}: {last}\n{}",
                self.output()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self, timeout: Duration) -> ExitStatus {
        children::signal(self.child.as_ref().expect("a running process"), "TERM");
        self.wait_exit(timeout)
    }

    /// SIGINT, then waits for the end.
    pub fn interrupt(&mut self, timeout: Duration) -> ExitStatus {
        children::signal(self.child.as_ref().expect("a running process"), "INT");
        self.wait_exit(timeout)
    }

    /// Another signal, by name: `STOP`, `CONT`, `HUP`.
    pub fn signal(&self, name: &str) {
        children::signal(self.child.as_ref().expect("a running process"), name);
    }

    /// SIGKILL: no drain, no last word.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().expect("it ends");
        }
    }

    /// Starts it again with the same arguments, environment and directory.
    pub fn restart(&mut self) {
        self.kill9();
        self.launch_child();
    }

    /// Waits for it to end by itself; kills it and panics when it does not.
    pub fn wait_exit(&mut self, timeout: Duration) -> ExitStatus {
        let start = Instant::now();
        let mut child = self.child.take().expect("a started process");
        while start.elapsed() < timeout {
            if let Some(status) = child.try_wait().expect("its state") {
                return status;
            }
            clock::pause(Duration::from_millis(10));
        }
        let _ = child.kill();
        let status = child.wait().expect("it ends");
        assert!(
            status.signal().is_none(),
            "it did not end in {timeout:?}:\n{}",
            self.output()
        );
        status
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.launch.path(name)).unwrap_or_default()).into_owned()
    }

    fn launch_child(&mut self) {
        let open = |name: &str| {
            File::options()
                .create(true)
                .append(true)
                .open(self.launch.path(name))
                .expect("an output file")
        };
        let mut command = children::tied(&self.launch.binary);
        command
            .args(&self.launch.arguments)
            .envs(self.launch.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.launch.directory.path())
            .stdin(Stdio::null())
            .stdout(open("stdout.log"))
            .stderr(open("stderr.log"));
        self.child = Some(children::spawn(command).expect("the reentry binary starts"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.launch.binary.display(), self.output());
        }
        self.kill9();
    }
}

#[cfg(test)]
mod tests {
    use super::Launch;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn a_run_gives_both_outputs_and_the_code() {
        let done = Launch::new("sh")
            .args(["-c", "echo out; echo err >&2; cat f; exit 3"])
            .file("f", "x")
            .run(LONG);
        assert_eq!(
            (done.code(), done.stdout.as_str(), done.stderr.as_str()),
            (3, "out\nx", "err\n")
        );
    }

    #[tokio::test]
    async fn a_process_is_watched_stopped_and_started_again() {
        let script = "echo ready $MARK; trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done";
        let mut process = Launch::new("sh").args(["-c", script]).env("MARK", "m1").start();
        assert_eq!(process.wait_line("ready", LONG).await, "ready m1");
        assert!(process.terminate(LONG).success());
        process.restart();
        process.wait_line("bye", LONG).await;
        process.kill9();
        assert!(!process.is_running());
    }
}
