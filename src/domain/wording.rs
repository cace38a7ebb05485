//! The words in which an owner is told what happened: the same in page, mail and text message.
//!
//! A deployment may call the action classes by its own names ("send money", "move shares"). Nothing internal
//! gets out: whoever reads this has just lost a phone, or is being robbed, and has never heard of a tier.

mod terms;

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use crate::domain::ceiling::{Ceiling, Class, STANDARD};
use crate::domain::change::ChangeKind;
use crate::domain::notice::{Content, Ended, Message};
use crate::domain::policy::AtEnd;
use crate::domain::subject::account::{ContactKind, FactorClass};
use crate::domain::time::{Span, Timestamp};

pub use terms::Terms;

/// How the standard classes are called unless a deployment says otherwise; each completes "you can …". A class may
/// be more than one thing, divided by semicolons.
const DEFAULT: [(&str, &str); 6] = [
    ("read", "look at everything"),
    ("write", "make everyday changes"),
    ("export", "export data"),
    ("pay", "send money"),
    ("credential", "change contact details; remove ways to sign in"),
    ("admin", "manage other people's accounts"),
];

/// The order in which what waits is said: what hurts most first.
const GRAVITY: [&str; 6] = ["pay", "export", "credential", "admin", "write", "read"];

/// Longest name or place that is repeated to anybody, in characters.
const MAX_QUOTED: usize = 64;

/// Longest name in a greeting, in characters.
const MAX_NAME: usize = 40;

/// What things are called, and in which zone times are said.
#[derive(Clone, Debug)]
pub struct Wording {
    classes: BTreeMap<Class, String>,
    zone: TimeZone,
    terms: Terms,
}

impl Default for Wording {
    fn default() -> Self {
        Self::new(TimeZone::UTC, &BTreeMap::new())
    }
}

impl Wording {
    /// The default words with a deployment's `own` names of classes, each completing "you can …".
    #[must_use]
    pub fn new(zone: TimeZone, own: &BTreeMap<Class, String>) -> Self {
        let mut classes: BTreeMap<Class, String> = DEFAULT
            .iter()
            .filter_map(|(class, words)| Some((Class::parse(class)?, (*words).to_owned())))
            .collect();
        classes.extend(own.clone());
        Self {
            classes,
            zone,
            terms: Terms::default(),
        }
    }

    /// A date and a time of day with the zone's name: `21 November 2026, 09:12 UTC`.
    #[must_use]
    pub fn moment(&self, at: Timestamp) -> String {
        self.formatted("%-d %B %Y, %H:%M %Z", at)
    }

    /// The name of the zone times are said in.
    #[must_use]
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The same without the year and the zone, for a line with marks: `21 Nov, 09:12`.
    #[must_use]
    pub fn short(&self, at: Timestamp) -> String {
        self.formatted("%-d %b, %H:%M", at)
    }

    fn formatted(&self, format: &str, at: Timestamp) -> String {
        jiff::Timestamp::from_millisecond(at.millis()).map_or_else(
            |_| at.secs().to_string(),
            |t| t.to_zoned(self.zone.clone()).strftime(format).to_string(),
        )
    }

    /// The instant as RFC 3339 in UTC, for `<time datetime>`.
    #[must_use]
    pub fn machine(at: Timestamp) -> String {
        jiff::Timestamp::from_second(at.secs()).map_or_else(|_| at.secs().to_string(), |t| t.to_string())
    }

    /// A length of time as people say it, in its two largest units: `1 day 3 hours`, `12 minutes`.
    #[must_use]
    pub fn length(span: Span) -> String {
        let minutes = span.secs().max(0).saturating_add(59) / 60;
        let parts = [
            (minutes / 1440, "day"),
            (minutes / 60 % 24, "hour"),
            (minutes % 60, "minute"),
        ];
        let said: Vec<String> = parts
            .iter()
            .skip_while(|(n, _)| *n == 0)
            .take(2)
            .filter(|(n, _)| *n > 0)
            .map(|(n, unit)| format!("{n} {unit}{}", if *n == 1 { "" } else { "s" }))
            .collect();
        if said.is_empty() {
            "less than a minute".to_owned()
        } else {
            said.join(" ")
        }
    }

    /// What a class is called, each completing "you can …".
    fn class(&self, class: &Class) -> Vec<String> {
        let words = self.classes.get(class).cloned();
        let words = words.unwrap_or_else(|| class.as_str().trim_start_matches("x_").replace(['_', '-'], " "));
        let parts = words.split(';').map(|part| part.trim().to_owned());
        parts.filter(|part| !part.is_empty()).collect()
    }

    /// What a ceiling leaves working, in the standard order.
    #[must_use]
    pub fn works(&self, allowed: &Ceiling) -> Vec<String> {
        self.known(&STANDARD)
            .into_iter()
            .filter(|c| allowed.allows(c))
            .flat_map(|c| self.class(&c))
            .collect()
    }

    /// What waits under a ceiling, what hurts most first. Managing others is only mentioned where everyday changes
    /// wait too: such holds are those of people who may do it.
    #[must_use]
    pub fn waits(&self, allowed: &Ceiling) -> Vec<String> {
        let writes = Class::parse("write").is_some_and(|write| allowed.allows(&write));
        self.known(&GRAVITY)
            .into_iter()
            .filter(|c| !allowed.allows(c) && (!writes || c.as_str() != "admin"))
            .flat_map(|c| self.class(&c))
            .collect()
    }

    /// The classes that have a name here: the standard ones in `order`, then the deployment's own.
    fn known(&self, order: &[&str]) -> Vec<Class> {
        let standard = order.iter().filter_map(|word| Class::parse(word));
        let own = self
            .classes
            .keys()
            .filter(|c| !STANDARD.contains(&c.as_str()))
            .cloned();
        standard.chain(own).collect()
    }

    /// How the account stands, for whoever reads a message: made from everything that holds it, not from the one change
    /// that the message is about. `None` where the message says it itself, or where there is nothing to say.
    #[must_use]
    pub fn stands(&self, content: &Content) -> Option<String> {
        use Message::{AccountFrozen, FreezeEnded, FreezeEnding, FreezeStands};
        match (&content.allowed, content.message) {
            (_, AccountFrozen | FreezeEnding | FreezeStands) => None,
            _ if content.frozen => {
                Some("The account is frozen, and stays so: nobody can use it, you included.".to_owned())
            }
            (Some(allowed), _) if !allowed.is_full() => {
                Some(self.limits(allowed, content.until, content.at_end))
            }
            (_, FreezeEnded) => None,
            _ if content.at_end.is_some() => content.change.map(|_| {
                "This limits nothing more. What an earlier change limits stays so until you have signed in anew."
                    .to_owned()
            }),
            _ => content
                .change
                .map(|_| "Nothing is limited: everything works as before.".to_owned()),
        }
    }

    /// How a freeze goes on, in sentences: whether it ends by itself, what ends it otherwise, whom to turn to.
    #[must_use]
    pub fn freeze(&self, freeze: &Freeze<'_>) -> Vec<String> {
        let mut said = vec![match (freeze.ready, freeze.lapse) {
            (Some(at), _) => format!(
                "Two people of our staff have decided that it ends on {}.",
                self.moment(at)
            ),
            (None, Some(at)) => format!(
                "If nobody confirms the report, it ends by itself on {}. The account can then be read, and nothing \
                 else, until our staff has looked at it.",
                self.moment(at)
            ),
            (None, None) => "It does not end by itself, however long it takes.".to_owned(),
        }];
        match (freeze.ready, freeze.approvals) {
            (Some(_), _) => {}
            (None, 0) => said.push(
                "It ends when two people of our staff have looked at it and found the same. Neither can end it \
                 alone, and every address of the account is told before."
                    .to_owned(),
            ),
            (None, _) => said.push(
                "One person of our staff has looked at it. A second, different one has to find the same; every \
                 address of the account is told before it ends."
                    .to_owned(),
            ),
        }
        // What follows a lapse was said above: no time ends that.
        if let Some(hold) = freeze
            .hold
            .filter(|_| freeze.ready.is_some() || freeze.lapse.is_none())
        {
            said.push(format!(
                "After it has ended the account can only be read for {}. {}",
                Self::length(hold),
                self.then(AtEnd::FreshEligibleLogin).unwrap_or_default()
            ));
        }
        said.push(turn_to(freeze.support, freeze.reference));
        said
    }

    /// What the restriction means, and what else than time it takes until it has ended.
    #[must_use]
    pub fn limits(&self, allowed: &Ceiling, until: Option<Timestamp>, at_end: Option<AtEnd>) -> String {
        let mut said = self.restriction(allowed, until);
        // Without an end there is nothing that could follow it.
        if let Some(then) = until.and(at_end).and_then(|at_end| self.then(at_end)) {
            said.push(' ');
            said.push_str(&then);
        }
        said
    }

    /// What the restriction means, in one sentence.
    #[must_use]
    pub fn restriction(&self, allowed: &Ceiling, until: Option<Timestamp>) -> String {
        let until = until.map_or_else(|| "For now".to_owned(), |at| format!("Until {}", self.moment(at)));
        if allowed.is_none() {
            return format!("{until} nobody can use the account, you included.");
        }
        let mut works = vec!["sign in".to_owned()];
        works.extend(self.works(allowed));
        let works = list(&works, "and");
        let waits = if self.works(allowed).len() <= 1 {
            "do anything else".to_owned()
        } else {
            list(&self.waits(allowed), "or")
        };
        if waits.is_empty() {
            format!("{until} you can {works}.")
        } else {
            format!("{until} you can {works}, but not {waits}.")
        }
    }
}

/// What is said of a freeze.
#[derive(Clone, Copy, Debug)]
pub struct Freeze<'a> {
    /// When it ends, where two administrators have decided that.
    pub ready: Option<Timestamp>,
    /// When it ends by itself, where it does.
    pub lapse: Option<Timestamp>,
    /// How many administrators have found the same so far.
    pub approvals: usize,
    /// How long the account can only be read afterwards, where that is known.
    pub hold: Option<Span>,
    /// Whom to turn to.
    pub support: Option<&'a str>,
    /// What to name there.
    pub reference: &'a str,
}

/// Whom to turn to and what to name there, as one sentence.
#[must_use]
pub fn turn_to(support: Option<&str>, reference: &str) -> String {
    match support {
        Some(support) => format!("Get in touch: {support}. Give the reference {reference}."),
        None => format!("Get in touch with us. Give the reference {reference}."),
    }
}

/// The same as the end of a sentence: `If this was not you, ` goes before it.
#[must_use]
pub fn in_touch(support: Option<&str>, reference: &str) -> String {
    turn_to(support, reference).replacen("Get in touch", "get in touch", 1)
}

/// Who or what ended a freeze, and what that means for what was changed.
#[must_use]
pub const fn ended(how: Ended) -> &'static str {
    match how {
        Ended::ForTheOwner => {
            "Two people of our staff found that the report was right. What was changed has been taken back, and the \
             addresses of before are the account's again."
        }
        Ended::TakenBack => {
            "Two people of our staff found that the report was right. The ways to sign in that were set up with the \
             change, or after it, have been removed. No address was concerned."
        }
        Ended::Unfounded => {
            "Two people of our staff found nothing wrong with the change. Nothing was removed."
        }
        Ended::Lapsed => {
            "Nobody confirmed the report, and it came from an address that was no longer the account's. Nobody has \
             looked at what was changed, and nothing was removed: the account can only be read until our staff has."
        }
        Ended::Proven => "Somebody proved to be the owner. Nothing was removed.",
    }
}

/// `a`, `a and b`, `a, b and c`.
#[must_use]
pub fn list(items: &[String], last: &str) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

/// What happened, as the beginning of a sentence that goes on with when and where.
#[must_use]
pub const fn happened(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::PasswordReset => "Your password was reset",
        ChangeKind::PasswordChanged => "Your password was changed",
        ChangeKind::PasswordSetByAdmin => "Your password was set by an administrator",
        ChangeKind::FactorAdded => "A way to sign in was added to your account",
        ChangeKind::FactorRemoved => "A way to sign in was removed from your account",
        ChangeKind::RecoveryCodesReset => "Your recovery codes were replaced",
        ChangeKind::RecoveryCodeUsed => "A recovery code was used to sign in",
        ChangeKind::EmailChanged => "The e-mail address of your account was changed",
        ChangeKind::PhoneChanged => "The phone number of your account was changed",
        ChangeKind::IntermediaryChanged => "A trusted contact of your account was changed",
        ChangeKind::FederatedLinkChanged => "A linked sign-in of your account was changed",
        ChangeKind::CredentialInitialised => "A first way to sign in was set up",
        ChangeKind::AllFactorsReplaced => "Every way to sign in to your account was replaced",
    }
}

/// What a factor is called.
#[must_use]
pub const fn factor(class: FactorClass) -> &'static str {
    match class {
        FactorClass::Password => "Password",
        FactorClass::Otp => "Authenticator app",
        FactorClass::Passkey => "Passkey or security key",
        FactorClass::RecoveryCodes => "Recovery codes",
        FactorClass::FederatedLink => "Linked sign-in",
        FactorClass::Other => "Another way to sign in",
    }
}

/// An address of which only enough is left to recognise one's own: `a…@example.org`, `…12`.
#[must_use]
pub fn masked(kind: ContactKind, address: &str) -> String {
    match (kind, address.rsplit_once('@')) {
        (ContactKind::Email, Some((local, domain))) => {
            format!("{}…@{}", local.chars().take(1).collect::<String>(), plain(domain))
        }
        (ContactKind::Email, None) => "…".to_owned(),
        (ContactKind::Phone, _) => {
            let digits: Vec<char> = address.chars().filter(char::is_ascii_digit).collect();
            let end: String = digits.iter().skip(digits.len().saturating_sub(2)).collect();
            format!("…{end}")
        }
    }
}

/// What somebody else chose (a name, a place), in one line and no longer than 64 characters: control and
/// direction characters are left out.
#[must_use]
pub fn plain(text: &str) -> String {
    plain_line(text, MAX_QUOTED)
}

/// The same, no longer than `most` characters.
#[must_use]
pub fn plain_line(text: &str, most: usize) -> String {
    let visible = |c: &char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(visible)
        .take(most)
        .collect()
}

/// The name for a greeting. A name is what its owner typed, or somebody who had the account for a while: letters, marks,
/// hyphens, apostrophes and spaces, at most 40 of them, or it is not repeated. So nobody makes our mail carry a telephone
/// number, an address or a sentence.
#[must_use]
pub fn greeting(name: &str) -> Option<String> {
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let fits =
        |c: char| c.is_alphabetic() || is_mark(c) || matches!(c, ' ' | '-' | '\u{2010}' | '\'' | '\u{2019}');
    let short = (1..=MAX_NAME).contains(&name.chars().count());
    (short && name.chars().all(fits)).then_some(name)
}

/// Marks that are written with letters and are none.
const fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{0300}'..='\u{036f}' | '\u{0483}'..='\u{0487}' | '\u{0591}'..='\u{05bd}' | '\u{064b}'..='\u{065f}'
        | '\u{093c}' | '\u{094d}' | '\u{09bc}' | '\u{09cd}' | '\u{0a3c}' | '\u{0a4d}' | '\u{0abc}' | '\u{0acd}'
        | '\u{0b3c}' | '\u{0b4d}' | '\u{0bcd}' | '\u{0c4d}' | '\u{0cbc}' | '\u{0ccd}' | '\u{0d4d}' | '\u{0dca}'
        | '\u{0e31}' | '\u{0e34}'..='\u{0e3a}' | '\u{0e47}'..='\u{0e4e}' | '\u{0f39}' | '\u{1039}'..='\u{103a}'
        | '\u{17d2}' | '\u{1dc0}'..='\u{1dff}' | '\u{3099}'..='\u{309a}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restriction_is_one_sentence_without_internal_words() {
        let words = Wording::default();
        assert_eq!(
            words.restriction(
                &Ceiling::of(&["read", "write"]),
                Some(Timestamp::from_secs(1_795_338_720))
            ),
            "Until 22 November 2026, 09:12 UTC you can sign in, look at everything and make everyday changes, \
             but not send money, export data, change contact details or remove ways to sign in."
        );
        assert_eq!(
            words.restriction(&Ceiling::none(), None),
            "For now nobody can use the account, you included."
        );
    }

    #[test]
    fn where_one_may_only_look_that_is_said_shortly() {
        assert_eq!(
            Wording::default().restriction(&Ceiling::of(&["read"]), None),
            "For now you can sign in and look at everything, but not do anything else."
        );
    }

    #[test]
    fn a_deployment_names_its_own_classes() {
        let own = BTreeMap::from([
            (Class::parse("pay").unwrap(), "transfer shares".to_owned()),
            (Class::parse("x_vote").unwrap(), "vote".to_owned()),
        ]);
        let words = Wording::new(TimeZone::UTC, &own);
        let waits = words.waits(&Ceiling::of(&["read", "write"]));
        assert!(waits.contains(&"transfer shares".to_owned()) && waits.contains(&"vote".to_owned()));
    }

    #[test]
    fn a_zone_is_said_with_the_time() {
        let lisbon = Wording::new(TimeZone::get("Europe/Berlin").unwrap(), &BTreeMap::new());
        assert_eq!(
            lisbon.moment(Timestamp::from_secs(1_795_338_720)),
            "22 November 2026, 10:12 CET"
        );
    }

    #[test]
    fn addresses_are_masked() {
        assert_eq!(masked(ContactKind::Email, "ana@example.org"), "a…@example.org");
        assert_eq!(masked(ContactKind::Phone, "+351 912 345 678"), "…78");
    }

    #[test]
    fn a_name_that_carries_a_link_is_not_repeated() {
        assert_eq!(greeting("Ana Sousa").as_deref(), Some("Ana Sousa"));
        for good in [
            "Zoë O'Neill-Brown",
            "José D\u{2019}Arc",
            "e\u{301}lan",
            "अनीता शर्मा",
            "นิ่ม",
            "李小龍",
        ] {
            assert_eq!(greeting(good).as_deref(), Some(good));
        }
        for bad in [
            "https://evil.example",
            "visit evil.example now",
            "evil．com",
            "Call +1 900 555 0100 now",
            "Call now, your account is stolen",
            "Your account is stolen call us now at once",
            "a\u{202e}b",
            "a@b",
            "",
            "\r\n",
            "<b>x</b>",
        ] {
            assert_eq!(greeting(bad), None, "{bad}");
        }
        assert_eq!(plain("a\r\nBcc: x\u{202e}y"), "a Bcc: xy");
    }

    #[test]
    fn lengths_are_said_in_two_units() {
        assert_eq!(Wording::length(Span::from_hours(27)), "1 day 3 hours");
        assert_eq!(Wording::length(Span::from_mins(12)), "12 minutes");
        assert_eq!(Wording::length(Span::ZERO), "less than a minute");
    }
}
