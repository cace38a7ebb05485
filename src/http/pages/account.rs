//! The owner's page: what is limited and why, until when, who was told, where one is signed in.

use std::collections::BTreeSet;

use minijinja::context;
use minijinja::value::Value;

use crate::domain::ceiling::Ceiling;
use crate::domain::change::Row;
use crate::domain::hold::contest::Contest;
use crate::domain::hold::{Cause, Record, Told};
use crate::domain::notice::Message;
use crate::domain::policy::AtEnd;
use crate::domain::session::Session;
use crate::domain::time::{Now, Timestamp};
use crate::domain::wording::{self, Wording};
use crate::flow::account::View;
use crate::http::pages::{Pages, Tone};
use crate::oidc::settings::BrokerSettings;

/// Who is looking, and what the page's forms carry.
#[derive(Clone, Copy, Debug)]
pub struct Looking<'a> {
    /// Our session of this browser.
    pub session: &'a Session,
    /// The token that proves that a form came from this page.
    pub form: &'a str,
    /// What was just done, if anything.
    pub done: Option<Done>,
    /// What applications are called.
    pub settings: &'a BrokerSettings,
}

/// What was just done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// A session was ended.
    SessionEnded,
    /// A way to sign in was removed.
    FactorRemoved,
    /// It could not be done.
    NotNow,
    /// There was no such thing (any more).
    Gone,
}

impl Done {
    const ALL: [Self; 4] = [Self::SessionEnded, Self::FactorRemoved, Self::NotNow, Self::Gone];

    /// The word in the address.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionEnded => "session-ended",
            Self::FactorRemoved => "removed",
            Self::NotNow => "not-now",
            Self::Gone => "gone",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.as_str() == word)
    }

    const fn words(self) -> &'static str {
        match self {
            Self::SessionEnded => "The session has ended.",
            Self::FactorRemoved => "It was removed. It can no longer be used to sign in.",
            Self::NotNow => {
                "The sign-in service does not answer just now. Nothing was changed; try again in a minute."
            }
            Self::Gone => "It is not there any more, or cannot be removed here. Nothing was changed.",
        }
    }

    const fn tone(self) -> Tone {
        match self {
            Self::SessionEnded | Self::FactorRemoved => Tone::Done,
            Self::NotNow | Self::Gone => Tone::Failed,
        }
    }
}

/// The page.
#[must_use]
pub fn page(pages: &Pages, view: &View, looking: &Looking<'_>) -> String {
    let state = State::of(view.record.as_ref(), view.now, looking.session);
    let page = context! {
        notice => looking.done.map(|d| context! {
            tone => d.tone().class(), symbol => d.tone().symbol(), words => d.words(),
        }),
        form => looking.form,
        causes => causes(view),
        told => told(view),
        untold => view.record.as_ref().map_or("", untold),
        added => added(view),
        sessions => sessions(view, looking),
        idp_known => view.idp_sessions.is_some(),
    };
    let now = view.now.earliest();
    let title = state.title(pages.wording());
    let values = context! { ..state.values(pages, view), ..page };
    pages.render("account.html", &title, Some(now), None, values)
}

/// In what state the account is, in the words of this page.
enum State<'a> {
    Whole,
    /// Over by time, but applications have to be signed in to anew.
    Login {
        young: bool,
        /// What somebody contested and nobody has judged holds it until people have.
        doubtful: bool,
    },
    Limited {
        allowed: Ceiling,
        from: Timestamp,
        until: Timestamp,
        /// What else than time it takes.
        at_end: AtEnd,
    },
    Frozen(&'a Contest),
}

impl<'a> State<'a> {
    fn of(record: Option<&'a Record>, now: Now, session: &Session) -> Self {
        let Some(record) = record else {
            return Self::Whole;
        };
        if let Some(contest) = record.contest.as_ref().filter(|c| c.enforced) {
            return Self::Frozen(contest);
        }
        match record.restriction(now) {
            Some(restriction) => Self::Limited {
                allowed: restriction.allowed,
                from: current(record).map(|c| c.at).min().unwrap_or(record.updated),
                until: restriction.until.unwrap_or(now.latest()),
                at_end: record.at_end(now),
            },
            None if record
                .awaits_login(now, session.auth_time, session.eligible)
                .is_some() =>
            {
                Self::Login {
                    // Signing in again would not be enough: what one signs in with is too young.
                    young: record
                        .awaits_login(now, Some(now.latest()), session.eligible)
                        .is_some(),
                    doubtful: record.doubt().is_some() && !session.eligible,
                }
            }
            None => Self::Whole,
        }
    }

    fn title(&self, words: &Wording) -> String {
        match self {
            Self::Whole => "Your account".to_owned(),
            Self::Login { doubtful: true, .. } => {
                "Your account is limited until our staff has looked at it".to_owned()
            }
            Self::Login { .. } => "Sign in again to use everything".to_owned(),
            Self::Limited { until, .. } => format!("Your account is limited until {}", words.moment(*until)),
            Self::Frozen(_) => "Your account is frozen".to_owned(),
        }
    }

    fn values(&self, pages: &Pages, view: &View) -> Value {
        let (now, words) = (view.now.earliest(), pages.wording());
        match self {
            Self::Whole => named("whole"),
            Self::Login { young, doubtful } => {
                let disputed = view
                    .record
                    .as_ref()
                    .and_then(Record::disputed)
                    .filter(|_| *doubtful);
                let reference = disputed.map_or("", |c| c.case.as_str());
                context! {
                    young => *young,
                    probation => words.probation(),
                    doubtful => disputed.map(|c| c.contested_since.millis()),
                    turn_to => wording::turn_to(pages.brand().support.as_deref(), reference),
                    ..named("login")
                }
            }
            Self::Limited {
                allowed,
                from,
                until,
                at_end,
            } => context! {
                state => "limited",
                restriction => super::timed(words, &words.restriction(allowed, Some(*until)), Some(*until)),
                heading => super::timed(words, &self.title(words), Some(*until)),
                works => works(words, allowed),
                waits => words.waits(allowed),
                line => line(*from, now, *until),
                then => words.then(*at_end),
                frozen => (),
            },
            Self::Frozen(contest) => context! {
                frozen => super::report::frozen(pages, contest),
                ..named("frozen")
            },
        }
    }
}

fn named(state: &str) -> Value {
    context! { state, restriction => "", works => (), waits => (), line => (), then => (), frozen => () }
}

/// What works in a hold, the things that always do among it (domain "Lift").
#[expect(clippy::similar_names, reason = "the field's own words")]
fn works(words: &Wording, allowed: &Ceiling) -> Vec<String> {
    let mut works = vec!["sign in".to_owned()];
    works.extend(words.works(allowed));
    if !allowed.is_none() {
        works.push("change your password".to_owned());
        works.push("add a stronger way to sign in".to_owned());
    }
    works.push("end sessions".to_owned());
    works
}

/// The line with three marks; `x` of the middle one runs from 8 to 392.
fn line(from: Timestamp, now: Timestamp, until: Timestamp) -> Value {
    let whole = until.since(from).millis().max(1);
    let gone = now.since(from).millis().clamp(0, whole);
    context! {
        from => from.millis(),
        now => now.millis(),
        until => until.millis(),
        until_machine => Wording::machine(until),
        left => Wording::length(until.since(now)),
        x => 8 + i64::try_from(i128::from(gone) * 384 / i128::from(whole)).unwrap_or(0),
    }
}

/// The causes of the current episode, oldest first.
fn current(record: &Record) -> impl Iterator<Item = &Cause> {
    let episode = record.episode();
    record
        .causes
        .iter()
        .filter(move |c| c.episode == episode && c.holds() && c.enforced)
}

fn causes(view: &View) -> Vec<Value> {
    let Some(record) = &view.record else {
        return Vec::new();
    };
    if record.restriction(view.now).is_none() {
        return Vec::new();
    }
    let of_now = |c: &&Cause| {
        record.contest.as_ref().is_some_and(|f| f.case == c.reference) || c.end() > view.now.earliest()
    };
    let shown = record
        .causes
        .iter()
        .filter(|c| (c.holds() && c.enforced) || record.contest.is_some())
        .filter(of_now);
    shown
        .map(|c| {
            let was = c
                .change
                .strip_prefix("after:")
                .filter(|_| c.row == Row::AfterContest);
            let from = was.and_then(|case| view.frozen.get(case));
            context! {
                what => match (was, from) {
                    (None, _) => wording::happened(c.said()),
                    (Some(_), Some(_)) => "The account was frozen",
                    (Some(_), None) => "A freeze of the account ended",
                },
                from => from.map(|at| at.millis()),
                at => c.at.millis(),
                origin => c.origin.as_deref().map(wording::plain).filter(|o| !o.is_empty()),
                reference => &c.reference,
            }
        })
        .collect()
}

/// Accepted notices about what is on record, newest first, with addresses masked.
fn told(view: &View) -> Vec<Value> {
    let Some(record) = &view.record else {
        return Vec::new();
    };
    let known =
        |case: Option<&String>| case.is_some_and(|case| record.causes.iter().any(|c| c.reference == *case));
    let entries = view.told.iter().filter(|e| known(e.case.as_ref())).take(20);
    entries
        .map(|entry| {
            let channel = entry
                .details
                .get("channel")
                .map(String::as_str)
                .unwrap_or_default();
            let contact = view.account.contacts.iter().find(|c| c.id.0 == channel);
            let message = entry
                .details
                .get("message")
                .map(String::as_str)
                .unwrap_or_default();
            context! {
                address => contact.map_or_else(
                    || "An address that is no longer on record".to_owned(),
                    |c| wording::masked(c.kind, &c.address),
                ),
                what => Message::ALL.into_iter().find(|m| m.as_str() == message).map_or("Message", subject),
                at => entry.at.millis(),
            }
        })
        .collect()
}

/// What is said where no line tells who was told.
fn untold(record: &Record) -> &'static str {
    let rebuilt = record.contest.as_ref().is_some_and(Contest::is_rebuilt);
    let all: Vec<Told> = current(record).map(|c| c.told).collect();
    if rebuilt || all.contains(&Told::Unknown) {
        "Our records of who was told, and when, were lost. What is limited lasts as long as it would have if nobody \
         had been told."
    } else if all.contains(&Told::Pending) {
        "No message has been accepted by a mail server yet. We keep trying; what is limited lasts longer until then."
    } else if all.contains(&Told::NoChannel) {
        "There was no address that a message could have gone to."
    } else {
        "Messages about this are no longer listed here."
    }
}

/// What a message was about, shortly.
const fn subject(message: Message) -> &'static str {
    match message {
        Message::EmailChanged => "E-mail address changed",
        Message::PhoneChanged => "Phone number changed",
        Message::PasswordChanged => "Password changed",
        Message::MfaDeviceChanged => "Second step changed",
        Message::RecoveryCodesReset => "Recovery codes",
        Message::PossessionFactorChanged => "Passkey or linked sign-in changed",
        Message::IntermediaryChanged => "Trusted contact changed",
        Message::RecoveryAttempted => "Recovery attempted",
        Message::AccountFrozen => "Account frozen",
        Message::FreezeEnding => "End of the freeze decided",
        Message::FreezeEnded => "Freeze ended",
        Message::FreezeStands => "Account still frozen",
        Message::ReportRepeated => "Reported once more",
        Message::RestrictionKept => "Attempt to take the limits away",
        Message::AdministratorAdded => "Another administrator",
    }
}

fn added(view: &View) -> Vec<Value> {
    view.added
        .iter()
        .map(|f| context! { id => &f.id, name => wording::factor(f.class), at => f.created.millis() })
        .collect()
}

/// Sessions at the IdP with the applications in them, then ours that came from none of those, newest first.
fn sessions(view: &View, looking: &Looking<'_>) -> Vec<Value> {
    let idp = view.idp_sessions.as_deref().unwrap_or_default();
    let of = |s: &Session, id: &str| s.upstream_sid.as_deref() == Some(id);
    let mut all: Vec<(Timestamp, Value)> = Vec::new();
    for s in idp {
        let ours = view
            .sessions
            .iter()
            .filter(|o| of(o, &s.id))
            .flat_map(|o| &o.clients);
        let name = looking.applications(s.clients.iter().chain(ours));
        let name = if s.offline {
            format!("{name}, also while you are away")
        } else {
            name
        };
        let this = of(looking.session, &s.id);
        all.push((
            s.began,
            context! {
                kind => "idp", id => &s.id, name, at => s.began.millis(), from => wording::plain(&s.ip), this,
            },
        ));
    }
    let alone = view.sessions.iter().filter(|o| !idp.iter().any(|s| of(o, &s.id)));
    for s in alone {
        let name = looking.applications(s.clients.iter());
        let this = looking.session.id == s.id;
        all.push((
            s.began,
            context! { kind => "own", id => &s.id, name, at => s.began.millis(), from => (), this },
        ));
    }
    all.sort_by_key(|(began, _)| std::cmp::Reverse(*began));
    all.into_iter().map(|(_, value)| value).collect()
}

impl Looking<'_> {
    /// Names of applications, as the deployment calls them; we ourselves are none.
    fn applications<'a>(&self, clients: impl Iterator<Item = &'a String>) -> String {
        let us = self
            .settings
            .upstream(&self.session.subject.upstream)
            .map(|u| u.client_id.as_str());
        let names: BTreeSet<String> = clients
            .filter(|id| Some(id.as_str()) != us)
            .map(|id| wording::plain(self.settings.client(id).map_or(id.as_str(), |c| c.name.as_str())))
            .collect();
        if names.is_empty() {
            return "This page only".to_owned();
        }
        wording::list(&names.into_iter().collect::<Vec<_>>(), "and")
    }
}
