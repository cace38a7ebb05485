//! Child processes that never outlive the test process.
//!
//! `setpriv --pdeathsig KILL` asks the kernel to kill the child when the *thread* that started it ends,
//! so one thread that lives as long as the process starts them all; a test that is itself killed leaves
//! nothing behind.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

type Order = (Command, Sender<io::Result<Child>>);

/// A command for `program` that dies with the test process once it is given to [`spawn`].
pub fn tied(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts a command made by [`tied`].
pub fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let orders = SPAWNER.get_or_init(|| {
        let (sender, receiver) = channel::<Order>();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (mut command, answer) in receiver {
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread that starts children");
        Mutex::new(sender)
    });
    let (sender, receiver) = channel();
    orders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, sender))
        .map_err(|_| io::Error::other("the spawner thread is gone"))?;
    receiver
        .recv()
        .map_err(|_| io::Error::other("the spawner thread is gone"))?
}

/// Sends a signal by name (`TERM`, `STOP`, `CONT`) to a child.
pub fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    // The shell's own `kill`: a bare machine need not have procps.
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &pid])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "kill -s {name} {pid}"
    );
}

#[cfg(test)]
mod tests {
    use super::{spawn, tied};

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut child = std::thread::spawn(|| {
            let mut command = tied("sleep");
            command.arg("30");
            spawn(command).unwrap()
        })
        .join()
        .unwrap();
        crate::clock::pause(std::time::Duration::from_millis(100));
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
