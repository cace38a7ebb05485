//! Who may use the admin API.
//!
//! One of our own access tokens, `aud` the API's, scope `reentry:admin`, whose session still lives, whose ceiling at
//! this moment leaves acting on others, and whose owner has a role that the policy names. Or, for reading only, the
//! static key. An administrator whose own account is limited reads and approves nothing.

use std::collections::BTreeSet;

use axum::extract::FromRequestParts;
use axum::http::request::Parts as RequestParts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::domain::ceiling::{Ceiling, Class};
use crate::domain::entitlement::{Asking, Issued, Request};
use crate::domain::session::Session;
use crate::domain::subject::Subject;
use crate::flow::entitle;
use crate::flow::grant::{self, Refusal};
use crate::http::context::Context;
use crate::http::problem::Problem;
use crate::oidc::settings::ADMIN_SCOPE;
use crate::oidc::verify::{self, Verified};
use crate::ports::store::Loaded;

/// Somebody who may read: an administrator, or the holder of the static key.
#[derive(Clone, Debug)]
pub struct Reader;

/// An administrator, who may also approve.
#[derive(Clone, Debug)]
pub struct Administrator(pub Subject);

/// A refusal in the words of RFC 6750 §3: a problem document and a challenge.
#[derive(Debug)]
pub struct Denied(Problem, Option<&'static str>);

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        if let Some(challenge) = self.1 {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static(challenge),
            );
        }
        response
    }
}

impl From<Problem> for Denied {
    fn from(problem: Problem) -> Self {
        Self(problem, None)
    }
}

fn unauthenticated() -> Denied {
    Denied(
        Problem::unauthorized("send an access token for the admin API"),
        Some("Bearer realm=\"reentry\""),
    )
}

fn invalid(why: &str) -> Denied {
    Denied(
        Problem::unauthorized(why),
        Some("Bearer realm=\"reentry\", error=\"invalid_token\""),
    )
}

fn insufficient(why: &str) -> Denied {
    let challenge = "Bearer realm=\"reentry\", error=\"insufficient_scope\", scope=\"reentry:admin\"";
    Denied(Problem::forbidden(why), Some(challenge))
}

impl FromRequestParts<Context> for Reader {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut RequestParts, context: &Context) -> Result<Self, Denied> {
        let token = bearer(parts)?;
        if is_static_key(context, token) {
            return Ok(Self);
        }
        administrator(context, token).await.map(|_| Self)
    }
}

impl FromRequestParts<Context> for Administrator {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut RequestParts, context: &Context) -> Result<Self, Denied> {
        let token = bearer(parts)?;
        if is_static_key(context, token) {
            return Err(Problem::forbidden("the static key reads; it never approves").into());
        }
        administrator(context, token).await.map(Self)
    }
}

fn bearer(parts: &RequestParts) -> Result<&str, Denied> {
    let mut all = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return Err(unauthenticated());
    };
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|v| v.split_once(' '))
        .ok_or_else(unauthenticated)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Ok(token)
    } else {
        Err(unauthenticated())
    }
}

fn is_static_key(context: &Context, token: &str) -> bool {
    context.admin_key.as_ref().is_some_and(|key| key.is(token))
}

/// The administrator behind a token, judged by what is true now (ISS-8, P11).
async fn administrator(context: &Context, token: &str) -> Result<Subject, Denied> {
    let audience = context.broker.settings.url("/api");
    let now = context.flow.clock.now();
    let verified = context
        .broker
        .access_token(token, Some(&audience), now)
        .map_err(|refusal| match refusal {
            // The audience is what a scope brings; whoever lacks it has asked for too little, or the client may not.
            verify::Refusal::Claims => invalid(&format!(
                "the token is not for this API: ask for the scope `{ADMIN_SCOPE}` with a client that has it in its `scopes`; \
                 then `aud` is {audience}"
            )),
            other => invalid(&other.to_string()),
        })?;
    let subject = verified
        .text("sub")
        .and_then(|sub| context.broker.settings.subject(sub));
    let subject = subject.ok_or_else(|| invalid("the token is nobody's"))?;
    let key = context.flow.key(&subject);
    let token = (
        verified.text("sid").unwrap_or_default(),
        verified.text("jti").unwrap_or_default(),
    );
    let (session, loaded) = match grant::vouched(&context.flow, &key, token).await {
        Ok(found) => found,
        Err(Refusal::Store(error)) => return Err(Problem::from(error).into()),
        Err(_) => return Err(invalid("the session of this token has ended")),
    };
    may(context, &verified, &session, &loaded)?;
    Ok(subject)
}

fn may(context: &Context, verified: &Verified, session: &Session, loaded: &Loaded) -> Result<(), Denied> {
    let scopes: BTreeSet<String> = verified
        .text("scope")
        .unwrap_or_default()
        .split(' ')
        .map(str::to_owned)
        .collect();
    if !scopes.contains(ADMIN_SCOPE) {
        return Err(insufficient("the token has not the scope reentry:admin"));
    }
    let issued = Issued {
        ceiling: verified
            .text("recovery_scope")
            .and_then(Ceiling::parse)
            .unwrap_or(Ceiling::none()),
        epoch: verified.number("recovery_epoch").unwrap_or_default(),
    };
    let request = Request {
        client: verified.text("client_id").unwrap_or_default(),
        session: Some(Asking {
            id: &session.id,
            auth_time: session.auth_time,
            checked: session.checked,
            eligible: session.eligible,
        }),
        scopes: &scopes,
        roles: &session.roles,
        groups: &session.groups,
        issued: Some(issued),
    };
    let now = entitle::decide(&context.flow, Ok(loaded), &request);
    if !Class::parse("admin").is_some_and(|admin| now.recovery_scope.allows(&admin)) {
        let mut problem = Problem::new(
            StatusCode::FORBIDDEN,
            "recovery-hold",
            "Your own account is limited just now",
        );
        if let Some(until) = now.recovery_until {
            problem = problem.with("recovery_until", until.secs_ceil());
        }
        return Err(problem
            .detail("it may not act on others until that has ended")
            .into());
    }
    let policy = context.flow.policy.load();
    if !session.roles.iter().any(|role| policy.admin_roles.contains(role)) {
        return Err(Problem::forbidden("you do not have a role that the policy names for this").into());
    }
    Ok(())
}
