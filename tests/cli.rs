//! The command line as people and scripts meet it: the real program, its output and its exit codes.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use reentry_test_support::mail::MailSink;
use reentry_test_support::redis::Redis;
use tempfile::TempDir;

fn reentry(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reentry"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// A directory with the default configuration and its secrets.
fn installed() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let default = out(&reentry(directory.path(), &["config", "default"]));
    fs::write(directory.path().join("reentry.yaml"), default).unwrap();
    for name in ["keycloak-admin-secret", "keycloak-broker-secret", "bank-secret"] {
        let path = directory.path().join(name);
        fs::write(&path, "a-long-enough-secret-for-tests").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    directory
}

#[test]
fn version_says_the_commit() {
    let directory = tempfile::tempdir().unwrap();
    let shown = out(&reentry(directory.path(), &["--version"]));
    let expected = format!("reentry {} (", env!("CARGO_PKG_VERSION"));
    assert!(shown.starts_with(&expected), "{shown}");
    let commit = shown.trim_start_matches(&expected).trim_end_matches(")\n");
    assert!(
        commit == "unknown" || commit.chars().all(|c| c.is_ascii_hexdigit()),
        "{shown}"
    );
}

#[test]
fn help_teaches_by_examples_and_names_the_exit_codes() {
    let directory = tempfile::tempdir().unwrap();
    let shown = out(&reentry(directory.path(), &["--help"]));
    for word in [
        "serve",
        "demo",
        "config",
        "policy",
        "doctor",
        "wire",
        "keys",
        "store",
        "Examples:",
        "Exit codes:",
    ] {
        assert!(shown.contains(word), "{word}");
    }
    for command in [
        vec!["serve"],
        vec!["demo"],
        vec!["config", "check"],
        vec!["config", "schema"],
        vec!["policy", "check"],
        vec!["doctor"],
        vec!["wire", "keycloak"],
        vec!["keys", "create"],
        vec!["store", "init"],
    ] {
        let with_help: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let shown = out(&reentry(directory.path(), &with_help));
        assert!(shown.contains("Example"), "{command:?}: {shown}");
    }
}

#[test]
fn output_to_a_pipe_has_no_colours() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [&["--help"][..], &["config", "check"], &["nonsense"]] {
        let output = reentry(directory.path(), arguments);
        assert!(
            !out(&output).contains('\u{1b}') && !err(&output).contains('\u{1b}'),
            "{arguments:?}"
        );
    }
}

#[test]
fn wrong_arguments_end_with_2() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(code(&reentry(directory.path(), &["srve"])), 2);
    assert!(err(&reentry(directory.path(), &["srve"])).contains("serve"));
}

#[test]
fn the_schema_is_the_one_that_is_committed() {
    let directory = tempfile::tempdir().unwrap();
    let printed = out(&reentry(directory.path(), &["config", "schema"]));
    let committed = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/config/config.schema.json"
    ))
    .unwrap();
    assert_eq!(printed, committed);
}

#[test]
fn the_printed_default_can_be_used_once_it_is_filled_in() {
    let directory = installed();
    let output = reentry(directory.path(), &["config", "check"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("ok: reentry.yaml can be used (policy "));
    assert!(err(&output).contains("warning: "));
}

#[test]
fn a_refused_configuration_ends_with_3_and_shows_every_fault() {
    let directory = installed();
    let path = directory.path().join("reentry.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replace("realm: customers", "real: customers")
            .replace("from: notices@example.com", "from: nobody"),
    )
    .unwrap();
    for arguments in [
        &["config", "check"][..],
        &["serve"],
        &["doctor"],
        &["keys", "list"],
        &["store", "init"],
    ] {
        let output = reentry(directory.path(), arguments);
        assert_eq!(code(&output), 3, "{arguments:?}: {}", err(&output));
        let shown = err(&output);
        assert!(
            shown.contains("refused: reentry.yaml: the configuration has 3 faults:"),
            "{shown}"
        );
        assert!(
            shown.contains("did you mean `realm`?") && shown.contains("not an e-mail address"),
            "{shown}"
        );
    }
    let output = reentry(directory.path(), &["config", "check", "--json"]);
    assert_eq!(code(&output), 3);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["faults"].as_array().unwrap().len(), 3);
    assert!(
        answer["faults"][0]["place"]
            .as_str()
            .unwrap()
            .starts_with("line ")
    );
}

#[test]
fn a_missing_configuration_says_how_to_begin_one() {
    let directory = tempfile::tempdir().unwrap();
    let output = reentry(directory.path(), &["serve"]);
    assert_eq!(code(&output), 3);
    assert!(
        err(&output).contains("begin one with `reentry config default`"),
        "{}",
        err(&output)
    );
}

#[test]
fn policy_check_shows_the_table_and_an_accounts_tier() {
    let directory = tempfile::tempdir().unwrap();
    let policy = out(&reentry(directory.path(), &["policy", "default"]));
    fs::write(directory.path().join("policy.yaml"), &policy).unwrap();
    let tier = |facts: &[&str]| {
        let arguments: Vec<&str> = ["policy", "check", "policy.yaml", "--json"]
            .iter()
            .chain(facts)
            .copied()
            .collect();
        let output = reentry(directory.path(), &arguments);
        assert_eq!(code(&output), 0, "{}", err(&output));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["chosen"].as_str().map(str::to_owned)
    };
    assert_eq!(tier(&["--role", "customer"]).as_deref(), Some("consumer"));
    assert_eq!(tier(&["--role", "reentry-b2b-user"]).as_deref(), Some("b2b_user"));
    assert_eq!(
        tier(&["--role", "realm-management/manage-users"]).as_deref(),
        Some("b2b_admin")
    );
    assert_eq!(
        tier(&["--role", "reentry-high-assurance", "--role", "reentry-admin"]).as_deref(),
        Some("high_assurance")
    );
    assert_eq!(tier(&[]), None);
    let shown = out(&reentry(directory.path(), &["policy", "check", "policy.yaml"]));
    assert!(
        shown.contains("all_replaced            30d read       30d read       30d read       30d none"),
        "{shown}"
    );
    fs::write(
        directory.path().join("policy.yaml"),
        policy.replace("rolling: true", "roling: true"),
    )
    .unwrap();
    let output = reentry(directory.path(), &["policy", "check", "policy.yaml"]);
    assert_eq!(code(&output), 3);
    assert!(
        err(&output).contains("`roling` is unknown; did you mean `rolling`?"),
        "{}",
        err(&output)
    );
}

#[test]
fn keys_are_made_listed_and_retired() {
    let directory = installed();
    let run = |arguments: &[&str]| reentry(directory.path(), arguments);
    assert_eq!(code(&run(&["keys", "create"])), 0);
    let listed =
        || -> serde_json::Value { serde_json::from_slice(&run(&["keys", "list", "--json"]).stdout).unwrap() };
    let mut algorithms: Vec<String> = listed()
        .as_array()
        .unwrap()
        .iter()
        .map(|k| k["algorithm"].as_str().unwrap().to_owned())
        .collect();
    algorithms.sort();
    assert_eq!(algorithms, ["ES256", "RS256"]);
    assert!(out(&run(&["keys", "create"])).contains("nothing is missing"));

    let first = listed()
        .as_array()
        .unwrap()
        .iter()
        .find(|k| k["algorithm"] == "ES256")
        .unwrap()["kid"]
        .clone();
    let refused = run(&["keys", "retire", first.as_str().unwrap()]);
    assert_eq!(code(&refused), 1);
    assert!(
        err(&refused).contains("there is no current ES256 key"),
        "{}",
        err(&refused)
    );
    assert_eq!(code(&run(&["keys", "create", "--algorithm", "es256"])), 0);
    let waiting = listed()
        .as_array()
        .unwrap()
        .iter()
        .filter(|k| k["standing"] == "waits")
        .count();
    assert_eq!(waiting, 1, "a successor is published before it signs");
    assert_eq!(
        code(&run(&["keys", "create", "--algorithm", "ES256", "--at-once"])),
        0
    );
    assert_eq!(code(&run(&["keys", "retire", first.as_str().unwrap()])), 0);
    let shown = out(&run(&["keys", "list"]));
    assert!(shown.contains("verifies only"), "{shown}");
    let unknown = run(&["keys", "create", "--algorithm", "HS256"]);
    assert_eq!(code(&unknown), 1);
    assert!(err(&unknown).contains("none of RS256, ES256, EdDSA"));
}

#[test]
fn completions_are_printed_for_every_shell() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = out(&reentry(directory.path(), &["completions", shell]));
        assert!(script.contains("reentry"), "{shell}");
    }
}

#[test]
fn doctor_says_what_to_do_about_everything_at_once_and_ends_with_4() {
    let directory = installed();
    let closed = "REENTRY__STORE__URL";
    let output = Command::new(env!("CARGO_BIN_EXE_reentry"))
        .args(["doctor", "--json"])
        .current_dir(directory.path())
        .env_clear()
        .env(closed, "redis://127.0.0.1:1/0")
        .env("REENTRY__UPSTREAMS__0__URL", "http://127.0.0.1:1")
        .env("REENTRY__MAIL__HOST", "127.0.0.1")
        .env("REENTRY__MAIL__PORT", "1")
        .env("REENTRY__SERVER__ISSUER", "http://127.0.0.1:1")
        .output()
        .unwrap();
    assert_eq!(code(&output), 4, "{}", err(&output));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = answer["findings"].as_array().unwrap();
    for part in ["keys", "store", "upstream keycloak", "mail"] {
        assert!(
            findings.iter().any(|f| f["part"] == part && f["level"] == "bad"),
            "{part}: {answer}"
        );
    }
    assert!(
        findings
            .iter()
            .any(|f| f["part"] == "issuer" && f["level"] == "warn"),
        "{answer}"
    );
    assert!(
        findings
            .iter()
            .filter(|f| f["level"] == "bad")
            .all(|f| !f["text"].as_str().unwrap().is_empty())
    );
}

#[test]
fn wire_without_a_credential_or_a_terminal_says_where_to_put_it() {
    let directory = installed();
    let output = reentry(directory.path(), &["wire", "keycloak"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("--admin-password-file"), "{}", err(&output));
}

/// `doctor` on a real Redis and a real mail server: what it says about a part.
fn examined(
    directory: &Path,
    redis: &Redis,
    mail: &MailSink,
    more: &[&str],
) -> (i32, Vec<(String, String, String)>) {
    let output = Command::new(env!("CARGO_BIN_EXE_reentry"))
        .args(["doctor", "--json"])
        .args(more)
        .current_dir(directory)
        .env_clear()
        .env("REENTRY__STORE__URL", redis.url())
        .env("REENTRY__UPSTREAMS__0__URL", "http://127.0.0.1:1")
        .env("REENTRY__MAIL__HOST", "127.0.0.1")
        .env("REENTRY__MAIL__TLS", "none")
        .env("REENTRY__MAIL__PORT", mail.port().to_string())
        .env("REENTRY__SERVER__ISSUER", "http://127.0.0.1:1")
        .output()
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let word = |f: &serde_json::Value, key: &str| f.get(key).unwrap().as_str().unwrap().to_owned();
    let findings = answer.get("findings").unwrap().as_array().unwrap().iter();
    (
        code(&output),
        findings
            .map(|f| (word(f, "part"), word(f, "level"), word(f, "text")))
            .collect(),
    )
}

fn initialised(directory: &Path, redis: &Redis) {
    let output = Command::new(env!("CARGO_BIN_EXE_reentry"))
        .args(["store", "init"])
        .current_dir(directory)
        .env_clear()
        .env("REENTRY__STORE__URL", redis.url())
        .env("REENTRY__UPSTREAMS__0__URL", "http://127.0.0.1:1")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", err(&output));
}

#[test]
fn doctor_finds_a_sound_redis_keys_and_mail_good_and_sends_only_what_it_is_asked() {
    let (directory, redis, mail) = (installed(), Redis::durable(), MailSink::start());
    assert_eq!(code(&reentry(directory.path(), &["keys", "create"])), 0);
    let (_, before) = examined(directory.path(), &redis, &mail, &[]);
    assert!(
        before
            .iter()
            .any(|(part, level, _)| part == "store" && level == "bad"),
        "no markers yet: {before:?}"
    );
    initialised(directory.path(), &redis);
    let (exit, findings) = examined(directory.path(), &redis, &mail, &[]);
    for part in ["keys", "store", "clock", "mail"] {
        let of_part: Vec<_> = findings.iter().filter(|(p, ..)| p == part).collect();
        assert!(
            !of_part.is_empty() && of_part.iter().all(|(_, level, _)| level == "good"),
            "{part}: {findings:?}"
        );
    }
    assert_eq!(exit, 4, "the identity provider is not there");
    assert!(mail.all().is_empty(), "nothing is sent unasked");
    examined(
        directory.path(),
        &redis,
        &mail,
        &["--send-test-mail", "me@example.com"],
    );
    assert_eq!(mail.to("me@example.com").len(), 1);
}

#[test]
fn doctor_finds_a_redis_that_forgets() {
    let (directory, mail) = (installed(), MailSink::start());
    let redis = Redis::options()
        .arg("--maxmemory-policy")
        .arg("allkeys-lru")
        .start();
    initialised(directory.path(), &redis);
    let (exit, findings) = examined(directory.path(), &redis, &mail, &[]);
    assert_eq!(exit, 4);
    let store: Vec<&String> = findings
        .iter()
        .filter(|(p, l, _)| p == "store" && l == "bad")
        .map(|(.., t)| t)
        .collect();
    assert!(store.iter().any(|t| t.contains("noeviction")), "{store:?}");
    assert!(store.iter().any(|t| t.contains("append")), "{store:?}");
}

/// `serve` that listens, with nobody yet who reads what it says.
#[expect(
    clippy::disallowed_methods,
    reason = "a test that waits for another process may block its thread"
)]
fn serving(
    directory: &Path,
    redis: &Redis,
) -> (std::process::Child, std::net::SocketAddr, std::net::SocketAddr) {
    use std::net::{TcpListener, TcpStream};
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (public, operations) = (free(), free());
    let child = Command::new(env!("CARGO_BIN_EXE_reentry"))
        .arg("serve")
        .current_dir(directory)
        .env_clear()
        .env("REENTRY__STORE__URL", redis.url())
        .env("REENTRY__UPSTREAMS__0__URL", "http://127.0.0.1:1")
        .env("REENTRY__SERVER__ISSUER", format!("http://{public}"))
        .env("REENTRY__SERVER__LISTEN", public.to_string())
        .env("REENTRY__SERVER__OPERATIONS", operations.to_string())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    while TcpStream::connect(operations).is_err() || TcpStream::connect(public).is_err() {
        assert!(begun.elapsed().as_secs() < 30, "it does not listen");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    (child, public, operations)
}

#[test]
fn nobody_who_reads_the_log_stops_nothing_and_what_was_left_out_is_said() {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;
    let (directory, redis) = (installed(), Redis::durable());
    assert_eq!(code(&reentry(directory.path(), &["keys", "create"])), 0);
    initialised(directory.path(), &redis);
    let (mut child, public, operations) = serving(directory.path(), &redis);
    let ask = |at: SocketAddr, path: &str| -> String {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    // More than a pipe and the buffers before it hold.
    let jwks = |end: &str| format!("GET /jwks HTTP/1.1\r\nhost: {public}\r\n{end}\r\n");
    let several = jwks("").repeat(99) + &jwks("connection: close\r\n");
    for _ in 0..30 {
        let mut stream = TcpStream::connect(public).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(several.as_bytes()).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 100);
    }
    assert!(ask(operations, "/live").starts_with("HTTP/1.1 200"));
    let metrics = ask(operations, "/metrics");
    let dropped = metrics
        .lines()
        .find_map(|l| l.strip_prefix("reentry_log_lines_dropped_total "));
    assert!(dropped.is_some_and(|n| n != "0"), "{dropped:?}");
    // Somebody reads again: what is there, and how much is not.
    let mut log = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    // What waited is read before there is more to say.
    reentry_test_support::clock::pause(Duration::from_secs(1));
    let told = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(told.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let log = reader.join().unwrap();
    assert!(log.contains("log lines were left out"), "{} octets", log.len());
    assert!(log.contains("SIGTERM"), "the end is said");
    // What the configuration has to say comes before there is a log.
    for line in log.lines().filter(|line| !line.starts_with("warning: ")) {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test that waits for another process may block its thread"
)]
fn serve_answers_probes_without_its_identity_provider_and_stops_when_told() {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};
    let (directory, redis) = (installed(), Redis::durable());
    assert_eq!(code(&reentry(directory.path(), &["keys", "create"])), 0);
    initialised(directory.path(), &redis);
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (public, operations) = (free(), free());
    let mut child = Command::new(env!("CARGO_BIN_EXE_reentry"))
        .arg("serve")
        .current_dir(directory.path())
        .env_clear()
        .env("REENTRY__STORE__URL", redis.url())
        .env("REENTRY__UPSTREAMS__0__URL", "http://127.0.0.1:1")
        .env("REENTRY__SERVER__ISSUER", format!("http://{public}"))
        .env("REENTRY__SERVER__LISTEN", public.to_string())
        .env("REENTRY__SERVER__OPERATIONS", operations.to_string())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let ask = |path: &str| -> Option<String> {
        let mut stream = TcpStream::connect(operations).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {operations}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    let begun = Instant::now();
    while ask("/live").is_none() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(ask("/live").unwrap().starts_with("HTTP/1.1 200"));
    assert!(
        ask("/ready").unwrap().starts_with("HTTP/1.1 503"),
        "the log was never read"
    );
    assert!(ask("/metrics").unwrap().contains("reentry_unreadable_total 0"));
    let told = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(told.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(
        log.contains(r#""route":"/live""#) && log.contains("SIGTERM"),
        "{log}"
    );
}
