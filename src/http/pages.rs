//! What people see: server-rendered, one style sheet, one script that nothing depends on.
//!
//! People meet these pages on a bad day. They say what happened, when, from where, what it means and what to do, in
//! that order, in the deployment's words. Nothing is inline, so that the policy can forbid everything else.

pub mod account;
pub mod assets;
pub mod report;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use minijinja::value::Value;
use minijinja::{Environment, UndefinedBehavior, context};

use crate::domain::time::Timestamp;
use crate::domain::wording::Wording;
use crate::http::guard::Rendered;
use crate::http::problem::Fault;
use crate::http::views::{Choice, ConfirmLogout, Message, Views, escape};

/// Nothing but our own style sheet, script and logo; forms go to ourselves.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'";

/// A deployment's picture.
#[derive(Clone, Debug)]
pub struct Logo {
    /// `image/svg+xml` or `image/png`.
    pub kind: &'static str,
    /// The file.
    pub bytes: Vec<u8>,
}

/// A deployment's own look; everything has a default.
#[derive(Clone, Debug)]
pub struct Brand {
    /// What the deployment calls itself.
    pub name: String,
    /// Accent as `#rrggbb` on the light and on the dark surface, validated by the configuration.
    pub accent: Option<(String, String)>,
    /// Picture beside the name.
    pub logo: Option<Logo>,
    /// Whom an owner turns to: one line of plain text.
    pub support: Option<String>,
}

impl Default for Brand {
    fn default() -> Self {
        Self {
            name: "Your account".to_owned(),
            accent: None,
            logo: None,
            support: None,
        }
    }
}

/// How a state is shown: a colour, an icon, and words beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Something was done, or is well.
    Done,
    /// Something to know.
    Plain,
    /// Something did not work.
    Failed,
    /// The account is frozen.
    Frozen,
}

impl Tone {
    const fn class(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Plain => "plain",
            Self::Failed => "failed",
            Self::Frozen => "frozen",
        }
    }

    const fn symbol(self) -> &'static str {
        match self {
            Self::Done => "check",
            Self::Plain => "info",
            Self::Failed => "alert",
            Self::Frozen => "lock",
        }
    }
}

/// A page that says one thing.
#[derive(Clone, Debug)]
pub struct Notice<'a> {
    /// The fact.
    pub title: &'a str,
    /// What it means and what to do, a paragraph each.
    pub lines: Vec<String>,
    /// How it is shown.
    pub tone: Tone,
    /// Reference for support.
    pub reference: Option<&'a str>,
    /// One thing to do next: words and address.
    pub next: Option<(&'a str, String)>,
}

/// The pages of a deployment.
#[derive(Debug)]
pub struct Pages {
    templates: Environment<'static>,
    wording: Wording,
    brand: Brand,
    base: String,
}

const TEMPLATES: [(&str, &str); 7] = [
    ("icons.html", include_str!("pages/templates/icons.html")),
    ("layout.html", include_str!("pages/templates/layout.html")),
    ("message.html", include_str!("pages/templates/message.html")),
    ("confirm.html", include_str!("pages/templates/confirm.html")),
    ("choose.html", include_str!("pages/templates/choose.html")),
    ("report.html", include_str!("pages/templates/report.html")),
    ("account.html", include_str!("pages/templates/account.html")),
];

impl Pages {
    /// Compiles the pages; `base` is the path of the issuer, empty or without a trailing slash.
    ///
    /// # Errors
    /// A template that does not parse; the embedded ones do (tested).
    pub fn new(brand: Brand, wording: Wording, base: &str) -> Result<Self, minijinja::Error> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        let long = wording.clone();
        templates.add_filter("moment", move |millis: i64| time(&long, millis, false));
        let short = wording.clone();
        templates.add_filter("short", move |millis: i64| time(&short, millis, true));
        for (name, source) in TEMPLATES {
            templates.add_template(name, source)?;
        }
        Ok(Self {
            templates,
            wording,
            brand,
            base: base.to_owned(),
        })
    }

    /// The words of this deployment.
    #[must_use]
    pub const fn wording(&self) -> &Wording {
        &self.wording
    }

    /// The look of this deployment.
    #[must_use]
    pub const fn brand(&self) -> &Brand {
        &self.brand
    }

    /// The path that every address on a page begins with.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Renders a page. `now` is what time it is there, for the countdown; the page's own values win over none of
    /// the frame's.
    fn render(
        &self,
        template: &str,
        title: &str,
        now: Option<Timestamp>,
        reference: Option<&str>,
        page: Value,
    ) -> String {
        let frame = context! {
            title,
            brand => &self.brand.name,
            support => self.brand.support.as_deref(),
            logo => self.brand.logo.is_some(),
            base => address(&self.base),
            zone => self.wording.zone(),
            now => now.map(Wording::machine).unwrap_or_default(),
            reference,
            heading => "",
        };
        let rendered = self
            .templates
            .get_template(template)
            .and_then(|t| t.render(context! { ..page, ..frame }));
        rendered.unwrap_or_else(|error| {
            tracing::error!(%error, template, "a page cannot be rendered");
            crate::http::views::Plain.message(&Message {
                title: title.to_owned(),
                text: "This page cannot be shown just now.".to_owned(),
                reference: reference.map(str::to_owned),
                next: None,
            })
        })
    }

    /// A page that says one thing.
    #[must_use]
    pub fn notice(&self, notice: &Notice<'_>) -> String {
        let next = notice
            .next
            .as_ref()
            .map(|(words, href)| context! { words => *words, href => address(href) });
        let page = context! {
            lines => &notice.lines,
            tone => notice.tone.class(),
            symbol => notice.tone.symbol(),
            next,
        };
        self.render("message.html", notice.title, None, notice.reference, page)
    }
}

impl Views for Pages {
    fn message(&self, message: &Message) -> String {
        self.notice(&Notice {
            title: &message.title,
            lines: vec![message.text.clone()],
            tone: Tone::Plain,
            reference: message.reference.as_deref(),
            next: message
                .next
                .as_ref()
                .map(|(words, to)| (words.as_str(), to.clone())),
        })
    }

    fn confirm_logout(&self, confirm: &ConfirmLogout) -> String {
        let fields: Vec<Value> = confirm
            .fields
            .iter()
            .map(|(name, value)| context! { name, value })
            .collect();
        let page = context! {
            text => "You are asked because we cannot tell where this came from. If you do nothing, you stay signed in.",
            action => address(&confirm.action),
            fields,
            button => "Sign out",
        };
        self.render("confirm.html", "Sign out?", None, None, page)
    }

    fn choose(&self, choice: &Choice) -> String {
        let ways: Vec<Value> = choice
            .ways
            .iter()
            .map(|(words, to)| context! { words, href => address(to) })
            .collect();
        let page = context! { text => &choice.text, ways };
        self.render("choose.html", &choice.title, None, None, page)
    }
}

/// A sentence in which a time is said, with that time as a `<time>`.
fn timed(wording: &Wording, sentence: &str, at: Option<Timestamp>) -> Value {
    let sentence = escape(sentence);
    let Some(at) = at else {
        return Value::from_safe_string(sentence);
    };
    Value::from_safe_string(sentence.replace(
        &escape(&wording.moment(at)),
        &time(wording, at.millis(), false).to_string(),
    ))
}

/// A `<time>`: the words stand by themselves, the attribute is for the script.
fn time(wording: &Wording, millis: i64, short: bool) -> Value {
    let at = Timestamp::from_millis(millis);
    let (words, mark) = if short {
        (wording.short(at), " data-short")
    } else {
        (wording.moment(at), "")
    };
    Value::from_safe_string(format!(
        r#"<time datetime="{}"{mark}>{words}</time>"#,
        Wording::machine(at)
    ))
}

/// An address as an attribute's value: escaped like any text, but for the slashes, so that it reads as one.
fn address(address: &str) -> Value {
    Value::from_safe_string(escape(address))
}

/// A page as a response. Pages of people are never stored and never say where somebody came from.
#[must_use]
pub fn html(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let mut response = (status, headers, body).into_response();
    if status.is_server_error() {
        response.extensions_mut().insert(Rendered);
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}

/// A page whose form leads on to other sites: browsers hold `form-action` against every redirect after it.
#[must_use]
pub fn leading_away(body: String) -> Response {
    let mut response = html(StatusCode::OK, body);
    if let Ok(policy) = HeaderValue::from_str(&POLICY.replace("form-action 'self'; ", "")) {
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The page for what took too long; what was begun may have been done.
#[must_use]
pub fn slow(pages: &Pages) -> Response {
    let page = pages.notice(&Notice {
        title: "This takes too long just now",
        lines: vec!["Go back to where you came from, and try again in a minute.".to_owned()],
        tone: Tone::Failed,
        reference: None,
        next: None,
    });
    let mut response = html(StatusCode::SERVICE_UNAVAILABLE, page);
    response
        .extensions_mut()
        .insert(Fault("the request took too long".to_owned()));
    response
}

/// The page for a fault: what to do, and the cause for the log only.
#[must_use]
pub fn fault(pages: &Pages, cause: &dyn std::fmt::Display) -> Response {
    let page = pages.notice(&Notice {
        title: "This does not work just now",
        lines: vec!["Nothing was changed. Try again in a minute.".to_owned()],
        tone: Tone::Failed,
        reference: None,
        next: None,
    });
    let mut response = html(StatusCode::SERVICE_UNAVAILABLE, page);
    response.extensions_mut().insert(Fault(cause.to_string()));
    response
}
