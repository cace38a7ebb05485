//! The page behind a "this was not me" link.

use minijinja::context;

use crate::domain::wording;
use crate::flow::report::{Reported, View};
use crate::http::pages::{Notice, Pages, Tone};

/// What the link is about, and the one button.
#[must_use]
pub fn look(pages: &Pages, view: &View, token: &str) -> String {
    let cause = &view.cause;
    let runs = cause.enforced && cause.holds() && view.now < cause.end();
    let page = context! {
        at => cause.at.millis(),
        origin => cause.origin.as_deref().map(wording::plain).filter(|o| !o.is_empty()),
        frozen => view.frozen,
        effective => cause.enforced,
        restriction => runs.then(|| {
            let said = pages.wording().restriction(&cause.allowed, Some(cause.end()));
            super::timed(pages.wording(), &said, Some(cause.end()))
        }),
        action => super::address(&format!("{}/cancel/{token}", pages.base())),
    };
    pages.render(
        "report.html",
        wording::happened(cause.kind),
        Some(view.now),
        Some(&cause.reference),
        page,
    )
}

/// What pressing the button led to.
#[must_use]
pub fn outcome(pages: &Pages, reported: Reported) -> String {
    let lines = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect();
    pages.notice(&match reported {
        Reported::Frozen => Notice {
            title: "The account is frozen",
            lines: lines(&[
                "Nobody can use it now, and everyone who was signed in is being signed out.",
                "Every address of the account is told about this, and about everything that happens next. \
                 You need not do anything more; you can close this page.",
            ]),
            tone: Tone::Frozen,
            reference: None,
            next: None,
        },
        Reported::Repeated => Notice {
            title: "You have told us already",
            lines: lines(&[
                "We wrote down that you said it again. It changes nothing further: what was begun after your first \
                 report goes on.",
            ]),
            tone: Tone::Plain,
            reference: None,
            next: None,
        },
        Reported::Observed => Notice {
            title: "Thank you, we have written it down",
            lines: lines(&["Every address of the account is told what you said. You can close this page."]),
            tone: Tone::Done,
            reference: None,
            next: None,
        },
    })
}

/// A link that is no longer, or never was, good for anything.
#[must_use]
pub fn refused(pages: &Pages, refusal: Refused) -> String {
    let (title, line) = match refusal {
        Refused::Incomplete => (
            "This link is not complete",
            "Mail programs sometimes break long links. Copy the whole line from the message into the address bar.",
        ),
        Refused::Expired => (
            "This link is too old",
            "It worked for a limited time. If something is wrong with the account, sign in and look at its page, \
             or ask for help.",
        ),
        Refused::Over => (
            "This is no longer on record",
            "What this link was about is over. If something is wrong with the account, sign in and look at its \
             page, or ask for help.",
        ),
        Refused::NoVoice => (
            "This address can no longer speak for the account",
            "Nothing was changed. If something is wrong with the account, ask for help.",
        ),
    };
    let next = matches!(refusal, Refused::Expired | Refused::Over)
        .then(|| ("Go to the account page", format!("{}/account", pages.base())));
    pages.notice(&Notice {
        title,
        lines: vec![line.to_owned()],
        tone: Tone::Failed,
        reference: None,
        next,
    })
}

/// Why a link is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Cut short, changed, or not ours.
    Incomplete,
    /// Past its time.
    Expired,
    /// The case is gone.
    Over,
    /// The channel has no say (any more).
    NoVoice,
}
