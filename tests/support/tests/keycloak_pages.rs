//! The browser, the mailbox and the relying party against a real Keycloak's own pages.

use reentry_test_support::browser::Browser;
use reentry_test_support::keycloak::export::differences;
use reentry_test_support::keycloak::{Keycloak, Realm, pages, plain_realm, public_client, user};
use reentry_test_support::mail::MailSink;
use reentry_test_support::rp::{ClientAuth, RelyingParty};
use serde_json::json;

const CALLBACK: &str = "http://127.0.0.1:9/callback";

async fn realm(mails: &MailSink) -> Realm {
    let mut representation = plain_realm(&mails.keycloak_settings());
    representation["users"] = json!([user("alice", "alice@x.test", "old-password")]);
    let mut asking = public_client("asking", CALLBACK);
    asking["consentRequired"] = json!(true);
    representation["clients"] = json!([public_client("app", CALLBACK), asking]);
    Keycloak::get().await.realm(representation).await
}

#[tokio::test]
async fn log_in_forgot_password_and_sessions() {
    let mails = MailSink::start();
    let realm = realm(&mails).await;
    let app = RelyingParty::discover(&realm.issuer(), "app", ClientAuth::None, CALLBACK).await;
    let mut browser = Browser::new().stopping_at(CALLBACK);

    let request = app.authorization("openid email");
    let page = browser.get(&request.url).await;
    assert_eq!(pages::page_id(&page), "login-login");
    let page = pages::log_in(&mut browser, &page, "alice", "wrong").await;
    assert!(
        page.text().contains("Invalid username or password"),
        "{}",
        page.describe()
    );
    let end = pages::log_in(&mut browser, &page, "alice", "old-password").await;
    let tokens = app
        .exchange(&app.code(&request, end.stopped()), &request.verifier)
        .await
        .expect_status(200);
    assert_eq!(tokens.scopes(), ["email", "openid", "profile"]);
    assert_eq!(tokens.id_claims()["email"], "alice@x.test");
    assert_eq!(
        app.userinfo(tokens.text("access_token"))
            .await
            .expect_status(200)
            .text("email"),
        "alice@x.test"
    );
    app.refresh(tokens.text("refresh_token")).await.expect_status(200);

    // The session carries the next request without a page; another browser is asked.
    let again = app.authorization("openid");
    app.code(&again, browser.get(&again.url).await.stopped());
    let mut other = Browser::new().stopping_at(CALLBACK);
    let request = app.authorization("openid");
    let page = other.get(&request.url).await;
    let end = pages::forgot_password(
        &mut other,
        &page,
        &mails,
        ("alice", "alice@x.test"),
        "new-password",
    )
    .await;
    app.code(&request, end.stopped());
    let kinds: Vec<_> = realm
        .events()
        .await
        .iter()
        .map(|event| event["type"].to_string())
        .collect();
    assert!(kinds.contains(&"\"SEND_RESET_PASSWORD\"".to_owned()), "{kinds:?}");

    // The link opened in a third browser, which never asked for it.
    let mut asker = Browser::new();
    let page = asker.get(app.authorization("openid").url).await;
    mails.clear();
    pages::ask_for_reset(&mut asker, &page, "alice").await;
    let link = pages::reset_mail(&mails, "alice@x.test")
        .await
        .link("action-token");
    let mut third = Browser::new();
    let page = pages::open_action_link(&mut third, &link).await;
    let page = pages::set_new_password(&mut third, &page, "newest-password", true).await;
    assert!(page.text().contains("has been updated"), "{}", page.describe());
}

#[tokio::test]
async fn consent_and_logout() {
    let mails = MailSink::start();
    let realm = realm(&mails).await;
    let app = RelyingParty::discover(&realm.issuer(), "asking", ClientAuth::None, CALLBACK).await;
    let mut browser = Browser::new().stopping_at(CALLBACK);
    let request = app.authorization("openid");
    let page = browser.get(&request.url).await;
    let page = pages::log_in(&mut browser, &page, "alice", "old-password").await;
    let end = pages::consent(&mut browser, &page).await;
    let tokens = app
        .exchange(&app.code(&request, end.stopped()), &request.verifier)
        .await
        .expect_status(200);
    let end = browser
        .get(app.logout_url(tokens.text("id_token"), CALLBACK))
        .await;
    assert!(end.is_stop(), "{}", end.describe());
    assert_eq!(
        app.refresh(tokens.text("refresh_token")).await.error(),
        "invalid_grant"
    );
}

#[tokio::test]
async fn an_export_changes_with_the_realm_and_back() {
    let mails = MailSink::start();
    let realm = realm(&mails).await;
    let before = realm.export().await;
    assert_eq!(before, realm.export().await);
    let role = json!({"name": "extra"});
    realm.post("roles", &role).await;
    let alice = realm.user_id("alice").await;
    let role = realm.get("roles/extra").await;
    realm
        .post(&format!("users/{alice}/role-mappings/realm"), &json!([role]))
        .await;
    let changed = differences(&before, &realm.export().await);
    assert!(
        changed.iter().any(|line| line.starts_with("/users/alice/roles")),
        "{changed:#?}"
    );
    assert!(
        changed
            .iter()
            .any(|line| line.starts_with("/realm/roles/realm +")),
        "{changed:#?}"
    );
    realm.delete("roles/extra", None).await;
    assert_eq!(differences(&before, &realm.export().await), Vec::<String>::new());
}
