//! A sidecar in one process: the embedded store on a real file, real listeners, a real SMTP connection, the small
//! identity provider of the demo, and a clock that can be moved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::tz::TimeZone;
use reentry::app::clock::SystemEntropy;
use reentry::demo::clock::DemoClock;
use reentry::demo::people::People;
use reentry::demo::provider::DemoProvider;
use reentry::domain::change::{Change, ChangeKind, Proof, Source};
use reentry::domain::event::EventKind;
use reentry::domain::hold::Record;
use reentry::domain::policy::Policy;
use reentry::domain::session::{Family, Session};
use reentry::domain::subject::{Subject, UpstreamId};
use reentry::domain::time::{Now, Span};
use reentry::domain::wording::Wording;
use reentry::flow::ingest::{self, Era};
use reentry::flow::{Flow, deliver, holders, poll, reconcile, sweep};
use reentry::http;
use reentry::http::context::Context;
use reentry::http::pages::{Brand, Pages};
use reentry::notify::Gateways;
use reentry::notify::mail::{Messages, Sender};
use reentry::notify::outbound::{Client as Outbound, Limits};
use reentry::notify::smtp::{Mailer, Relay, Security};
use reentry::notify::webhook::{Gone, Receiver as Target, SigningSecret, Webhooks};
use reentry::oidc::Broker;
use reentry::oidc::keys::{self, KeyRing};
use reentry::oidc::settings::{BrokerSettings, Client, SecretHash, Upstream};
use reentry::ports::clock::Clock;
use reentry::ports::idp::{Heard, Line};
use reentry::ports::notifier::Notifier;
use reentry::ports::seal::Seal;
use reentry::ports::signer::Algorithm;
use reentry::ports::store::{Parts, Store, Write};
use reentry::store::seal::Keys;
use reentry_test_support::mail::{Mail, MailSink};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// The static key of the admin API.
pub const STATIC_KEY: &str = "a-static-key-of-thirty-two-octets";
/// The consumer, and three administrators.
pub const ANA: &str = "u-1001";
pub const CLEO: &str = "u-1003";
pub const DINA: &str = "u-1004";
pub const ELI: &str = "u-1005";

pub struct World {
    pub flow: Arc<Flow>,
    pub people: Arc<Mutex<People>>,
    pub clock: Arc<DemoClock>,
    pub mails: MailSink,
    pub context: Context,
    pub issuer: String,
    pub operations: String,
    pub web: reqwest::Client,
    pub upstream: UpstreamId,
    _folder: tempfile::TempDir,
}

impl World {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With a policy that `change` has altered.
    pub async fn with(change: impl FnOnce(&mut Policy)) -> Self {
        Box::pin(Self::built(change, |mails| mails)).await
    }

    /// With receivers of webhooks on the loopback, by id, which want every event.
    pub async fn announcing(receivers: &[(&str, String)]) -> Self {
        let receiver = |(id, url): &(&str, String)| {
            let target = Target {
                url: url.clone(),
                secrets: vec![SigningSecret::new(&[7; 24]).unwrap()],
                events: EventKind::ALL.into(),
            };
            ((*id).to_owned(), target)
        };
        let receivers = receivers.iter().map(receiver).collect();
        let limits = Limits {
            allowed: BTreeSet::from(["127.0.0.1".to_owned()]),
            connect: Duration::from_secs(1),
            total: Duration::from_secs(2),
            ..Limits::default()
        };
        let announcing = |notices| -> Arc<dyn Notifier> {
            Arc::new(Webhooks {
                notices,
                outbound: Arc::new(Outbound::new(limits).unwrap()),
                receivers,
                patience: Span::from_days(7),
                gone: Gone::default(),
            })
        };
        Box::pin(Self::built(|_| {}, announcing)).await
    }

    async fn built(
        change: impl FnOnce(&mut Policy),
        notifier: impl FnOnce(Arc<dyn Notifier>) -> Arc<dyn Notifier>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(DemoClock::default());
        let upstream = UpstreamId::parse("demo").unwrap();
        let mut people = People::new(clock.now());
        for (sub, name) in [(DINA, "dina"), (ELI, "eli")] {
            let mut admin = people.people[CLEO].clone();
            sub.clone_into(&mut admin.sub);
            name.clone_into(&mut admin.username);
            admin.email = format!("{name}@example.com");
            people.people.insert(sub.to_owned(), admin);
        }
        let people = Arc::new(Mutex::new(people));
        let keys = Arc::new(Keys::ephemeral().unwrap());
        let store = reentry::store::embedded::open(&folder.path().join("s.redb"), Arc::clone(&keys))
            .await
            .unwrap();
        store.init().await.unwrap();
        holders::found(store.as_ref(), keys.as_ref(), &upstream)
            .await
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let mut policy = Policy::standard();
        change(&mut policy);
        let mails = MailSink::start();
        let upstreams = BTreeMap::from([(
            upstream.clone(),
            Arc::new(DemoProvider::new(upstream.clone(), Arc::clone(&people))) as _,
        )]);
        let flow = Arc::new(Flow {
            watch: Flow::watching(&upstreams),
            store: Arc::clone(&store) as Arc<dyn Store>,
            seal: keys as Arc<dyn Seal>,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy: Arc::new(SystemEntropy::new()),
            policy: ArcSwap::from_pointee(policy),
            upstreams,
            notifier: notifier(Arc::new(Gateways {
                email: mailer(mails.port()),
            })),
            issuer: issuer.clone(),
        });
        reconcile::whole(&flow, &upstream, "import").await.unwrap();
        let ring = ring(&folder.path().join("keys"), &clock);
        let broker = Arc::new(
            Broker::new(
                settings(&issuer, &upstream),
                ring,
                Arc::new(Outbound::new(Limits::default()).unwrap()),
            )
            .unwrap(),
        );
        let brand = Brand {
            name: "Example Bank".to_owned(),
            support: Some("+351 210 000 000".to_owned()),
            ..Brand::default()
        };
        let pages = Pages::new(brand, Wording::new(TimeZone::UTC, &BTreeMap::new()), "").unwrap();
        let mut context = Context::new(Arc::clone(&flow), broker, Arc::new(pages));
        context.admin_key = Some(SecretHash::of(STATIC_KEY));
        let inner = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let operations = format!("http://127.0.0.1:{}", inner.local_addr().unwrap().port());
        for (listener, router) in [
            (listener, http::public(context.clone())),
            (inner, http::operations(context.clone())),
        ] {
            tokio::spawn(async move { axum::serve(listener, router).await });
        }
        let web = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        Self {
            flow,
            people,
            clock,
            mails,
            context,
            issuer,
            operations,
            web,
            upstream,
            _folder: folder,
        }
    }

    pub fn subject(&self, sub: &str) -> Subject {
        Subject::new(self.upstream.clone(), sub).unwrap()
    }

    /// Somebody takes the account's recovery: the password is reset, the change is heard of, everyone is told.
    pub async fn reset(&self, sub: &str) {
        let now = self.clock.now();
        self.people
            .lock()
            .unwrap()
            .set_password(sub, "taken", true, "attackers-session", now);
        self.hear().await;
    }

    /// Somebody gives the account another e-mail address: it is heard of, everyone is told.
    pub async fn move_address(&self, sub: &str, to: &str) {
        let now = self.clock.now();
        {
            let mut people = self.people.lock().unwrap();
            let person = people.people.get_mut(sub).unwrap();
            let previous = std::mem::replace(&mut person.email, to.to_owned());
            let change = Change {
                id: format!("event-{}", people.log.len() + 1),
                source: Source::UserEvents,
                kind: ChangeKind::EmailChanged,
                factor: None,
                at: now,
                offset: Span::ZERO,
                received: now,
                proof: Proof::Unproven,
                mediated: false,
                session: Some("attackers-session".to_owned()),
                channel: None,
                origin: Some("this computer".to_owned()),
                previous_address: Some(previous),
            };
            people.log.push((sub.to_owned(), change));
        }
        self.hear().await;
    }

    /// Polls, delivers, and lets due things happen.
    pub async fn hear(&self) {
        poll::once(&self.flow, &self.upstream, "test", &mut poll::Seen::default())
            .await
            .unwrap();
        self.deliver().await;
    }

    /// Somebody at the identity provider takes the hold away, for the `n`th time.
    pub async fn tamper(&self, sub: &str, n: u32) {
        let line = Line {
            sub: sub.to_owned(),
            heard: Heard::Tampered {
                id: format!("tampering-{n}"),
                what: "group removed".to_owned(),
                own: false,
            },
        };
        ingest::line(&self.flow, &self.upstream, &line, Era::Ours)
            .await
            .unwrap();
    }

    /// Delivers what waits.
    pub async fn deliver(&self) {
        let stop = CancellationToken::new();
        while deliver::round(&self.flow, "test", &stop).await.unwrap() > 0 {}
    }

    /// Moves the clock and lets due things happen.
    pub async fn after(&self, span: Span) {
        self.clock.advance(span);
        sweep::round(&self.flow, &mut sweep::Resting::default())
            .await
            .unwrap();
        self.deliver().await;
    }

    pub async fn record(&self, sub: &str) -> Option<Record> {
        let key = self.flow.key(&self.subject(sub));
        self.flow.store.read(&key, Parts::RECORD).await.unwrap().record
    }

    pub fn now(&self) -> Now {
        Now::exact(self.clock.now())
    }

    /// Mails to somebody, oldest first.
    pub fn mails_to(&self, name: &str) -> Vec<Mail> {
        self.mails.to(&format!("{name}@example.com"))
    }

    /// The "this was not me" link of the newest mail to somebody.
    pub fn report_link(&self, name: &str) -> String {
        self.mails_to(name).last().expect("a mail").link("/cancel/")
    }

    /// A session of `sub` with the roles it has, and an access token out of it; `change` alters the claims.
    pub async fn token(&self, sub: &str, change: impl FnOnce(&mut Value)) -> String {
        let roles = self.people.lock().unwrap().people[sub].roles.clone();
        let (sid, family) = (self.flow.random::<9>(), self.flow.random::<9>());
        self.grant(sub, &sid, &family, &roles).await;
        let now = self.clock.now().secs();
        let mut claims = json!({
            "iss": self.issuer, "sub": sub, "aud": format!("{}/api", self.issuer), "client_id": "console",
            "iat": now, "exp": now + 300, "jti": format!("{family}.{}", self.flow.random::<6>()), "sid": sid,
            "scope": "openid reentry:admin", "recovery_scope": "full", "recovery_epoch": 0,
            "roles": roles,
        });
        let typ = {
            change(&mut claims);
            claims
                .as_object_mut()
                .unwrap()
                .remove("test_typ")
                .map_or("at+jwt".to_owned(), |t| t.as_str().unwrap().to_owned())
        };
        let signer = self.context.broker.signer();
        signer
            .sign(Algorithm::Es256, &typ, claims.to_string().as_bytes())
            .await
            .unwrap()
    }

    async fn grant(&self, sub: &str, sid: &str, family: &str, roles: &BTreeSet<String>) {
        let key = self.flow.key(&self.subject(sub));
        let now = self.clock.now();
        let session = Session {
            id: sid.to_owned(),
            subject: self.subject(sub),
            upstream_sid: None,
            began: now,
            auth_time: Some(now),
            acr: None,
            amr: Vec::new(),
            claims: "{}".to_owned(),
            roles: roles.clone(),
            groups: BTreeSet::new(),
            checked: true,
            eligible: true,
            cookie: Vec::new(),
            id_token: String::new(),
            clients: BTreeSet::from(["console".to_owned()]),
            ended: None,
            facts_at: Some(now),
            closed: None,
        };
        let family = Family {
            id: family.to_owned(),
            client: "console".to_owned(),
            session: sid.to_owned(),
            scopes: BTreeSet::from(["reentry:admin".to_owned()]),
            began: now,
            expires: now.plus(Span::from_hours(8)),
            offline: false,
            nonce: None,
            generation: 1,
            rotated: now,
            revoked: None,
            denied: Vec::new(),
        };
        self.flow
            .store
            .update(&key, Parts::GRANTS, None, &|loaded| {
                let mut grants = loaded.grants.clone().unwrap_or_default();
                grants.sessions.push(session.clone());
                grants.families.push(family.clone());
                Some(Write {
                    grants: Some(grants),
                    ..Write::default()
                })
            })
            .await
            .unwrap();
    }

    /// `GET` with a bearer token.
    pub async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        let response = self
            .web
            .get(format!("{}{path}", self.issuer))
            .bearer_auth(token)
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    /// `POST` without a body, with a bearer token.
    pub async fn post(&self, path: &str, token: &str) -> u16 {
        let request = self.web.post(format!("{}{path}", self.issuer)).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    }

    /// An administrator's word.
    pub async fn thaw(&self, sub: &str, token: &str, finding: &str) -> (u16, Value) {
        let url = format!("{}/api/v1/subjects/demo/{sub}/thaw", self.issuer);
        let response = self
            .web
            .post(url)
            .bearer_auth(token)
            .json(&json!({ "finding": finding }))
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }
}

fn mailer(port: u16) -> Mailer {
    let sender = Sender {
        name: "Example Bank".to_owned(),
        accent: "#0b57a4".to_owned(),
        support: Some("help@bank.example".to_owned()),
    };
    let relay = Relay {
        host: "127.0.0.1".to_owned(),
        port,
        security: Security::None,
        credentials: None,
        authorities: None,
        deadline: Duration::from_secs(5),
        from: "notices@bank.example".to_owned(),
        from_name: "Example Bank".to_owned(),
        reply_to: None,
    };
    Mailer::new(&relay, Messages::new(Wording::default(), sender).unwrap()).unwrap()
}

fn ring(directory: &std::path::Path, clock: &Arc<DemoClock>) -> Arc<KeyRing> {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
        keys::create(directory, algorithm, true, clock.now()).unwrap();
    }
    Arc::new(KeyRing::load(directory, Arc::clone(clock) as Arc<dyn Clock>).unwrap())
}

fn settings(issuer: &str, upstream: &UpstreamId) -> BrokerSettings {
    let client = Client::confidential(
        "console",
        "secret",
        "http://127.0.0.1:9/callback",
        &["openid", "reentry:admin"],
    );
    let upstream = Upstream {
        id: upstream.clone(),
        issuer: "http://127.0.0.1:9".to_owned(),
        client_id: "reentry".to_owned(),
        client_secret: None,
        scopes: Vec::new(),
        name: "kc".to_owned(),
        subject_prefix: String::new(),
        end_session: false,
    };
    BrokerSettings::new(issuer, vec![client], vec![upstream]).unwrap()
}
