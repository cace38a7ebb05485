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
use reentry::domain::hold::{Cause, Record, Told};
use reentry::domain::notice::Message;
use reentry::domain::subject::account::ContactKind;
use reentry::domain::subject::{Subject, UpstreamId};
use reentry::domain::time::Span;
use reentry::ports::seal::{Seal as _, SubjectKey};
use reentry::ports::store::{Mark, Parts, Store, StoreError};
use reentry::store::redis::Settings;
use reentry::store::seal::Keys;
use reentry_test_support::clock::now_ms;

use crate::chronicle::{
    Change, Chronicle, Hold, Mailed, Millis, Report, Said, Session, Term, Way, Withdrawal, Withdrawn,
};
use crate::company::{Company, LEFT, PEOPLE, address, name};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long everything may take to become quiet after the last trouble.
const QUIET: Duration = Duration::from_secs(150);

/// Of each change of each person: the ends that its hold was seen to have, and since when each.
type Seen = Arc<Mutex<BTreeMap<(usize, String), Vec<Term>>>>;

/// The observer.
pub struct Observer {
    eyes: Arc<Eyes>,
    keys: Arc<Keys>,
    subjects: Vec<SubjectKey>,
    seen: Seen,
}

/// The way to the store. Nobody restricts anything by what the observer remembers: what it saw on a master that was
/// replaced before it could pass that on, it has to forget, or it would take the store for one that went back.
struct Eyes {
    settings: Settings,
    keys: Arc<Keys>,
    store: Mutex<Arc<dyn Store>>,
}

impl Eyes {
    async fn open(settings: Settings, keys: Arc<Keys>) -> Self {
        let store = reentry::store::redis::connect(settings.clone(), Arc::clone(&keys));
        let store = Mutex::new(store.await.unwrap());
        Self {
            settings,
            keys,
            store,
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store.lock().unwrap())
    }

    async fn record(&self, key: &SubjectKey) -> Result<Option<Record>, StoreError> {
        let read = self.store().read(key, Parts::RECORD).await;
        self.looked(read).await.map(|loaded| loaded.record)
    }

    async fn looked<T>(&self, found: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Lost { .. } | StoreError::Altered(_)) = &found {
            let anew = reentry::store::redis::connect(self.settings.clone(), Arc::clone(&self.keys)).await;
            if let Ok(anew) = anew {
                *self.store.lock().unwrap() = anew;
            }
        }
        found
    }
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
        let eyes = Arc::new(Eyes::open(settings, Arc::clone(&keys)).await);
        let mut subjects = Vec::new();
        for person in 0..PEOPLE {
            let sub = company.realm.user_id(&name(person)).await;
            subjects.push(keys.subject(&Subject::new(upstream.clone(), &sub).unwrap()));
        }
        let seen = Seen::default();
        for (person, key) in subjects.iter().copied().enumerate() {
            let (eyes, seen) = (Arc::clone(&eyes), Arc::clone(&seen));
            tokio::spawn(async move {
                loop {
                    look(&eyes, &key, person, &seen).await;
                    tokio::time::sleep(LOOK).await;
                }
            });
        }
        Self {
            eyes,
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
        let store = self.eyes.store();
        let lines = store.audit(self.subjects.get(person), end, 400).await;
        let lines = lines.map_or_else(
            |error| format!("{error}\n"),
            |lines| {
                let line = |(_, e): &(Subject, reentry::domain::audit::Entry)| format!("{e:?}\n");
                lines.iter().map(line).collect()
            },
        );
        let waiting = store.waiting(999).await;
        let mails: Vec<_> = company.mails.to(&address(person));
        let mails = mails
            .iter()
            .map(|m| format!("{} {}\n", m.header("message-id").unwrap_or_default(), m.subject));
        format!("{lines}{waiting:?}\n{}", mails.collect::<String>())
    }

    async fn holds(&self) -> Result<Vec<Hold>, String> {
        let mut holds = Vec::new();
        for (person, key) in self.subjects.iter().enumerate() {
            let record = self.eyes.record(key).await;
            let record = record.map_err(|e| format!("person {person} cannot be read: {e}"))?;
            // The `read` hold after a freeze is of Reentry's own making and has no change at Keycloak.
            let causes = record.iter().flat_map(|r| &r.causes).filter(|c| counts(c));
            holds.extend(causes.map(|cause| self.hold(person, cause)));
        }
        Ok(holds)
    }

    fn hold(&self, person: usize, cause: &Cause) -> Hold {
        let terms = self.seen.lock().unwrap();
        let terms = terms
            .get(&(person, cause.change.clone()))
            .cloned()
            .unwrap_or_default();
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
            terms,
            end: end(cause),
            allowed,
            scopes: LEFT.iter().map(|s| (*s).to_owned()).collect(),
            notice: (!taken_over(cause)).then(|| message_id(&effect)),
        }
    }
}

/// When a hold ends, as its record has it.
fn end(cause: &Cause) -> Millis {
    u64::try_from(cause.end().millis()).unwrap()
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
async fn look(eyes: &Eyes, key: &SubjectKey, person: usize, seen: &Seen) {
    let Ok(record) = eyes.record(key).await else {
        return;
    };
    // One that was heard too late holds nothing until it becomes part of a case around it.
    let causes = record.iter().flat_map(|r| &r.causes).filter(|c| c.holds());
    let known = |cause: &&Cause| {
        let seen = seen.lock().unwrap();
        let terms = seen.get(&(person, cause.change.clone()));
        terms
            .and_then(|terms| terms.last())
            .is_some_and(|term| term.end == end(cause))
    };
    let news: Vec<&Cause> = causes.filter(|cause| !known(cause)).collect();
    if news.is_empty() {
        return;
    }
    let mark = Mark {
        name: format!("observed:{person}:{}", now_ms()),
        keep: Span::from_mins(10),
    };
    let marked = eyes.store();
    let marked = marked.update(key, Parts::RECORD, Some(&mark), &|_| None).await;
    if eyes.looked(marked).await.is_ok() {
        let now = now_ms();
        let mut seen = seen.lock().unwrap();
        for cause in news {
            let terms = seen.entry((person, cause.change.clone())).or_default();
            terms.push(Term {
                seen: now,
                end: end(cause),
            });
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
            terms: vec![Term {
                seen: 150,
                end: 1_095,
            }],
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
