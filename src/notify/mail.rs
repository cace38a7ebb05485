//! What a notice says as an e-mail. One folder of templates per message; the text is complete by itself and the
//! HTML says the same words.
//!
//! One link at most, written out, to a page where looking changes nothing: the report page where the channel has
//! a say, the account page where it was the account's before and somebody can sign in, none for an address that came with
//! the change. What to do "if this was not you" is said in all of them.
//! No pictures, no tracking, and no way to unsubscribe: these cannot be turned off.

use minijinja::value::Value;
use minijinja::{Environment, UndefinedBehavior, context};

use crate::domain::notice::Message;
use crate::domain::policy::AtEnd;
use crate::domain::wording::{self, Freeze, Wording};
use crate::ports::notifier::Outgoing;

/// Who speaks.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The deployment's name, at the foot of every message.
    pub name: String,
    /// Accent colour as `#rrggbb`, validated by the configuration.
    pub accent: String,
    /// Where help is to be had (a number, an address, hours): one line of plain text.
    pub support: Option<String>,
}

/// A rendered message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// One line without controls.
    pub subject: String,
    /// Plain text, lines ending in LF.
    pub text: String,
    /// HTML with the same words.
    pub html: String,
}

/// The templates of every message, compiled.
#[derive(Debug)]
pub struct Messages {
    templates: Environment<'static>,
    wording: Wording,
    sender: Sender,
}

/// The three templates of one message.
macro_rules! folder {
    ($($name:literal),* $(,)?) => {
        [$(
            (concat!($name, "/subject.txt"), include_str!(concat!("templates/", $name, "/subject.txt"))),
            (concat!($name, "/body.txt"), include_str!(concat!("templates/", $name, "/body.txt"))),
            (concat!($name, "/body.html"), include_str!(concat!("templates/", $name, "/body.html"))),
        )*]
    };
}

const TEMPLATES: [(&str, &str); 45] = folder![
    "email_changed",
    "phone_changed",
    "password_changed",
    "mfa_device_changed",
    "recovery_codes_reset",
    "possession_factor_changed",
    "intermediary_changed",
    "recovery_attempted",
    "account_frozen",
    "freeze_ending",
    "freeze_ended",
    "freeze_stands",
    "report_repeated",
    "restriction_kept",
    "administrator_added",
];

impl Messages {
    /// Compiles every template.
    ///
    /// # Errors
    /// A template that does not parse; the embedded ones do (tested).
    pub fn new(wording: Wording, sender: Sender) -> Result<Self, minijinja::Error> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.add_template("layout.txt", include_str!("templates/layout.txt"))?;
        templates.add_template("layout.html", include_str!("templates/layout.html"))?;
        for (name, source) in TEMPLATES {
            templates.add_template(name, source)?;
        }
        Ok(Self {
            templates,
            wording,
            sender,
        })
    }

    /// Renders a notice.
    ///
    /// # Errors
    /// A template that asks for something that is not there; the embedded ones do not (tested for every message).
    pub fn render(&self, outgoing: &Outgoing<'_>) -> Result<Rendered, minijinja::Error> {
        let notice = outgoing.notice;
        let content = &notice.content;
        let folder = content.message.as_str();
        let change = content.change.and_then(|c| serde_json::to_value(c).ok());
        let change = change.as_ref().and_then(|c| c.as_str()).unwrap_or_default();
        let subject = self
            .templates
            .get_template(&format!("{folder}/subject.txt"))?
            .render(context! { change })?;
        let subject = subject.trim();
        let link = outgoing.link.as_ref().filter(|_| notice.link);
        // Nobody signs in to a frozen account, so its page is no way to anything.
        let page =
            Some(&outgoing.account_page).filter(|_| notice.before && link.is_none() && !content.frozen);
        let values = context! {
            subject,
            change,
            at => self.wording.moment(content.at),
            until => content.until.map(|at| self.wording.moment(at)),
            origin => content.origin.as_deref().map(wording::plain).filter(|o| !o.is_empty()),
            greeting => wording::greeting(&content.name),
            restriction => self.wording.stands(content),
            freeze => self.freeze(outgoing),
            ended => content.ended.map(wording::ended),
            turn_to => wording::turn_to(self.sender.support.as_deref(), &notice.case),
            in_touch => wording::in_touch(self.sender.support.as_deref(), &notice.case),
            then => self.wording.then(AtEnd::FreshEligibleLogin),
            lag => self.wording.lag(),
            before => notice.before,
            newcomer => !notice.before,
            link,
            page,
            support => self.sender.support.as_deref(),
            brand => &self.sender.name,
            accent => &self.sender.accent,
            count => content.count.unwrap_or(1),
            reference => &notice.case,
        };
        let text = self
            .templates
            .get_template(&format!("{folder}/body.txt"))?
            .render(values.clone())?;
        // In HTML the slashes of an address stay as they are: mail programs and people read the source.
        let shown = |url: &String| Value::from_safe_string(escape(url));
        let addresses = context! { link => link.map(shown), page => page.map(shown) };
        let html = self
            .templates
            .get_template(&format!("{folder}/body.html"))?
            .render(context! { ..addresses, ..values })?;
        Ok(Rendered {
            subject: subject.to_owned(),
            text: tidy(&text),
            html: html.trim().to_owned() + "\n",
        })
    }

    /// What is said of a freeze, in the messages about one that lasts.
    fn freeze(&self, outgoing: &Outgoing<'_>) -> Vec<String> {
        let content = &outgoing.notice.content;
        let decided = content.message == Message::FreezeEnding;
        if !decided && !matches!(content.message, Message::AccountFrozen | Message::FreezeStands) {
            return Vec::new();
        }
        self.wording.freeze(&Freeze {
            ready: content.until.filter(|_| decided),
            lapse: content.until.filter(|_| !decided),
            approvals: 0,
            hold: None,
            support: self.sender.support.as_deref(),
            reference: &outgoing.notice.case,
        })
    }
}

/// Text as an attribute's value or as text.
fn escape(text: &str) -> String {
    let mut escaped = text.replace('&', "&amp;");
    for (sign, entity) in [('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;")] {
        escaped = escaped.replace(sign, entity);
    }
    escaped
}

/// Plain text without spaces at line ends and with at most one empty line in a row.
fn tidy(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        if !(line.is_empty() && lines.last().is_none_or(|last| last.is_empty())) {
            lines.push(line);
        }
    }
    let mut tidied = lines.join("\n").trim_end().to_owned();
    tidied.push('\n');
    tidied
}
