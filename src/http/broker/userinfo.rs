//! `/userinfo`: who somebody is, and what is true of the token now (ISS-8).

use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use crate::flow::live::{self, Live};
use crate::http::broker::known::known;
use crate::http::broker::{browser, oauth};
use crate::http::context::Context;
use crate::http::extract::Posted;
use crate::oidc::claims;

/// `GET` and `POST /userinfo`.
pub async fn userinfo(
    State(context): State<Context>,
    method: Method,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let presented = match presented(&method, &headers, request).await {
        Ok(presented) => presented,
        Err(answer) => return answer,
    };
    let invalid = || {
        oauth::challenge(
            StatusCode::UNAUTHORIZED,
            Some(("invalid_token", "the token is not valid")),
        )
    };
    let Some(known) = known(&context, &presented) else {
        return invalid();
    };
    let (token, verified) = (&known.token, &known.verified);
    if !token.scopes.contains("openid") {
        let fault = ("insufficient_scope", "the token does not have the scope openid");
        return oauth::challenge(StatusCode::FORBIDDEN, Some(fault));
    }
    match live::access(&context.flow, token).await {
        Live::Inactive => invalid(),
        Live::Active {
            entitlement, session, ..
        } => {
            let allowed = &context.flow.policy.load().claims;
            let mut body = match &session {
                Some(session) => claims::passed(session, allowed, &token.scopes, entitlement.contact_hold),
                None => claims::unread(&verified.claims, allowed),
            };
            body.insert("sub".to_owned(), json!(verified.text("sub")));
            claims::rights(&mut body, &entitlement);
            body.extend(claims::recovery(
                &entitlement,
                context.broker.settings.alias.as_deref(),
            ));
            let answer = oauth::json(StatusCode::OK, &Value::Object(body));
            let upstream = session.as_ref().map(|s| &s.subject.upstream);
            browser::of_client(browser::decided(answer, upstream, &entitlement), &token.client)
        }
    }
}

/// The token of the header or of the form, one of both (RFC 6750 §2).
async fn presented(method: &Method, headers: &HeaderMap, request: Request) -> Result<String, Response> {
    let by_header = oauth::bearer(headers)?.map(str::to_owned);
    let form = *method == Method::POST && headers.contains_key(header::CONTENT_TYPE);
    let by_form = if form {
        let Posted(params) = Posted::from_request(request, &()).await?;
        let params = params
            .unique()
            .map_err(|fault| oauth::invalid_request(&fault.to_string()))?;
        params.get("access_token").map(str::to_owned)
    } else {
        None
    };
    match (by_header, by_form) {
        (Some(_), Some(_)) => Err(oauth::invalid_request("send the token once")),
        (Some(token), None) | (None, Some(token)) => Ok(token),
        (None, None) => Err(oauth::challenge(StatusCode::UNAUTHORIZED, None)),
    }
}
