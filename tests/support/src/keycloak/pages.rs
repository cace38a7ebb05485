//! What a person does on Keycloak's own pages, through their real HTML.

use std::time::Duration;

use crate::browser::{Browser, Page};
use crate::mail::{Mail, MailSink};

/// Fills in the log-in page and submits it.
pub async fn log_in(browser: &mut Browser, page: &Page, username: &str, password: &str) -> Page {
    let mut form = page.form("#kc-form-login");
    if form.has("username") {
        form = form.set("username", username);
    }
    browser.submit(form.set("password", password)).await
}

/// From the log-in page through "Forgot Password?" to "You should receive an email shortly".
pub async fn ask_for_reset(browser: &mut Browser, log_in_page: &Page, username: &str) -> Page {
    let page = browser.follow(log_in_page, "reset-credentials").await;
    browser
        .submit(page.form("#kc-reset-password-form").set("username", username))
        .await
}

/// The reset mail of Keycloak to this address.
pub async fn reset_mail(mails: &MailSink, address: &str) -> Mail {
    mails
        .wait_for(address, "reset password", Duration::from_secs(20))
        .await
}

/// Opens an action link of a Keycloak mail, past the "Click here to proceed" page that another browser gets.
pub async fn open_action_link(browser: &mut Browser, link: &str) -> Page {
    let page = browser.get(link).await;
    let asks = !page.is_stop()
        && page.forms().is_empty()
        && page.links().iter().any(|one| one.text.contains("proceed"));
    if asks {
        browser.follow(&page, "proceed").await
    } else {
        page
    }
}

/// Fills in the page that asks for a new password; `everywhere` ticks "Sign out from other devices".
pub async fn set_new_password(browser: &mut Browser, page: &Page, password: &str, everywhere: bool) -> Page {
    let form = page
        .form("#kc-passwd-update-form")
        .set("password-new", password)
        .set("password-confirm", password);
    let form = match (form.has("logout-sessions"), everywhere) {
        (true, true) => form.tick("logout-sessions"),
        (true, false) => form.untick("logout-sessions"),
        (false, _) => form,
    };
    browser.submit(form).await
}

/// The whole of "Forgot password?" in one browser: from a log-in page to where Keycloak leads after the
/// new password: the redirect URI (automatic log-in), or "Account updated" (Force login after reset).
pub async fn forgot_password(
    browser: &mut Browser,
    log_in_page: &Page,
    mails: &MailSink,
    (username, address): (&str, &str),
    new_password: &str,
) -> Page {
    mails.clear();
    ask_for_reset(browser, log_in_page, username).await;
    let mail = reset_mail(mails, address).await;
    let page = open_action_link(browser, &mail.link("action-token")).await;
    set_new_password(browser, &page, new_password, false).await
}

/// Grants what the consent page asks for.
pub async fn consent(browser: &mut Browser, page: &Page) -> Page {
    browser
        .submit(page.form("form[action*=\"consent\"]").press("accept"))
        .await
}

/// The stable name of a Keycloak page, as `login-login`, whatever the language.
pub fn page_id(page: &Page) -> String {
    page.attribute("body", "data-page-id").unwrap_or_default()
}
