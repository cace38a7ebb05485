//! The page behind a "this was not me" link.

use minijinja::context;
use minijinja::value::Value;

use crate::domain::change::Row;
use crate::domain::hold::contest::Contest;
use crate::domain::time::Timestamp;
use crate::domain::wording::{self, Freeze};
use crate::flow::report::View;
use crate::http::pages::{Notice, Pages, Tone};

/// What the link is about, how things stand, and what can be said about it.
#[must_use]
pub fn look(pages: &Pages, view: &View, token: &str) -> String {
    let (cause, words) = (&view.cause, pages.wording());
    let contest = view.contest.as_ref().filter(|c| c.enforced);
    let reference = contest.map_or(&cause.reference, |c| &c.case);
    let action = format!("{}/cancel/{token}", pages.base());
    let page = context! {
        at => cause.at.millis(),
        origin => cause.origin.as_deref().map(wording::plain).filter(|o| !o.is_empty()),
        after => cause.row == Row::AfterContest,
        effective => cause.enforced,
        restriction => view.stands.allowed.as_ref().map(|allowed| {
            let said = words.limits(allowed, view.stands.until, view.stands.at_end);
            super::timed(words, &said, view.stands.until)
        }),
        lag => words.lag(),
        taken_back => view.taken_back,
        frozen => contest.map(|c| frozen(pages, c)),
        noted => view.contest.is_some(),
        reported => view.reported.map(Timestamp::millis),
        heard => view.heard,
        owned => view.owned.map(Timestamp::millis),
        mine => super::address(&format!("{action}/mine")),
        action => super::address(&action),
        turn_to => wording::turn_to(pages.brand().support.as_deref(), reference),
    };
    let title = match contest {
        Some(_) => "The account is frozen",
        None if cause.row == Row::AfterContest => "The freeze of your account ended",
        None => wording::happened(cause.said()),
    };
    pages.render("report.html", title, Some(view.now), Some(reference), page)
}

/// What every page says of a freeze.
pub(super) fn frozen(pages: &Pages, contest: &Contest) -> Value {
    let words = pages.wording();
    let thaw = contest.thaw.as_ref();
    let (ready, lapse) = (thaw.and_then(|t| t.ready), contest.lapse());
    let said = words.freeze(&Freeze {
        ready,
        lapse,
        approvals: thaw.map_or(0, |t| t.approvals.len()),
        hold: Some(contest.hold),
        support: pages.brand().support.as_deref(),
        reference: &contest.case,
    });
    let said: Vec<Value> = said
        .iter()
        .map(|line| super::timed(words, line, ready.or(lapse)))
        .collect();
    let since = (!contest.is_rebuilt()).then(|| contest.since.millis());
    context! { since, said, lag => words.lag() }
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
             or get in touch with us.",
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
