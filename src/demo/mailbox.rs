//! The demo's mailbox: every message that would have been sent, on one page.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use minijinja::context;

use crate::demo::page::{page, style};
use crate::domain::subject::account::ContactKind;
use crate::domain::time::Timestamp;
use crate::notify::mail::Messages;
use crate::ports::clock::Clock;
use crate::ports::notifier::{Notifier, NotifyError, Outgoing};

/// One message.
#[derive(Clone, Debug)]
pub struct Letter {
    /// To whom.
    pub to: String,
    /// From whom.
    pub from: String,
    /// Subject.
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// The same as HTML.
    pub html: Option<String>,
    /// When it arrived, demo time.
    pub at: Timestamp,
}

impl Letter {
    /// A message without HTML.
    #[must_use]
    pub fn plain(to: &str, from: &str, subject: &str, text: &str, at: Timestamp) -> Self {
        Self {
            to: to.to_owned(),
            from: from.to_owned(),
            subject: subject.to_owned(),
            text: text.to_owned(),
            html: None,
            at,
        }
    }
}

/// All messages, oldest first.
#[derive(Debug, Default)]
pub struct Mailbox {
    letters: Mutex<Vec<Letter>>,
}

impl Mailbox {
    /// Puts a message in.
    pub fn put(&self, letter: Letter) {
        self.letters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(letter);
    }

    /// Every message.
    #[must_use]
    pub fn letters(&self) -> Vec<Letter> {
        self.letters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The gateway of the demo: renders a notice as `serve` would, and puts it into the mailbox.
pub struct MailboxNotifier {
    /// The templates.
    pub messages: Messages,
    /// Where to.
    pub mailbox: Arc<Mailbox>,
    /// Demo time.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Notifier for MailboxNotifier {
    async fn deliver(&self, outgoing: &Outgoing<'_>) -> Result<(), NotifyError> {
        if outgoing.notice.kind != ContactKind::Email {
            return Err(NotifyError::Never("the demo has no telephone".to_owned()));
        }
        let rendered = self
            .messages
            .render(outgoing)
            .map_err(|e| NotifyError::Later(e.to_string()))?;
        self.mailbox.put(Letter {
            to: outgoing.notice.address.clone(),
            from: "Example Bank".to_owned(),
            subject: rendered.subject,
            text: rendered.text,
            html: Some(rendered.html),
            at: self.clock.now(),
        });
        Ok(())
    }
}

/// The mailbox's routes.
pub fn router(mailbox: Arc<Mailbox>) -> Router {
    Router::new()
        .route("/", get(list))
        .route("/style.css", get(style))
        .route("/mail/{number}", get(show))
        .route("/mail/{number}/html", get(show_html))
        .with_state(mailbox)
}

async fn list(State(mailbox): State<Arc<Mailbox>>) -> Response {
    let rows: Vec<_> = mailbox
        .letters()
        .into_iter()
        .enumerate()
        .rev()
        .map(|(i, l)| context! { number => i + 1, to => l.to, from => l.from, subject => l.subject, at => said(l.at) })
        .collect();
    page(
        StatusCode::OK,
        "mailbox.html",
        context! { place => "Mailbox", title => "Mailbox", rows },
    )
}

async fn show(State(mailbox): State<Arc<Mailbox>>, Path(number): Path<usize>) -> Response {
    let letters = mailbox.letters();
    let Some(letter) = number.checked_sub(1).and_then(|i| letters.into_iter().nth(i)) else {
        return missing();
    };
    let parts: Vec<_> = linked(&letter.text)
        .into_iter()
        .map(|(text, link)| context! { text, link })
        .collect();
    let html = letter.html.is_some();
    let found = context! {
        place => "Mailbox", title => letter.subject, to => letter.to, from => letter.from,
        at => said(letter.at), parts, html, number,
    };
    page(StatusCode::OK, "mail.html", found)
}

async fn show_html(State(mailbox): State<Arc<Mailbox>>, Path(number): Path<usize>) -> Response {
    let letters = mailbox.letters();
    let html = number
        .checked_sub(1)
        .and_then(|i| letters.get(i))
        .and_then(|l| l.html.clone());
    let Some(html) = html else { return missing() };
    // As a careful mail program shows it: no script, no remote pictures.
    let policy = HeaderValue::from_static(
        "default-src 'none'; style-src 'unsafe-inline'; sandbox allow-popups allow-top-navigation-by-user-activation",
    );
    let mut response = Html(html).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn missing() -> Response {
    let gone = context! { place => "Mailbox", title => "No such message", text => "It may have been sent before the demo was started again.", link => "/", link_text => "All messages" };
    page(StatusCode::NOT_FOUND, "note.html", gone)
}

/// An instant in words.
#[must_use]
pub fn said(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.millis())
        .map(|t| t.strftime("%-d %B %Y, %H:%M UTC").to_string())
        .unwrap_or_default()
}

/// Cuts a text into pieces, those that are addresses of pages marked as links.
fn linked(text: &str) -> Vec<(String, bool)> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("http://").or_else(|| rest.find("https://")) {
        let (before, from) = rest.split_at(start);
        let end = from.find(char::is_whitespace).unwrap_or(from.len());
        let (link, after) = from.split_at(end);
        pieces.push((before.to_owned(), false));
        pieces.push((link.to_owned(), true));
        rest = after;
    }
    pieces.push((rest.to_owned(), false));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_where_they_stand() {
        let pieces = linked("look: http://a/b?c=1\nbye");
        assert_eq!(
            pieces,
            [
                ("look: ".to_owned(), false),
                ("http://a/b?c=1".to_owned(), true),
                ("\nbye".to_owned(), false)
            ]
        );
    }
}
