//! The running `reentry serve` on each hot path.
//!
//! Everything is real but Keycloak, which is quiet and has no part in what is measured. Sessions and codes are made by
//! the product's own use cases against the same Redis with the same keys, since thousands of log-ins through a browser
//! would take longer than the bench; what is measured comes over HTTP alone. Every access token that a refresh gives is
//! new, so refreshes also make the tokens that nobody has seen yet.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reentry::domain::subject::{Subject, UpstreamId};
use reentry::domain::time::Timestamp;
use reentry::flow::Flow;
use reentry::flow::grant::{self, Asker, Wanted};
use reentry::flow::session::{self, Login};
use reentry::oidc::digest;
use reentry_test_support::ports::free_port;
use reentry_test_support::redis::Redis;

use crate::bare::{READ, ROTATE, SIGN};
use crate::client::{CONNECTIONS, Work, drive};
use crate::measure::{Place, Windows, commands};
use crate::report::{Fact, Report};
use crate::work::{Once, Same, Target, listening, row, window, windows};
use crate::{Options, keycloak, wanted};

const REDIRECT: &str = "http://127.0.0.1:9/callback";
const VERIFIER: &str = "0123456789012345678901234567890123456789-._~abc";
/// Accounts with a session.
const ACCOUNTS: usize = 1024;
/// Codes of one window.
const CODES: usize = 2048;

/// The clients: an API client without ID tokens, two web applications, a gateway that introspects.
const CLIENTS: &str = r#"  - { client_id: api, secret_file: secret, redirect_uris: ["REDIRECT"], scopes: [accounts, payments] }
  - { client_id: web, secret_file: secret, redirect_uris: ["REDIRECT"], scopes: [openid, profile, email, accounts], id_token: ES256 }
  - { client_id: web-rs256, secret_file: secret, redirect_uris: ["REDIRECT"], scopes: [openid, profile, email, accounts] }
  - { client_id: gate, secret_file: secret, redirect_uris: ["REDIRECT"], scopes: [accounts], may_introspect: true }"#;

fn configuration(public: u16, operations: u16, redis: &Redis, keycloak: &str) -> String {
    format!(
        "\
server: {{ issuer: http://127.0.0.1:{public}, listen: 127.0.0.1:{public}, operations: 127.0.0.1:{operations} }}
store: {{ kind: redis, url: {redis}, keys_file: store-keys }}
keys: {{ directory: signing-keys }}
upstreams:
  - id: company
    kind: keycloak
    url: {keycloak}
    realm: company
    admin: {{ client_id: reentry, secret_file: secret }}
    broker: {{ client_id: reentry-broker, secret_file: secret }}
clients:
{clients}
mail: {{ host: 127.0.0.1, port: 9, tls: none, from: bench@example.com, reply_to: help@example.com }}
policy_file: policy.yaml
",
        redis = redis.url(),
        clients = CLIENTS.replace("REDIRECT", REDIRECT),
    )
}

/// The sidecar, ready, with a way to its state.
struct Sidecar {
    target: Target,
    flow: Arc<Flow>,
}

/// Runs a command of the binary to its end.
async fn run(binary: &Path, directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let (binary, directory) = (binary.to_owned(), directory.to_owned());
    let owned: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(binary).args(&owned).current_dir(directory).output()
    })
    .await??;
    if !output.status.success() {
        bail!(
            "reentry {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Measures everything.
pub async fn measure(
    place: &Place,
    settings: Windows,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("reentry-bench-").tempdir()?;
    let sidecar = start(place, &options.binary, directory.path(), report).await?;
    let mut measuring = Measuring {
        sidecar: &sidecar,
        settings,
        options,
        report,
        unseen: Vec::new(),
    };
    let outcome = measuring.everything().await;
    if outcome.is_err() {
        let log = std::fs::read_to_string(directory.path().join("serve.log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        eprintln!("the last lines of the server:\n{}", last.join("\n"));
    }
    outcome
}

async fn start(
    place: &Place,
    binary: &PathBuf,
    directory: &Path,
    report: &mut Report,
) -> anyhow::Result<Sidecar> {
    let redis = Redis::start();
    let keycloak = keycloak::start().await?;
    let (public, operations) = (free_port(), free_port());
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text);
    write(
        "reentry.yaml",
        &configuration(public, operations, &redis, &keycloak),
    )?;
    write("secret", "a-secret-of-the-bench-of-32-octets")?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(directory.join("secret"), private)?;
    let policy = run(binary, directory, &["policy", "default"]).await?;
    let policy = policy
        .replace("\nscopes: {}", "\nscopes: { read: [accounts], pay: [payments] }")
        .replace("\nclaims: []", "\nclaims: [name, email, email_verified]");
    write("policy.yaml", &policy)?;
    run(binary, directory, &["keys", "create"]).await?;
    run(binary, directory, &["store", "init"]).await?;

    let mut command = Command::new(binary);
    command.arg("serve").current_dir(directory).env("NO_COLOR", "1");
    let started = Instant::now();
    let mut target = Target {
        server: place.start(command, &directory.join("serve.log"))?,
        address: (Ipv4Addr::LOCALHOST, public).into(),
        redis,
        idle: 0.0,
    };
    let operations = SocketAddr::from((Ipv4Addr::LOCALHOST, operations));
    listening(&mut target.server, target.address).await?;
    fact(
        report,
        "start to listening",
        started.elapsed().as_secs_f64() * 1000.0,
        "ms",
        Some(100.0),
    );
    ready(&target, operations).await?;
    fact(
        report,
        "start to ready",
        started.elapsed().as_secs_f64() * 1000.0,
        "ms",
        None,
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = commands(&target.redis);
    tokio::time::sleep(Duration::from_secs(2)).await;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand commands")]
    {
        target.idle = (commands(&target.redis) - before) as f64 / 2.0;
    }
    fact(
        report,
        "resident memory idle",
        mebibytes(&target, "VmRSS")?,
        "MiB",
        Some(20.0),
    );
    fact(
        report,
        "of it anonymous (the rest is program text)",
        mebibytes(&target, "RssAnon")?,
        "MiB",
        None,
    );
    fact(report, "Redis commands per second idle", target.idle, "/s", None);
    let config = reentry::config::load_file(&directory.join("reentry.yaml"), std::iter::empty())
        .map_err(|faults| anyhow::anyhow!("{faults}"))?;
    let broker = reentry::app::assemble::broker(&config.config)?;
    let flow = reentry::app::assemble::flow(&config.config, &broker).await?;
    Ok(Sidecar { target, flow })
}

fn fact(report: &mut Report, name: &'static str, value: f64, unit: &'static str, limit: Option<f64>) {
    eprintln!("{name}: {value:.1} {unit}");
    report.facts.push(Fact {
        name,
        value,
        unit,
        limit,
    });
}

#[expect(clippy::cast_precision_loss, reason = "some mebibytes")]
fn mebibytes(target: &Target, of: &str) -> anyhow::Result<f64> {
    Ok(target.server.resident(of)? as f64 / 1024.0)
}

/// Waits for `/ready`.
async fn ready(target: &Target, operations: SocketAddr) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(30) {
        let request = b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec();
        let asked = drive(
            operations,
            Once::all(vec![request], "\"ready\":true"),
            Duration::from_secs(1),
        );
        if asked.await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    bail!("{} is not ready after 30 s", target.address)
}

/// Makes sessions and codes the way a log-in does.
async fn codes(
    flow: &Arc<Flow>,
    client: &str,
    accounts: &[String],
    each: usize,
) -> anyhow::Result<Vec<String>> {
    let openid = client.starts_with("web");
    let words: &[&str] = if openid {
        &["openid", "profile", "email", "accounts"]
    } else {
        &["accounts", "payments"]
    };
    let scopes: Arc<BTreeSet<String>> = Arc::new(words.iter().map(|w| (*w).to_owned()).collect());
    let gate = Arc::new(tokio::sync::Semaphore::new(32));
    let mut tasks = tokio::task::JoinSet::new();
    for sub in accounts {
        let (flow, client, sub) = (flow.clone(), client.to_owned(), sub.clone());
        let (scopes, gate) = (scopes.clone(), gate.clone());
        tasks.spawn(async move {
            let _place = gate.acquire().await?;
            account(&flow, &client, &sub, &scopes, each).await
        });
    }
    let mut codes = Vec::new();
    while let Some(done) = tasks.join_next().await {
        codes.extend(done??);
    }
    Ok(codes)
}

async fn account(
    flow: &Flow,
    client: &str,
    sub: &str,
    scopes: &BTreeSet<String>,
    each: usize,
) -> anyhow::Result<Vec<String>> {
    let upstream = UpstreamId::parse("company").context("an id")?;
    let now = flow.clock.now();
    let login = Login {
        subject: Subject::new(upstream, sub).context("a subject")?,
        upstream_sid: Some(format!(
            "5f0c5a1b-8c7d-4e6f-a1b2-{}",
            sub.get(..12).unwrap_or(sub)
        )),
        auth_time: Some(Timestamp::from_secs(now.secs())),
        acr: Some("1".to_owned()),
        amr: vec!["pwd".to_owned()],
        claims: format!(r#"{{"name":"An Account","email":"{sub}@example.com","email_verified":true}}"#),
        // As long as Keycloak's.
        id_token: "e".repeat(1100),
    };
    let opened = session::open(flow, &login, None).await?;
    if !opened.session.checked {
        bail!("the log-in could not be checked: the stand-in for Keycloak answers too little");
    }
    let challenge = digest::s256(VERIFIER);
    let wanted = Wanted {
        redirect_uri: REDIRECT,
        challenge: Some(&challenge),
        nonce: Some("n-0S6_WzA2Mj"),
        scopes,
    };
    let asker = Asker {
        client,
        refuse_in_hold: false,
    };
    let mut codes = Vec::new();
    for _ in 0..each {
        codes.push(grant::authorize(flow, &opened.key, &opened.session.id, asker, &wanted).await?);
    }
    Ok(codes)
}

fn basic(client: &str) -> String {
    STANDARD.encode(format!("{client}:a-secret-of-the-bench-of-32-octets"))
}

fn post(path: &str, client: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic {}\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        basic(client),
        body.len()
    )
    .into_bytes()
}

fn redeem(client: &str, code: &str) -> Vec<u8> {
    let redirect: String = url::form_urlencoded::byte_serialize(REDIRECT.as_bytes()).collect();
    let body =
        format!("grant_type=authorization_code&code={code}&redirect_uri={redirect}&code_verifier={VERIFIER}");
    post("/token", client, &body)
}

fn introspect(token: &str) -> Vec<u8> {
    post("/introspect", "gate", &format!("token={token}"))
}

fn userinfo(token: &str) -> Vec<u8> {
    format!("GET /userinfo HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n").into_bytes()
}

/// A member of a token response; tokens need no unescaping.
fn member<'a>(body: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once(&format!("\"{name}\":\""))?;
    rest.split('"').next()
}

/// Redeems codes and keeps what came.
struct Redeem {
    client: &'static str,
    codes: Vec<String>,
    tokens: Arc<Mutex<Vec<Tokens>>>,
}

#[derive(Clone, Default)]
struct Tokens {
    access: String,
    refresh: String,
}

fn tokens(status: u16, body: &[u8]) -> anyhow::Result<Tokens> {
    match (member(body, "access_token"), member(body, "refresh_token")) {
        (Some(access), Some(refresh)) if status == 200 => Ok(Tokens {
            access: access.to_owned(),
            refresh: refresh.to_owned(),
        }),
        _ => bail!(
            "tokens expected, came {status}: {}",
            String::from_utf8_lossy(body)
        ),
    }
}

impl Redeem {
    fn all(client: &'static str, codes: Vec<String>, kept: &Arc<Mutex<Vec<Tokens>>>) -> Vec<Self> {
        let works = (0..CONNECTIONS).map(|_| Self {
            client,
            codes: Vec::new(),
            tokens: kept.clone(),
        });
        let mut works: Vec<Self> = works.collect();
        for (n, code) in codes.into_iter().enumerate() {
            works[n % CONNECTIONS].codes.push(code);
        }
        works
    }
}

impl Work for Redeem {
    fn next(&mut self, request: &mut Vec<u8>) -> bool {
        self.codes.pop().is_some_and(|code| {
            request.extend_from_slice(&redeem(self.client, &code));
            true
        })
    }

    fn seen(&mut self, status: u16, body: &[u8]) -> anyhow::Result<()> {
        let found = tokens(status, body)?;
        self.tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(found);
        Ok(())
    }
}

/// Rotates its refresh tokens in turn, and keeps the access tokens that nobody has looked at.
struct Rotate {
    client: &'static str,
    families: Vec<String>,
    at: usize,
    unseen: Vec<String>,
}

impl Rotate {
    fn all(client: &'static str, tokens: &[Tokens]) -> Vec<Self> {
        let works = (0..CONNECTIONS).map(|n| {
            let mine = tokens.iter().skip(n).step_by(CONNECTIONS);
            Self {
                client,
                families: mine.map(|t| t.refresh.clone()).collect(),
                at: 0,
                unseen: Vec::new(),
            }
        });
        works.collect()
    }
}

impl Work for Rotate {
    fn next(&mut self, request: &mut Vec<u8>) -> bool {
        let token = &self.families[self.at % self.families.len()];
        let body = format!("grant_type=refresh_token&refresh_token={token}");
        request.extend_from_slice(&post("/token", self.client, &body));
        true
    }

    fn seen(&mut self, status: u16, body: &[u8]) -> anyhow::Result<()> {
        let found = tokens(status, body)?;
        let at = self.at % self.families.len();
        self.families[at] = found.refresh;
        self.at += 1;
        self.unseen.push(found.access);
        Ok(())
    }
}

struct Measuring<'a> {
    sidecar: &'a Sidecar,
    settings: Windows,
    options: &'a Options,
    report: &'a mut Report,
    /// Access tokens that were never shown to the server.
    unseen: Vec<String>,
}

/// Names of `count` accounts.
fn accounts(of: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("{n:08x}-{of}-4f6e-9a51-1b7c1f6d8a11"))
        .collect()
}

impl Measuring<'_> {
    async fn everything(&mut self) -> anyhow::Result<()> {
        let api = self.log_in("api", "a001", ACCOUNTS).await?;
        let web = self.log_in("web", "a002", ACCOUNTS).await?;
        self.refresh("refresh with rotation", "api", &api, Some(1.5))
            .await?;
        self.cold().await?;
        let seen: Vec<String> = api.iter().map(|t| t.access.clone()).collect();
        self.same(
            "introspection, token seen before",
            seen.iter().map(|t| introspect(t)).collect(),
            "\"active\":true",
            (READ, Some(1.25)),
        )
        .await?;
        self.same(
            "userinfo",
            web.iter().map(|t| userinfo(&t.access)).collect(),
            "\"recovery_scope\":\"full\"",
            (READ, None),
        )
        .await?;
        self.refresh("refresh with ES256 ID token", "web", &web, None)
            .await?;
        fact(
            self.report,
            "resident memory under load",
            mebibytes(&self.sidecar.target, "VmRSS")?,
            "MiB",
            None,
        );
        fact(
            self.report,
            "of it anonymous, under load",
            mebibytes(&self.sidecar.target, "RssAnon")?,
            "MiB",
            None,
        );
        if wanted(self.options, "RS256") {
            let rsa = self.log_in("web-rs256", "a003", ACCOUNTS / 4).await?;
            self.refresh("refresh with RS256 ID token", "web-rs256", &rsa, None)
                .await?;
        }
        self.exchange("code exchange, access token only", "api", "b001")
            .await?;
        self.exchange("code exchange with RS256 ID token", "web-rs256", "b002")
            .await
    }

    async fn log_in(&self, client: &'static str, of: &str, count: usize) -> anyhow::Result<Vec<Tokens>> {
        let codes = codes(&self.sidecar.flow, client, &accounts(of, count), 1).await?;
        let kept = Arc::new(Mutex::new(Vec::new()));
        let works = Redeem::all(client, codes, &kept);
        drive(self.sidecar.target.address, works, Duration::from_secs(30)).await?;
        let tokens = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(tokens)
    }

    async fn same(
        &mut self,
        path: &str,
        requests: Vec<Vec<u8>>,
        holds: &'static str,
        against: (&str, Option<f64>),
    ) -> anyhow::Result<()> {
        if wanted(self.options, path) {
            let works = Same::all(requests, holds);
            let (measured, _) = windows(&self.sidecar.target, works, self.settings).await?;
            self.report.rows.push(row(path, measured, Some(against)));
        }
        Ok(())
    }

    async fn refresh(
        &mut self,
        path: &str,
        client: &'static str,
        tokens: &[Tokens],
        limit: Option<f64>,
    ) -> anyhow::Result<()> {
        if wanted(self.options, path) || (client == "api" && wanted(self.options, "introspection, token new"))
        {
            let works = Rotate::all(client, tokens);
            let (measured, works) = windows(&self.sidecar.target, works, self.settings).await?;
            self.report.rows.push(row(path, measured, Some((ROTATE, limit))));
            if client == "api" {
                self.unseen = works.into_iter().flat_map(|work| work.unseen).collect();
            }
        }
        Ok(())
    }

    /// Tokens that nobody has seen, each once.
    async fn cold(&mut self) -> anyhow::Result<()> {
        let path = "introspection, token new";
        if !wanted(self.options, path) {
            return Ok(());
        }
        let mut measured = Vec::new();
        let each = self.unseen.len() / self.settings.count;
        for chunk in self.unseen.chunks(each.max(1)).take(self.settings.count) {
            let requests = chunk.iter().map(|t| introspect(t)).collect();
            let works = Once::all(requests, "\"active\":true");
            let (one, _) = window(&self.sidecar.target, works, self.settings.length).await?;
            measured.push(one);
        }
        self.report.rows.push(row(path, measured, Some((SIGN, None))));
        Ok(())
    }

    /// Codes are good once and for a minute: each window has its own.
    async fn exchange(&mut self, path: &str, client: &'static str, of: &str) -> anyhow::Result<()> {
        if !wanted(self.options, path) {
            return Ok(());
        }
        let mut measured = Vec::new();
        for n in 0..self.settings.count.min(3) {
            let accounts = accounts(&format!("{of}{n}"), CODES / 4);
            let codes = codes(&self.sidecar.flow, client, &accounts, 4).await?;
            let kept = Arc::new(Mutex::new(Vec::new()));
            let works = Redeem::all(client, codes, &kept);
            let (one, _) = window(&self.sidecar.target, works, Duration::from_secs(30)).await?;
            measured.push(one);
        }
        self.report.rows.push(row(path, measured, Some((ROTATE, None))));
        Ok(())
    }
}
