//! What the admin API says about accounts. No address in clear: those who run support do not need them here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::domain::audit::{Actor, Entry};
use crate::domain::hold::contest::Contest;
use crate::domain::hold::{Cause, Effect, Record, Restriction, Told};
use crate::domain::policy::Rollout;
use crate::domain::session::{Grants, Session};
use crate::domain::subject::Subject;
use crate::domain::subject::account::{Account, ChannelId};
use crate::domain::time::{Now, Timestamp};
use crate::domain::wording::{self, Wording};
use crate::http::problem::Problem;
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Loaded, Pending};

/// Which accounts a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// In a hold.
    Held,
    /// Frozen by a report.
    Contested,
    /// Over by time, but for a fresh log-in.
    AwaitsLogin,
}

/// How an account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Tokens are whole.
    Quiet,
    /// Tokens are reduced.
    Held,
    /// Nothing is issued.
    Contested,
    /// The time of a hold is over, and tokens stay reduced until a fresh log-in.
    AwaitsLogin,
    /// Only observed: what would be reduced is not (roll-out).
    Observed,
}

impl Standing {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Held => "held",
            Self::Contested => "contested",
            Self::AwaitsLogin => "awaits_login",
            Self::Observed => "observed",
        }
    }

    /// Whether a list shows it; without a filter everything that is not quiet.
    #[must_use]
    pub fn shown(self, filter: Option<Filter>) -> bool {
        match filter {
            None => self != Self::Quiet,
            Some(Filter::Held) => self == Self::Held,
            Some(Filter::Contested) => self == Self::Contested,
            Some(Filter::AwaitsLogin) => self == Self::AwaitsLogin,
        }
    }
}

/// What an account's tokens say now: the restriction that runs, or what ended holds still ask of the sessions of
/// `grants`. Where there is no session, what one that has not logged in anew would be given. At an identity provider whose
/// users do not log in here (`brokered` is false) its own tokens count, which no session waits for.
fn restriction(record: &Record, grants: Option<&Grants>, brokered: bool, now: Now) -> Option<Restriction> {
    if let Some(running) = record.restriction(now) {
        return Some(running);
    }
    let wait = record.waits_for_login(now)?;
    if record.doubt().is_some() {
        return Some(wait);
    }
    let sessions = grants.map(|g| g.sessions.as_slice()).unwrap_or_default();
    let lives = |s: &&Session| s.ended.is_none() && record.session_lives(s.began, s.upstream_sid.as_deref());
    let living: Vec<&Session> = sessions.iter().filter(lives).collect();
    let whole = |s: &&Session| record.awaits_login(now, s.auth_time, s.eligible).is_none();
    let all_whole = !living.is_empty() && living.iter().all(whole);
    (brokered && !all_whole).then_some(wait)
}

/// How a record stands at `now`, where its tokens say `restriction`.
fn state(record: &Record, restriction: Option<&Restriction>, now: Now) -> Standing {
    match (&record.contest, restriction) {
        (Some(contest), _) if contest.enforced => Standing::Contested,
        (_, Some(_)) if record.restriction(now).is_some() || record.doubt().is_some() => Standing::Held,
        (_, Some(_)) => Standing::AwaitsLogin,
        (Some(_), None) => Standing::Observed,
        (None, None) if record.shadow(now).is_some() => Standing::Observed,
        (None, None) => Standing::Quiet,
    }
}

/// An instant in a query: milliseconds since the epoch, as `next_before` gives it, or RFC 3339.
#[derive(Clone, Copy, Debug)]
pub struct Moment(pub Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let millis = text.parse::<i64>().ok();
        let read = millis.or_else(|| {
            text.parse::<jiff::Timestamp>()
                .ok()
                .map(jiff::Timestamp::as_millisecond)
        });
        read.map(|ms| Self(Timestamp::from_millis(ms))).ok_or_else(|| {
            serde::de::Error::custom("`before` is a time in RFC 3339, or what `next_before` said")
        })
    }
}

/// A place in a list.
#[must_use]
pub fn write_key(key: &SubjectKey) -> String {
    URL_SAFE_NO_PAD.encode(key.0)
}

/// Reads a place in a list.
///
/// # Errors
/// When it is none of ours.
pub fn read_key(text: &str) -> Result<SubjectKey, Problem> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|b| <[u8; 16]>::try_from(b).ok());
    bytes
        .map(SubjectKey)
        .ok_or_else(|| Problem::bad_request("`after` is what `next` said"))
}

/// One line of a list, and how the account stands. `brokered`: its users log in here.
#[must_use]
pub fn summary(record: &Record, grants: Option<&Grants>, brokered: bool, now: Now) -> (Standing, Value) {
    let restriction = restriction(record, grants, brokered, now);
    let state = state(record, restriction.as_ref(), now);
    let last = record.causes.iter().rfind(|c| c.holds());
    let kinds: Vec<_> = record
        .causes
        .iter()
        .filter(|c| c.holds() && now.earliest() < c.end())
        .map(|c| c.kind)
        .collect();
    let document = json!({
        "upstream": record.subject.upstream,
        "sub": record.subject.sub,
        "state": state.as_str(),
        "recovery_scope": restriction.as_ref().map_or_else(|| "full".to_owned(), |r| r.allowed.to_string()),
        "recovery_until": restriction.as_ref().and_then(|r| r.until).map(Wording::machine),
        "recovery_ref": restriction.map(|r| r.reference),
        "recovery_epoch": record.epoch,
        "reasons": kinds,
        "tier": last.map(|c| &c.tier),
        "rollout": last.map(|c| rollout(c.rollout)),
        "told": last.map(|c| told(c.told)),
        "thaw_approvals": record.disputed().and_then(|c| c.thaw.as_ref()).map_or(0, |t| t.approvals.len()),
    });
    (state, document)
}

/// Everything about one account.
#[must_use]
pub fn subject(subject: &Subject, loaded: &Loaded, brokered: bool, now: Now) -> Value {
    let quiet = Record::new(subject.clone());
    let record = loaded.record.as_ref().unwrap_or(&quiet);
    let (_, mut document) = summary(record, loaded.grants.as_ref(), brokered, now);
    if let Some(members) = document.as_object_mut() {
        members.insert("causes".to_owned(), record.causes.iter().map(cause).collect());
        members.insert(
            "freeze".to_owned(),
            record
                .disputed()
                .map_or(Value::Null, |contest| freeze(contest, record.contest.is_some())),
        );
        members.insert(
            "channels".to_owned(),
            loaded.account.as_ref().map_or(Value::Null, channels),
        );
        members.insert(
            "factors".to_owned(),
            loaded.account.as_ref().map_or(Value::Null, factors),
        );
    }
    document
}

fn cause(cause: &Cause) -> Value {
    json!({
        "reference": cause.reference,
        "kind": cause.kind,
        "row": cause.row.as_str(),
        "at": Wording::machine(cause.at),
        "until": Wording::machine(cause.end()),
        "length": cause.length.to_string(),
        "allowed": cause.allowed,
        "origin": cause.origin,
        "told": told(cause.told),
        "tier": cause.tier,
        "at_end": cause.at_end,
        "rollout": rollout(cause.rollout),
        "enforced": cause.enforced,
        "policy": cause.digest,
        "sources": cause.sources,
    })
}

/// A freeze, or one that is over and that nobody has judged.
fn freeze(contest: &Contest, frozen: bool) -> Value {
    let lapses = contest.lapse().filter(|_| frozen);
    let owned =
        |(channel, at): &(ChannelId, Timestamp)| json!({ "channel": channel, "at": Wording::machine(*at) });
    json!({
        "frozen": frozen,
        "rebuilt": contest.is_rebuilt(),
        "reported_by": Some(&contest.by).filter(|_| !contest.is_rebuilt()),
        "contested_since": Wording::machine(contest.contested_since),
        "ends_by_itself": lapses.is_some(),
        "reminders": contest.reminders,
        "owned": contest.owned.iter().map(owned).collect::<Vec<_>>(),
        "reference": contest.case,
        "since": Wording::machine(contest.since),
        "confirmed": contest.confirmed,
        "told": contest.told.filter(|_| !contest.is_rebuilt()).map(Wording::machine),
        "enforced": contest.enforced,
        "exits": contest.exits,
        "lapses": lapses.map(Wording::machine),
        "then_read_only_for": contest.hold.to_string(),
        "thaw": contest.thaw.as_ref().map(|thaw| json!({
            "finding": thaw.finding,
            "approvals": thaw.approvals,
            "ready": thaw.ready.map(Wording::machine),
        })),
    })
}

fn channels(account: &Account) -> Value {
    let channel = |c: &crate::domain::subject::account::Contact| {
        json!({
            "id": c.id,
            "kind": c.kind,
            "address": wording::masked(c.kind, &c.address),
            "verified": c.verified,
            "since": Wording::machine(c.since),
            "removed": c.gone.map(Wording::machine),
        })
    };
    account.contacts.iter().map(channel).collect()
}

fn factors(account: &Account) -> Value {
    let factor = |f: &crate::domain::subject::account::Factor| json!({ "class": f.class, "since": f.is_dated().then(|| Wording::machine(f.created)), "removed": f.gone.map(Wording::machine) });
    account.factors.iter().map(factor).collect()
}

fn told(told: Told) -> Value {
    match told {
        Told::Pending => json!({ "state": "pending" }),
        Told::NoChannel => json!({ "state": "no_channel" }),
        Told::At(at) => json!({ "state": "told", "at": Wording::machine(at) }),
        Told::Settled(_) => json!({ "state": "settled" }),
        Told::Unknown => json!({ "state": "unknown" }),
        Told::Late => json!({ "state": "late" }),
    }
}

fn rollout(rollout: Rollout) -> String {
    match rollout {
        Rollout::Shadow => "shadow".to_owned(),
        Rollout::On => "on".to_owned(),
        Rollout::Cohort(share) => format!("cohort {}.{:02}%", share / 100, share % 100),
    }
}

/// One audit line.
#[must_use]
pub fn audit(subject: &Subject, entry: &Entry) -> Value {
    let (actor, id) = match &entry.actor {
        Actor::System => ("system", None),
        Actor::Owner => ("owner", None),
        Actor::Channel(id) => ("channel", Some(id)),
        Actor::Administrator(id) => ("administrator", Some(id)),
    };
    json!({
        "id": entry.id,
        "at": Wording::machine(entry.at),
        "upstream": subject.upstream,
        "sub": subject.sub,
        "action": entry.action,
        "case": entry.case,
        "actor": { "type": actor, "id": id },
        "alarm": entry.alarm,
        "details": entry.details,
    })
}

/// Something that waits.
#[must_use]
pub fn pending(entry: &Pending) -> Value {
    let what = match &entry.effect {
        Effect::Converge => json!({ "kind": "converge" }),
        Effect::Notice(notice) => json!({
            "kind": "notice",
            "message": notice.content.message,
            "channel": notice.channel,
            "address": wording::masked(notice.kind, &notice.address),
            "case": notice.case,
        }),
        Effect::Farewell(farewell) => {
            json!({ "kind": "logout", "client": farewell.client, "sid": farewell.session })
        }
        Effect::Announce(event) => json!({ "kind": "event", "event": event.kind, "case": event.case }),
        Effect::Webhook(delivery) => json!({
            "kind": "webhook",
            "event": delivery.event.kind,
            "receiver": delivery.receiver,
            "case": delivery.event.case,
        }),
    };
    json!({
        "id": entry.id,
        "upstream": entry.subject.upstream,
        "sub": entry.subject.sub,
        "effect": what,
        "attempts": entry.attempts,
        "since": Wording::machine(entry.since),
        "failure": entry.failure,
    })
}

/// A dead letter: what waited, with the place by which it is sent again.
#[must_use]
pub fn dead_letter(entry: &Pending) -> Value {
    let mut document = pending(entry);
    if let Some(members) = document.as_object_mut() {
        members.insert("letter".to_owned(), json!(entry.at.to_string()));
    }
    document
}
