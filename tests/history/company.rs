//! A company: a realm of a real Keycloak, a Redis set under Sentinel, a mail server, two replicas of the built
//! `reentry` behind a balancer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reentry_test_support::directory::Directory;
use reentry_test_support::free_port;
use reentry_test_support::keycloak::{Keycloak, Realm, plain_realm};
use reentry_test_support::mail::MailSink;
use reentry_test_support::process::{Launch, Process};
use reentry_test_support::redis::sentinel::SentinelSet;
use serde_json::{Value, json};

use crate::balancer::Balancer;

/// What the relying party asks for.
pub const ASKED: &str = "openid email accounts:read payees:write payments:write";
/// What of it a hold leaves.
pub const LEFT: &[&str] = &["openid", "email", "accounts:read", "payees:write"];
/// Where the relying party listens: nowhere, the browser stops there.
pub const REDIRECT: &str = "http://127.0.0.1:9/callback";
/// Its secret.
pub const SECRET: &str = "shop-secret-of-the-test";
/// Everybody's first password.
pub const PASSWORD: &str = "a long first password";
/// How many people there are.
pub const PEOPLE: usize = 9;
/// The last of them lives in a directory, which is away now and then.
pub const RESIDENT: usize = PEOPLE - 1;
/// A role that goes out in tokens and may be taken away.
pub const ROLE: &str = "teller";
/// How long an access token lives, in milliseconds.
pub const ACCESS: u64 = 8_000;
/// How far the clock of the second replica is ahead.
const AHEAD: &str = "+0.4s";

/// The name of a person at Keycloak.
pub fn name(person: usize) -> String {
    format!("person{person}")
}

/// Their address.
pub fn address(person: usize) -> String {
    format!("person{person}@example.com")
}

/// The company.
pub struct Company {
    /// Its realm.
    pub realm: Arc<Realm>,
    /// Where every mail arrives.
    pub mails: Arc<MailSink>,
    /// Where the last person lives.
    pub directory: Directory,
    /// The store.
    pub redis: SentinelSet,
    /// The replicas.
    pub replicas: [Process; 2],
    /// The issuer, which is the balancer's address.
    pub issuer: String,
    _balancer: Balancer,
}

impl Company {
    /// Sets everything up: realm, store, keys, `wire`, two times `serve`.
    pub async fn start() -> Self {
        let mails = MailSink::start();
        let keycloak = Keycloak::get().await;
        let realm = keycloak.realm(realm(&mails)).await;
        let directory = Directory::start(&[&name(RESIDENT)], PASSWORD);
        directory.federate(&realm, "READ_ONLY").await;
        // Looking for somebody is what makes Keycloak take them over.
        realm.user_id(&name(RESIDENT)).await;
        let redis = tokio::task::block_in_place(SentinelSet::start);
        let issuer = free_port();
        let launches = [0, 1].map(|_| {
            (
                Launch::new(env!("CARGO_BIN_EXE_reentry")),
                free_port(),
                free_port(),
            )
        });
        // Both read the keys and the secrets of the first, as two pods do; `wire` writes one of them.
        let home = launches[0].0.path("");
        let mails_port = mails.port();
        let mut prepared = Vec::new();
        for (launch, public, operations) in launches {
            let config = config(
                &realm,
                &redis.url(),
                mails_port,
                issuer,
                (public, operations),
                &home,
            );
            let launch = launch
                .file("reentry.yaml", config)
                .file("policy.yaml", POLICY)
                .file("runtime-secret", "runtime-secret-of-the-test")
                .file("broker-secret", "broker-secret-of-the-test")
                .file("shop-secret", SECRET)
                .file("setup-password", "admin")
                .env("NO_COLOR", "1");
            if prepared.is_empty() {
                prepare(&launch.path(""));
            }
            // The second one's clock is ahead of everybody else's.
            let launch = if prepared.is_empty() {
                launch
            } else {
                ahead(launch)
            };
            prepared.push((
                launch.args(["serve", "--config", "reentry.yaml"]),
                public,
                operations,
            ));
        }
        let ports: Vec<u16> = prepared.iter().map(|(_, public, _)| *public).collect();
        let mut replicas = Vec::new();
        for (launch, _, operations) in prepared {
            let mut process = launch.start();
            let ready = format!("http://127.0.0.1:{operations}/ready");
            process.wait_http(&ready, Duration::from_mins(1)).await;
            replicas.push(process);
        }
        let balancer = Balancer::start(issuer, [ports[0], ports[1]]).await;
        let [first, second] = <[Process; 2]>::try_from(replicas).expect("two replicas");
        Self {
            realm: Arc::new(realm),
            mails: Arc::new(mails),
            directory,
            redis,
            replicas: [first, second],
            issuer: format!("http://127.0.0.1:{issuer}"),
            _balancer: balancer,
        }
    }

    /// Where the keys of the store are.
    pub fn keys(&self) -> std::path::PathBuf {
        self.replicas[0].directory().join("store-keys")
    }
}

/// With a clock that is ahead by [`AHEAD`]; spans are as long as ever.
fn ahead(launch: Launch) -> Launch {
    launch
        .env("LD_PRELOAD", faketime().display().to_string())
        .env("FAKETIME", AHEAD)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

/// The library of Debian's `faketime`, on whatever machine this is.
fn faketime() -> PathBuf {
    let homes = std::fs::read_dir("/usr/lib").expect("libraries").flatten();
    let libraries = homes.map(|home| home.path().join("faketime/libfaketimeMT.so.1"));
    let found = libraries.into_iter().find(|library| library.is_file());
    found.expect("libfaketime: run scripts/install")
}

fn prepare(directory: &Path) {
    let wire =
        "wire keycloak --config reentry.yaml --admin-user admin --admin-password-file setup-password --yes";
    for line in [
        "keys create --config reentry.yaml",
        "store init --config reentry.yaml",
        wire,
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_reentry"))
            .args(line.split(' '))
            .current_dir(directory)
            .output()
            .expect("the built program runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "reentry {line}: {said}");
    }
}

fn realm(mails: &MailSink) -> Value {
    let mut realm = plain_realm(&mails.keycloak_settings());
    // Weak on purpose: the time of the run belongs to Reentry.
    realm["passwordPolicy"] = json!("hashAlgorithm(pbkdf2-sha256) and hashIterations(1)");
    let long_ago = reentry_test_support::clock::now_ms() - 90 * 86_400_000;
    let people = (0..RESIDENT).map(|person| {
        json!({
            "username": name(person), "email": address(person), "emailVerified": true, "enabled": true,
            "firstName": name(person), "lastName": "Tester", "createdTimestamp": long_ago, "realmRoles": [ROLE],
            "credentials": [old_password(long_ago)],
        })
    });
    realm["users"] = people.collect();
    realm["roles"] = json!({ "realm": [{ "name": ROLE }] });
    realm
}

/// Everybody's first password as a realm export has it: Keycloak dates a plain one at its import, and a rebuild would
/// take that for a change which no line tells of.
fn old_password(created: u64) -> Value {
    let salt = b"salt of the test";
    let mut hash = [0_u8; 64];
    let once = std::num::NonZeroU32::MIN;
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        once,
        salt,
        PASSWORD.as_bytes(),
        &mut hash,
    );
    let secret =
        json!({ "value": STANDARD.encode(hash), "salt": STANDARD.encode(salt), "additionalParameters": {} });
    let how = json!({ "hashIterations": 1, "algorithm": "pbkdf2-sha256", "additionalParameters": {} });
    json!({
        "type": "password", "createdDate": created,
        "secretData": secret.to_string(), "credentialData": how.to_string(),
    })
}

fn config(
    realm: &Realm,
    redis: &str,
    mail: u16,
    issuer: u16,
    (public, operations): (u16, u16),
    home: &Path,
) -> String {
    let (base, name, home) = (realm.keycloak().base(), realm.name(), home.display());
    let scopes = ASKED.split(' ').skip(1).collect::<Vec<_>>().join(", ");
    format!(
        r#"
server:
  issuer: http://127.0.0.1:{issuer}
  listen: 127.0.0.1:{public}
  operations: 127.0.0.1:{operations}
store:
  kind: redis
  url: {redis}
  keys_file: {home}/store-keys
keys:
  directory: {home}/signing-keys
upstreams:
  - id: company
    kind: keycloak
    url: {base}
    realm: {name}
    poll_interval: 500ms
    admin: {{ client_id: reentry, secret_file: {home}/runtime-secret }}
    broker: {{ client_id: reentry-broker, secret_file: {home}/broker-secret }}
clients:
  - client_id: shop
    auth: client_secret_basic
    secret_file: shop-secret
    redirect_uris: ["{REDIRECT}"]
    scopes: [{scopes}]
    may_introspect: true
mail:
  host: 127.0.0.1
  port: {mail}
  tls: none
  from: "Example Bank <security@bank.example>"
  reply_to: help@bank.example
policy_file: policy.yaml
"#
    )
}

const POLICY: &str = r#"
tiers:
  - name: consumer
    enforce: on
    at_end: auto
    holds:
      password_reset: { for: 12s, allow: [read, write] }
      password_reset_proven: notice
      password_changed: notice
      factor_lost: { for: 12s, allow: [read, write] }
      factor_added_proven: notice
      factor_added_unproven: { for: 12s, allow: [read, write] }
      contact_changed: { for: 12s, allow: [read, write] }
      all_replaced: { for: 12s, allow: [read] }
      intermediary_changed: notice
      credential_initialised: notice
    contested: { exits: [thaw, lapse], at_idp: issue_none }
lifetimes: { access: 8s, restricted: 8s }
claims: [email]
roles: { write: [teller] }
scopes:
  read: ["accounts:read"]
  write: ["payees:write"]
  pay: ["payments:write"]
"#;
