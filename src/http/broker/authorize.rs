//! `/authorize`: a session that does, or a log-in at the IdP; then a code.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::domain::session::Session;
use crate::domain::subject::UpstreamId;
use crate::domain::time::{Now, Span};
use crate::flow::grant::{self, Asker, Refusal, Wanted};
use crate::flow::session::{self, Found};
use crate::http::broker::browser::{self, SESSION};
use crate::http::broker::login::{self, Goal};
use crate::http::context::Context;
use crate::http::extract::Sent;
use crate::http::pages;
use crate::http::problem::Problem;
use crate::http::views::Choice;
use crate::oidc::authorize::{self, AuthorizeRequest, Refused};
use crate::oidc::params::Params;
use crate::oidc::settings::{Client, Upstream};
use crate::ports::seal::SubjectKey;

/// `GET /authorize`.
pub async fn authorize(State(context): State<Context>, headers: HeaderMap, Sent(params): Sent) -> Response {
    let broker = &context.broker;
    let now = context.flow.clock.now();
    let hint = |token: &str| {
        broker
            .hint(token, now)
            .ok()
            .and_then(|t| t.text("sub").map(str::to_owned))
    };
    let request = match authorize::parse(&params, &broker.settings, hint) {
        Ok(request) => request,
        Err(refused) => return refuse(&context, &refused),
    };
    let client = request.client.clone();
    browser::of_client(answer(&context, &headers, request, &params).await, &client)
}

/// `POST /authorize`: a form from another site comes without our cookie, so the same request is asked for again by
/// GET, where the browser sends it (`SameSite=Lax`).
pub async fn posted(State(context): State<Context>, headers: HeaderMap, sent: Sent) -> Response {
    let query = sent.0.query();
    if query.len() > 6000 {
        return authorize(State(context), headers, sent).await;
    }
    browser::redirect(&context.broker.settings.url(&format!("/authorize?{query}")))
}

fn refuse(context: &Context, refused: &Refused) -> Response {
    match refused {
        Refused::Page(text) => {
            let response = browser::page(
                context,
                StatusCode::BAD_REQUEST,
                "This sign-in cannot start",
                text,
            );
            browser::outcome(response, "unknown_client_or_redirect_uri")
        }
        Refused::Redirect {
            to,
            error,
            description,
        } => browser::error(context, to, error, description),
    }
}

/// Answers a request: with a session of this browser that does, or by a log-in. `params` as they were sent, for whoever
/// has to choose.
pub async fn answer(
    context: &Context,
    headers: &HeaderMap,
    request: AuthorizeRequest,
    params: &Params,
) -> Response {
    let to = request.return_to();
    let Some(client) = context.broker.settings.client(&request.client) else {
        return Problem::fault("a client that is gone").into_response();
    };
    let cookie = browser::cookie(context, headers, SESSION);
    let found = match cookie {
        Some(cookie) => session::find(&context.flow, cookie).await,
        None => Ok(None),
    };
    let found = match found {
        Ok(found) => found.filter(|f| serves(context, &request, client, &f.session)),
        Err(error) => {
            tracing::warn!(%error, "sessions cannot be read");
            return browser::error(
                context,
                &to,
                "temporarily_unavailable",
                "signing in is not possible now",
            );
        }
    };
    let lacking = found
        .as_ref()
        .map_or(Err("login_required"), |f| does(context, &request, f));
    match (lacking, found) {
        (Ok(()), Some(found)) => give(context, headers, request, client, &found.key, &found.session).await,
        (Err(error), _) if request.silent() => browser::error(context, &to, error, "a log-in is needed"),
        _ if chosen(context, &request, client).is_none() => choose(context, client, params),
        _ => log_in(context, headers, request, client, false).await,
    }
}

/// The IdP to log in at; `None` when the user has to choose.
fn chosen<'a>(
    context: &'a Context,
    request: &'a AuthorizeRequest,
    client: &Client,
) -> Option<&'a UpstreamId> {
    let one = || match context.broker.settings.upstreams_of(client).as_slice() {
        [only] => Some(&only.id),
        _ => None,
    };
    request.upstream.as_ref().or_else(one)
}

/// The page where the user chooses: the same request again, with the choice in it.
fn choose(context: &Context, client: &Client, params: &Params) -> Response {
    let settings = &context.broker.settings;
    let query = params.query();
    let way = |u: &Upstream| {
        (
            u.name.clone(),
            settings.url(&format!("/authorize?{query}&upstream={}", u.id)),
        )
    };
    let choice = Choice {
        title: "Where do you want to sign in?".to_owned(),
        text: format!("{} takes you there and back.", client.name),
        ways: settings.upstreams_of(client).into_iter().map(way).collect(),
    };
    browser::outcome(
        pages::html(StatusCode::OK, context.views.choose(&choice)),
        "choose_upstream",
    )
}

/// Whether a session is of an IdP that this client uses, and of the one that was chosen.
fn serves(context: &Context, request: &AuthorizeRequest, client: &Client, session: &Session) -> bool {
    let theirs = &session.subject.upstream;
    let all = context.broker.settings.upstreams_of(client);
    all.iter().any(|u| u.id == *theirs) && request.upstream.as_ref().is_none_or(|wanted| wanted == theirs)
}

fn does(context: &Context, request: &AuthorizeRequest, found: &Found) -> Result<(), &'static str> {
    if request.wants_interaction() {
        return Err("login_required");
    }
    judge(context, request, &found.session, found.now, Span::ZERO)
}

/// Whether a session answers the request.
///
/// # Errors
/// The error code.
pub fn judge(
    context: &Context,
    request: &AuthorizeRequest,
    session: &Session,
    now: Now,
    forgive: Span,
) -> Result<(), &'static str> {
    let sub = context
        .broker
        .settings
        .sub(&session.subject)
        .ok_or("access_denied")?;
    authorize::satisfies(request, session, &sub, now, forgive)
}

/// Sends the browser to the client's IdP.
pub async fn log_in(
    context: &Context,
    headers: &HeaderMap,
    request: AuthorizeRequest,
    client: &Client,
    again: bool,
) -> Response {
    let Some(upstream) = chosen(context, &request, client).cloned() else {
        return Problem::fault("a client without identity provider").into_response();
    };
    login::begin(
        context,
        headers,
        &upstream,
        Goal::Client(Box::new(request)),
        again,
    )
    .await
}

/// Gives a code for a session that does.
pub async fn give(
    context: &Context,
    headers: &HeaderMap,
    request: AuthorizeRequest,
    client: &Client,
    key: &SubjectKey,
    session: &Session,
) -> Response {
    let to = request.return_to();
    let wanted = Wanted {
        redirect_uri: &request.redirect_uri,
        challenge: request.challenge.as_deref(),
        nonce: request.nonce.as_deref(),
        scopes: &request.scopes,
    };
    let asker = Asker {
        client: &client.id,
        refuse_in_hold: client.refuse_in_hold,
    };
    let refusal = match grant::authorize(&context.flow, key, &session.id, asker, &wanted).await {
        Ok(code) => {
            let url = to.code(&code, &context.broker.settings.issuer);
            let response = url.map_or_else(
                || Problem::fault("a redirect URI that is no URL").into_response(),
                |u| browser::redirect(&u),
            );
            return browser::outcome(response, "code");
        }
        Err(refusal) => refusal,
    };
    match refusal {
        Refusal::NoSession if !request.silent() => {
            let request = AuthorizeRequest {
                upstream: Some(session.subject.upstream.clone()),
                ..request
            };
            log_in(context, headers, request, client, false).await
        }
        Refusal::Held if !request.silent() => held(context, client),
        refusal => {
            let (error, description) = words(&refusal);
            browser::error(context, &to, error, description)
        }
    }
}

/// The page of a client that cannot honour a hold (contract section 2, rule 10).
fn held(context: &Context, client: &Client) -> Response {
    let text = format!(
        "The sign-in details of your account were changed a short while ago, and {} cannot be used until that time is over.",
        client.name
    );
    let next = (
        "See what is limited, and until when".to_owned(),
        context.broker.settings.url("/account"),
    );
    let page = browser::page_with(
        context,
        StatusCode::FORBIDDEN,
        "Not available yet",
        &text,
        Some(next),
    );
    browser::outcome(page, "held")
}

/// A refusal in the words of the protocol.
const fn words(refusal: &Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::Contested => ("access_denied", "nothing is issued for this account now"),
        Refusal::Held => (
            "access_denied",
            "this application is not available to the account now",
        ),
        Refusal::Scope => ("invalid_scope", "nothing of the requested scope can be given now"),
        Refusal::NoSession => ("login_required", "a log-in is needed"),
        Refusal::Store(_) => ("temporarily_unavailable", "signing in is not possible now"),
        Refusal::Invalid => ("server_error", "the request could not be completed"),
    }
}
