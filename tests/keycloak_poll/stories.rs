//! How changes are judged: people go through Keycloak's real pages, the poller reads what it wrote of them.

use std::time::Duration;

use reentry::domain::change::Row;
use reentry::domain::time::Span;
use reentry::flow::ingest;
use reentry_test_support::browser::{Browser, Page};
use reentry_test_support::clock::eventually;
use reentry_test_support::keycloak::{pages, user};
use serde_json::json;

use crate::house::{self, House, Replica};

const SOON: Duration = Duration::from_secs(30);

/// A house whose logs are whole: Keycloak has a line that is older than every account made after this.
async fn whole() -> (House, Replica) {
    let house = House::new().await;
    let replica = house.replica_with(|settings| settings.enrolment = Span::from_days(7));
    replica.poll("a").await.unwrap();
    (house, replica)
}

/// Takes the accounts in that were made. What one gets in its first seconds is what it was made with: they are over then.
async fn made(house: &House) {
    house.import().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
}

async fn poll(replica: &Replica) {
    while replica.poll("a").await.unwrap() {}
}

/// Every row that an account's changes fell in.
async fn rows_of(house: &House, sub: &str) -> Vec<Row> {
    let record = house.record(sub).await;
    record.map_or_else(Vec::new, |record| {
        record.causes.iter().map(|cause| cause.row).collect()
    })
}

/// Reads the log after `name` has done something, at the poller and at the next log-in; whether it holds.
async fn judged(house: &House, replica: &Replica, sub: &str) -> (bool, Vec<Row>) {
    poll(replica).await;
    let before = house.record(sub).await;
    ingest::login_check(&replica.flow, &house.subject(sub))
        .await
        .unwrap();
    assert_eq!(house.record(sub).await, before, "judged once, whoever asks");
    (house.is_held(sub).await, rows_of(house, sub).await)
}

async fn log_in(
    house: &House,
    browser: &mut Browser,
    name: &str,
    password: &str,
    action: Option<&str>,
) -> Page {
    let mut request = house.request();
    if let Some(action) = action {
        request = request.with_value("kc_action", action);
    }
    let page = browser.get(request.url.as_str()).await;
    pages::log_in(browser, &page, name, password).await
}

// row A1, A6: what people do at their first sign-in, when a password has expired, and inside a log-in that an
// application asks for.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_changed_inside_a_log_in_is_told_and_holds_nothing() {
    let (house, replica) = whole().await;
    let mut temporary = user("tess", "tess@example.test", "first one");
    temporary["credentials"][0]["temporary"] = json!(true);
    let tess = house.realm.post("users", &temporary).await;
    let (due, app) = (house.user("dora").await, house.user("alf").await);
    let mut bare = user("cora", "cora@example.test", "");
    bare["credentials"] = json!([]);
    let console = house.realm.post("users", &bare).await;
    made(&house).await;
    let given = json!({"type": "password", "value": "first one", "temporary": true});
    house
        .realm
        .put(&format!("users/{console}/reset-password"), &given)
        .await;
    let mut forced = house.realm.get(&format!("users/{due}")).await;
    forced["requiredActions"] = json!(["UPDATE_PASSWORD"]);
    house.realm.put(&format!("users/{due}"), &forced).await;
    poll(&replica).await;
    for (name, sub, password, action) in [
        ("tess", &tess, "first one", None),
        ("cora", &console, "first one", None),
        ("dora", &due, house::OLD, None),
        ("alf", &app, house::OLD, Some("UPDATE_PASSWORD")),
    ] {
        let mut browser = house::browser();
        let page = log_in(&house, &mut browser, name, password, action).await;
        let page = pages::set_new_password(&mut browser, &page, house::NEW, false).await;
        assert!(page.is_stop(), "{}", page.describe());
        let (held, rows) = judged(&house, &replica, sub).await;
        assert!(!rows.contains(&Row::PasswordReset), "{name}: {rows:?}");
        assert!(rows.contains(&Row::PasswordChanged), "{name}: {rows:?}");
        assert!(!held, "{name}");
    }
    // The same people by the mail: each of them is held.
    house.reset("alf").await;
    assert!(judged(&house, &replica, &app).await.0);
}

// P5: the same log-in by a log that says less.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_log_does_not_show_says_nothing_where_the_log_may_have_been_off() {
    let (house, replica) = whole().await;
    let ann = house.user("ann").await;
    made(&house).await;
    poll(&replica).await;
    // Somebody changed what is recorded, and back.
    let config = house.realm.get("events/config").await;
    let mut off = config.clone();
    off["eventsEnabled"] = json!(false);
    house.realm.put("events/config", &off).await;
    house.realm.put("events/config", &config).await;
    let mut browser = house::browser();
    let page = log_in(&house, &mut browser, "ann", house::OLD, Some("UPDATE_PASSWORD")).await;
    pages::set_new_password(&mut browser, &page, house::NEW, false).await;
    let (held, rows) = judged(&house, &replica, &ann).await;
    assert!(held && rows.contains(&Row::PasswordReset), "{rows:?}");
}

// P13: a mailbox, a session and a password that only the mailbox gave.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_a_recovery_whatever_its_owner_does_around_it() {
    let (house, replica) = whole().await;
    let (ann, bob) = (house.user("ann").await, house.user("bob").await);
    made(&house).await;
    poll(&replica).await;
    // The link in another browser, with a log-in page open beside it, and a log-in with the new password at once.
    let mut asking = house::browser();
    let page = asking.get(house.request().url.as_str()).await;
    house.mails.clear();
    pages::ask_for_reset(&mut asking, &page, "ann").await;
    let mail = pages::reset_mail(&house.mails, "ann@example.test").await;
    let mut other = house::browser();
    other.get(house.request().url.as_str()).await;
    let page = pages::open_action_link(&mut other, &mail.link("action-token")).await;
    pages::set_new_password(&mut other, &page, house::NEW, false).await;
    log_in(&house, &mut other, "ann", house::NEW, None).await;
    let (held, rows) = judged(&house, &replica, &ann).await;
    assert!(held && rows == [Row::PasswordReset], "{rows:?}");
    // Later, with the password that the mailbox gave: an action inside a log-in, while the mail is in the log.
    house.reset("bob").await;
    poll(&replica).await;
    let mut browser = house::browser();
    let page = log_in(&house, &mut browser, "bob", house::NEW, Some("UPDATE_PASSWORD")).await;
    pages::set_new_password(&mut browser, &page, "another one", false).await;
    let (_, rows) = judged(&house, &replica, &bob).await;
    assert_eq!(rows, [Row::PasswordReset, Row::PasswordReset]);
}

/// Lets people log in with a recovery code where they are asked for a second factor.
async fn recovery_codes(house: &House) {
    let realm = &house.realm;
    let copy = json!({"newName": "with codes"});
    realm.post("authentication/flows/browser/copy", &copy).await;
    let executions = realm.get("authentication/flows/with%20codes/executions").await;
    let form = executions
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["providerId"] == "auth-recovery-authn-code-form");
    let mut form = form.unwrap().clone();
    form["requirement"] = json!("ALTERNATIVE");
    realm
        .put("authentication/flows/with%20codes/executions", &form)
        .await;
    realm.patch(json!({"browserFlow": "with codes"})).await;
    let actions = realm.get("authentication/required-actions").await;
    let mut action = actions
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["alias"] == "CONFIGURE_RECOVERY_AUTHN_CODES")
        .unwrap()
        .clone();
    action["enabled"] = json!(true);
    realm
        .put(
            "authentication/required-actions/CONFIGURE_RECOVERY_AUTHN_CODES",
            &action,
        )
        .await;
}

/// Enrols recovery codes inside a log-in; the codes.
async fn enrol(house: &House, sub: &str, name: &str) -> Vec<String> {
    let mut due = house.realm.get(&format!("users/{sub}")).await;
    due["requiredActions"] = json!(["CONFIGURE_RECOVERY_AUTHN_CODES"]);
    house.realm.put(&format!("users/{sub}"), &due).await;
    let mut browser = house::browser();
    let page = log_in(house, &mut browser, name, house::OLD, None).await;
    let codes = page
        .attribute("input[name=generatedRecoveryAuthnCodes]", "value")
        .unwrap();
    let page = browser
        .submit(page.form("#kc-recovery-codes-settings-form"))
        .await;
    assert!(page.is_stop(), "{}", page.describe());
    codes.split(',').map(str::to_owned).collect()
}

async fn use_code(house: &House, name: &str, code: &str) {
    let mut browser = house::browser();
    let page = log_in(house, &mut browser, name, house::OLD, None).await;
    let form = page
        .form("#kc-recovery-code-login-form")
        .set("recoveryCodeInput", code);
    let page = browser.submit(form).await;
    assert!(page.is_stop(), "{}", page.describe());
}

// row B1: by the line of the log-in, and by the number that is left where there is no line.
#[tokio::test(flavor = "multi_thread")]
async fn the_use_of_a_recovery_code_is_found() {
    let (house, replica) = whole().await;
    recovery_codes(&house).await;
    let (ann, bob) = (house.user("ann").await, house.user("bob").await);
    made(&house).await;
    let (first, second) = (enrol(&house, &ann, "ann").await, enrol(&house, &bob, "bob").await);
    poll(&replica).await;
    assert!(!house.is_held(&ann).await, "first codes take no others' place");
    use_code(&house, "ann", &first[0]).await;
    eventually("its hold, with nobody asking", SOON, async || {
        poll(&replica).await;
        house.is_held(&ann).await.then_some(())
    })
    .await;
    let (_, rows) = judged(&house, &replica, &ann).await;
    assert_eq!(
        rows.iter().filter(|row| **row == Row::FactorLost).count(),
        1,
        "{rows:?}"
    );
    ingest::login_check(&replica.flow, &house.subject(&bob))
        .await
        .unwrap();
    assert!(!house.is_held(&bob).await);
    use_code(&house, "bob", &second[0]).await;
    house.realm.delete("events", None).await;
    ingest::login_check(&replica.flow, &house.subject(&bob))
        .await
        .unwrap();
    assert!(rows_of(&house, &bob).await.contains(&Row::FactorLost));
    let before = house.record(&bob).await;
    ingest::login_check(&replica.flow, &house.subject(&bob))
        .await
        .unwrap();
    assert_eq!(house.record(&bob).await, before, "told once");
}

// P7: a login that an administrator links proves nothing before its probation is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_an_administrator_links_is_new() {
    let (house, replica) = whole().await;
    let provider = json!({
        "alias": "corp", "providerId": "oidc", "enabled": true,
        "config": {
            "clientId": "a", "clientSecret": "b",
            "authorizationUrl": "http://127.0.0.1:9/a", "tokenUrl": "http://127.0.0.1:9/t",
        },
    });
    house.realm.post("identity-provider/instances", &provider).await;
    let ann = house.user("ann").await;
    let before = reentry_test_support::clock::now_ms();
    let link = json!({"identityProvider": "corp", "userId": "1", "userName": "x"});
    house
        .realm
        .post(&format!("users/{ann}/federated-identity/corp"), &link)
        .await;
    let reading = replica.flow.reading(&house.subject(&ann)).await.unwrap();
    let found = reading
        .account
        .factors
        .iter()
        .find(|factor| factor.id == "link:corp")
        .unwrap();
    assert!(
        found.created.millis() + 1_000 >= i64::try_from(before).unwrap(),
        "{found:?}"
    );
}
