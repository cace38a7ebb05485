//! What the broker shows to a browser when it cannot answer by a redirect. The words and the look are the pages'
//! own; the broker only says which page.

use std::fmt::Write as _;

/// A page that says what happened and what to do.
#[derive(Clone, Debug)]
pub struct Message {
    /// The fact, in a few words.
    pub title: String,
    /// What it means and what to do, in short sentences.
    pub text: String,
    /// Reference for support.
    pub reference: Option<String>,
    /// One thing to do next: words and address.
    pub next: Option<(String, String)>,
}

/// The question before a log-out that nobody vouches for.
#[derive(Clone, Debug)]
pub struct ConfirmLogout {
    /// Where the form goes.
    pub action: String,
    /// Hidden fields, among them the form token.
    pub fields: Vec<(String, String)>,
}

/// A page with several ways on.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The question.
    pub title: String,
    /// What it is about.
    pub text: String,
    /// Words and address of each way.
    pub ways: Vec<(String, String)>,
}

/// Renders pages as whole HTML documents.
pub trait Views: Send + Sync {
    /// A message.
    fn message(&self, message: &Message) -> String;
    /// The question before a log-out.
    fn confirm_logout(&self, confirm: &ConfirmLogout) -> String;
    /// A choice.
    fn choose(&self, choice: &Choice) -> String;
}

/// Pages without any look: what is shown until a deployment's own are there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Views for Plain {
    fn message(&self, message: &Message) -> String {
        let reference = message
            .reference
            .as_ref()
            .map(|r| format!("<p>Reference: {}</p>", escape(r)))
            .unwrap_or_default();
        let next = message.next.as_ref();
        let next =
            next.map(|(words, to)| format!(r#"<p><a href="{}">{}</a></p>"#, escape(to), escape(words)));
        let next = next.unwrap_or_default();
        document(
            &message.title,
            &format!("<p>{}</p>{reference}{next}", escape(&message.text)),
        )
    }

    fn confirm_logout(&self, confirm: &ConfirmLogout) -> String {
        let mut fields = String::new();
        for (name, value) in &confirm.fields {
            let (name, value) = (escape(name), escape(value));
            let _ = write!(fields, r#"<input type="hidden" name="{name}" value="{value}">"#);
        }
        let action = escape(&confirm.action);
        document(
            "Sign out?",
            &format!(
                r#"<form method="post" action="{action}">{fields}<button type="submit">Sign out</button></form>"#
            ),
        )
    }

    fn choose(&self, choice: &Choice) -> String {
        document(
            &choice.title,
            &format!("<p>{}</p>{}", escape(&choice.text), ways(choice)),
        )
    }
}

/// The ways of a choice as a list of links.
fn ways(choice: &Choice) -> String {
    let mut items = String::new();
    for (words, to) in &choice.ways {
        let _ = write!(
            items,
            r#"<li><a href="{}">{}</a></li>"#,
            escape(to),
            escape(words)
        );
    }
    format!("<ul>{items}</ul>")
}

fn document(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        r#"<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title></head><body><main><h1>{title}</h1>{body}</main></body></html>"#
    )
}

/// Text as HTML text or attribute value.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
