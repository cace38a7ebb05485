//! Starting a Keycloak from its distribution, once for the whole test process.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{ADMIN, DEFAULT_VERSION};
use crate::clock::{env, pause};
use crate::{children, free_port};

const READY_WITHIN: Duration = Duration::from_secs(180);

struct Server {
    base: String,
    // Kept so that the directory and the handle live as long as the process.
    _child: Child,
    _directory: TempDir,
}

/// The base URL of this process's own server, started at the first call.
pub(super) fn shared() -> String {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start).base.clone()
}

fn start() -> Server {
    let home = distribution();
    let directory = tempfile::Builder::new()
        .prefix("reentry-keycloak-")
        .tempdir()
        .expect("a directory");
    // The distribution is shared and stays clean: the database and the build go into a copy.
    let copied = Command::new("cp")
        .arg("-r")
        .arg(home.join("."))
        .arg(directory.path())
        .status();
    assert!(
        copied.is_ok_and(|status| status.success()),
        "a copy of {}",
        home.display()
    );
    let (port, management) = (free_port(), free_port());
    let log_path = directory.path().join("keycloak.log");
    let log = File::create(&log_path).expect("a log file");
    let mut command = children::tied(directory.path().join("bin/kc.sh"));
    command
        .args(["start-dev", "--http-host=127.0.0.1", "--health-enabled=true"])
        .arg(format!("--http-port={port}"))
        .arg(format!("--http-management-port={management}"))
        .env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMIN.0)
        .env("KC_BOOTSTRAP_ADMIN_PASSWORD", ADMIN.1)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log);
    let mut child = children::spawn(command).expect("kc.sh starts");
    let start = Instant::now();
    while !ready(management) {
        let log = || std::fs::read_to_string(&log_path).unwrap_or_default();
        assert!(
            child.try_wait().expect("its state").is_none(),
            "Keycloak ended:\n{}",
            log()
        );
        assert!(
            start.elapsed() < READY_WITHIN,
            "Keycloak not ready in {READY_WITHIN:?}:\n{}",
            log()
        );
        pause(Duration::from_millis(200));
    }
    Server {
        base: format!("http://127.0.0.1:{port}"),
        _child: child,
        _directory: directory,
    }
}

fn ready(management: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", management))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(" 200 "))
}

/// Where `scripts/install` unpacked the distribution.
fn distribution() -> PathBuf {
    let version = env("KEYCLOAK_VERSION").unwrap_or_else(|| DEFAULT_VERSION.to_owned());
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let home = checkout.join(".cache").join(format!("keycloak-{version}"));
    assert!(
        home.join("bin/kc.sh").is_file(),
        "no Keycloak {version} in .cache/: run scripts/install"
    );
    home
}
