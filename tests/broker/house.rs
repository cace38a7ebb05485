//! Reentry in this process, with the embedded store, a small OpenID provider and an IdP adapter that do as they are
//! told, and a clock that stands still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use reentry::app::clock::SystemEntropy;
use reentry::app::farewell::Farewells;
use reentry::app::listener::{self, Bounds};
use reentry::domain::audit::{Chain, Entry, Head};
use reentry::domain::ceiling::Class;
use reentry::domain::change::{Change, ChangeKind, Proof, Source};
use reentry::domain::policy::{Choice, Policy};
use reentry::domain::subject::account::{Account, Contact, ContactKind, Facts};
use reentry::domain::subject::{Subject, UpstreamId};
use reentry::domain::tier::{Expression, TierName};
use reentry::domain::time::{Now, Span, Timestamp};
use reentry::domain::wording::Wording;
use reentry::flow::{Flow, ingest};
use reentry::http::context::Context;
use reentry::http::pages::{Brand, Pages};
use reentry::oidc::Broker;
use reentry::oidc::keys::{self, KeyRing};
use reentry::oidc::settings::{BrokerSettings, Client, Upstream};
use reentry::ports::clock::Clock;
use reentry::ports::idp::{
    Converged, Cursor, Heard, IdentityProvider, IdpError, IdpSession, Line, Polled, Reading, Wanted,
};
use reentry::ports::notifier::{Notifier, NotifyError, Outgoing};
use reentry::ports::seal::SubjectKey;
use reentry::ports::signer::Algorithm;
use reentry::ports::store::{
    Change as StoreChange, Lease, Loaded, Lost, Mark, Parts, Pending, PendingId, Rebuild, Room, Soundness,
    Store, StoreError, Updated,
};
use secrecy::SecretString;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::op::{Op, Word};

/// Where relying parties are sent back to.
pub const REDIRECT: &str = "https://bank.example/cb";
/// The bank's secret, with characters that have to be form-encoded.
pub const SECRET: &str = "a b+c%/=";
/// The account of the tests.
pub const SUB: &str = "alice";

/// A clock that stands still until it is moved.
pub struct Still(AtomicI64);

/// The clock of a house before anything has passed.
pub fn standing() -> Still {
    Still(AtomicI64::new(START))
}

/// When every house begins.
const START: i64 = 1_800_000_000_000;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// The IdP's admin side.
#[derive(Default)]
pub struct Admin {
    pub down: AtomicBool,
    /// Keeps a log that somebody has to poll.
    pub logs: AtomicBool,
    /// Has switched the account off.
    pub disabled: AtomicBool,
    /// What every account is known by.
    pub names: Mutex<Vec<String>>,
    /// What every account can be reached by.
    pub contacts: Mutex<Vec<Contact>>,
    /// When every account was made.
    pub created: AtomicI64,
    /// Knows no account of any `sub`.
    pub strange: AtomicBool,
    pub asked: AtomicI64,
    pub lines: Mutex<Vec<Line>>,
    pub roles: Mutex<BTreeSet<String>>,
    pub groups: Mutex<BTreeSet<String>>,
}

pub struct FakeIdp {
    id: UpstreamId,
    admin: Arc<Admin>,
}

#[async_trait]
impl IdentityProvider for FakeIdp {
    fn keeps_log(&self) -> bool {
        self.admin.logs.load(Ordering::SeqCst)
    }

    fn id(&self) -> &UpstreamId {
        &self.id
    }

    async fn poll(&self, cursor: &Cursor, _: Now) -> Result<Polled, IdpError> {
        Ok(Polled {
            next: cursor.clone(),
            ..Polled::default()
        })
    }

    async fn story(&self, _: &str, _: Timestamp, _: Now) -> Result<Vec<Line>, IdpError> {
        self.admin.asked.fetch_add(1, Ordering::SeqCst);
        if self.admin.down.load(Ordering::SeqCst) {
            return Err(IdpError::Unreachable("down".to_owned()));
        }
        Ok(self.admin.lines.lock().unwrap().clone())
    }

    async fn account(&self, _: &str) -> Result<Reading, IdpError> {
        if self.admin.down.load(Ordering::SeqCst) {
            return Err(IdpError::Unreachable("down".to_owned()));
        }
        if self.admin.strange.load(Ordering::SeqCst) {
            return Err(IdpError::UnknownSubject);
        }
        let account = Account {
            enabled: !self.admin.disabled.load(Ordering::SeqCst),
            names: self.admin.names.lock().unwrap().clone(),
            contacts: self.admin.contacts.lock().unwrap().clone(),
            created: Timestamp::from_millis(self.admin.created.load(Ordering::SeqCst)),
            ..Account::default()
        };
        let facts = Facts {
            roles: self.admin.roles.lock().unwrap().clone(),
            groups: self.admin.groups.lock().unwrap().clone(),
            ..Facts::default()
        };
        Ok(Reading {
            account,
            facts: Some(facts),
            carried: None,
            ahead: Span::ZERO,
        })
    }

    async fn accounts(&self, _: u32, _: u32) -> Result<Vec<String>, IdpError> {
        Ok(Vec::new())
    }

    async fn converge(&self, _: &str, _: &Wanted) -> Result<Converged, IdpError> {
        Ok(Converged::default())
    }

    async fn restore(&self, _: &str, _: Timestamp, _: &Account) -> Result<Vec<String>, IdpError> {
        Ok(Vec::new())
    }

    async fn end_session(&self, _: &str, _: &str) -> Result<(), IdpError> {
        Ok(())
    }

    async fn sessions(&self, _: &str) -> Result<Vec<IdpSession>, IdpError> {
        Ok(Vec::new())
    }

    async fn remove_factor(&self, _: &str, _: &str) -> Result<(), IdpError> {
        Ok(())
    }

    async fn health(&self) -> Result<Vec<String>, IdpError> {
        Ok(Vec::new())
    }
}

struct Silence;

#[async_trait]
impl Notifier for Silence {
    async fn deliver(&self, _: &Outgoing<'_>) -> Result<(), NotifyError> {
        Ok(())
    }

    /// The house's clock and the store's are years apart.
    fn patience(&self) -> Span {
        Span::from_days(3650)
    }
}

/// A store that can be cut off.
pub struct Fickle {
    inner: Arc<dyn Store>,
    pub down: AtomicBool,
    /// How often something was asked to be stored.
    pub written: AtomicI64,
}

impl Fickle {
    fn up(&self) -> Result<&dyn Store, StoreError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("cut off".to_owned()));
        }
        Ok(self.inner.as_ref())
    }

    fn writes(&self) -> Result<&dyn Store, StoreError> {
        self.written.fetch_add(1, Ordering::SeqCst);
        self.up()
    }
}

#[async_trait]
impl Store for Fickle {
    async fn read(&self, key: &SubjectKey, parts: Parts) -> Result<Loaded, StoreError> {
        self.up()?.read(key, parts).await
    }
    async fn update(
        &self,
        key: &SubjectKey,
        parts: Parts,
        mark: Option<&Mark>,
        change: &StoreChange<'_>,
    ) -> Result<Updated, StoreError> {
        self.writes()?.update(key, parts, mark, change).await
    }
    async fn pending_in(
        &self,
        partitions: &[u8],
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<Pending>, StoreError> {
        self.up()?.pending_in(partitions, now, max).await
    }
    async fn wait_for_work(&self, at_most: std::time::Duration) {
        self.inner.wait_for_work(at_most).await;
    }
    async fn done(&self, at: &PendingId) -> Result<(), StoreError> {
        self.up()?.done(at).await
    }
    async fn retry(&self, entry: &Pending, at: Timestamp, failure: &str) -> Result<(), StoreError> {
        self.up()?.retry(entry, at, failure).await
    }
    async fn postpone(&self, entry: &Pending, at: Timestamp) -> Result<(), StoreError> {
        self.up()?.postpone(entry, at).await
    }
    async fn bury(&self, entry: &Pending, failure: &str) -> Result<(), StoreError> {
        self.up()?.bury(entry, failure).await
    }
    async fn dead(&self, max: usize) -> Result<Vec<Pending>, StoreError> {
        self.up()?.dead(max).await
    }
    async fn revive(&self, at: &PendingId, now: Timestamp) -> Result<bool, StoreError> {
        self.up()?.revive(at, now).await
    }
    async fn due(&self, now: Timestamp, max: usize) -> Result<Vec<SubjectKey>, StoreError> {
        self.up()?.due(now, max).await
    }
    async fn put_state(&self, name: &str, value: &[u8], keep: Span) -> Result<(), StoreError> {
        self.writes()?.put_state(name, value, keep).await
    }
    async fn take_state(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.writes()?.take_state(name).await
    }
    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.up()?.setting(name).await
    }
    async fn set_setting(&self, name: &str, value: &str, lease: Option<&Lease>) -> Result<(), StoreError> {
        self.writes()?.set_setting(name, value, lease).await
    }
    async fn lease(&self, name: &str, owner: &str, keep: Span) -> Result<Option<Lease>, StoreError> {
        self.up()?.lease(name, owner, keep).await
    }
    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        self.up()?.release(name, owner).await
    }
    async fn audit(
        &self,
        key: Option<&SubjectKey>,
        before: Timestamp,
        max: usize,
    ) -> Result<Vec<(Subject, Entry)>, StoreError> {
        self.up()?.audit(key, before, max).await
    }
    async fn chain(&self, partition: u8) -> Result<Chain, StoreError> {
        self.up()?.chain(partition).await
    }
    async fn note(&self, subject: &Subject, key: &SubjectKey, entry: &Entry) -> Result<(), StoreError> {
        self.writes()?.note(subject, key, entry).await
    }
    async fn init(&self) -> Result<bool, StoreError> {
        self.up()?.init().await
    }
    async fn heads(&self) -> Result<Vec<(u8, Head)>, StoreError> {
        self.up()?.heads().await
    }
    async fn room(&self) -> Result<Option<Room>, StoreError> {
        self.up()?.room().await
    }
    async fn moved(&self, upstream: &UpstreamId) -> Result<(), StoreError> {
        self.up()?.moved(upstream).await
    }
    fn told(&self, effect: &str) -> Option<bool> {
        self.inner.told(effect)
    }
    fn delivered(&self, entry: &Pending) {
        self.inner.delivered(entry);
    }
    async fn begin_mend(&self, key: &SubjectKey) -> Result<bool, StoreError> {
        self.up()?.begin_mend(key).await
    }
    async fn finish_mend(&self, key: &SubjectKey) -> Result<bool, StoreError> {
        self.up()?.finish_mend(key).await
    }
    async fn lost(&self) -> Result<Vec<Lost>, StoreError> {
        self.up()?.lost().await
    }
    async fn begin_rebuild(
        &self,
        partition: u8,
        told_before: Timestamp,
        now: Timestamp,
    ) -> Result<Rebuild, StoreError> {
        self.up()?.begin_rebuild(partition, told_before, now).await
    }
    async fn finish_rebuild(&self, rebuild: &Rebuild) -> Result<bool, StoreError> {
        self.up()?.finish_rebuild(rebuild).await
    }
    async fn check(&self) -> Result<Soundness, StoreError> {
        self.up()?.check().await
    }
}

/// Everything.
pub struct House {
    pub issuer: String,
    pub flow: Arc<Flow>,
    pub store: Arc<Fickle>,
    pub clock: Arc<Still>,
    pub admin: Arc<Admin>,
    pub op: Op,
    pub http: reqwest::Client,
    pub context: Context,
    /// Where it listens, with the issuer's path.
    place: String,
    _scratch: Option<tempfile::TempDir>,
}

fn policy() -> Policy {
    let mut policy = Policy::standard();
    for (class, scopes) in [
        ("read", vec!["accounts:read"]),
        ("write", vec!["payees:write"]),
        ("pay", vec!["transfers:write"]),
        ("admin", vec!["reentry:admin"]),
    ] {
        let words = scopes.into_iter().map(str::to_owned).collect();
        policy.scopes.insert(Class::parse(class).unwrap(), words);
    }
    policy
        .roles
        .insert(Class::parse("read").unwrap(), ["viewer".to_owned()].into());
    policy
        .roles
        .insert(Class::parse("pay").unwrap(), ["payer".to_owned()].into());
    policy
        .groups
        .insert(Class::parse("read").unwrap(), ["/staff".to_owned()].into());
    policy.claims = [
        "name",
        "email",
        "email_verified",
        "phone_number",
        "phone_number_verified",
        "department",
        "acr",
    ]
    .map(str::to_owned)
    .into();
    policy.choices.push(Choice {
        tier: TierName("b2b_admin".to_owned()),
        when: Expression::compile("roles.exists(r, r == 'boss')").unwrap(),
    });
    policy
}

/// The scopes of the bank.
pub const SCOPES: [&str; 6] = [
    "profile",
    "email",
    "accounts:read",
    "payees:write",
    "transfers:write",
    "offline_access",
];

fn clients() -> Vec<Client> {
    let mut bank = Client::confidential("bank", SECRET, REDIRECT, &SCOPES);
    bank.post_logout_redirect_uris = vec!["https://bank.example/bye".to_owned()];
    let mut legacy = Client::confidential(
        "legacy",
        "legacy-secret",
        REDIRECT,
        &["accounts:read", "transfers:write"],
    );
    legacy.pkce_required = false;
    legacy.access_token_alg = Algorithm::Rs256;
    legacy.id_token_alg = Algorithm::Es256;
    let mut old = Client::confidential("old", "old-secret", REDIRECT, &["accounts:read"]);
    old.refuse_in_hold = true;
    let admin = Client::confidential("console", "console-secret", REDIRECT, &["reentry:admin"]);
    let spa = Client::public(
        "spa",
        "https://spa.example/cb",
        &["accounts:read", "transfers:write"],
    );
    let mut away = Client::public("away", REDIRECT, &["accounts:read"]);
    away.upstreams.extend(UpstreamId::parse("second"));
    let mut gate = Client::confidential("gate", "gate-secret", REDIRECT, &["accounts:read"]);
    gate.may_introspect = true;
    gate.refresh = false;
    vec![bank, legacy, old, admin, spa, away, gate]
}

/// Keys are made once for all tests: RSA takes its time.
pub fn keys_of(name: &str) -> std::path::PathBuf {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let scratch = tempfile::tempdir().unwrap();
        for name in ["op", "op-next", "ours", "client", "stranger"] {
            for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
                keys::create(
                    &scratch.path().join(name),
                    algorithm,
                    true,
                    Timestamp::from_secs(0),
                )
                .unwrap();
            }
        }
        scratch
    });
    made.path().join(name)
}

/// The path of the issuer in [`House::new`].
pub const BASE: &str = "/t1";

/// The way to servers of others: of what is not public, 127.0.0.1 alone.
pub fn outbound() -> Arc<reentry::notify::outbound::Client> {
    let limits = reentry::notify::outbound::Limits {
        allowed: ["127.0.0.1".to_owned()].into(),
        total: std::time::Duration::from_secs(3),
        ..reentry::notify::outbound::Limits::default()
    };
    Arc::new(reentry::notify::outbound::Client::new(limits).unwrap())
}

impl House {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut BrokerSettings)) -> Self {
        Self::build(change, standing(), None, Admin::default()).await
    }

    /// With IdPs that keep a log.
    pub async fn logging() -> Self {
        let admin = Admin::default();
        admin.logs.store(true, Ordering::SeqCst);
        Self::build(|_| {}, standing(), None, admin).await
    }

    /// On a Redis, at the time that it is there.
    pub async fn on_redis(url: &str) -> Self {
        let now = i64::try_from(reentry_test_support::clock::now_ms()).unwrap();
        Self::build(|_| {}, Still(AtomicI64::new(now)), Some(url), Admin::default()).await
    }

    async fn build(
        change: impl FnOnce(&mut BrokerSettings),
        clock: Still,
        redis: Option<&str>,
        admin: Admin,
    ) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let clock = Arc::new(clock);
        let ring = |name: &str| Arc::new(KeyRing::load(&keys_of(name), clock.clone()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}{BASE}", listener.local_addr().unwrap());
        let op = Op::start(ring("op"), ring("op-next"), clock.clone()).await;
        let id = UpstreamId::parse("kc").unwrap();
        let upstream = |name: &str, prefix: &str| Upstream {
            id: UpstreamId::parse(name).unwrap(),
            name: format!("{name} & co"),
            issuer: op.issuer.clone(),
            client_id: "reentry".to_owned(),
            client_secret: Some(SecretString::from("upstream secret")),
            scopes: vec!["profile".to_owned()],
            subject_prefix: prefix.to_owned(),
            end_session: true,
        };
        let upstreams = vec![upstream("kc", ""), upstream("second", "second:")];
        let mut settings = BrokerSettings::new(&issuer, clients(), upstreams).unwrap();
        change(&mut settings);
        let seal = Arc::new(reentry::store::seal::Keys::ephemeral().unwrap());
        let inner = match redis {
            None => {
                reentry::store::embedded::open(&scratch.path().join("state.redb"), Arc::clone(&seal)).await
            }
            Some(url) => {
                let url = reentry::config::store::url::RedisUrl::parse(url).unwrap();
                let settings = reentry::store::redis::Settings::new(url);
                reentry::store::redis::connect(settings, Arc::clone(&seal)).await
            }
        };
        let inner = inner.unwrap();
        inner.init().await.unwrap();
        let store = Arc::new(Fickle {
            inner,
            down: AtomicBool::new(false),
            written: AtomicI64::new(0),
        });
        let admin = Arc::new(admin);
        let idp: Arc<dyn IdentityProvider> = Arc::new(FakeIdp {
            id: id.clone(),
            admin: Arc::clone(&admin),
        });
        let second: Arc<dyn IdentityProvider> = Arc::new(FakeIdp {
            id: UpstreamId::parse("second").unwrap(),
            admin: Arc::clone(&admin),
        });
        let ours = ring("ours");
        let farewells = Farewells {
            inner: Arc::new(Silence),
            settings: settings.clone(),
            keys: Arc::clone(&ours),
            outbound: outbound(),
        };
        let upstreams = BTreeMap::from([(id, idp), (UpstreamId::parse("second").unwrap(), second)]);
        let flow = Arc::new(Flow {
            watch: Flow::watching(&upstreams),
            store: store.clone(),
            seal,
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy::new()),
            policy: ArcSwap::from_pointee(policy()),
            upstreams,
            notifier: Arc::new(farewells),
            issuer: issuer.clone(),
        });
        let broker = Broker::new(settings, ours, outbound()).unwrap();
        let pages = Pages::new(Brand::default(), Wording::default(), broker.settings.base_path()).unwrap();
        let context = Context::new(Arc::clone(&flow), Arc::new(broker), Arc::new(pages));
        let router = reentry::http::public(context.clone());
        tokio::spawn(async move {
            listener::serve(listener, router, Bounds::default(), CancellationToken::new()).await;
        });
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let house = Self {
            issuer: issuer.clone(),
            flow,
            store,
            clock,
            admin,
            op,
            http,
            context,
            place: issuer,
            _scratch: Some(scratch),
        };
        house.op.say(&Word {
            auth_time: Some(house.now()),
            ..Word::default()
        });
        house
    }

    /// The same context, remembered tokens too, with a ring that has none of its keys.
    pub fn with_other_keys(&self) -> Context {
        let ring = Arc::new(KeyRing::load(&keys_of("op"), self.clock.clone()).unwrap());
        let settings = BrokerSettings::new(
            &self.issuer,
            clients(),
            self.context.broker.settings.upstreams.clone(),
        );
        let mut context = self.context.clone();
        context.broker = Arc::new(Broker::new(settings.unwrap(), ring, outbound()).unwrap());
        context
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.place)
    }

    /// Another process of the same installation, at the same store, that has read nothing yet. It lives as long as this.
    pub async fn restarted(&self) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = format!("http://{}{BASE}", listener.local_addr().unwrap());
        let before = &self.flow;
        let flow = Arc::new(Flow {
            watch: Flow::watching(&before.upstreams),
            store: Arc::clone(&before.store),
            seal: Arc::clone(&before.seal),
            clock: Arc::clone(&before.clock),
            entropy: Arc::clone(&before.entropy),
            policy: ArcSwap::from_pointee(policy()),
            upstreams: before.upstreams.clone(),
            notifier: Arc::clone(&before.notifier),
            issuer: self.issuer.clone(),
        });
        let ring = Arc::new(KeyRing::load(&keys_of("ours"), self.clock.clone()).unwrap());
        let upstreams = self.context.broker.settings.upstreams.clone();
        let settings = BrokerSettings::new(&self.issuer, clients(), upstreams).unwrap();
        let broker = Broker::new(settings, ring, outbound()).unwrap();
        let pages = Pages::new(Brand::default(), Wording::default(), broker.settings.base_path()).unwrap();
        let context = Context::new(Arc::clone(&flow), Arc::new(broker), Arc::new(pages));
        let router = reentry::http::public(context.clone());
        tokio::spawn(async move {
            listener::serve(listener, router, Bounds::default(), CancellationToken::new()).await;
        });
        Self {
            issuer: self.issuer.clone(),
            flow,
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            admin: Arc::clone(&self.admin),
            op: self.op.clone(),
            http: self.http.clone(),
            context,
            place,
            _scratch: None,
        }
    }

    /// Seconds.
    pub fn now(&self) -> i64 {
        self.clock.now().secs()
    }

    pub fn pass(&self, span: Span) {
        self.clock.0.fetch_add(span.millis(), Ordering::SeqCst);
    }

    pub fn cut_store(&self, down: bool) {
        self.store.down.store(down, Ordering::SeqCst);
    }

    pub fn subject() -> Subject {
        Subject::new(UpstreamId::parse("kc").unwrap(), SUB).unwrap()
    }

    /// A change of Alice's account, as the IdP's log would tell it now.
    pub fn change(&self, kind: ChangeKind) -> Change {
        let at = self.clock.now();
        Change {
            id: format!("{kind:?}-{}", at.millis()),
            source: Source::UserEvents,
            kind,
            factor: None,
            at,
            offset: Span::ZERO,
            received: at,
            proof: Proof::Message,
            mediated: false,
            session: None,
            channel: None,
            origin: None,
            previous_address: None,
        }
    }

    /// The poller hears of a change.
    pub async fn hear(&self, change: Change) {
        let line = Line {
            sub: SUB.to_owned(),
            heard: Heard::Change(change),
        };
        let upstream = UpstreamId::parse("kc").unwrap();
        ingest::line(&self.flow, &upstream, &line, ingest::Era::Ours)
            .await
            .unwrap();
    }

    /// A password reset is heard of; its own session lives on.
    pub async fn reset(&self, own_session: Option<&str>) {
        let change = Change {
            session: own_session.map(str::to_owned),
            ..self.change(ChangeKind::PasswordReset)
        };
        self.hear(change).await;
    }

    /// Somebody reported a hijack: frozen.
    pub async fn freeze(&self) {
        let token = self.link(ContactKind::Email, "alice@example.com").await;
        reentry::flow::report::act(&self.flow, &token).await.unwrap();
    }

    /// The "this was not me" link of a password reset that was just heard of.
    pub async fn link(&self, kind: ContactKind, address: &str) -> String {
        let key = self.flow.key(&Self::subject());
        let id = self.flow.seal.channel(kind, address);
        let contact = Contact {
            id: id.clone(),
            kind,
            address: address.to_owned(),
            verified: true,
            since: Timestamp::from_secs(0),
            gone: None,
        };
        let account = Account {
            contacts: vec![contact],
            enabled: true,
            ..Account::default()
        };
        let write = |_: &Loaded| {
            Some(reentry::ports::store::Write {
                account: Some(account.clone()),
                ..reentry::ports::store::Write::default()
            })
        };
        self.flow
            .store
            .update(&key, Parts::ACCOUNT, None, &write)
            .await
            .unwrap();
        self.pass(Span::from_secs(1));
        self.reset(None).await;
        let loaded = self.flow.store.read(&key, Parts::RECORD).await.unwrap();
        let case = loaded.record.unwrap().causes.last().unwrap().reference.clone();
        let link = reentry::flow::link::Link {
            key,
            issued: self.clock.now(),
            case,
            channel: id,
        };
        reentry::flow::link::seal(&self.flow, &link)
    }
}

/// The payload of a token; its signature is not looked at.
pub fn payload(token: &str) -> Value {
    part(token, 1)
}

/// The header of a token.
pub fn header(token: &str) -> Value {
    part(token, 0)
}

fn part(token: &str, at: usize) -> Value {
    use base64::Engine as _;
    let text = token.split('.').nth(at).unwrap();
    let octets = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .unwrap();
    serde_json::from_slice(&octets).unwrap()
}
