//! "Forgot password?" at the demo's identity provider: a mailed link, a new password, and the automatic sign-in.

use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use minijinja::context;
use serde::Deserialize;

use crate::demo::idp::{COOKIE, Idp, note};
use crate::demo::mailbox::Letter;
use crate::demo::page::{page, set_cookie};
use crate::demo::people::RESET_LIFE;
use crate::demo::provider::locked;

/// The form.
pub(crate) async fn forgot(State(_): State<Idp>) -> Response {
    page(
        StatusCode::OK,
        "forgot.html",
        context! { place => "Example Identity", title => "Forgot your password?" },
    )
}

#[derive(Deserialize)]
pub(crate) struct Forgot {
    username: String,
}

/// Sends the link, if there is such an account; says the same in either case.
pub(crate) async fn send(State(idp): State<Idp>, Form(form): Form<Forgot>) -> Response {
    let name = form.username.trim().to_lowercase();
    let token = idp.random();
    let until = idp.clock.now().plus(RESET_LIFE);
    let found = {
        let mut people = locked(&idp.people);
        let person = people
            .people
            .values()
            .find(|p| p.username == name || p.email == name)
            .cloned();
        if let Some(person) = &person {
            people.resets.insert(token.clone(), (person.sub.clone(), until));
        }
        person
    };
    if let Some(person) = found {
        let text = format!(
            "Hello {},\n\nsomebody asked for a new password for your account. If it was you, choose one here:\n\n{}/reset?token={token}\n\nThe link works for 30 minutes.\n",
            person.name, idp.issuer
        );
        idp.mailbox.put(Letter::plain(
            &person.email,
            "Example Identity",
            "Choose a new password",
            &text,
            idp.clock.now(),
        ));
    }
    // The same words whether the account exists or not.
    note(
        StatusCode::OK,
        "Look into your mailbox",
        "If there is an account of that name, a link to choose a new password is on its way.",
    )
}

#[derive(Deserialize)]
pub(crate) struct ResetLink {
    token: String,
}

/// The form behind a link.
pub(crate) async fn show(State(idp): State<Idp>, Query(link): Query<ResetLink>) -> Response {
    let known = locked(&idp.people)
        .resets
        .get(&link.token)
        .is_some_and(|(_, until)| idp.clock.now() < *until);
    if !known {
        return note(
            StatusCode::GONE,
            "This link is used up",
            "Ask for a new one if you still need it.",
        );
    }
    page(
        StatusCode::OK,
        "reset.html",
        context! { place => "Example Identity", title => "Choose a new password", token => link.token },
    )
}

#[derive(Deserialize)]
pub(crate) struct Reset {
    token: String,
    password: String,
}

/// Sets the password and, as most providers do, signs its user in.
pub(crate) async fn set(State(idp): State<Idp>, Form(form): Form<Reset>) -> Response {
    let now = idp.clock.now();
    if form.password.chars().count() < 8 {
        return note(
            StatusCode::BAD_REQUEST,
            "That is too short",
            "A password needs at least 8 characters. Go back and choose a longer one.",
        );
    }
    let taken = locked(&idp.people)
        .resets
        .remove(&form.token)
        .filter(|(_, until)| now < *until);
    let Some((sub, _)) = taken else {
        return note(
            StatusCode::GONE,
            "This link is used up",
            "Ask for a new one if you still need it.",
        );
    };
    // As most providers do, the reset signs its user in.
    let session = idp.begin_session(&sub);
    locked(&idp.people).set_password(&sub, &form.password, true, &session, now);
    let done = context! { place => "Example Identity", title => "Your password was changed", text => "You are signed in with it now.", link => idp.bank, link_text => "Go to the bank" };
    set_cookie(page(StatusCode::OK, "note.html", done), COOKIE, &session)
}
