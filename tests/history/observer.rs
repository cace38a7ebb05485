//! Somebody who looks at the store all the time and notes when each hold was first committed: on every node, so that no
//! failover can take it away. A master that is about to be replaced shows what it will never pass on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use reentry::config::store::url::RedisUrl;
use reentry::config::store::{Durability, Replicas};
use reentry::domain::ceiling::Ceiling;
use reentry::domain::hold::{Cause, Told};
use reentry::domain::notice::Message;
use reentry::domain::subject::account::ContactKind;
use reentry::domain::subject::{Subject, UpstreamId};
use reentry::domain::time::Span;
use reentry::ports::seal::{Seal as _, SubjectKey};
use reentry::ports::store::{Mark, Parts, Store};
use reentry::store::redis::Settings;
use reentry::store::seal::Keys;
use reentry_test_support::clock::now_ms;

use crate::chronicle::{
    Change, Chronicle, Hold, Mailed, Millis, Report, Said, Session, Way, Withdrawal, Withdrawn,
};
use crate::company::{Company, LEFT, PEOPLE, address, name};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long everything may take to become quiet after the last trouble.
const QUIET: Duration = Duration::from_secs(150);

type Seen = Arc<Mutex<BTreeMap<(usize, String), Millis>>>;

/// The observer.
pub struct Observer {
    store: Arc<dyn Store>,
    keys: Arc<Keys>,
    subjects: Vec<SubjectKey>,
    seen: Seen,
}

impl Observer {
    /// Starts to look.
    pub async fn start(company: &Company) -> Self {
        let upstream = UpstreamId::parse("company").unwrap();
        let keys = Arc::new(Keys::load(&company.keys()).unwrap().of([&upstream]));
        let url = RedisUrl::parse(&company.redis.url()).unwrap();
        let settings = Settings {
            durability: Durability {
                replicas: Replicas::Just(2),
                ..Durability::NONE
            },
            ..Settings::new(url)
        };
        let store = reentry::store::redis::connect(settings, Arc::clone(&keys))
            .await
            .unwrap();
        let mut subjects = Vec::new();
        for person in 0..PEOPLE {
            let sub = company.realm.user_id(&name(person)).await;
            subjects.push(keys.subject(&Subject::new(upstream.clone(), &sub).unwrap()));
        }
        let seen = Seen::default();
        for (person, key) in subjects.iter().copied().enumerate() {
            let (store, seen) = (Arc::clone(&store), Arc::clone(&seen));
            tokio::spawn(async move {
                loop {
                    look(&*store, &key, person, &seen).await;
                    tokio::time::sleep(LOOK).await;
                }
            });
        }
        Self {
            store,
            keys,
            subjects,
            seen,
        }
    }

    /// Waits until every change has its hold and every hold was told, then gives all holds.
    pub async fn settle(&self, company: &Company, changes: &[Change]) -> Vec<Hold> {
        let start = Instant::now();
        loop {
            let (waiting, person) = match self.holds().await {
                Err(unreadable) => (unreadable, None),
                Ok(holds) => {
                    let so_far = Chronicle {
                        mails: mails(company),
                        ..Chronicle::default()
                    };
                    let missed = changes
                        .iter()
                        .find(|change| !holds.iter().any(|h| h.tells_of(change)));
                    match holds.iter().find(|hold| !so_far.told(hold)) {
                        None if missed.is_none() => return holds,
                        None => (format!("no hold tells of {missed:?}"), missed.map(|c| c.person)),
                        Some(untold) => (format!("nobody was told of {untold:#?}"), Some(untold.person)),
                    }
                }
            };
            if start.elapsed() >= QUIET {
                let story = match person {
                    Some(person) => self.story(company, person).await,
                    None => String::new(),
                };
                panic!("not quiet after {QUIET:?}: {waiting}\n{story}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What the store and the mail server say of somebody, for whoever has to find out why.
    async fn story(&self, company: &Company, person: usize) -> String {
        let end = reentry::domain::time::Timestamp::from_millis(i64::MAX);
        let lines = self.store.audit(self.subjects.get(person), end, 400).await;
        let lines = lines.map_or_else(
            |error| format!("{error}\n"),
            |lines| {
                let line = |(_, e): &(Subject, reentry::domain::audit::Entry)| format!("{e:?}\n");
                lines.iter().map(line).collect()
            },
        );
        let waiting = self.store.waiting(999).await;
        let mails: Vec<_> = company.mails.to(&address(person));
        let mails = mails
            .iter()
            .map(|m| format!("{} {}\n", m.header("message-id").unwrap_or_default(), m.subject));
        format!("{lines}{waiting:?}\n{}", mails.collect::<String>())
    }

    async fn holds(&self) -> Result<Vec<Hold>, String> {
        let mut holds = Vec::new();
        for (person, key) in self.subjects.iter().enumerate() {
            let loaded = self.store.read(key, Parts::RECORD).await;
            let loaded = loaded.map_err(|e| format!("person {person} cannot be read: {e}"))?;
            // The `read` hold after a freeze is of Reentry's own making and has no change at Keycloak.
            let causes = loaded.record.iter().flat_map(|r| &r.causes).filter(|c| counts(c));
            holds.extend(causes.map(|cause| self.hold(person, cause)));
        }
        Ok(holds)
    }

    fn hold(&self, person: usize, cause: &Cause) -> Hold {
        let seen = self
            .seen
            .lock()
            .unwrap()
            .get(&(person, cause.change.clone()))
            .copied();
        assert!(
            !matches!(cause.told, Told::Settled(_)),
            "no record is so full that it is folded"
        );
        let channel = self.keys.channel(ContactKind::Email, &address(person));
        let message = Message::of(cause.kind, None);
        let effect = format!("{}:{}:{}", cause.reference, message.as_str(), channel.0);
        let allowed = match &cause.allowed {
            Ceiling::Full => panic!("a hold that allows everything"),
            only @ Ceiling::Only(_) => only.to_string().split(' ').map(str::to_owned).collect(),
        };
        Hold {
            person,
            case: cause.reference.clone(),
            at: u64::try_from(cause.at.millis()).unwrap(),
            seen,
            end: u64::try_from(cause.end().millis()).unwrap(),
            allowed,
            scopes: LEFT.iter().map(|s| (*s).to_owned()).collect(),
            notice: (!taken_over(cause)).then(|| message_id(&effect)),
        }
    }
}

/// Whether the owner has to be told of it: a hold, or what came so late that even an untold hold would be over.
fn counts(cause: &Cause) -> bool {
    cause.holds() || cause.told == Told::Late
}

/// Whether a rebuild found it at Keycloak, and nothing that explains it.
fn taken_over(cause: &Cause) -> bool {
    cause.change.starts_with("carried:")
}

/// Looks once at somebody. What is new counts from when a later write of the same partition is on all nodes.
async fn look(store: &dyn Store, key: &SubjectKey, person: usize, seen: &Seen) {
    let Ok(loaded) = store.read(key, Parts::RECORD).await else {
        return;
    };
    // One that was heard too late holds nothing until it becomes part of a case around it.
    let causes = loaded.record.iter().flat_map(|r| &r.causes).filter(|c| c.holds());
    let known = |cause: &&Cause| seen.lock().unwrap().contains_key(&(person, cause.change.clone()));
    let news: Vec<&Cause> = causes.filter(|cause| !known(cause)).collect();
    if news.is_empty() {
        return;
    }
    let mark = Mark {
        name: format!("observed:{person}:{}", now_ms()),
        keep: Span::from_mins(10),
    };
    if store
        .update(key, Parts::RECORD, Some(&mark), &|_| None)
        .await
        .is_ok()
    {
        let now = now_ms();
        let mut seen = seen.lock().unwrap();
        for cause in news {
            seen.entry((person, cause.change.clone())).or_insert(now);
        }
    }
}

/// The local part of the `Message-ID` of an effect.
fn message_id(effect: &str) -> String {
    let hash = digest::digest(&digest::SHA256, effect.as_bytes());
    let mut name = String::new();
    for octet in hash.as_ref().iter().take(16) {
        let _ = write!(name, "{octet:02x}");
    }
    name
}

/// The mails of Reentry's, whoever else writes.
pub fn mails(company: &Company) -> Vec<Mailed> {
    let to = |person: usize| {
        company
            .mails
            .to(&address(person))
            .into_iter()
            .map(move |mail| (person, mail))
    };
    let all = (0..PEOPLE).flat_map(to);
    let ours = all.filter(|(_, mail)| mail.from == "security@bank.example");
    ours.map(|(person, mail)| {
        let id = mail.header("message-id").unwrap_or_default();
        let id = id
            .trim_start_matches('<')
            .split('@')
            .next()
            .unwrap_or_default()
            .to_owned();
        Mailed { person, id }
    })
    .collect()
}

/// A small history in which everything is right.
pub fn example() -> Chronicle {
    let said = |session, way, asked, scope: &str, scopes: &str| Said {
        person: 0,
        session,
        way,
        asked,
        answered: asked + 5,
        recovery_scope: scope.to_owned(),
        scopes: scopes.split(' ').map(str::to_owned).collect(),
        epoch: Some(1),
        roles: BTreeSet::new(),
    };
    let all = "openid accounts:read payments:write";
    Chronicle {
        said: vec![
            said(1, Way::Exchange, 10, "full", all),
            said(1, Way::Refresh, 101, "full", all),
            said(2, Way::Exchange, 200, "read write", "openid accounts:read"),
            said(2, Way::Refresh, 300, "read write", "openid accounts:read"),
            said(2, Way::Refresh, 1_300, "full", all),
        ],
        sessions: vec![
            Session { number: 1, began: 15 },
            Session {
                number: 2,
                began: 205,
            },
        ],
        changes: vec![Change {
            person: 0,
            from: 90,
            until: 100,
        }],
        holds: vec![Hold {
            person: 0,
            case: "h-1".to_owned(),
            at: 95,
            seen: Some(150),
            end: 1_095,
            allowed: ["read", "write"].map(str::to_owned).into(),
            scopes: ["openid", "accounts:read"].map(str::to_owned).into(),
            notice: Some("m1".to_owned()),
        }],
        reports: vec![Report {
            person: 0,
            acknowledged: 2_000,
        }],
        mails: vec![Mailed {
            person: 0,
            id: "m1".to_owned(),
        }],
        withdrawals: vec![Withdrawal {
            person: 1,
            what: Withdrawn::Account,
            from: 50_000,
            until: None,
        }],
        trouble: crate::chronicle::Trouble::default(),
    }
}
