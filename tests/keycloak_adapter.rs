//! The Keycloak adapter on a real server: every story through Keycloak's own pages and mails, readings, holds and
//! lifts with exact effective roles, sessions, the poller's cursor.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reentry::app::clock::SystemClock;
use reentry::domain::ceiling::Ceiling;
use reentry::domain::change::{Change, ChangeKind, Proof};
use reentry::domain::hold::{Cut, Posture};
use reentry::domain::policy::ContestedAtIdp;
use reentry::domain::subject::UpstreamId;
use reentry::domain::subject::account::FactorClass;
use reentry::domain::time::{Now, Span, Timestamp};
use reentry::idp::keycloak::admin::{Admin, Credentials};
use reentry::idp::keycloak::wire::names::Level;
use reentry::idp::keycloak::wire::{self, WirePlanInput};
use reentry::idp::keycloak::{Keycloak, KeycloakSettings};
use reentry::ports::idp::{Cursor, Heard, IdentityProvider, IdpError, Line, Wanted};
use reentry_test_support::browser::{Browser, Page};
use reentry_test_support::clock::now_ms;
use reentry_test_support::keycloak::{
    ADMIN, Keycloak as Server, Realm, pages, plain_realm, public_client, user,
};
use reentry_test_support::mail::MailSink;
use reentry_test_support::rp::{ClientAuth, RelyingParty, Reply};
use secrecy::SecretString;
use serde_json::json;
use url::Url;

#[path = "keycloak_adapter/alone.rs"]
mod alone;
#[path = "keycloak_poll/front.rs"]
#[expect(dead_code, reason = "each suite uses its part of the house")]
mod front;
#[path = "keycloak_poll/house.rs"]
#[expect(dead_code, reason = "each suite uses its part of the house")]
mod house;
#[path = "keycloak_adapter/live.rs"]
mod live;
#[path = "keycloak_adapter/realm.rs"]
mod realm;

const CALLBACK: &str = "http://127.0.0.1:9/callback";
const OLD: &str = "correct horse";
const NEW: &str = "battery staple";

/// A wired realm with a mailbox, and the adapter with the run-time account.
struct World {
    realm: Realm,
    mails: MailSink,
    idp: Keycloak,
    secret: SecretString,
    cursor: Cursor,
    rp: RelyingParty,
    /// What our own record says that holds took, by account.
    owed: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

fn now() -> Now {
    Now::exact(Timestamp::from_millis(i64::try_from(now_ms()).unwrap()))
}

fn administrator(realm: &Realm) -> Admin {
    let credentials = Credentials::Password {
        realm: "master".to_owned(),
        username: ADMIN.0.to_owned(),
        password: SecretString::from(ADMIN.1.to_owned()),
    };
    let base = Url::parse(realm.keycloak().base()).unwrap();
    Admin::new(&base, realm.name(), credentials, Duration::from_secs(30)).unwrap()
}

impl World {
    async fn new() -> Self {
        Self::with(json!({})).await
    }

    async fn with(patch: serde_json::Value) -> Self {
        let mails = MailSink::start();
        let mut realm = plain_realm(&mails.keycloak_settings());
        realm["clients"] = json!([public_client("shop", CALLBACK)]);
        for (name, value) in patch.as_object().unwrap() {
            realm[name] = value.clone();
        }
        let realm = Server::get().await.realm(realm).await;
        let secret = wire_realm(&realm).await.unwrap();
        let rp = RelyingParty::discover(&realm.issuer(), "shop", ClientAuth::None, CALLBACK).await;
        let mut world = Self {
            idp: adapter(&realm, &secret, |_| {}),
            realm,
            mails,
            secret,
            cursor: Cursor::default(),
            rp,
            owed: Mutex::default(),
        };
        world.lines().await;
        world
    }

    fn set(&mut self, change: impl FnOnce(&mut KeycloakSettings)) {
        self.idp = adapter(&self.realm, &self.secret, change);
    }

    async fn user(&self, name: &str) -> String {
        self.realm
            .post("users", &user(name, &format!("{name}@example.test"), OLD))
            .await
    }

    /// Everything new in the logs.
    async fn lines(&mut self) -> Vec<Line> {
        let mut all = Vec::new();
        loop {
            let polled = self.idp.poll(&self.cursor, now()).await.unwrap();
            assert_eq!(polled.alarms, Vec::<String>::new());
            all.extend(polled.lines);
            self.cursor = polled.next;
            if !polled.more {
                return all;
            }
        }
    }

    /// The changes of one account that are new in the logs.
    async fn changes(&mut self, sub: &str) -> Vec<Change> {
        let lines = self.lines().await.into_iter().filter(|line| line.sub == sub);
        lines
            .filter_map(|line| match line.heard {
                Heard::Change(change) => Some(change),
                _ => None,
            })
            .collect()
    }

    async fn change(&mut self, sub: &str) -> Change {
        let mut changes = self.changes(sub).await;
        assert_eq!(changes.len(), 1, "one change: {changes:?}");
        changes.remove(0)
    }

    async fn open(&self, browser: &mut Browser, scope: &str, action: Option<&str>) -> (Page, Authorized) {
        let mut request = self.rp.authorization(scope);
        if let Some(action) = action {
            request = request.with_value("kc_action", action);
        }
        let page = browser.get(request.url.as_str()).await;
        (page, Authorized(request))
    }

    async fn sign_in(&self, browser: &mut Browser, name: &str, password: &str, scope: &str) -> Reply {
        let (page, request) = self.open(browser, scope, None).await;
        let page = pages::log_in(browser, &page, name, password).await;
        self.tokens(&page, &request).await
    }

    async fn tokens(&self, page: &Page, request: &Authorized) -> Reply {
        assert!(page.is_stop(), "no code: {}", pages::page_id(page));
        let code = self.rp.code(&request.0, &page.url);
        self.rp
            .exchange(&code, &request.0.verifier)
            .await
            .expect_status(200)
    }

    /// "Forgot password?" in one browser, to the automatic log-in.
    async fn reset(&self, browser: &mut Browser, name: &str, password: &str) -> Reply {
        let (page, request) = self.open(browser, "openid", None).await;
        let address = format!("{name}@example.test");
        let page = pages::forgot_password(browser, &page, &self.mails, (name, &address), password).await;
        self.tokens(&page, &request).await
    }

    async fn roles(&self, sub: &str) -> BTreeSet<String> {
        let path = format!("users/{sub}/role-mappings/realm/composite");
        let roles = self.realm.get(&path).await;
        let name = |role: &serde_json::Value| role["name"].as_str().unwrap().to_owned();
        roles.as_array().unwrap().iter().map(name).collect()
    }

    async fn groups(&self, sub: &str) -> BTreeSet<String> {
        let groups = self.realm.get(&format!("users/{sub}/groups")).await;
        let path = |group: &serde_json::Value| group["path"].as_str().unwrap().to_owned();
        groups.as_array().unwrap().iter().map(path).collect()
    }

    /// Wires the realm again.
    async fn wire(&self) {
        wire_realm(&self.realm).await;
    }

    fn wanted(&self, sub: &str, posture: Posture) -> Wanted {
        let owed = self.owed.lock().unwrap().get(sub).cloned();
        Wanted {
            posture,
            cuts: Vec::new(),
            end_before: None,
            owed: owed.unwrap_or_default(),
            barred: false,
        }
    }

    async fn converge(&self, sub: &str, posture: Posture) -> Vec<String> {
        let wanted = self.wanted(sub, posture);
        let done = self.idp.converge(sub, &wanted).await.unwrap();
        assert_eq!(done.cannot, None);
        self.owed.lock().unwrap().insert(sub.to_owned(), done.owes);
        done.acts
    }
}

/// Wires a realm; gives the secret of the run-time account when it was made.
async fn wire_realm(realm: &Realm) -> Option<SecretString> {
    let level = |name: &str| name.parse::<Level>().unwrap();
    let input = WirePlanInput::new(
        BTreeSet::from([level("read.write"), level("read")]),
        BTreeMap::new(),
    );
    let admin = administrator(realm);
    let plan = wire::plan(&admin, &input).await.unwrap();
    let applied = wire::apply(&admin, &plan, &|_, _, _| {}).await.unwrap();
    applied.secrets.get("reentry").cloned()
}

struct Authorized(reentry_test_support::rp::Authorization);

fn adapter(realm: &Realm, secret: &SecretString, change: impl FnOnce(&mut KeycloakSettings)) -> Keycloak {
    let mut settings = KeycloakSettings::new(
        UpstreamId::parse("main").unwrap(),
        Url::parse(realm.keycloak().base()).unwrap(),
        realm.name(),
        "reentry",
        secret.clone(),
    );
    // The accounts of a test are young: only the test of the invitation wants to see that.
    settings.enrolment = Span::ZERO;
    change(&mut settings);
    Keycloak::new(settings, Arc::new(SystemClock)).unwrap()
}

fn browser() -> Browser {
    Browser::new().stopping_at(CALLBACK)
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn held(level: &str) -> Posture {
    Posture::Held(Ceiling::parse(level).unwrap())
}

// row A1: forgot password, the link opened in the same browser and in another one.
#[tokio::test]
async fn a_reset_is_a_reset_in_whichever_browser() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    let mut mine = browser();
    let tokens = world.reset(&mut mine, "ann", NEW).await;
    let change = world.change(&ann).await;
    assert_eq!(
        (change.kind, &change.proof, change.factor),
        (
            ChangeKind::PasswordReset,
            &Proof::Message,
            Some(FactorClass::Password)
        )
    );
    let sid = tokens.access_claims()["sid"].as_str().unwrap().to_owned();
    assert_eq!(
        change.session,
        Some(sid.clone()),
        "the automatic log-in is the session of the change"
    );
    assert_eq!(change.origin.as_deref(), Some("127.0.0.0/16"));
    let sessions = world.idp.sessions(&ann).await.unwrap();
    assert!(
        sessions
            .iter()
            .any(|session| session.id == sid && session.clients == ["shop"])
    );

    let own = sessions.iter().find(|session| session.id == sid).unwrap();
    assert!(
        own.began.secs() >= change.at.secs(),
        "it began with the change: {own:?} {change:?}"
    );

    let bob = world.user("bob").await;
    let (page, _) = world.open(&mut mine, "openid", None).await;
    assert!(page.is_stop(), "ann is logged in there");
    let mut asking = browser();
    let (page, _) = world.open(&mut asking, "openid", None).await;
    world.mails.clear();
    pages::ask_for_reset(&mut asking, &page, "bob").await;
    let mail = pages::reset_mail(&world.mails, "bob@example.test").await;
    let mut other = browser();
    let page = pages::open_action_link(&mut other, &mail.link("action-token")).await;
    let page = pages::set_new_password(&mut other, &page, NEW, false).await;
    assert!(!page.is_stop());
    let change = world.change(&bob).await;
    assert_eq!(
        (change.kind, &change.proof),
        (ChangeKind::PasswordReset, &Proof::Message)
    );
    // The whole log again says the same, under the same names.
    world.cursor = Cursor::default();
    assert_eq!(world.change(&bob).await.id, change.id);
}

// row A2: a voluntary change is told apart, as long as a log-in proves it.
#[tokio::test]
async fn a_voluntary_change_needs_a_log_in_before_it() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    let mut mine = browser();
    world.sign_in(&mut mine, "ann", OLD, "openid").await;
    let (page, _) = world.open(&mut mine, "openid", Some("UPDATE_PASSWORD")).await;
    let page = pages::set_new_password(&mut mine, &page, NEW, false).await;
    assert_eq!(page.query("kc_action_status").as_deref(), Some("success"));
    let change = world.change(&ann).await;
    assert_eq!(
        (change.kind, &change.proof, &change.session),
        (ChangeKind::PasswordChanged, &Proof::RecentLogin, &None)
    );

    // Log-in and action in one request: no log-in stands before the change, but the whole log shows no recovery either.
    let bob = world.user("bob").await;
    let mut his = browser();
    let (page, _) = world.open(&mut his, "openid", Some("UPDATE_PASSWORD")).await;
    let page = pages::log_in(&mut his, &page, "bob", OLD).await;
    let page = pages::set_new_password(&mut his, &page, NEW, false).await;
    assert!(page.is_stop());
    let change = world.change(&bob).await;
    assert_eq!(
        (change.kind, &change.proof),
        (ChangeKind::PasswordChanged, &Proof::RecentLogin)
    );
}

// row A3: what an administrator does.
#[tokio::test]
async fn administrators_resets_mails_and_edits() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    let temporary = json!({"type": "password", "value": "for now", "temporary": true});
    world
        .realm
        .put(&format!("users/{ann}/reset-password"), &temporary)
        .await;
    let change = world.change(&ann).await;
    assert_eq!(
        (change.kind, &change.proof, &change.session),
        (ChangeKind::PasswordSetByAdmin, &Proof::Administrator, &None)
    );
    let mut mine = browser();
    let (page, _) = world.open(&mut mine, "openid", None).await;
    let page = pages::log_in(&mut mine, &page, "ann", "for now").await;
    let page = pages::set_new_password(&mut mine, &page, NEW, false).await;
    assert!(page.is_stop());
    let change = world.change(&ann).await;
    assert_eq!(change.kind, ChangeKind::PasswordSetByAdmin);
    assert!(
        change.session.is_some(),
        "the log-in with the temporary password is its session"
    );

    let bob = world.user("bob").await;
    world.mails.clear();
    world
        .realm
        .put(
            &format!("users/{bob}/execute-actions-email"),
            &json!(["UPDATE_PASSWORD"]),
        )
        .await;
    assert_eq!(world.changes(&bob).await, [], "a mail alone changes nothing");
    let mail = world
        .mails
        .wait_for("bob@example.test", "", Duration::from_secs(20))
        .await;
    let mut his = browser();
    let page = pages::open_action_link(&mut his, &mail.link("action-token")).await;
    pages::set_new_password(&mut his, &page, NEW, false).await;
    let change = world.change(&bob).await;
    assert_eq!(
        (change.kind, &change.proof),
        (ChangeKind::PasswordSetByAdmin, &Proof::Administrator)
    );

    let mut edited = world.realm.get(&format!("users/{bob}")).await;
    edited["email"] = json!("robert@example.test");
    world.realm.put(&format!("users/{bob}"), &edited).await;
    let change = world.change(&bob).await;
    assert_eq!(
        (change.kind, &change.proof, change.previous_address.as_deref()),
        (
            ChangeKind::EmailChanged,
            &Proof::Administrator,
            Some("bob@example.test")
        )
    );
    let reading = world.idp.account(&bob).await.unwrap();
    let addresses: Vec<(&str, bool)> = reading
        .account
        .contacts
        .iter()
        .map(|contact| (contact.address.as_str(), contact.gone.is_none()))
        .collect();
    assert_eq!(
        addresses,
        [("robert@example.test", true), ("bob@example.test", false)]
    );

    let credentials = world.realm.get(&format!("users/{bob}/credentials")).await;
    let password = credentials[0]["id"].as_str().unwrap();
    world
        .realm
        .delete(&format!("users/{bob}/credentials/{password}"), None)
        .await;
    let change = world.change(&bob).await;
    assert_eq!(
        (change.kind, change.factor),
        (ChangeKind::FactorRemoved, Some(FactorClass::Password))
    );
}

// row A6: an invitation is a candidate for the first enrolment, and what came with it is not.
#[tokio::test]
async fn an_invitation_may_be_the_first_enrolment() {
    let mut world = World::new().await;
    world.set(|settings| settings.enrolment = Span::from_days(7));
    let mut invited = user("ann", "ann@example.test", OLD);
    invited.as_object_mut().unwrap().remove("credentials");
    let ann = world.realm.post("users", &invited).await;
    let lines = world.lines().await;
    assert!(
        lines
            .iter()
            .any(|line| line.sub == ann && matches!(line.heard, Heard::Touched { .. }))
    );
    assert_eq!(world.idp.account(&ann).await.unwrap().account.factors, []);
    world
        .realm
        .put(
            &format!("users/{ann}/execute-actions-email"),
            &json!(["UPDATE_PASSWORD"]),
        )
        .await;
    let mail = world
        .mails
        .wait_for("ann@example.test", "", Duration::from_secs(20))
        .await;
    let mut hers = browser();
    let page = pages::open_action_link(&mut hers, &mail.link("action-token")).await;
    pages::set_new_password(&mut hers, &page, NEW, false).await;
    assert_eq!(world.change(&ann).await.kind, ChangeKind::CredentialInitialised);
    // The second one is a recovery like any other.
    world.reset(&mut browser(), "ann", "a third one").await;
    assert_eq!(world.change(&ann).await.kind, ChangeKind::PasswordReset);
}

/// The code that an authenticator app shows for a base32 secret as the page prints it (RFC 6238, SHA-1, 30 s).
fn totp(secret: &str) -> String {
    let mut bits = 0_u64;
    let (mut held, mut key) = (0_u32, Vec::new());
    for letter in secret.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'2'..=b'7' => letter - b'2' + 26,
            other => panic!("not base32: {other}"),
        };
        bits = bits << 5 | u64::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            key.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let tag = aws_lc_rs::hmac::sign(&key, &(now_ms() / 30_000).to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag[19] & 0x0f);
    let number = u32::from_be_bytes(tag[offset..offset + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

async fn enrol_otp(world: &World, browser: &mut Browser) {
    let (page, _) = world.open(browser, "openid", Some("CONFIGURE_TOTP")).await;
    let manual = browser.follow(&page, "mode=manual").await;
    let secret = manual
        .text_of("#kc-totp-secret-key")
        .expect("a secret to type in");
    let form = manual.form("#kc-totp-settings-form");
    let form = form.set("totp", &totp(&secret)).set("userLabel", "phone");
    let page = browser.submit(form).await;
    assert_eq!(
        page.query("kc_action_status").as_deref(),
        Some("success"),
        "{}",
        page.text()
    );
}

// row A4: factors added and removed.
#[tokio::test]
async fn factors_added_and_removed_in_a_session() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    let mut mine = browser();
    world.sign_in(&mut mine, "ann", OLD, "openid").await;
    enrol_otp(&world, &mut mine).await;
    let change = world.change(&ann).await;
    assert_eq!(
        (change.kind, change.factor),
        (ChangeKind::FactorAdded, Some(FactorClass::Otp))
    );
    let told: Vec<String> = world
        .realm
        .events()
        .await
        .into_iter()
        .rev()
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .filter(|kind| kind == "LOGIN" || kind.starts_with("UPDATE"))
        .collect();
    // The twins come in either order.
    assert_eq!(
        (told[0].as_str(), told[3].as_str(), told.len()),
        ("LOGIN", "LOGIN", 4)
    );
    assert!(told[1..3].iter().all(|kind| kind.starts_with("UPDATE")));
    // The password came with the account: enrolled in its making, so eligible from the first day.
    assert_eq!((&change.proof, &change.session), (&Proof::EligibleFactor, &None));
    let reading = world.idp.account(&ann).await.unwrap().account;
    let otp = reading
        .factors
        .iter()
        .find(|factor| factor.class == FactorClass::Otp)
        .unwrap();
    let (page, _) = world
        .open(
            &mut mine,
            "openid",
            Some(&format!("delete_credential:{}", otp.id)),
        )
        .await;
    let page = mine.submit(page.form("form").press("accept")).await;
    assert_eq!(
        page.query("kc_action_status").as_deref(),
        Some("success"),
        "{}",
        page.text()
    );
    let change = world.change(&ann).await;
    assert_eq!(
        (change.kind, change.factor),
        (ChangeKind::FactorRemoved, Some(FactorClass::Otp))
    );
}

// row C1: the owner changes the address.
#[tokio::test]
async fn a_changed_address_is_told_with_the_old_one() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    let mut mine = browser();
    world.sign_in(&mut mine, "ann", OLD, "openid").await;
    let (page, _) = world.open(&mut mine, "openid", Some("UPDATE_PROFILE")).await;
    let form = page
        .form("#kc-update-profile-form")
        .set("email", "new@example.test");
    let page = mine.submit(form).await;
    assert!(page.is_stop(), "{}", page.text());
    let change = world.change(&ann).await;
    assert_eq!(change.kind, ChangeKind::EmailChanged);
    assert_eq!(change.previous_address.as_deref(), Some("ann@example.test"));
    assert_eq!(change.session, None);
    let account = world.idp.account(&ann).await.unwrap().account;
    let told: Vec<(&str, bool, bool)> = account
        .contacts
        .iter()
        .map(|contact| {
            (
                contact.address.as_str(),
                contact.gone.is_some(),
                contact.since > account.created,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("new@example.test", false, true),
            ("ann@example.test", true, false)
        ]
    );
}

#[tokio::test]
async fn a_reading_has_what_tiers_are_chosen_by() {
    let mut world = World::new().await;
    world.set(|settings| settings.phone_attributes = vec!["phone".to_owned()]);
    let mut profile = world.realm.get("users/profile").await;
    let declared = profile["attributes"].as_array_mut().unwrap();
    let attribute = |name: &str, edit: &[&str]| json!({"name": name, "permissions": {"view": ["admin", "user"], "edit": edit}, "multivalued": false});
    declared.push(attribute("clearance", &["admin"]));
    declared.push(attribute("nickname", &["admin", "user"]));
    declared.push(attribute("phone", &["admin", "user"]));
    world.realm.put("users/profile", &profile).await;
    world.realm.post("roles", &json!({"name": "clerk"})).await;
    let group = world.realm.post("groups", &json!({"name": "staff"})).await;
    let mut ann = user("ann", "ann@example.test", OLD);
    ann["attributes"] =
        json!({"clearance": ["top"], "nickname": ["boss"], "phone": ["+4412345"], "locale": ["de"]});
    let ann = world.realm.post("users", &ann).await;
    let clerk = world.realm.get("roles/clerk").await;
    world
        .realm
        .post(&format!("users/{ann}/role-mappings/realm"), &json!([clerk]))
        .await;
    world
        .realm
        .put(&format!("users/{ann}/groups/{group}"), &json!({}))
        .await;
    let reading = world.idp.account(&ann).await.unwrap();
    let facts = reading.facts.unwrap();
    assert!(
        facts.roles.contains("clerk") && facts.roles.contains("reentry-full"),
        "{facts:?}"
    );
    assert_eq!(facts.groups, names(&["/staff"]));
    let attributes: Vec<(&str, &str)> = facts
        .attributes
        .iter()
        .map(|(name, values)| (name.as_str(), values[0].as_str()))
        .collect();
    assert_eq!(attributes, [("clearance", "top")], "never what a user may edit");
    let account = reading.account;
    assert_eq!((account.name.as_str(), account.enabled), ("ann Tester", true));
    assert_eq!(account.factors.len(), 1);
    assert!(account.factors[0].at_creation && account.factors[0].class == FactorClass::Password);
    let contacts: Vec<(&str, bool)> = account
        .contacts
        .iter()
        .map(|contact| (contact.address.as_str(), contact.verified))
        .collect();
    assert_eq!(contacts, [("ann@example.test", true), ("+4412345", false)]);
    assert!(matches!(
        world.idp.account("nobody").await,
        Err(IdpError::UnknownSubject)
    ));
    assert_eq!(world.idp.accounts(0, 10).await.unwrap(), [ann]);
    assert_eq!(world.idp.accounts(1, 10).await.unwrap(), Vec::<String>::new());
}

// rows K1, K2: hold, another level, lift, with exact effective roles.
#[tokio::test]
async fn a_hold_takes_the_claim_and_a_lift_gives_back_exactly_what_was_taken() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    let before = world.roles(&ann).await;
    assert!(before.contains("reentry-full"));
    let mut mine = browser();
    let scope = "openid offline_access";
    let free = world.sign_in(&mut mine, "ann", OLD, scope).await;
    assert_eq!(free.access_claims()["recovery_scope"], "full");
    world.lines().await;

    world.converge(&ann, held("read write")).await;
    let expected = names(&[
        "offline_access",
        "reentry-held-defaults",
        "reentry-hold.read.write",
        "uma_authorization",
    ]);
    assert_eq!(world.roles(&ann).await, expected);
    assert_eq!(
        world.groups(&ann).await,
        names(&["/reentry/hold.read.write", "/reentry/lift.default-role"])
    );
    let inside = world
        .rp
        .refresh(free.text("refresh_token"))
        .await
        .expect_status(200);
    assert_eq!(inside.access_claims()["recovery_scope"], "read write");
    assert_eq!(
        world.converge(&ann, held("read write")).await,
        Vec::<String>::new(),
        "nothing to do twice"
    );

    world.converge(&ann, held("read")).await;
    assert!(world.roles(&ann).await.contains("reentry-hold.read"));
    assert!(!world.roles(&ann).await.contains("reentry-hold.read.write"));
    // A level that nobody wired: the widest one within it.
    world.converge(&ann, held("read export")).await;
    assert!(world.groups(&ann).await.contains("/reentry/hold.read"));
    world.converge(&ann, held("export")).await;
    assert!(world.groups(&ann).await.contains("/reentry/hold.none"));
    assert!(world.lines().await.is_empty(), "our own acts are no news");

    world.converge(&ann, Posture::Free).await;
    assert_eq!(
        (world.roles(&ann).await, world.groups(&ann).await),
        (before, BTreeSet::new())
    );
    let after = world
        .rp
        .refresh(free.text("refresh_token"))
        .await
        .expect_status(200);
    assert_eq!(after.access_claims()["recovery_scope"], "full");
    assert_eq!(world.converge(&ann, Posture::Free).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_lift_gives_nothing_that_was_not_taken() {
    let world = World::new().await;
    let admin = &world.realm;
    let default_role = admin.get("").await["defaultRole"].clone();
    // Without the default role.
    let ann = world.user("ann").await;
    let of = |sub: &str| format!("users/{sub}/role-mappings/realm");
    admin.delete(&of(&ann), Some(&json!([default_role]))).await;
    world.converge(&ann, held("read")).await;
    assert!(world.roles(&ann).await.contains("reentry-hold.read"));
    world.converge(&ann, Posture::Free).await;
    assert_eq!(world.roles(&ann).await, BTreeSet::new());
    // With a `reentry-full` of its own instead.
    let full = admin.get("roles/reentry-full").await;
    admin.post(&of(&ann), &json!([full])).await;
    world.converge(&ann, held("read")).await;
    assert_eq!(
        world.roles(&ann).await,
        names(&[
            "offline_access",
            "reentry-held-defaults",
            "reentry-hold.read",
            "uma_authorization"
        ])
    );
    world.converge(&ann, Posture::Free).await;
    assert_eq!(world.roles(&ann).await, names(&["reentry-full"]));
    // An account that an administrator had switched off stays off.
    let bob = world.user("bob").await;
    let mut off = admin.get(&format!("users/{bob}")).await;
    off["enabled"] = json!(false);
    admin.put(&format!("users/{bob}"), &off).await;
    world
        .converge(&bob, Posture::Contested(ContestedAtIdp::Disable))
        .await;
    world.converge(&bob, Posture::Free).await;
    assert_eq!(admin.get(&format!("users/{bob}")).await["enabled"], false);
    // A hold that was cut short by a crash: the note is there, the role is gone, the group is not yet.
    let eve = world.user("eve").await;
    let notes = admin.get("group-by-path/reentry/lift.default-role").await;
    let note = notes["id"].as_str().unwrap();
    admin.put(&format!("users/{eve}/groups/{note}"), &json!({})).await;
    admin.delete(&of(&eve), Some(&json!([default_role]))).await;
    world.converge(&eve, Posture::Free).await;
    assert!(world.roles(&eve).await.contains("reentry-full"));
    assert_eq!(world.groups(&eve).await, BTreeSet::new());
}

// ISS-10, P2: a contest is written to the IdP, and a thaw goes back through a hold.
#[tokio::test]
async fn a_contest_stops_everything_until_it_is_over() {
    let world = World::new().await;
    let ann = world.user("ann").await;
    let mut mine = browser();
    let tokens = world
        .sign_in(&mut mine, "ann", OLD, "openid offline_access")
        .await;
    world
        .converge(&ann, Posture::Contested(ContestedAtIdp::Disable))
        .await;
    assert_eq!(world.realm.get(&format!("users/{ann}")).await["enabled"], false);
    assert!(world.groups(&ann).await.contains("/reentry/hold.none"));
    assert_eq!(world.idp.sessions(&ann).await.unwrap(), []);
    assert_eq!(world.rp.refresh(tokens.text("refresh_token")).await.status, 400);
    world.converge(&ann, held("read")).await;
    assert_eq!(world.realm.get(&format!("users/{ann}")).await["enabled"], true);
    let inside = world.sign_in(&mut browser(), "ann", OLD, "openid").await;
    assert_eq!(inside.access_claims()["recovery_scope"], "read");
    world.converge(&ann, Posture::Free).await;
    assert_eq!(world.groups(&ann).await, BTreeSet::new());

    let bob = world.user("bob").await;
    world
        .converge(&bob, Posture::Contested(ContestedAtIdp::IssueNone))
        .await;
    let none = world.sign_in(&mut browser(), "bob", OLD, "openid").await;
    assert_eq!(none.access_claims()["recovery_scope"], "none");
}

// `reentry-full` granted to a held user by an administrator, and every other way out: heard, and taken back.
#[tokio::test]
async fn tampering_is_heard_and_undone() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    let bob = world.user("bob").await;
    world.converge(&ann, held("read write")).await;
    let expected = (world.roles(&ann).await, world.groups(&ann).await);
    world.lines().await;
    let full = world.realm.get("roles/reentry-full").await;
    let default_role = world.realm.get("").await["defaultRole"].clone();
    let roles = format!("users/{ann}/role-mappings/realm");
    let hold = world.realm.get("group-by-path/reentry/hold.read.write").await;
    let other = world.realm.get("group-by-path/reentry/hold.read").await;
    let group = |of: &serde_json::Value| format!("users/{ann}/groups/{}", of["id"].as_str().unwrap());
    for step in 0..4 {
        match step {
            0 => drop(world.realm.post(&roles, &json!([full])).await),
            1 => drop(world.realm.post(&roles, &json!([default_role])).await),
            2 => world.realm.delete(&group(&hold), None).await,
            _ => world.realm.put(&group(&other), &json!({})).await,
        }
        // What the administrator did beside it is a line of the administrator's own.
        let mut lines = world.lines().await;
        lines.retain(|line| line.sub == ann);
        assert!(
            matches!(
                lines.as_slice(),
                [Line {
                    heard: Heard::Tampered { own: false, .. },
                    ..
                }]
            ),
            "step {step}: {lines:?}"
        );
        world.converge(&ann, held("read write")).await;
        assert_eq!(
            (world.roles(&ann).await, world.groups(&ann).await),
            expected,
            "step {step}"
        );
    }
    world.converge(&ann, Posture::Free).await;
    assert!(world.roles(&ann).await.contains("reentry-full"));
    let mapped = world.realm.get(&roles).await;
    assert_eq!(
        mapped.as_array().unwrap().len(),
        1,
        "the granted role is not given back: {mapped}"
    );
    // The roles of a free account are its administrators' business.
    world.realm.post("roles", &json!({"name": "clerk"})).await;
    let clerk = world.realm.get("roles/clerk").await;
    world
        .realm
        .post(&format!("users/{bob}/role-mappings/realm"), &json!([clerk]))
        .await;
    let mut lines = world.lines().await;
    lines.retain(|line| line.sub == bob);
    assert!(
        matches!(
            lines.as_slice(),
            [Line {
                heard: Heard::Touched { .. },
                ..
            }]
        ),
        "{lines:?}"
    );
}

#[tokio::test]
async fn an_account_that_cannot_be_held_is_told_and_switched_off() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    let default_role = world.realm.get("").await["defaultRole"].clone();
    let group = world.realm.post("groups", &json!({"name": "everybody"})).await;
    world
        .realm
        .post(
            &format!("groups/{group}/role-mappings/realm"),
            &json!([default_role]),
        )
        .await;
    world
        .realm
        .put(&format!("users/{ann}/groups/{group}"), &json!({}))
        .await;
    let wanted = Wanted {
        posture: held("read"),
        cuts: Vec::new(),
        end_before: None,
        owed: BTreeSet::new(),
        barred: false,
    };
    world.set(|settings| settings.unholdable = reentry::idp::keycloak::CannotHold::Alarm);
    let done = world.idp.converge(&ann, &wanted).await.unwrap();
    assert!(done.cannot.unwrap().contains("reentry-full"));
    assert_eq!(world.realm.get(&format!("users/{ann}")).await["enabled"], true);
    world.set(|_| {});
    let done = world.idp.converge(&ann, &wanted).await.unwrap();
    assert!(done.cannot.is_some());
    assert_eq!(world.realm.get(&format!("users/{ann}")).await["enabled"], false);
    world.converge(&ann, Posture::Free).await;
    assert_eq!(world.realm.get(&format!("users/{ann}")).await["enabled"], true);
}

// ISS-6: every session that began before, offline ones too, but the one of the change itself.
#[tokio::test]
async fn a_reset_ends_every_session_but_its_own() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    let mut old = browser();
    let before = world.sign_in(&mut old, "ann", OLD, "openid").await;
    let offline = world
        .sign_in(&mut browser(), "ann", OLD, "openid offline_access")
        .await;
    let ids: BTreeSet<String> = world
        .idp
        .sessions(&ann)
        .await
        .unwrap()
        .into_iter()
        .map(|session| session.id)
        .collect();
    assert_eq!(ids.len(), 2);
    assert!(
        world
            .idp
            .sessions(&ann)
            .await
            .unwrap()
            .iter()
            .any(|session| session.offline)
    );
    let mut thief = browser();
    let own = world.reset(&mut thief, "ann", NEW).await;
    let change = world.change(&ann).await;
    let cut = Cut {
        at: now().latest(),
        except: change.session.clone(),
    };
    let wanted = Wanted {
        posture: held("read write"),
        cuts: vec![cut],
        end_before: None,
        owed: BTreeSet::new(),
        barred: false,
    };
    let done = world.idp.converge(&ann, &wanted).await.unwrap();
    assert_eq!(done.cannot, None);
    assert!(
        done.acts
            .iter()
            .any(|act| act.starts_with("ended offline session")),
        "{:?}",
        done.acts
    );
    for dead in [&before, &offline] {
        let reply = world.rp.refresh(dead.text("refresh_token")).await;
        assert_eq!((reply.status, reply.error()), (400, "invalid_grant"));
    }
    let alive = world
        .rp
        .refresh(own.text("refresh_token"))
        .await
        .expect_status(200);
    assert_eq!(alive.access_claims()["recovery_scope"], "read write");
    // What begins later lives, also when the effect is done again.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let later = world.sign_in(&mut browser(), "ann", NEW, "openid").await;
    let again = world.idp.converge(&ann, &wanted).await.unwrap();
    assert_eq!(again.acts, Vec::<String>::new());
    world
        .rp
        .refresh(later.text("refresh_token"))
        .await
        .expect_status(200);
    // The end of a hold that asks for a fresh log-in ends them all.
    let end = Wanted {
        posture: Posture::Free,
        cuts: Vec::new(),
        end_before: Some(now().latest().plus(Span::from_secs(1))),
        owed: BTreeSet::new(),
        barred: false,
    };
    world.idp.converge(&ann, &end).await.unwrap();
    assert_eq!(world.idp.sessions(&ann).await.unwrap(), []);
    assert_eq!(world.rp.refresh(own.text("refresh_token")).await.status, 400);
}

// A thaw with the finding `owner`: what came with the contested change goes, the address of before comes back.
#[tokio::test]
async fn restoring_removes_what_was_enrolled_and_sets_the_old_address() {
    let world = World::new().await;
    let ann = world.user("ann").await;
    let before = world.idp.account(&ann).await.unwrap().account;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let since = now().earliest();
    let mut thief = browser();
    world.reset(&mut thief, "ann", NEW).await;
    enrol_otp(&world, &mut thief).await;
    let (page, _) = world.open(&mut thief, "openid", Some("UPDATE_PROFILE")).await;
    let form = page
        .form("#kc-update-profile-form")
        .set("email", "thief@example.test");
    thief.submit(form).await;
    let done = world.idp.restore(&ann, since, &before).await.unwrap();
    assert_eq!(done.len(), 3, "{done:?}");
    let after = world.idp.account(&ann).await.unwrap().account;
    assert_eq!(after.factors, []);
    let now = world.realm.get(&format!("users/{ann}")).await;
    assert_eq!(
        (&now["email"], &now["emailVerified"]),
        (&json!("ann@example.test"), &json!(true))
    );
    assert_eq!(
        (&now["firstName"], &now["username"]),
        (&json!("ann"), &json!("ann")),
        "nothing else is lost"
    );
    assert_eq!(
        world.idp.restore(&ann, since, &before).await.unwrap(),
        Vec::<String>::new()
    );
    // The owner gets in again by mail.
    world.reset(&mut browser(), "ann", OLD).await;
}

#[tokio::test]
async fn the_owner_may_end_a_session_and_remove_a_factor_but_only_their_own() {
    let world = World::new().await;
    let ann = world.user("ann").await;
    let bob = world.user("bob").await;
    let mut mine = browser();
    world.sign_in(&mut mine, "ann", OLD, "openid").await;
    world.sign_in(&mut browser(), "bob", OLD, "openid").await;
    enrol_otp(&world, &mut mine).await;
    let of_bob = world.idp.sessions(&bob).await.unwrap()[0].id.clone();
    world.idp.end_session(&ann, &of_bob).await.unwrap();
    assert_eq!(world.idp.sessions(&bob).await.unwrap().len(), 1);
    let of_ann = world.idp.sessions(&ann).await.unwrap()[0].clone();
    assert_eq!(of_ann.clients, ["shop"]);
    world.idp.end_session(&ann, &of_ann.id).await.unwrap();
    assert_eq!(world.idp.sessions(&ann).await.unwrap(), []);
    world.idp.end_session(&ann, &of_ann.id).await.unwrap();
    let account = world.idp.account(&ann).await.unwrap().account;
    let otp = account
        .factors
        .iter()
        .find(|factor| factor.class == FactorClass::Otp)
        .unwrap();
    world.idp.remove_factor(&ann, &otp.id).await.unwrap();
    world.idp.remove_factor(&ann, &otp.id).await.unwrap();
    assert_eq!(world.idp.account(&ann).await.unwrap().account.factors.len(), 1);
}

// P10: pages as small as they get, a poll that comes again, a log-in-time check beside it.
#[tokio::test]
async fn the_log_is_read_to_its_end_whatever_the_page_size() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    for password in ["one of many", "two of many", "three of many"] {
        let body = json!({"type": "password", "value": password, "temporary": false});
        world
            .realm
            .put(&format!("users/{ann}/reset-password"), &body)
            .await;
    }
    world.reset(&mut browser(), "ann", NEW).await;
    let whole: Vec<String> = world
        .changes(&ann)
        .await
        .into_iter()
        .map(|change| change.id)
        .collect();
    assert_eq!(whole.len(), 4);
    assert_eq!(world.changes(&ann).await, [], "read once, judged once");
    world.set(|settings| settings.page = 2);
    world.cursor = Cursor::default();
    let mut small: Vec<String> = world
        .changes(&ann)
        .await
        .into_iter()
        .map(|change| change.id)
        .collect();
    // Two logs paged side by side are not one order; within each they are.
    small.sort_by_key(|id| whole.iter().position(|one| one == id));
    assert_eq!(small, whole, "each once");
    let latest = world
        .idp
        .story(&ann, now().earliest().minus(Span::from_days(7)), now())
        .await
        .unwrap();
    let change = |line: Line| match line.heard {
        Heard::Change(change) => Some(change.id),
        _ => None,
    };
    let latest: Vec<String> = latest.into_iter().filter_map(change).collect();
    assert_eq!(latest, whole);
    world.cursor = Cursor("damaged".to_owned());
    assert_eq!(
        world.changes(&ann).await.len(),
        4,
        "a damaged cursor reads everything again"
    );
}

#[tokio::test]
async fn a_log_that_is_switched_off_or_cleared_is_an_alarm() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    world.reset(&mut browser(), "ann", NEW).await;
    world.lines().await;
    assert_eq!(world.idp.health().await.unwrap(), Vec::<String>::new());
    let alarms = async |world: &World| world.idp.poll(&world.cursor, now()).await.unwrap().alarms;
    world.realm.delete("events", None).await;
    let found = alarms(&world).await;
    assert!(
        found.len() == 1 && found[0].contains("user events lost"),
        "{found:?}"
    );
    world.cursor = Cursor::default();
    world.lines().await;
    let mut config = world.realm.get("events/config").await;
    config["enabledEventTypes"] = json!(["LOGIN", "UPDATE_CREDENTIAL"]);
    world.realm.put("events/config", &config).await;
    let found = alarms(&world).await;
    assert!(
        found.len() == 1 && found[0].contains("SEND_RESET_PASSWORD"),
        "{found:?}"
    );
    config["eventsEnabled"] = json!(false);
    config["adminEventsEnabled"] = json!(false);
    world.realm.put("events/config", &config).await;
    assert_eq!(alarms(&world).await.len(), 3);
    assert_eq!(world.idp.health().await.unwrap().len(), 3);
    assert!(world.idp.account(&ann).await.is_ok());
}

#[tokio::test]
async fn roles_that_are_too_few_or_too_many_and_a_realm_that_is_not_wired() {
    let mut world = World::new().await;
    world
        .realm
        .grant_realm_management("reentry", &["manage-realm"])
        .await;
    world.set(|_| {});
    let found = world.idp.health().await.unwrap();
    assert!(found.len() == 1 && found[0].contains("manage-realm"), "{found:?}");
    let wrong = SecretString::from("wrong".to_owned());
    let stranger = adapter(&world.realm, &wrong, |_| {});
    assert!(matches!(stranger.health().await, Err(IdpError::Refused(_))));
    assert!(matches!(
        stranger.poll(&world.cursor, now()).await,
        Err(IdpError::Refused(_))
    ));
    let ann = world.user("ann").await;
    let root = world.realm.get("group-by-path/reentry").await;
    world
        .realm
        .delete(&format!("groups/{}", root["id"].as_str().unwrap()), None)
        .await;
    world.set(|_| {});
    assert!(
        world
            .idp
            .health()
            .await
            .unwrap()
            .iter()
            .any(|fault| fault.contains("not wired"))
    );
    let wanted = Wanted {
        posture: held("read"),
        cuts: Vec::new(),
        end_before: None,
        owed: BTreeSet::new(),
        barred: false,
    };
    let done = world.idp.converge(&ann, &wanted).await.unwrap();
    assert!(done.cannot.unwrap().contains("not wired"));
    let nowhere = KeycloakSettings::new(
        UpstreamId::parse("main").unwrap(),
        Url::parse("http://127.0.0.1:1").unwrap(),
        "none",
        "reentry",
        wrong,
    );
    let gone = Keycloak::new(nowhere, Arc::new(SystemClock)).unwrap();
    assert!(matches!(
        gone.poll(&Cursor::default(), now()).await,
        Err(IdpError::Unreachable(_))
    ));
}

// held administrators: known by the server where it shows them, by the log where it does not, and never in silence
#[tokio::test]
async fn administrators_are_known_by_the_log_and_with_view_clients_by_their_roles() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    let blind = world.idp.blind_spots().await.unwrap();
    assert!(
        blind.len() == 1 && blind[0].contains("wire keycloak --view-clients"),
        "{blind:?}"
    );
    let management = world.realm.client_uuid("realm-management").await;
    let manage = format!("clients/{management}/roles/manage-users");
    let manage = json!([world.realm.get(&manage).await]);
    let mapping = format!("users/{ann}/role-mappings/clients/{management}");
    let roles = async |world: &World| {
        let facts = world.idp.account(&ann).await.unwrap().facts.unwrap();
        let of_management = |role: &String| role.strip_prefix("realm-management/").map(str::to_owned);
        facts
            .roles
            .iter()
            .filter_map(of_management)
            .collect::<BTreeSet<String>>()
    };
    let enabled =
        async |world: &World| world.realm.get(&format!("users/{ann}")).await["enabled"] == json!(true);
    let hold = Wanted {
        posture: held("read"),
        cuts: Vec::new(),
        end_before: None,
        owed: BTreeSet::new(),
        barred: false,
    };
    assert_eq!(roles(&world).await, names(&[]));
    world.converge(&ann, held("read")).await;
    world.converge(&ann, Posture::Free).await;

    // Four roles: the log says who was given what ...
    world.realm.post(&mapping, &manage).await;
    assert_eq!(roles(&world).await, names(&["manage-users"]));
    let facts = world.idp.account(&ann).await.unwrap().facts.unwrap();
    let policy = reentry::domain::policy::Policy::standard();
    assert_eq!(policy.choose(Some(&facts)).unwrap().name.0, "b2b_admin");
    let done = world.idp.converge(&ann, &hold).await.unwrap();
    assert!(done.cannot.as_ref().unwrap().contains("manage-users"), "{done:?}");
    assert!(!enabled(&world).await, "switched off for the hold");
    world.converge(&ann, Posture::Free).await;
    assert!(enabled(&world).await, "and on again");

    // ... and who acted, whatever by.
    let credentials = Credentials::Password {
        realm: world.realm.name().to_owned(),
        username: "ann".to_owned(),
        password: SecretString::from(OLD.to_owned()),
    };
    let base = Url::parse(world.realm.keycloak().base()).unwrap();
    let acting = Admin::new(&base, world.realm.name(), credentials, Duration::from_secs(30)).unwrap();
    let bob = world.user("bob").await;
    acting.logout(&bob).await.unwrap();
    world.realm.delete(&mapping, Some(&manage)).await;
    assert_eq!(roles(&world).await, names(&["seen-acting"]));

    // What the log has forgotten is not seen: that is what the blind spot is about.
    world.realm.post(&mapping, &manage).await;
    world.realm.delete("admin-events", None).await;
    assert_eq!(roles(&world).await, names(&[]));

    // With view-clients the server shows it, and nothing is left to say.
    world
        .realm
        .grant_realm_management("reentry", &["view-clients"])
        .await;
    world.set(|settings| settings.held_admins = reentry::idp::keycloak::CannotHold::Alarm);
    assert_eq!(world.idp.blind_spots().await.unwrap(), Vec::<String>::new());
    assert_eq!(world.idp.health().await.unwrap(), Vec::<String>::new());
    assert!(roles(&world).await.contains("manage-users"));
    let done = world.idp.converge(&ann, &hold).await.unwrap();
    assert!(done.cannot.unwrap().contains("manage-users"));
    assert!(enabled(&world).await, "left, and told");
    world.set(|_| {});
    world.idp.converge(&ann, &hold).await.unwrap();
    assert!(!enabled(&world).await);
}
