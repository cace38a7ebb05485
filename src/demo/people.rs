//! Who lives at the demo's identity provider, and what happens to them: state without any HTTP.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::change::{Change, ChangeKind, Proof, Source};
use crate::domain::hold::Posture;
use crate::domain::subject::account::{Account, ChannelId, Contact, ContactKind, Factor, FactorClass, Facts};
use crate::domain::time::{Span, Timestamp};

/// How long a reset link works.
pub const RESET_LIFE: Span = Span::from_mins(30);
/// How long a sign-in lasts.
pub const SESSION_LIFE: Span = Span::from_hours(10);
/// How long an authorization code works.
pub const CODE_LIFE: Span = Span::from_secs(60);

/// One account.
#[derive(Clone, Debug)]
pub struct Person {
    /// `sub`.
    pub sub: String,
    /// Log-in name.
    pub username: String,
    /// Full name.
    pub name: String,
    /// What the first page says about them.
    pub about: &'static str,
    /// E-mail address.
    pub email: String,
    /// Password, in clear: nobody's real one is ever here.
    pub password: Option<String>,
    /// When that password was set.
    pub password_since: Timestamp,
    /// Other ways to sign in.
    pub factors: Vec<Factor>,
    /// When the account was made.
    pub created: Timestamp,
    /// Role names.
    pub roles: BTreeSet<String>,
    /// What Reentry last asked us to make of the account.
    pub posture: Posture,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Whose.
    pub sub: String,
    /// Since when.
    pub began: Timestamp,
}

/// A code that waits for its client.
#[derive(Clone, Debug)]
pub struct Code {
    /// Whose.
    pub sub: String,
    /// The session it came from.
    pub session: String,
    /// When the user logged in.
    pub auth_time: Timestamp,
    /// `nonce` of the request.
    pub nonce: Option<String>,
    /// PKCE challenge.
    pub challenge: Option<String>,
    /// Where it was sent.
    pub redirect_uri: String,
    /// Not valid from here on.
    pub expires: Timestamp,
}

/// Everything the identity provider knows.
#[derive(Debug, Default)]
pub struct People {
    /// Accounts by `sub`.
    pub people: BTreeMap<String, Person>,
    /// Sessions by id.
    pub sessions: BTreeMap<String, Session>,
    /// Codes.
    pub codes: BTreeMap<String, Code>,
    /// Reset links: whose, until when.
    pub resets: BTreeMap<String, (String, Timestamp)>,
    /// The event log, oldest first.
    pub log: Vec<(String, Change)>,
}

impl People {
    /// The three accounts of the demo, three months old at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let created = now.minus(Span::from_days(90));
        let person = |sub: &str, name: &str, about: &'static str, roles: &[&str]| {
            let username = name.split(' ').next().unwrap_or(name).to_lowercase();
            let person = Person {
                sub: sub.to_owned(),
                email: format!("{username}@example.com"),
                password: Some(format!("{username}-secret")),
                username,
                name: name.to_owned(),
                about,
                password_since: created,
                factors: Vec::new(),
                created,
                roles: roles.iter().map(|r| (*r).to_owned()).collect(),
                posture: Posture::Free,
            };
            (sub.to_owned(), person)
        };
        let people = [
            person("u-1001", "Ana Almeida", "A private customer", &["customer"]),
            person(
                "u-1002",
                "Ben Okafor",
                "Pays the bills of a small company",
                &["customer", "business"],
            ),
            person(
                "u-1003",
                "Cleo Lindqvist",
                "Administers the bank's customers",
                &["customer", "reentry-admin"],
            ),
        ];
        Self {
            people: people.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The account with this log-in name and password, if it may log in.
    #[must_use]
    pub fn log_in(&self, username: &str, password: &str) -> Option<&Person> {
        let same = |p: &&Person| {
            p.username == username.trim().to_lowercase() || p.email == username.trim().to_lowercase()
        };
        let person = self.people.values().find(same)?;
        let frozen = matches!(person.posture, Posture::Contested(_));
        (person.password.as_deref() == Some(password) && !frozen).then_some(person)
    }

    /// The account of a session that lives.
    #[must_use]
    pub fn of_session(&self, session: &str, now: Timestamp) -> Option<(&Person, &Session)> {
        let session = self
            .sessions
            .get(session)
            .filter(|s| now < s.began.plus(SESSION_LIFE))?;
        Some((self.people.get(&session.sub)?, session))
    }

    /// Sets a new password and writes the log. `session` is the one the change happened in.
    pub fn set_password(&mut self, sub: &str, password: &str, reset: bool, session: &str, now: Timestamp) {
        let Some(person) = self.people.get_mut(sub) else {
            return;
        };
        person.password = Some(password.to_owned());
        person.password_since = now;
        let change = Change {
            id: format!("event-{}", self.log.len() + 1),
            source: Source::UserEvents,
            kind: if reset {
                ChangeKind::PasswordReset
            } else {
                ChangeKind::PasswordChanged
            },
            factor: Some(FactorClass::Password),
            at: now,
            offset: Span::ZERO,
            received: now,
            proof: if reset { Proof::Message } else { Proof::RecentLogin },
            mediated: false,
            session: Some(session.to_owned()),
            channel: None,
            origin: Some("this computer".to_owned()),
            previous_address: None,
        };
        self.log.push((sub.to_owned(), change));
    }
}

impl Person {
    /// What the account has, as Reentry keeps it.
    #[must_use]
    pub fn account(&self) -> Account {
        let contact = Contact {
            id: ChannelId(String::new()),
            kind: ContactKind::Email,
            address: self.email.clone(),
            verified: true,
            since: self.created,
            gone: None,
        };
        let password = self.password.as_ref().map(|_| Factor {
            id: format!("password-{}", self.sub),
            class: FactorClass::Password,
            created: self.password_since,
            gone: None,
            at_creation: self.password_since == self.created,
        });
        Account {
            created: self.created,
            name: self.name.clone(),
            contacts: vec![contact],
            factors: password.into_iter().chain(self.factors.clone()).collect(),
            enabled: !matches!(self.posture, Posture::Contested(_)),
            locale: Some("en".to_owned()),
            names: Vec::new(),
        }
    }

    /// What tiers are chosen by.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            roles: self.roles.clone(),
            ..Facts::default()
        }
    }
}
