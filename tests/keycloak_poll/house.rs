//! A wired realm behind a [`Front`], one embedded store, and any number of replicas over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use reentry::app::clock::{SystemClock, SystemEntropy};
use reentry::domain::hold::Record;
use reentry::domain::policy::Policy;
use reentry::domain::subject::{Subject, UpstreamId};
use reentry::domain::time::{Now, Span, Timestamp};
use reentry::flow::hook::Wakes;
use reentry::flow::poll::{self, Standing};
use reentry::flow::{Flow, FlowError, reconcile};
use reentry::idp::keycloak::admin::{Admin, Credentials};
use reentry::idp::keycloak::wire::names::Level;
use reentry::idp::keycloak::wire::{self, WirePlanInput};
use reentry::idp::keycloak::{Keycloak, KeycloakSettings};
use reentry::ports::notifier::{Notifier, NotifyError, Outgoing};
use reentry::ports::seal::{Seal, SubjectKey};
use reentry::ports::store::{Parts, Store};
use reentry::store::seal::Keys;
use reentry_test_support::browser::Browser;
use reentry_test_support::clock::{eventually, now_ms};
use reentry_test_support::keycloak::{
    ADMIN, Keycloak as Server, Realm, pages, plain_realm, public_client, user,
};
use reentry_test_support::mail::MailSink;
use reentry_test_support::rp::{Authorization, ClientAuth, RelyingParty};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::front::Front;

const CALLBACK: &str = "http://127.0.0.1:9/callback";
pub const OLD: &str = "correct horse";
pub const NEW: &str = "battery staple";

struct Silence;

#[async_trait]
impl Notifier for Silence {
    async fn deliver(&self, _: &Outgoing<'_>) -> Result<(), NotifyError> {
        Ok(())
    }
}

/// Everything.
pub struct House {
    pub realm: Realm,
    pub front: Arc<Front>,
    pub store: Arc<dyn Store>,
    pub upstream: UpstreamId,
    pub mails: MailSink,
    rp: RelyingParty,
    secret: SecretString,
    keys: Arc<Keys>,
    _folder: tempfile::TempDir,
}

/// One process beside the realm.
pub struct Replica {
    pub flow: Arc<Flow>,
    pub idp: Arc<Keycloak>,
    pub front: Arc<Front>,
    upstream: UpstreamId,
}

/// A poller that runs.
pub struct Running {
    pub wakes: Arc<Wakes>,
    standing: Arc<Mutex<Standing>>,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
    front: Arc<Front>,
}

impl Running {
    pub fn standing(&self) -> Standing {
        self.standing.lock().unwrap().clone()
    }

    /// Every poll of it fails.
    pub fn cut(&self) {
        self.front.answer("/events/config", 503, 1_000);
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
        self.front.pass();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Replica {
    /// One step of the poller; whether more is waiting.
    pub async fn poll(&self, owner: &str) -> Result<bool, FlowError> {
        let polled = poll::once(&self.flow, &self.upstream, owner, &mut poll::Seen::default()).await?;
        Ok(polled.unwrap().0)
    }

    pub fn run(&self, owner: &'static str) -> Running {
        let wakes = Arc::new(Wakes::new([self.upstream.clone()]));
        let standing: Arc<Mutex<Standing>> = Arc::default();
        let stop = CancellationToken::new();
        let task = {
            let (flow, upstream) = (Arc::clone(&self.flow), self.upstream.clone());
            let (wakes, stop, shown) = (Arc::clone(&wakes), stop.clone(), Arc::clone(&standing));
            tokio::spawn(async move {
                let report: poll::Report =
                    Arc::new(move |_, standing| *shown.lock().unwrap() = standing.clone());
                let pace = Duration::from_millis(200);
                poll::run(&flow, &upstream, pace, owner, (&report, &wakes), &stop).await;
            })
        };
        Running {
            wakes,
            standing,
            stop,
            task: Some(task),
            front: Arc::clone(&self.front),
        }
    }
}

pub fn browser() -> Browser {
    Browser::new().stopping_at(CALLBACK)
}

impl House {
    pub async fn new() -> Self {
        let mails = MailSink::start();
        let mut realm = plain_realm(&mails.keycloak_settings());
        realm["clients"] = json!([public_client("shop", CALLBACK)]);
        let server = Server::get().await;
        let front = Arc::new(Front::before(server.base()).await);
        let realm = server.realm(realm).await;
        let credentials = Credentials::Password {
            realm: "master".to_owned(),
            username: ADMIN.0.to_owned(),
            password: SecretString::from(ADMIN.1.to_owned()),
        };
        let base = Url::parse(server.base()).unwrap();
        let admin = Admin::new(&base, realm.name(), credentials, Duration::from_secs(30)).unwrap();
        let level = |name: &str| name.parse::<Level>().unwrap();
        let levels = BTreeSet::from([level("read.write"), level("read")]);
        let plan = wire::plan(&admin, &WirePlanInput::new(levels, BTreeMap::new()))
            .await
            .unwrap();
        let applied = wire::apply(&admin, &plan, &|_, _, _| {}).await.unwrap();
        let rp = RelyingParty::discover(&realm.issuer(), "shop", ClientAuth::None, CALLBACK).await;
        let folder = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::ephemeral().unwrap());
        let store = reentry::store::embedded::open(&folder.path().join("s.redb"), Arc::clone(&keys))
            .await
            .unwrap();
        store.init().await.unwrap();
        Self {
            secret: applied.secrets["reentry"].clone(),
            upstream: UpstreamId::parse("main").unwrap(),
            store: store as Arc<dyn Store>,
            realm,
            front,
            mails,
            rp,
            keys,
            _folder: folder,
        }
    }

    pub fn replica(&self) -> Replica {
        self.replica_with(|_| {})
    }

    pub fn replica_with(&self, change: impl FnOnce(&mut KeycloakSettings)) -> Replica {
        self.made(Arc::clone(&self.front), change)
    }

    /// A replica with a proxy of its own.
    pub async fn replica_behind_a_front(&self) -> Replica {
        let front = Front::before(self.realm.keycloak().base()).await;
        self.made(Arc::new(front), |_| {})
    }

    fn made(&self, front: Arc<Front>, change: impl FnOnce(&mut KeycloakSettings)) -> Replica {
        let mut settings = KeycloakSettings::new(
            self.upstream.clone(),
            Url::parse(&front.base).unwrap(),
            self.realm.name(),
            "reentry",
            self.secret.clone(),
        );
        // The accounts of a test are young: an enrolment is no invitation here.
        settings.enrolment = Span::ZERO;
        settings.retention = Span::from_days(60);
        settings.back_fill = Span::from_hours(1);
        change(&mut settings);
        let idp = Arc::new(Keycloak::new(settings, Arc::new(SystemClock)).unwrap());
        let mut policy = Policy::standard();
        policy.enrolment_window = Span::ZERO;
        let upstreams = BTreeMap::from([(self.upstream.clone(), Arc::clone(&idp) as _)]);
        let flow = Flow {
            watch: Flow::watching(&upstreams),
            store: Arc::clone(&self.store),
            seal: Arc::clone(&self.keys) as Arc<dyn Seal>,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
            policy: ArcSwap::from_pointee(policy),
            upstreams,
            notifier: Arc::new(Silence),
            issuer: "http://127.0.0.1:9".to_owned(),
        };
        Replica {
            flow: Arc::new(flow),
            idp,
            front,
            upstream: self.upstream.clone(),
        }
    }

    pub async fn import(&self) {
        reconcile::whole(&self.replica().flow, &self.upstream, "import")
            .await
            .unwrap();
    }

    pub async fn user(&self, name: &str) -> String {
        self.realm
            .post("users", &user(name, &format!("{name}@example.test"), OLD))
            .await
    }

    /// "Forgot password?", with the automatic log-in.
    pub async fn reset(&self, name: &str) {
        let mut browser = browser();
        let page = browser.get(self.rp.authorization("openid").url.as_str()).await;
        let address = format!("{name}@example.test");
        let page = pages::forgot_password(&mut browser, &page, &self.mails, (name, &address), NEW).await;
        assert!(page.is_stop(), "{}", page.describe());
    }

    /// An authorization request of the shop.
    pub fn request(&self) -> Authorization {
        self.rp.authorization("openid")
    }

    /// A log-in, and a new password in its session.
    pub async fn change_password(&self, browser: &mut Browser, name: &str) {
        let page = browser.get(self.rp.authorization("openid").url.as_str()).await;
        pages::log_in(browser, &page, name, OLD).await;
        let request = self
            .rp
            .authorization("openid")
            .with("kc_action", "UPDATE_PASSWORD");
        let page = browser.get(request.url.as_str()).await;
        let page = pages::set_new_password(browser, &page, NEW, false).await;
        assert!(page.is_stop(), "{}", page.describe());
    }

    pub fn subject(&self, sub: &str) -> Subject {
        Subject::new(self.upstream.clone(), sub).unwrap()
    }

    pub fn key(&self, sub: &str) -> SubjectKey {
        self.keys.subject(&self.subject(sub))
    }

    pub fn levels() -> BTreeSet<Level> {
        ["read.write", "read"].map(|name| name.parse().unwrap()).into()
    }

    pub async fn record(&self, sub: &str) -> Option<Record> {
        let key = self.keys.subject(&self.subject(sub));
        self.store.read(&key, Parts::RECORD).await.unwrap().record
    }

    pub async fn is_held(&self, sub: &str) -> bool {
        let now = Now::exact(Timestamp::from_millis(i64::try_from(now_ms()).unwrap()));
        self.record(sub)
            .await
            .is_some_and(|record| record.restriction(now).is_some())
    }

    pub async fn cursor(&self) -> Option<String> {
        self.store.setting("cursor:main").await.unwrap()
    }

    /// Waits for an audit line about the log.
    pub async fn audited(&self, action: &str, what: &str) {
        eventually(
            &format!("an audit line {action} with {what:?}"),
            Duration::from_secs(10),
            async || {
                let key = self.keys.subject(&self.subject(poll::LOG));
                let end = Timestamp::from_millis(i64::MAX);
                let lines = self.store.audit(Some(&key), end, 100).await.unwrap();
                let found = lines
                    .iter()
                    .any(|(_, entry)| entry.action == action && entry.details["what"].contains(what));
                found.then_some(())
            },
        )
        .await;
    }

    /// How many lines about the installation say `action`.
    pub async fn said(&self, action: &str) -> usize {
        let key = self.keys.subject(&self.subject("reentry"));
        let end = Timestamp::from_millis(i64::MAX);
        let lines = self.store.audit(Some(&key), end, 100).await.unwrap();
        lines.iter().filter(|(_, entry)| entry.action == action).count()
    }

    async fn management(&self) -> (String, String) {
        let uuid = self.realm.client_uuid("reentry").await;
        let account = self
            .realm
            .get(&format!("clients/{uuid}/service-account-user"))
            .await;
        let management = self.realm.client_uuid("realm-management").await;
        (account["id"].as_str().unwrap().to_owned(), management)
    }

    /// Takes a role of `realm-management` from our account.
    pub async fn take_role(&self, role: &str) -> Value {
        let (account, management) = self.management().await;
        let role = self
            .realm
            .get(&format!("clients/{management}/roles/{role}"))
            .await;
        let path = format!("users/{account}/role-mappings/clients/{management}");
        self.realm.delete(&path, Some(&json!([role]))).await;
        role
    }

    pub async fn give_back(&self, role: Value) {
        let (account, management) = self.management().await;
        let path = format!("users/{account}/role-mappings/clients/{management}");
        self.realm.post(&path, &json!([role])).await;
    }
}
