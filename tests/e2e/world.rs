//! A company with its Keycloak, a Redis, a mail server, and the built `reentry` beside them.

use std::time::Duration;

use reentry_test_support::browser::{Browser, Page};
use reentry_test_support::keycloak::{Keycloak, Realm, pages, plain_realm, public_client, service_account};
use reentry_test_support::mail::MailSink;
use reentry_test_support::ports::free_port;
use reentry_test_support::process::{Launch, Process};
use reentry_test_support::proxy::Proxy;
use reentry_test_support::receiver::Receiver;
use reentry_test_support::redis::Redis;
use reentry_test_support::rp::{Authorization, ClientAuth, RelyingParty, Reply, words};
use serde_json::{Value, json};

/// Everything the bank's OAuth scopes are called in these tests.
pub const APPLICATION_SCOPES: [&str; 5] = [
    "accounts:read",
    "payees:write",
    "payments:write",
    "statements:export",
    "credentials:write",
];
/// What a relying party asks for.
pub const ASKED: &str =
    "openid profile email accounts:read payees:write payments:write statements:export credentials:write";
/// What is left of it in a `read write` hold.
pub const HELD: &str = "accounts:read email openid payees:write profile";
/// Everyone's password.
pub const PASSWORD: &str = "a long first password";
/// What it is changed to.
pub const CHANGED: &str = "a long second password";
/// Where relying parties listen: nowhere, the browser stops there.
pub const REDIRECT: &str = "http://127.0.0.1:9/callback";

/// Secrets of the generic hook: the second one is being replaced by the first.
pub const HOOK_SECRETS: [&str; 2] = [
    "whsec_dGhlIG5ldyBzZWNyZXQgb2YgdGhlIHRlc3RzIGlzIGxvbmc=",
    "whsec_dGhlIG9sZCBzZWNyZXQgb2YgdGhlIHRlc3RzIGlzIGxvbmc=",
];
/// Secrets that sign what the receiver is told, newest first.
pub const RECEIVER_SECRETS: [&str; 2] = [
    "whsec_dGhlIG5ldyBzZWNyZXQgb2YgdGhlIHJlY2VpdmVyIGlzIGxvbmc=",
    "whsec_dGhlIG9sZCBzZWNyZXQgb2YgdGhlIHJlY2VpdmVyIGlzIGxvbmc=",
];
/// The secret of the extension's webhook.
pub const EXTENSION_SECRET: &str = "the secret of the extension";

/// How a world is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// *Force login after reset*, otherwise Keycloak logs in by itself after a reset.
    pub force_login: bool,
    /// Poll interval, as the configuration spells it.
    pub poll: &'static str,
    /// Nominal length of a hold after a reset for the `quick` tier.
    pub quick: &'static str,
    /// What Keycloak's own tokens are while frozen.
    pub contested_at_idp: &'static str,
    /// How often accounts are compared with what is known.
    pub reconcile: &'static str,
    /// Longest wait for Keycloak.
    pub timeout: &'static str,
    /// A receiver of webhooks is configured, with [`RECEIVER_SECRETS`].
    pub webhooks: bool,
    /// So many more accounts, who never do anything.
    pub crowd: u32,
    /// How long an access token lives.
    pub access: &'static str,
    /// Who logs in here.
    pub logs_in: LogsIn,
}

/// Who logs in at Reentry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogsIn {
    /// Everybody: relying parties use the broker.
    Everybody,
    /// Administrators alone, to end freezes; relying parties stay at Keycloak.
    Administrators,
    /// Nobody: no broker, no clients of ours.
    Nobody,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            force_login: false,
            poll: "500ms",
            quick: "20s",
            contested_at_idp: "disable",
            reconcile: "24h",
            timeout: "5s",
            webhooks: false,
            crowd: 0,
            access: "15m",
            logs_in: LogsIn::Everybody,
        }
    }
}

/// The company.
pub struct World {
    /// Its realm.
    pub realm: Realm,
    /// Where every mail arrives.
    pub mails: MailSink,
    /// Where webhooks arrive, if any are configured.
    pub receiver: Receiver,
    /// The store.
    pub redis: Redis,
    /// In front of Keycloak, for cutting it off from Reentry only.
    pub proxy: Proxy,
    /// The sidecar.
    pub reentry: Process,
    /// Its issuer.
    pub issuer: String,
    /// Its operations listener.
    pub operations: String,
    /// Realm export from before `wire`.
    pub before: Value,
    setup: Setup,
}

/// One more process beside the same Keycloak and on the same Redis, as behind a load balancer.
pub struct Replica {
    /// The process.
    pub reentry: Process,
    /// Where it listens; its issuer is the other one's.
    pub public: String,
    /// Its operations listener.
    pub operations: String,
    /// Its own way to Keycloak.
    pub proxy: Proxy,
}

/// Milliseconds since the epoch, this many days ago.
pub fn days_ago(days: u64) -> u64 {
    reentry_test_support::clock::now_ms() - days * 86_400_000
}

/// An account of three months ago with a verified address and a password as old.
pub fn settled(username: &str, roles: &[&str]) -> Value {
    json!({
        "username": username, "email": format!("{username}@example.com"), "emailVerified": true, "enabled": true,
        "firstName": username, "lastName": "Tester", "createdTimestamp": days_ago(90), "realmRoles": roles,
        "credentials": [{ "type": "password", "value": PASSWORD, "temporary": false, "createdDate": days_ago(90) }],
    })
}

fn realm(mails: &MailSink, crowd: u32) -> Value {
    let mut realm = plain_realm(&mails.keycloak_settings());
    realm["roles"] =
        json!({ "realm": [{ "name": "reentry-admin" }, { "name": "quick" }, { "name": "business" }] });
    realm["registrationAllowed"] = json!(false);
    realm["editUsernameAllowed"] = json!(false);
    realm["users"] = json!([
        settled("ana", &[]),
        settled("bea", &[]),
        settled("quinn", &["quick"]),
        settled("victor", &[]),
        settled("carl", &[]),
        settled("admin-one", &["reentry-admin"]),
        settled("admin-two", &["reentry-admin"]),
    ]);
    let one =
        |n| json!({ "username": format!("zz-{n}"), "email": format!("zz-{n}@example.com"), "enabled": true });
    let others = realm["users"].as_array_mut().unwrap();
    others.extend((0..crowd).map(one));
    let mut narrow = public_client("narrow", REDIRECT);
    narrow["fullScopeAllowed"] = json!(false);
    let mut consenting = public_client("consenting", REDIRECT);
    consenting["consentRequired"] = json!(true);
    realm["clients"] = json!([
        public_client("spa", REDIRECT),
        narrow,
        consenting,
        service_account("robot", "robot-secret")
    ]);
    realm
}

impl World {
    /// Sets everything up: realm, scopes, store, keys, `wire`, `serve`.
    pub async fn start(setup: Setup) -> Self {
        let mails = MailSink::start();
        let keycloak = Keycloak::get().await;
        let realm = keycloak.realm(realm(&mails, setup.crowd)).await;
        for scope in APPLICATION_SCOPES {
            application_scope(&realm, scope).await;
        }
        default_role(&realm).await;
        let before = realm.export().await;
        let redis = Redis::durable();
        let proxy = Proxy::before(keycloak.base());
        let (public, operations) = (free_port(), free_port());
        let issuer = format!("http://127.0.0.1:{public}");
        let mut config = config(&realm, &proxy, &redis, &mails, public, operations, setup);
        let receiver = Receiver::start();
        if setup.logs_in == LogsIn::Nobody {
            config = without_broker(&config);
        }
        if setup.logs_in == LogsIn::Administrators {
            config = for_administrators(&config);
        }
        if setup.webhooks {
            config += &webhooks(&receiver);
        }
        let launch = Launch::new(env!("CARGO_BIN_EXE_reentry"))
            .file("reentry.yaml", config)
            .file("policy.yaml", policy(setup))
            .file("runtime-secret", "runtime-secret-of-the-test")
            .file("broker-secret", "broker-secret-of-the-test")
            .file("shop-secret", "shop-secret-of-the-test")
            .file("back-office-secret", "back-office-secret-of-the-test")
            .file("setup-password", "admin")
            .file("webhook-secrets", HOOK_SECRETS.join("\n"))
            .file("receiver-secrets", RECEIVER_SECRETS.join("\n"))
            .file("extension-secrets", EXTENSION_SECRET)
            .env("NO_COLOR", "1");
        let reentry = launch.args(["serve", "--config", "reentry.yaml"]);
        let reentry = prepare(reentry, setup);
        let mut process = reentry.start();
        let operations = format!("http://127.0.0.1:{operations}");
        process
            .wait_http(&format!("{operations}/ready"), Duration::from_mins(1))
            .await;
        Self {
            realm,
            mails,
            receiver,
            redis,
            proxy,
            reentry: process,
            issuer,
            operations,
            before,
            setup,
        }
    }

    /// Starts one more replica, with the same keys, and waits until it is ready.
    pub async fn replica(&self) -> Replica {
        let proxy = Proxy::before(self.realm.keycloak().base());
        let listen = || format!("127.0.0.1:{}", free_port());
        let (public, operations) = (listen(), listen());
        let launch = Launch::new(env!("CARGO_BIN_EXE_reentry"))
            .env("NO_COLOR", "1")
            .env("REENTRY__SERVER__LISTEN", &public)
            .env("REENTRY__SERVER__OPERATIONS", &operations);
        copy_files(self.reentry.directory(), &launch.path(""));
        let config = std::fs::read_to_string(launch.path("reentry.yaml")).unwrap();
        let way = |proxy: &Proxy| proxy.through(self.realm.keycloak().base());
        let config = config.replace(&way(&self.proxy), &way(&proxy));
        let launch = launch.file("reentry.yaml", config);
        let mut reentry = launch.args(["serve", "--config", "reentry.yaml"]).start();
        let [public, operations] = [public, operations].map(|at| format!("http://{at}"));
        let ready = format!("{operations}/ready");
        reentry.wait_http(&ready, Duration::from_mins(1)).await;
        Replica {
            reentry,
            public,
            operations,
            proxy,
        }
    }

    /// How it was set up.
    pub fn setup(&self) -> Setup {
        self.setup
    }

    /// Runs the built program beside the running one and gives its output; panics when it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let finished = self.try_run(arguments);
        assert_eq!(finished.0, 0, "reentry {arguments:?}: {}", finished.1);
        finished.1
    }

    /// The same, with the exit code.
    pub fn try_run(&self, arguments: &[&str]) -> (i32, String) {
        run_in(self.reentry.directory(), arguments)
    }

    /// The three relying parties at the broker: a shop (`client_secret_basic`), a back office
    /// (`client_secret_post`), a public application.
    pub async fn relying_parties(&self) -> [RelyingParty; 3] {
        let basic = ClientAuth::Basic("shop-secret-of-the-test".to_owned());
        let shop = RelyingParty::discover(&self.issuer, "shop", basic, REDIRECT).await;
        let post = ClientAuth::Post("back-office-secret-of-the-test".to_owned());
        let office = shop.as_client("back-office", post, REDIRECT);
        let app = shop.as_client("app", ClientAuth::None, REDIRECT);
        [shop, office, app]
    }

    /// Keycloak's own tokens for one of its clients.
    pub async fn keycloak_client(&self, client: &str) -> RelyingParty {
        RelyingParty::discover(&self.realm.issuer(), client, ClientAuth::None, REDIRECT).await
    }

    /// `sub` of a user.
    pub async fn sub(&self, username: &str) -> String {
        self.realm.user_id(username).await
    }
}

/// A sign-in through Keycloak's form, to the tokens.
pub async fn sign_in(
    browser: &mut Browser,
    rp: &RelyingParty,
    scope: &str,
    user: &str,
    password: &str,
) -> Reply {
    let request = rp.authorization(scope);
    let page = browser.get(request.url.as_str()).await;
    let page = if page.is_stop() {
        page
    } else {
        pages::log_in(browser, &page, user, password).await
    };
    tokens(browser, rp, &request, page).await
}

/// From wherever the sign-in led to the tokens, granting a consent page on the way.
pub async fn tokens(browser: &mut Browser, rp: &RelyingParty, request: &Authorization, page: Page) -> Reply {
    let page = if page.is_stop() {
        page
    } else {
        pages::consent(browser, &page).await
    };
    let code = rp.code(request, page.stopped());
    rp.exchange(&code, &request.verifier).await
}

/// A browser that stops at the relying parties.
pub fn browser() -> Browser {
    Browser::new().stopping_at(REDIRECT)
}

/// The scope words of a token or answer, sorted, without order or doubt.
pub fn scope_set(text: &str) -> String {
    let mut list = words(text);
    list.sort_unstable();
    list.join(" ")
}

/// Asserts what an access token says.
#[track_caller]
pub fn assert_says(reply: &Reply, recovery_scope: &str, scopes: &str) {
    let claims = reply.access_claims();
    assert_eq!(claims["recovery_scope"], recovery_scope, "{claims:#}");
    assert_eq!(
        scope_set(claims["scope"].as_str().unwrap_or_default()),
        scope_set(scopes),
        "{claims:#}"
    );
}

fn run_in(directory: &std::path::Path, arguments: &[&str]) -> (i32, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_reentry"))
        .args(arguments)
        .current_dir(directory)
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code().unwrap_or(-1), text)
}

/// Copies what a node needs to be one of several; what the other one has printed stays there.
fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, target) = entry.map(|e| (e.path(), to.join(e.file_name()))).unwrap();
        if path.is_dir() {
            copy_files(&path, &target);
        } else if path.extension().is_none_or(|kind| kind != "log") {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// What an operator does before the first start: keys, store, wire.
fn prepare(launch: Launch, setup: Setup) -> Launch {
    let directory = launch.path("");
    let wire = wire_arguments(setup);
    let mut with_yes = wire.clone();
    with_yes.push("--yes");
    for arguments in [
        vec!["keys", "create", "--config", "reentry.yaml"],
        vec!["store", "init", "--config", "reentry.yaml"],
        with_yes,
    ] {
        let (code, text) = run_in(&directory, &arguments);
        assert_eq!(code, 0, "reentry {arguments:?}: {text}");
    }
    launch
}

/// `wire keycloak` with the set-up credential of these tests.
pub fn wire_arguments(setup: Setup) -> Vec<&'static str> {
    let mut arguments = vec![
        "wire",
        "keycloak",
        "--config",
        "reentry.yaml",
        "--admin-user",
        "admin",
        "--admin-password-file",
        "setup-password",
    ];
    if setup.force_login {
        arguments.push("--force-login-after-reset");
    }
    arguments
}

/// Gives every imported account what an account made in any other way has: the realm's default role.
async fn default_role(realm: &Realm) {
    let role = realm.get("").await["defaultRole"].clone();
    let users = realm.get("users?max=20").await;
    for user in users.as_array().unwrap() {
        let id = user["id"].as_str().unwrap();
        realm
            .post(&format!("users/{id}/role-mappings/realm"), &json!([role]))
            .await;
    }
}

async fn application_scope(realm: &Realm, name: &str) {
    let scope = json!({
        "name": name, "protocol": "openid-connect",
        "attributes": { "include.in.token.scope": "true", "display.on.consent.screen": "true", "consent.screen.text": name },
    });
    let id = realm.post("client-scopes", &scope).await;
    for client in ["spa", "narrow", "consenting", "robot"] {
        let uuid = realm.client_uuid(client).await;
        realm
            .put(&format!("clients/{uuid}/optional-client-scopes/{id}"), &json!({}))
            .await;
    }
}

fn config(
    realm: &Realm,
    proxy: &Proxy,
    redis: &Redis,
    mails: &MailSink,
    public: u16,
    operations: u16,
    setup: Setup,
) -> String {
    let base = proxy.through(realm.keycloak().base());
    let (name, poll, reconcile, timeout) = (realm.name(), setup.poll, setup.reconcile, setup.timeout);
    let scopes = ASKED
        .split(' ')
        .skip(1)
        .chain(["offline_access"])
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        r#"
server:
  issuer: http://127.0.0.1:{public}
  listen: 127.0.0.1:{public}
  operations: 127.0.0.1:{operations}
store:
  kind: redis
  url: {redis}
  keys_file: store-keys
  timeout: 3s
keys:
  directory: signing-keys
upstreams:
  - id: company
    kind: keycloak
    url: {base}
    realm: {name}
    identity: {name}
    poll_interval: {poll}
    reconcile_interval: {reconcile}
    timeout: {timeout}
    admin: {{ client_id: reentry, secret_file: runtime-secret }}
    broker: {{ client_id: reentry-broker, secret_file: broker-secret }}
    hooks:
      generic: {{ secret_file: webhook-secrets }}
      extension: {{ secret_file: extension-secrets, audience: hook-audience }}
clients:
  - client_id: shop
    auth: client_secret_basic
    secret_file: shop-secret
    redirect_uris: ["{REDIRECT}"]
    post_logout_redirect_uris: ["{REDIRECT}"]
    scopes: [{scopes}]
    may_introspect: true
  - client_id: back-office
    auth: client_secret_post
    secret_file: back-office-secret
    redirect_uris: ["{REDIRECT}"]
    post_logout_redirect_uris: ["{REDIRECT}"]
    may_introspect: true
    scopes: [{scopes}, "reentry:admin"]
  - client_id: app
    auth: none
    redirect_uris: ["{REDIRECT}"]
    scopes: [{scopes}]
mail:
  host: 127.0.0.1
  port: {mail}
  tls: none
  from: "Example Bank <security@bank.example>"
  reply_to: help@bank.example
policy_file: policy.yaml
"#,
        redis = redis.url(),
        mail = mails.port(),
    )
}

/// The same for relying parties that stay at Keycloak.
fn without_broker(config: &str) -> String {
    let (before, rest) = config.split_once("\nclients:\n").unwrap();
    let (_, after) = rest.split_once("\nmail:\n").unwrap();
    let lines = before
        .lines()
        .filter(|line| !line.trim_start().starts_with("broker:"));
    format!("{}\nmail:\n{after}", lines.collect::<Vec<_>>().join("\n"))
}

/// The same with the one client that administrators log in with.
fn for_administrators(config: &str) -> String {
    let (before, rest) = config.split_once("\nclients:\n").unwrap();
    let (_, after) = rest.split_once("\nmail:\n").unwrap();
    format!(
        "{before}
clients:
  - client_id: back-office
    auth: client_secret_post
    secret_file: back-office-secret
    redirect_uris: [\"{REDIRECT}\"]
    scopes: [openid, \"reentry:admin\"]
mail:
{after}"
    )
}

/// An operator's own receiver on this machine: told of holds and freezes.
fn webhooks(receiver: &Receiver) -> String {
    format!(
        "webhooks:
  - id: crm
    url: {}?team=7
    secret_file: receiver-secrets
    events: [hold.started, account.contested]
outbound:
  allow_hosts: [127.0.0.1]
",
        receiver.url()
    )
}

fn policy(setup: Setup) -> String {
    let tier = |name: &str, when: &str, reset: &str, contact: &str, at_end: &str| {
        format!(
            r"
  - name: {name}
{when}    enforce: on
    at_end: {at_end}
    holds:
      password_reset: {{ for: {reset}, allow: [read, write] }}
      password_reset_proven: notice
      password_changed: notice
      factor_lost: {{ for: {reset}, allow: [read, write] }}
      factor_added_proven: notice
      factor_added_unproven: {{ for: {reset}, allow: [read, write] }}
      contact_changed: {{ for: {contact}, allow: [read, write] }}
      all_replaced: {{ for: 30d, allow: [read] }}
      intermediary_changed: notice
      credential_initialised: notice
    contested: {{ exits: [thaw, lapse], at_idp: {at_idp} }}
",
            at_idp = setup.contested_at_idp,
        )
    };
    let tiers = [
        tier("consumer", "", "24h", "20s", "auto"),
        tier(
            "quick",
            "    when: \"'quick' in roles\"\n",
            setup.quick,
            setup.quick,
            "auto",
        ),
        tier(
            "administrator",
            "    when: \"'reentry-admin' in roles\"\n",
            "72h",
            "72h",
            "fresh_login",
        ),
    ]
    .concat();
    format!(
        r#"
tiers:{tiers}
admin_roles: [reentry-admin]
thaw_wait: 2s
unsafe_short_clocks: true
claims: [name, email, email_verified, preferred_username]
scopes:
  read: ["accounts:read"]
  write: ["payees:write"]
  pay: ["payments:write"]
  export: ["statements:export"]
  credential: ["credentials:write"]
  admin: ["reentry:admin"]
lifetimes: {{ access: {access} }}
"#,
        access = setup.access,
    )
}
