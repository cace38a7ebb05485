//! `wire` on a real Keycloak: what it makes enforces a hold in Keycloak's own tokens, what drifts is
//! found, and what it made can be taken back to the last member.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reentry::domain::time::Span;
use reentry::idp::keycloak::admin::{Admin, AdminError, Credentials};
use reentry::idp::keycloak::representations::{Group, Role};
use reentry::idp::keycloak::wire::audit::{Finding, Severity};
use reentry::idp::keycloak::wire::change::Change;
use reentry::idp::keycloak::wire::names::{DEFAULT_ROLE_ID, DEFAULT_ROLE_NAME, GROUP, Level, RECORD};
use reentry::idp::keycloak::wire::{self, Applied, BrokerClient, Plan, WireError, WirePlanInput};
use reentry_test_support::browser::Browser;
use reentry_test_support::keycloak::{
    ADMIN, Keycloak, Realm, export, pages, plain_realm, service_account, user,
};
use reentry_test_support::rp::{ClientAuth, RelyingParty, Reply};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::Url;

const CALLBACK: &str = "http://127.0.0.1:9/callback";
const SECRET: &str = "machine-and-narrow";

/// A company's realm: four kinds of client, four scopes of its own, one user.
async fn company(patch: Value) -> Realm {
    let keycloak = Keycloak::get().await;
    let mut realm = plain_realm(&json!({}));
    for (name, value) in patch.as_object().expect("members") {
        realm[name] = value.clone();
    }
    // Keycloak answers an introspection only to a client of the token's audience.
    let audience = json!({
        "name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
        "config": {"included.client.audience": "narrow", "access.token.claim": "true"},
    });
    realm["clients"] = json!([
        {"clientId": "shop", "publicClient": true, "redirectUris": [CALLBACK]},
        {"clientId": "asks", "publicClient": true, "redirectUris": [CALLBACK], "consentRequired": true},
        {"clientId": "narrow", "secret": SECRET, "redirectUris": [CALLBACK], "fullScopeAllowed": false, "protocolMappers": [audience]},
        {"clientId": "machine", "secret": SECRET, "serviceAccountsEnabled": true, "standardFlowEnabled": false},
    ]);
    let realm = keycloak.realm(realm).await;
    // Not in the import: imported users get no default role.
    realm
        .post("users", &user("alice", "alice@example.test", "correct horse"))
        .await;
    for (word, in_token) in [
        ("payments:write", true),
        ("notes:write", true),
        ("beta", true),
        ("tenant", false),
    ] {
        let body = json!({
            "name": word, "protocol": "openid-connect",
            "attributes": {"include.in.token.scope": in_token.to_string(), "display.on.consent.screen": "false"},
        });
        let id = realm.post("client-scopes", &body).await;
        for name in ["shop", "asks", "narrow", "machine"] {
            let client = realm.client_uuid(name).await;
            let link = format!("clients/{client}/optional-client-scopes/{id}");
            realm.put(&link, &json!({})).await;
        }
    }
    realm
}

/// Sets members of the event settings; Keycloak resets some that a PUT leaves out.
async fn set_events(realm: &Realm, members: Value) {
    let mut config = realm.get("events/config").await;
    for (name, value) in members.as_object().expect("members") {
        config[name] = value.clone();
    }
    realm.put("events/config", &config).await;
}

fn level(name: &str) -> Level {
    name.parse().expect("a level")
}

fn input() -> WirePlanInput {
    let scopes = [
        ("pay", "payments:write"),
        ("write", "notes:write"),
        ("export", "reports:export"),
    ];
    let scopes = scopes.map(|(class, scope)| (class.to_owned(), BTreeSet::from([scope.to_owned()])));
    WirePlanInput::new(
        BTreeSet::from([level("read.write"), level("read")]),
        BTreeMap::from(scopes),
    )
}

fn admin_of(realm: &Realm, credentials: Credentials) -> Admin {
    let base = Url::parse(realm.keycloak().base()).expect("a base URL");
    Admin::new(&base, realm.name(), credentials, Duration::from_secs(30)).expect("an admin client")
}

fn administrator(realm: &Realm) -> Admin {
    let credentials = Credentials::Password {
        realm: "master".to_owned(),
        username: ADMIN.0.to_owned(),
        password: SecretString::from(ADMIN.1.to_owned()),
    };
    admin_of(realm, credentials)
}

fn runtime(realm: &Realm, secret: &SecretString) -> Admin {
    let credentials = Credentials::Client {
        realm: realm.name().to_owned(),
        id: "reentry".to_owned(),
        secret: secret.clone(),
    };
    admin_of(realm, credentials)
}

fn quiet(_: usize, _: usize, _: &str) {}

async fn planned(admin: &Admin, input: &WirePlanInput) -> Plan {
    wire::plan(admin, input).await.expect("a plan")
}

async fn wired(admin: &Admin, input: &WirePlanInput) -> Applied {
    let plan = planned(admin, input).await;
    wire::apply(admin, &plan, &quiet)
        .await
        .unwrap_or_else(|error| panic!("{error}\n{plan}"))
}

async fn checked(admin: &Admin, input: &WirePlanInput) -> Vec<Finding> {
    wire::check(admin, input, &quiet).await.expect("a check")
}

fn errors(findings: &[Finding]) -> Vec<&Finding> {
    findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .collect()
}

/// What the run-time account does for a hold and a lift, with what it may read and no more.
struct Holder {
    admin: Admin,
    user: String,
    default_role: Role,
}

impl Holder {
    async fn new(admin: Admin, realm: &Realm, username: &str) -> Self {
        let group = admin
            .group_by_path(GROUP)
            .await
            .expect("the group can be read")
            .expect("the group");
        let attribute = |name: &str| group.attributes[name][0].clone();
        let default_role = Role {
            id: Some(attribute(DEFAULT_ROLE_ID)),
            name: attribute(DEFAULT_ROLE_NAME),
            ..Role::default()
        };
        Self {
            admin,
            user: realm.user_id(username).await,
            default_role,
        }
    }

    async fn group(&self, level: &Level) -> String {
        let group = self
            .admin
            .group_by_path(&level.path())
            .await
            .expect("the group can be read");
        group.and_then(|group| group.id).expect("the hold group")
    }

    async fn hold(&self, level: &Level) {
        self.admin
            .remove_realm_roles(&self.user, std::slice::from_ref(&self.default_role))
            .await
            .expect("taken");
        self.admin
            .join_group(&self.user, &self.group(level).await)
            .await
            .expect("joined");
    }

    async fn lift(&self, level: &Level) {
        self.admin
            .leave_group(&self.user, &self.group(level).await)
            .await
            .expect("left");
        self.admin
            .add_realm_roles(&self.user, std::slice::from_ref(&self.default_role))
            .await
            .expect("given");
    }

    async fn effective(&self) -> BTreeSet<String> {
        let roles = self
            .admin
            .effective_realm_roles(&self.user)
            .await
            .expect("roles can be read");
        roles.into_iter().map(|role| role.name).collect()
    }
}

async fn sign_in(rp: &RelyingParty, scope: &str) -> Reply {
    let request = rp.authorization(scope);
    let mut browser = Browser::new().stopping_at(CALLBACK);
    let page = browser.get(request.url.as_str()).await;
    let mut page = pages::log_in(&mut browser, &page, "alice", "correct horse").await;
    if !page.is_stop() {
        page = pages::consent(&mut browser, &page).await;
    }
    assert!(
        page.is_stop(),
        "no code for {}: {}",
        rp.client_id,
        pages::page_id(&page)
    );
    let code = rp.code(&request, &page.url);
    rp.exchange(&code, &request.verifier).await.expect_status(200)
}

#[track_caller]
fn expect_claim(reply: &Reply, claim: &str) {
    assert_eq!(
        reply.access_claims()["recovery_scope"],
        json!(claim),
        "access token"
    );
    if reply.get("id_token").is_some() {
        assert_eq!(reply.id_claims()["recovery_scope"], json!(claim), "ID token");
    }
}

#[tokio::test]
async fn undo_takes_back_exactly_what_wire_made_and_changed() {
    // A realm that needs everything: events off, a list of types that lacks ours, a short retention.
    let realm = company(json!({
        "eventsEnabled": false,
        "eventsExpiration": 86_400,
        "enabledEventTypes": ["LOGIN", "CLIENT_LOGIN"],
        "adminEventsEnabled": false,
        "adminEventsDetailsEnabled": false,
        "attributes": {"adminEventsExpiration": "3600", "company": "kept"},
    }))
    .await;
    let admin = administrator(&realm);
    let mut input = input();
    input.force_login_after_reset = true;
    input.broker = Some(BrokerClient {
        client_id: "reentry-broker".to_owned(),
        redirect_uri: Url::parse("https://login.example.test/callback/main").expect("a URL"),
        backchannel_logout: Some(
            Url::parse("https://login.example.test/backchannel-logout/main").expect("a URL"),
        ),
    });
    let before = realm.export().await;

    let plan = planned(&admin, &input).await;
    assert!(plan.blockers.is_empty() && !plan.is_empty(), "{plan}");
    assert!(
        plan.notes.iter().any(|note| note.contains("reports:export")),
        "{plan}"
    );
    assert!(
        export::differences(&before, &realm.export().await).is_empty(),
        "a plan changes nothing"
    );
    let applied = wired(&admin, &input).await;
    assert_eq!(
        applied.secrets.keys().collect::<Vec<_>>(),
        ["reentry", "reentry-broker"]
    );
    assert!(
        applied
            .secrets
            .values()
            .all(|secret| secret.expose_secret().len() >= 32)
    );

    let kept = wire::secrets(&admin, &input).await.expect("secrets");
    for (client_id, secret) in &applied.secrets {
        assert_eq!(
            kept[client_id].expose_secret(),
            secret.expose_secret(),
            "{client_id}"
        );
    }

    let again = planned(&admin, &input).await;
    assert!(
        again.is_empty() && again.blockers.is_empty(),
        "a second plan: {again}"
    );
    let now = realm.get("").await;
    assert_eq!(now["resetCredentialsFlow"], "reentry reset credentials");
    assert_eq!(now["attributes"]["adminEventsExpiration"], "5184000");
    assert_eq!(now["attributes"]["company"], "kept");
    let events = realm.get("events/config").await;
    assert_eq!(
        (&events["eventsEnabled"], &events["eventsExpiration"]),
        (&json!(true), &json!(5_184_000))
    );
    let types = events["enabledEventTypes"].as_array().expect("types");
    assert!(
        ["CLIENT_LOGIN", "SEND_RESET_PASSWORD"]
            .iter()
            .all(|kind| types.contains(&json!(kind)))
    );

    let undo = wire::undo(&admin, &input).await.expect("an undo plan");
    wire::apply(&admin, &undo, &quiet).await.expect("undone");
    let differences = export::differences(&before, &realm.export().await);
    assert!(differences.is_empty(), "{differences:#?}");
    assert!(matches!(
        wire::undo(&admin, &input).await,
        Err(WireError::NotWired(_))
    ));
}

#[tokio::test]
async fn an_interrupted_wiring_goes_on_and_can_be_taken_back() {
    let realm = company(json!({})).await;
    let admin = administrator(&realm);
    let before = realm.export().await;
    let whole = planned(&admin, &input()).await;
    for steps in [1, whole.steps.len() / 2] {
        let mut part = planned(&admin, &input()).await;
        part.steps.truncate(steps);
        wire::apply(&admin, &part, &quiet).await.expect("the first part");
    }
    let undo = wire::undo(&admin, &input())
        .await
        .expect("an undo plan of a part");
    wire::apply(&admin, &undo, &quiet).await.expect("undone");
    let differences = export::differences(&before, &realm.export().await);
    assert!(differences.is_empty(), "{differences:#?}");
}

#[tokio::test]
async fn a_set_up_client_of_the_realm_is_enough() {
    let realm = company(json!({})).await;
    realm.post("clients", &service_account("setup", SECRET)).await;
    let roles = [
        "manage-realm",
        "manage-clients",
        "manage-users",
        "manage-events",
        "view-events",
        "view-users",
    ];
    realm.grant_realm_management("setup", &roles).await;
    let credentials = Credentials::Client {
        realm: realm.name().to_owned(),
        id: "setup".to_owned(),
        secret: SecretString::from(SECRET.to_owned()),
    };
    let admin = admin_of(&realm, credentials);
    let before = realm.export().await;
    wired(&admin, &input()).await;
    let findings = checked(&admin, &input()).await;
    assert!(errors(&findings).is_empty(), "{findings:#?}");
    let undo = wire::undo(&admin, &input()).await.expect("an undo plan");
    wire::apply(&admin, &undo, &quiet).await.expect("undone");
    let differences = export::differences(&before, &realm.export().await);
    assert!(differences.is_empty(), "{differences:#?}");
}

#[tokio::test]
async fn a_run_time_client_that_was_there_before_is_used_and_left_as_it_was() {
    let realm = company(json!({})).await;
    let admin = administrator(&realm);
    let client = json!({
        "clientId": "reentry", "serviceAccountsEnabled": true, "standardFlowEnabled": false,
        "attributes": {"owner": "platform"},
    });
    realm.post("clients", &client).await;
    realm.grant_realm_management("reentry", &["view-events"]).await;
    let before = realm.export().await;
    let applied = wired(&admin, &input()).await;
    assert!(applied.secrets.is_empty());
    assert!(planned(&admin, &input()).await.is_empty());
    let findings = checked(&admin, &input()).await;
    assert!(errors(&findings).is_empty(), "{findings:#?}");
    let undo = wire::undo(&admin, &input()).await.expect("an undo plan");
    wire::apply(&admin, &undo, &quiet).await.expect("undone");
    let differences = export::differences(&before, &realm.export().await);
    assert!(differences.is_empty(), "{differences:#?}");
}

// row A4: a hold shows in the IdP's own tokens.
#[tokio::test]
async fn a_held_account_reads_its_ceiling_and_loses_gated_scopes_in_every_kind_of_client() {
    let realm = company(json!({})).await;
    let admin = administrator(&realm);
    let input = input();
    let shop = RelyingParty::discover(&realm.issuer(), "shop", ClientAuth::None, CALLBACK).await;
    let asks = shop.as_client("asks", ClientAuth::None, CALLBACK);
    let consented_before = sign_in(&asks, "openid").await;
    let applied = wired(&admin, &input).await;
    let holder = Holder::new(runtime(&realm, &applied.secrets["reentry"]), &realm, "alice").await;
    let narrow = shop.as_client("narrow", ClientAuth::Basic(SECRET.to_owned()), CALLBACK);
    let machine = shop.as_client("machine", ClientAuth::Basic(SECRET.to_owned()), CALLBACK);
    let all = "openid payments:write notes:write beta tenant offline_access";
    let (held, read) = (level("read.write"), level("read"));

    let free = sign_in(&shop, all).await;
    expect_claim(&free, "full");
    for scope in ["payments:write", "notes:write", "beta"] {
        assert!(free.scopes().contains(&scope), "{:?}", free.scopes());
    }
    let session = sign_in(&shop, "openid payments:write notes:write beta").await;
    for rp in [&asks, &narrow] {
        expect_claim(&sign_in(rp, "openid payments:write").await, "full");
    }
    expect_claim(
        &machine
            .client_credentials("payments:write")
            .await
            .expect_status(200),
        "full",
    );
    // Who consented before the wiring is not asked again.
    let refreshed = asks
        .refresh(consented_before.text("refresh_token"))
        .await
        .expect_status(200);
    expect_claim(&refreshed, "full");

    holder.hold(&held).await;
    assert!(!holder.effective().await.contains("reentry-full"));
    let reduced = shop
        .refresh(session.text("refresh_token"))
        .await
        .expect_status(200);
    expect_claim(&reduced, "read write");
    let words = reduced.scopes();
    assert!(
        !words.contains(&"payments:write") && !words.contains(&"beta"),
        "{words:?}"
    );
    assert!(
        words.contains(&"notes:write") && words.contains(&"reentry-hold.read.write"),
        "{words:?}"
    );
    look_everywhere(&realm, &shop, &reduced).await;

    // While somebody is held nothing is taken back: the default role would be lost.
    match wire::undo(&admin, &input).await {
        Err(WireError::Held(who)) => assert!(who[0].contains("alice"), "{who:?}"),
        other => panic!("undo while held: {other:?}"),
    }

    // Between the two calls of a change of level there is no claim at all: `none` for a relying party.
    holder
        .admin
        .leave_group(&holder.user, &holder.group(&held).await)
        .await
        .expect("left");
    let between = shop
        .refresh(reduced.text("refresh_token"))
        .await
        .expect_status(200);
    assert!(between.access_claims().get("recovery_scope").is_none());
    holder.hold(&read).await;
    let lower = shop
        .refresh(between.text("refresh_token"))
        .await
        .expect_status(200);
    expect_claim(&lower, "read");
    assert!(!lower.scopes().contains(&"notes:write"), "{:?}", lower.scopes());

    holder.lift(&read).await;
    let whole = shop.refresh(lower.text("refresh_token")).await.expect_status(200);
    expect_claim(&whole, "full");
    assert_eq!(whole.scopes(), session.scopes());
    let whole = asks
        .refresh(refreshed.text("refresh_token"))
        .await
        .expect_status(200);
    expect_claim(&whole, "full");
}

/// A held account seen from every side: user info, log-in at every kind of client, introspection, the
/// account API; and a machine, which nobody holds.
async fn look_everywhere(realm: &Realm, shop: &RelyingParty, reduced: &Reply) {
    let all = "openid payments:write notes:write beta tenant offline_access";
    let asks = shop.as_client("asks", ClientAuth::None, CALLBACK);
    let narrow = shop.as_client("narrow", ClientAuth::Basic(SECRET.to_owned()), CALLBACK);
    let machine = shop.as_client("machine", ClientAuth::Basic(SECRET.to_owned()), CALLBACK);
    let userinfo = shop
        .userinfo(reduced.text("access_token"))
        .await
        .expect_status(200);
    assert_eq!(userinfo.json["recovery_scope"], "read write");
    for (rp, scope) in [
        (shop, all),
        (&asks, "openid payments:write"),
        (&narrow, "openid payments:write"),
    ] {
        let reply = sign_in(rp, scope).await;
        expect_claim(&reply, "read write");
        assert!(
            !reply.scopes().contains(&"payments:write"),
            "{:?}",
            reply.scopes()
        );
    }
    let own = sign_in(&narrow, "openid").await;
    let introspected = narrow
        .introspect(own.text("access_token"))
        .await
        .expect_status(200);
    assert_eq!(
        introspected.json["recovery_scope"], "read write",
        "{}",
        introspected.body
    );
    expect_claim(
        &machine.client_credentials("openid").await.expect_status(200),
        "full",
    );
    assert_eq!(account_api(realm, reduced.text("access_token")).await, 403);
}

async fn account_api(realm: &Realm, token: &str) -> u16 {
    let url = format!("{}/account/", realm.issuer());
    let body = json!({"firstName": "Alice", "lastName": "Tester", "email": "alice@example.test"});
    let request = reqwest::Client::new().post(url).bearer_auth(token).json(&body);
    request.send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn the_run_time_account_has_four_roles_and_can_do_what_it_must() {
    let realm = company(json!({})).await;
    let applied = wired(&administrator(&realm), &input()).await;
    let admin = runtime(&realm, &applied.secrets["reentry"]);
    let alice = realm.user_id("alice").await;
    admin
        .events(&reentry::idp::keycloak::admin::EventQuery::default())
        .await
        .expect("user events");
    admin
        .admin_events(&reentry::idp::keycloak::admin::AdminEventQuery::default())
        .await
        .expect("admin events");
    assert_eq!(admin.users_page(0, 10).await.expect("users").read.len(), 1);
    assert_eq!(admin.credentials(&alice).await.expect("credentials").len(), 1);
    assert!(admin.sessions(&alice).await.expect("sessions").is_empty());
    let shop = RelyingParty::discover(&realm.issuer(), "shop", ClientAuth::None, CALLBACK).await;
    sign_in(&shop, "openid offline_access").await;
    let consents = admin.consents(&alice).await.expect("consents");
    let grants: Vec<_> = consents
        .iter()
        .flat_map(|consent| &consent.additional_grants)
        .collect();
    let client = grants
        .iter()
        .find_map(|grant| grant.client.clone())
        .expect("the client of the offline token");
    assert_eq!(client, realm.client_uuid("shop").await);
    let offline = admin
        .offline_sessions(&alice, &client)
        .await
        .expect("offline sessions");
    admin.delete_session(&offline[0].id, true).await.expect("ended");
    assert!(
        admin
            .offline_sessions(&alice, &client)
            .await
            .expect("offline sessions")
            .is_empty()
    );
    admin
        .set_email(&alice, "alice@new.test", true)
        .await
        .expect("an address");
    let kept = realm.get(&format!("users/{alice}")).await;
    assert_eq!(
        (&kept["email"], &kept["lastName"]),
        (&json!("alice@new.test"), &json!("Tester"))
    );
    assert!(matches!(admin.clients().await, Err(AdminError::Forbidden { .. })));
    assert!(matches!(
        admin.role("reentry-full").await,
        Err(AdminError::Forbidden { .. })
    ));
    assert!(matches!(
        admin.user("no-such-user").await,
        Err(AdminError::NotFound { .. })
    ));
}

#[tokio::test]
async fn a_wired_realm_passes_the_check_and_a_bare_one_does_not() {
    let realm = company(json!({})).await;
    let admin = administrator(&realm);
    let bare = checked(&admin, &input()).await;
    assert!(wire::fails(&bare) && bare[0].code == "not-wired", "{bare:?}");
    wired(&admin, &input()).await;
    let before = realm.export().await;
    let findings = checked(&admin, &input()).await;
    assert!(errors(&findings).is_empty(), "{findings:#?}");
    let differences = export::differences(&before, &realm.export().await);
    assert!(
        differences.is_empty(),
        "the canary left something: {differences:#?}"
    );
}

// P5, ISS-6: what the broker has to know of a log-in.
#[tokio::test]
async fn a_broker_client_whose_id_tokens_leave_out_when_the_log_in_was_is_found() {
    let realm = company(json!({})).await;
    let admin = administrator(&realm);
    let mut input = input();
    input.broker = Some(BrokerClient {
        client_id: "reentry-broker".to_owned(),
        redirect_uri: Url::parse("https://login.example.test/callback/main").expect("a URL"),
        backchannel_logout: None,
    });
    wired(&admin, &input).await;
    assert!(errors(&checked(&admin, &input).await).is_empty());
    let client = realm.client_uuid("reentry-broker").await;
    for (scope, claim) in [("basic", "auth_time"), ("acr", "acr")] {
        let path = format!(
            "clients/{client}/default-client-scopes/{}",
            scope_id(&realm, scope).await
        );
        realm.delete(&path, None).await;
        let findings = checked(&admin, &input).await;
        let found = errors(&findings);
        assert!(
            found
                .iter()
                .any(|f| f.code == "broker-claims" && f.text.contains(&format!("`{claim}`"))),
            "{findings:#?}"
        );
        realm.put(&path, &json!({})).await;
        assert!(errors(&checked(&admin, &input).await).is_empty());
    }
}

/// Finds `code` after `plant`; `wire` mends it when `mends`, else `repair` does; then the check passes.
async fn expect_drift(realm: &Realm, code: &str, mends: bool) {
    let admin = administrator(realm);
    let findings = checked(&admin, &input()).await;
    let codes: BTreeSet<&str> = errors(&findings)
        .into_iter()
        .map(|finding| finding.code)
        .collect();
    assert!(codes.contains(code), "{code} not found: {findings:#?}");
    if mends {
        wired(&admin, &input()).await;
        let findings = checked(&admin, &input()).await;
        assert!(errors(&findings).is_empty(), "{code} mended: {findings:#?}");
    }
}

async fn role(realm: &Realm, name: &str) -> Value {
    realm.get(&format!("roles/{name}")).await
}

async fn scope_id(realm: &Realm, name: &str) -> String {
    realm.client_scope_id(name).await.expect("a client scope")
}

#[tokio::test]
async fn drift_in_roles_and_groups_is_found_and_mended() {
    let realm = company(json!({})).await;
    wired(&administrator(&realm), &input()).await;
    let default = realm.get("").await["defaultRole"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let full = role(&realm, "reentry-full").await;
    let children = format!("roles-by-id/{default}/composites");

    // The default role loses reentry-full: everybody reads `none`.
    realm.delete(&children, Some(&json!([full]))).await;
    expect_drift(&realm, "role-children-missing", true).await;

    // The default role gains a child: held accounts would lose it.
    realm.post("roles", &json!({"name": "employee"})).await;
    let employee = role(&realm, "employee").await;
    realm.post(&children, &json!([employee])).await;
    expect_drift(&realm, "role-children-missing", true).await;

    // A composite gate is expanded: any child would open the scope.
    let gate = role(&realm, "reentry-hold.read").await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    realm
        .post(&format!("roles-by-id/{gate}/composites"), &json!([employee]))
        .await;
    expect_drift(&realm, "role-children-extra", true).await;

    // A hold group that gives the default role holds nobody.
    let group = realm.get("group-by-path/reentry/hold.read").await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let default_role = realm.get(&format!("roles-by-id/{default}")).await;
    realm
        .post(
            &format!("groups/{group}/role-mappings/realm"),
            &json!([default_role]),
        )
        .await;
    expect_drift(&realm, "canary-hold", true).await;

    let management = realm.client_uuid("realm-management").await;
    let account = realm
        .get(&format!(
            "clients/{}/service-account-user",
            realm.client_uuid("reentry").await
        ))
        .await;
    let mappings = format!(
        "users/{}/role-mappings/clients/{management}",
        account["id"].as_str().expect("an id")
    );
    let view = realm
        .get(&format!("clients/{management}/roles/view-events"))
        .await;
    realm.delete(&mappings, Some(&json!([view]))).await;
    expect_drift(&realm, "runtime-roles-less", true).await;
    let more = realm
        .get(&format!("clients/{management}/roles/manage-realm"))
        .await;
    realm.post(&mappings, &json!([more])).await;
    expect_drift(&realm, "runtime-roles-more", true).await;
}

#[tokio::test]
async fn accounts_that_no_hold_reaches_are_named() {
    let realm = company(json!({})).await;
    wired(&administrator(&realm), &input()).await;
    let default_role = realm.get("").await["defaultRole"].clone();
    let full = role(&realm, "reentry-full").await;

    // A user without the default role reads `none`; an administrator can undo a hold of his own.
    let bob = realm
        .post("users", &user("bob", "bob@example.test", "battery staple"))
        .await;
    realm
        .delete(
            &format!("users/{bob}/role-mappings/realm"),
            Some(&json!([default_role])),
        )
        .await;
    expect_drift(&realm, "accounts-without-default-role", false).await;
    realm
        .post(
            &format!("users/{bob}/role-mappings/realm"),
            &json!([default_role]),
        )
        .await;
    let management = realm.client_uuid("realm-management").await;
    let manage = realm
        .get(&format!("clients/{management}/roles/manage-users"))
        .await;
    realm
        .post(
            &format!("users/{bob}/role-mappings/clients/{management}"),
            &json!([manage]),
        )
        .await;
    let findings = checked(&administrator(&realm), &input()).await;
    let warned = findings
        .iter()
        .find(|finding| finding.code == "administrators")
        .expect("a warning");
    assert!(
        warned.text.contains("user `bob`") && !warned.text.contains("service-account"),
        "{warned:?}"
    );
    assert!(errors(&findings).is_empty(), "{findings:#?}");

    // The same by a group of the company's own, by a composite, and directly.
    let staff = realm.post("groups", &json!({"name": "staff"})).await;
    realm
        .post(
            &format!("groups/{staff}/role-mappings/realm"),
            &json!([default_role]),
        )
        .await;
    expect_drift(&realm, "full-by-group", false).await;
    // A mapper of an identity provider that puts people into that group, and one that names a role of ours.
    let provider = json!({
        "alias": "up", "providerId": "oidc", "enabled": true,
        "config": {
            "clientId": "shop", "clientSecret": "a secret of the shop",
            "authorizationUrl": "https://up.example/auth", "tokenUrl": "https://up.example/token",
        },
    });
    realm.post("identity-provider/instances", &provider).await;
    for (kind, setting, value) in [
        ("oidc-hardcoded-group-idp-mapper", "group", "/staff"),
        ("oidc-hardcoded-role-idp-mapper", "role", "reentry-full"),
    ] {
        let mapper = json!({
            "name": "given", "identityProviderAlias": "up", "identityProviderMapper": kind,
            "config": { setting: value, "syncMode": "FORCE" },
        });
        let id = realm
            .post("identity-provider/instances/up/mappers", &mapper)
            .await;
        expect_drift(&realm, "full-by-mapper", false).await;
        let path = format!("identity-provider/instances/up/mappers/{id}");
        realm.delete(&path, None).await;
    }
    realm.delete(&format!("groups/{staff}"), None).await;
    realm.post("roles", &json!({"name": "manager"})).await;
    let manager = role(&realm, "manager").await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    realm
        .post(&format!("roles-by-id/{manager}/composites"), &json!([full]))
        .await;
    expect_drift(&realm, "full-by-composite", false).await;
    realm.delete(&format!("roles-by-id/{manager}"), None).await;
    let alice = realm.user_id("alice").await;
    realm
        .post(&format!("users/{alice}/role-mappings/realm"), &json!([full]))
        .await;
    let findings = checked(&administrator(&realm), &input()).await;
    assert!(
        findings.iter().any(|finding| finding.code == "full-direct"),
        "{findings:#?}"
    );
    realm
        .delete(
            &format!("users/{alice}/role-mappings/realm"),
            Some(&json!([full])),
        )
        .await;
}

#[tokio::test]
async fn drift_in_scopes_clients_and_events_is_found_and_mended() {
    let realm = company(json!({"enabledEventTypes": ["LOGIN"]})).await;
    wired(&administrator(&realm), &input()).await;
    let mapper = |name: &str, value: &str| {
        json!({
            "name": name, "protocol": "openid-connect", "protocolMapper": "oidc-hardcoded-claim-mapper",
            "config": {"claim.name": "recovery_scope", "claim.value": value, "access.token.claim": "true"},
        })
    };
    let models = |scope: &str| format!("client-scopes/{scope}/protocol-mappers/models");

    // A second mapper of the claim, in our scope and in somebody else's.
    let hold = scope_id(&realm, "reentry-hold.read").await;
    realm.post(&models(&hold), &mapper("second", "full")).await;
    expect_drift(&realm, "scope-mapper", true).await;
    let tenant = scope_id(&realm, "tenant").await;
    let second = realm.post(&models(&tenant), &mapper("second", "full")).await;
    expect_drift(&realm, "blocked", false).await;
    realm.delete(&format!("{}/{second}", models(&tenant)), None).await;

    // A gate with one role too many, and none at all.
    let gate = |scope: &str| format!("client-scopes/{scope}/scope-mappings/realm");
    let full = scope_id(&realm, "reentry-full").await;
    let default = realm.get("").await["defaultRole"].clone();
    realm.post(&gate(&hold), &json!([default])).await;
    expect_drift(&realm, "scope-gate-extra", true).await;
    realm
        .delete(&gate(&full), Some(&json!([role(&realm, "reentry-full").await])))
        .await;
    expect_drift(&realm, "scope-gate-missing", true).await;

    // The customer's own scope gets a role: whoever has it would keep the scope in a hold.
    let payments = scope_id(&realm, "payments:write").await;
    let offline = role(&realm, "offline_access").await;
    realm.post(&gate(&payments), &json!([offline])).await;
    expect_drift(&realm, "blocked", false).await;
    let findings = checked(&administrator(&realm), &input()).await;
    assert!(
        findings.iter().any(|finding| finding.code == "canary-scope"),
        "seen in tokens: {findings:#?}"
    );
    realm.delete(&gate(&payments), Some(&json!([offline]))).await;
    realm
        .delete(
            &gate(&payments),
            Some(&json!([role(&realm, "reentry-full").await])),
        )
        .await;
    expect_drift(&realm, "scope-gate-missing", true).await;

    // A client whose list of scopes came from code, and a realm whose list did.
    let shop = realm.client_uuid("shop").await;
    realm
        .delete(&format!("clients/{shop}/default-client-scopes/{full}"), None)
        .await;
    expect_drift(&realm, "client-default-scope", true).await;
    realm
        .post(
            "clients",
            &json!({"clientId": "late", "publicClient": true, "defaultClientScopes": ["profile"]}),
        )
        .await;
    expect_drift(&realm, "client-default-scope", true).await;
    realm
        .delete(&format!("default-default-client-scopes/{full}"), None)
        .await;
    expect_drift(&realm, "realm-default-scope", true).await;

    set_events(&realm, json!({"enabledEventTypes": ["LOGIN", "LOGOUT"]})).await;
    expect_drift(&realm, "events", true).await;
    set_events(&realm, json!({"adminEventsDetailsEnabled": false})).await;
    expect_drift(&realm, "events", true).await;
}

#[tokio::test]
async fn what_somebody_else_made_is_left_alone() {
    let realm = company(json!({})).await;
    let admin = administrator(&realm);
    // A scope of the customer's with a role already, a client of our name, a role of our name.
    let payments = scope_id(&realm, "payments:write").await;
    let offline = role(&realm, "offline_access").await;
    realm
        .post(
            &format!("client-scopes/{payments}/scope-mappings/realm"),
            &json!([offline]),
        )
        .await;
    realm
        .post("clients", &json!({"clientId": "reentry", "publicClient": true}))
        .await;
    realm.post("roles", &json!({"name": "reentry-full"})).await;
    let full = role(&realm, "reentry-full").await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    realm
        .post(&format!("roles-by-id/{full}/composites"), &json!([offline]))
        .await;
    let mut listed = input();
    listed
        .scopes
        .insert("credential".to_owned(), BTreeSet::from(["email".to_owned()]));
    let before = realm.export().await;
    let plan = planned(&admin, &listed).await;
    let blocked = |what: &str| plan.blockers.iter().any(|blocker| blocker.contains(what));
    for what in [
        "`payments:write` already depends on offline_access",
        "`reentry` exists",
        "role `reentry-full`",
        "`email`",
    ] {
        assert!(blocked(what), "{what}: {plan}");
    }
    assert!(matches!(
        wire::apply(&admin, &plan, &quiet).await,
        Err(WireError::Blocked(_))
    ));
    assert!(export::differences(&before, &realm.export().await).is_empty());
}

#[tokio::test]
async fn terraform_names_every_object_that_wire_makes() {
    let realm = company(json!({})).await;
    let admin = administrator(&realm);
    let before = wire::terraform(&admin, &input()).await.expect("resources");
    let body: hcl::Body = hcl::from_str(&before).unwrap_or_else(|error| panic!("{error}\n{before}"));
    let named = |kind: &str| -> BTreeSet<String> {
        let blocks = body
            .blocks()
            .filter(|block| block.labels.first().is_some_and(|label| label.as_str() == kind));
        let names = blocks.flat_map(|block| {
            block
                .body
                .attributes()
                .filter(|attribute| attribute.key.as_str() == "name")
        });
        names
            .map(|attribute| attribute.expr.to_string().trim_matches('"').to_owned())
            .collect()
    };
    let roles = named("keycloak_role");
    for name in [
        "reentry-full",
        "reentry-hold.read.write",
        "reentry-hold.read",
        "reentry-hold.none",
        "reentry-held-defaults",
    ] {
        assert!(roles.contains(name), "{name}: {roles:?}");
    }
    let groups = named("keycloak_group");
    for name in ["hold.read.write", "contested", "lift.default-role"] {
        assert!(groups.contains(name), "{name}: {groups:?}");
    }
    assert!(named("keycloak_openid_client_scope").contains("payments:write"));
    // Every reference has its block.
    let declared: BTreeSet<String> = body
        .blocks()
        .filter(|block| block.labels.len() == 2)
        .map(|block| format!("{}.{}", block.labels[0].as_str(), block.labels[1].as_str()))
        .collect();
    let words = before.split(|letter: char| !(letter.is_ascii_alphanumeric() || "._-".contains(letter)));
    let references = words.filter(|word| word.starts_with("keycloak_") || word.starts_with("data.keycloak_"));
    let references = references.filter(|word| word.contains('.'));
    for reference in references {
        let short = reference.trim_start_matches("data.");
        let block = short.rsplit_once('.').map_or(
            short,
            |(block, _)| if block.contains('.') { block } else { short },
        );
        assert!(declared.contains(block), "{reference} is not declared");
    }
    wired(&admin, &input()).await;
    assert_eq!(
        before,
        wire::terraform(&admin, &input()).await.expect("resources"),
        "the same before and after"
    );
}

#[tokio::test]
async fn errors_say_what_is_wrong() {
    let realm = company(json!({})).await;
    let wrong = Credentials::Password {
        realm: "master".to_owned(),
        username: ADMIN.0.to_owned(),
        password: SecretString::from("wrong".to_owned()),
    };
    let refused = wire::plan(&admin_of(&realm, wrong), &input()).await;
    assert!(
        matches!(refused, Err(WireError::Admin(AdminError::Unauthorized { .. }))),
        "{refused:?}"
    );
    let base = Url::parse("http://127.0.0.1:9").expect("a URL");
    let nobody = Credentials::Client {
        realm: realm.name().to_owned(),
        id: "reentry".to_owned(),
        secret: SecretString::from("x".to_owned()),
    };
    let gone = Admin::new(&base, realm.name(), nobody.clone(), Duration::from_secs(2)).expect("a client");
    assert!(matches!(
        gone.events_config().await,
        Err(AdminError::Unreachable { .. })
    ));
    let refused = admin_of(&realm, nobody).events_config().await;
    assert!(
        matches!(refused, Err(AdminError::Unauthorized { .. })),
        "{refused:?}"
    );
    let reply = realm.call(Method::GET, "", None).await;
    assert_eq!(reply.status, 200);
}

// held administrators: the fifth role is an operator's choice, printed in the plan
#[tokio::test]
async fn view_clients_is_given_when_asked_for_stays_and_is_taken_back() {
    let realm = company(json!({})).await;
    let admin = administrator(&realm);
    // A run-time client of the company's own: what is given to it has to be taken back one by one.
    let client = json!({"clientId": "reentry", "serviceAccountsEnabled": true, "standardFlowEnabled": false});
    realm.post("clients", &client).await;
    let before = realm.export().await;
    let plan = planned(&admin, &input()).await;
    assert!(
        plan.notes.iter().any(|note| note.contains("--view-clients")),
        "{plan}"
    );
    wired(&admin, &input()).await;
    let mut asked = input();
    asked.view_clients = true;
    let plan = planned(&admin, &asked).await;
    let role = "+ service account of `reentry`: role realm-management/view-clients";
    let shown: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    assert!(
        shown.len() == 2 && shown[1].starts_with(role),
        "the record and the role: {plan}"
    );
    wire::apply(&admin, &plan, &quiet).await.expect("given");
    for input in [&asked, &input()] {
        let plan = planned(&admin, input).await;
        assert!(plan.is_empty() && plan.blockers.is_empty(), "{plan}");
        assert!(
            !plan.notes.iter().any(|note| note.contains("--view-clients")),
            "{plan}"
        );
        let findings = checked(&admin, input).await;
        assert!(errors(&findings).is_empty(), "{findings:#?}");
    }
    let resources = wire::terraform(&admin, &asked).await.expect("resources");
    assert!(resources.contains("\"view-clients\""));
    let undo = wire::undo(&admin, &input()).await.expect("an undo plan");
    wire::apply(&admin, &undo, &quiet).await.expect("undone");
    let differences = export::differences(&before, &realm.export().await);
    assert!(differences.is_empty(), "{differences:#?}");
}

#[tokio::test]
async fn the_note_of_a_freeze_is_wired_checked_and_taken_back_whoever_made_it() {
    const NOTE: &str = "/reentry/contested";
    let realm = company(json!({})).await;
    let admin = administrator(&realm);
    let before = realm.export().await;
    // As it was wired before the note was part of the plan.
    let mut plan = planned(&admin, &input()).await;
    let all = plan.steps.len();
    plan.steps
        .retain(|step| !matches!(step, Change::CreateGroup { path, .. } if path == NOTE));
    assert_eq!(plan.steps.len(), all - 1, "the plan has it: {plan}");
    for step in &mut plan.steps {
        if let Change::CreateClient { client } = step
            && let Some(record) = client.attributes.get_mut(RECORD)
        {
            *record = record.replace("\"/reentry/contested\",", "");
        }
    }
    let applied = wire::apply(&admin, &plan, &quiet).await.expect("wired");
    expect_drift(&realm, "group", false).await;

    // A freeze makes it, and an undo waits for the account.
    let holder = Holder::new(runtime(&realm, &applied.secrets["reentry"]), &realm, "alice").await;
    let root = holder
        .admin
        .group_by_path(GROUP)
        .await
        .expect("read")
        .expect("the root");
    let note = Group {
        name: "contested".to_owned(),
        ..Group::default()
    };
    let note = holder
        .admin
        .create_group(root.id.as_deref(), &note)
        .await
        .expect("made");
    holder
        .admin
        .join_group(&holder.user, &note)
        .await
        .expect("joined");
    let again = planned(&admin, &input()).await;
    assert!(again.is_empty() && again.blockers.is_empty(), "{again}");
    let findings = checked(&admin, &input()).await;
    assert!(errors(&findings).is_empty(), "{findings:#?}");
    assert!(matches!(
        wire::undo(&admin, &input()).await,
        Err(WireError::Held(who)) if who.iter().any(|who| who.contains("alice"))
    ));
    holder.admin.leave_group(&holder.user, &note).await.expect("left");
    let undo = wire::undo(&admin, &input()).await.expect("an undo plan");
    assert!(undo.notes.is_empty(), "nothing of ours stays: {undo}");
    wire::apply(&admin, &undo, &quiet).await.expect("undone");
    let differences = export::differences(&before, &realm.export().await);
    assert!(differences.is_empty(), "{differences:#?}");
}

// The realm that administers the others is refused before anything is made in it.
#[tokio::test]
async fn the_realm_master_is_refused_in_the_plan() {
    let keycloak = Keycloak::get().await;
    let credentials = Credentials::Password {
        realm: "master".to_owned(),
        username: ADMIN.0.to_owned(),
        password: SecretString::from(ADMIN.1.to_owned()),
    };
    let base = Url::parse(keycloak.base()).expect("a base URL");
    let admin = Admin::new(&base, "master", credentials, Duration::from_secs(30)).expect("an admin client");
    let plan = planned(&admin, &input()).await;
    assert!(
        plan.blockers
            .iter()
            .any(|blocker| blocker.contains("realm `master`")),
        "{plan}"
    );
    assert!(matches!(
        wire::apply(&admin, &plan, &quiet).await,
        Err(WireError::Blocked(_))
    ));
}

// A realm's name may be anything that fits into one segment of a path.
#[tokio::test]
async fn a_realm_with_spaces_and_umlauts_is_wired_and_watched() {
    let keycloak = Keycloak::get().await;
    let name = format!("Köln GmbH.Test {}", reentry_test_support::clock::now_ms());
    let representation = json!({"realm": name, "enabled": true, "eventsEnabled": true});
    let made = keycloak.admin(Method::POST, "", Some(&representation)).await;
    assert_eq!(made.status, 201);
    let credentials = Credentials::Password {
        realm: "master".to_owned(),
        username: ADMIN.0.to_owned(),
        password: SecretString::from(ADMIN.1.to_owned()),
    };
    let base = Url::parse(keycloak.base()).expect("a base URL");
    let admin = Admin::new(&base, &name, credentials, Duration::from_secs(30)).expect("an admin client");
    let applied = wired(&admin, &input()).await;
    let settings = reentry::idp::keycloak::KeycloakSettings::new(
        reentry::domain::subject::UpstreamId::parse("main").expect("an id"),
        base,
        &name,
        "reentry",
        applied.secrets["reentry"].clone(),
    );
    let issuer = settings.issuer();
    let well_known = format!("{issuer}/.well-known/openid-configuration");
    let document: Value = reqwest::get(&well_known)
        .await
        .expect("an answer")
        .json()
        .await
        .expect("a document");
    let idp = reentry::idp::keycloak::Keycloak::new(
        settings,
        std::sync::Arc::new(reentry::app::clock::SystemClock),
    )
    .expect("an adapter");
    let health = reentry::ports::idp::IdentityProvider::health(&idp).await;
    let path = format!("/{}", name.replace(' ', "%20").replace('ö', "%C3%B6"));
    keycloak.admin(Method::DELETE, &path, None).await;
    assert_eq!(document["issuer"], issuer, "as Keycloak writes it");
    assert_eq!(health.expect("an answer"), Vec::<String>::new());
}

// Whoever reads the plan learns that a client of theirs is used, and where its secret is.
#[tokio::test]
async fn a_client_that_was_there_before_is_named_in_the_plan() {
    let realm = company(json!({})).await;
    realm
        .post("clients", &service_account("reentry", "a secret of before"))
        .await;
    let admin = administrator(&realm);
    let plan = planned(&admin, &input()).await;
    assert!(
        plan.notes
            .iter()
            .any(|note| note.contains("client `reentry` was there before")),
        "{plan}"
    );
    let applied = wired(&admin, &input()).await;
    assert!(applied.secrets.is_empty());
    let plan = planned(&admin, &input()).await;
    assert!(plan.is_empty(), "{plan}");
    assert!(
        !plan.notes.iter().any(|note| note.contains("was there before")),
        "said once: {plan}"
    );
}

// What the run-time account may not read is written down where it may.
#[tokio::test]
async fn what_lines_of_the_log_are_judged_by_is_written_down() {
    let realm = company(json!({})).await;
    let admin = administrator(&realm);
    let applied = wired(&admin, &input()).await;
    let own = runtime(&realm, &applied.secrets["reentry"]);
    let group = own
        .group_by_path("/reentry/known")
        .await
        .expect("an answer")
        .expect("the group");
    let noted = wire::noted::Noted::read(&group.attributes).expect("something noted");
    let names: BTreeSet<&str> = noted.scopes.values().map(String::as_str).collect();
    let scopes = [
        "reentry-full",
        "reentry-hold.none",
        "reentry-hold.read",
        "reentry-hold.read.write",
    ];
    assert_eq!(names, BTreeSet::from(scopes));
    let payments = realm.client_scope_id("payments:write").await.expect("a scope");
    assert!(noted.gates.contains(&payments), "{noted:?}");
    // Somebody becomes an administrator: no drift, and noted at the next run.
    let bob = realm
        .post("users", &user("bob", "bob@example.test", "correct horse"))
        .await;
    let management = realm.client_uuid("realm-management").await;
    let role = realm
        .get(&format!("clients/{management}/roles/manage-users"))
        .await;
    realm
        .post(
            &format!("users/{bob}/role-mappings/clients/{management}"),
            &json!([role]),
        )
        .await;
    let codes: Vec<&str> = Vec::new();
    let found = checked(&admin, &input()).await;
    let errors = found.iter().filter(|finding| finding.severity == Severity::Error);
    assert_eq!(errors.map(|finding| finding.code).collect::<Vec<_>>(), codes);
    wired(&admin, &input()).await;
    let group = own
        .group_by_path("/reentry/known")
        .await
        .expect("an answer")
        .expect("the group");
    let noted = wire::noted::Noted::read(&group.attributes).expect("something noted");
    assert!(noted.users.contains(&bob), "{noted:?}");
}

// row A1: what a line of the log proves rests on settings of the realm; the check knows when they are others.
#[tokio::test]
async fn the_check_names_settings_by_which_the_log_proves_less_than_the_configuration_says() {
    let realm = company(json!({
        "passwordPolicy": "length(8) and forceExpiredPasswordChange(90) and maxAuthAge(86400)",
        "actionTokenGeneratedByAdminLifespan": 172_800,
        "attributes": {"adminEventsExpiration": "5184000", "actionTokenGeneratedByUserLifespan.reset-credentials": "3600"},
    }))
    .await;
    let admin = administrator(&realm);
    wired(&admin, &input()).await;
    let found = async |input: &WirePlanInput| -> BTreeMap<&'static str, bool> {
        let findings = checked(&admin, input).await;
        let named = findings
            .iter()
            .map(|one| (one.code, one.severity == Severity::Error));
        named.collect()
    };
    let names = [
        "reset-lifespan",
        "admin-lifespan",
        "action-login-age",
        "password-expiry",
        "reset-without-mail",
    ];
    let of = |found: &BTreeMap<&'static str, bool>| names.map(|name| found.get(name).copied());
    let (error, warning) = (Some(true), Some(false));
    assert_eq!(of(&found(&input()).await), [error, error, warning, warning, None]);
    // A configuration that knows the realm, and one that believes too much of it.
    let mut known = input();
    known.proofs.reset_lifespan = Span::from_hours(1);
    known.proofs.admin_lifespan = Span::from_days(2);
    assert_eq!(of(&found(&known).await), [None, None, warning, warning, None]);
    known.proofs.fresh_login_for_actions = true;
    assert_eq!(of(&found(&known).await)[2], error);
    // People can do without the mail.
    realm
        .post(
            "authentication/flows/reset%20credentials/copy",
            &json!({"newName": "by phone"}),
        )
        .await;
    let executions = realm.get("authentication/flows/by%20phone/executions").await;
    let mail = executions
        .as_array()
        .expect("a list")
        .iter()
        .find(|one| one["providerId"] == "reset-credential-email");
    let mut mail = mail.expect("the mail").clone();
    mail["requirement"] = json!("DISABLED");
    realm
        .put("authentication/flows/by%20phone/executions", &mail)
        .await;
    realm.patch(json!({"resetCredentialsFlow": "by phone"})).await;
    assert_eq!(of(&found(&known).await)[4], error);
    known.proofs.resets_leave_lines = false;
    assert_eq!(of(&found(&known).await)[4], None);
}
