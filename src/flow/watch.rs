//! What this process knows of how far each IdP's log was read, and who is being asked about just now.
//!
//! What is known has an age. Before a log was first read to its end nobody can say what happened while we were away, and
//! nothing is given that needs to be known (P5). In normal running the poller keeps what is known younger than a few
//! seconds; when it falls behind, a refresh asks about its own account, as a log-in does (contract section 3).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as Turn;

use crate::domain::holders::Holders;
use crate::domain::session::signed_out::SignedOut;
use crate::domain::subject::UpstreamId;
use crate::domain::time::{Span, Timestamp};
use crate::flow::session::Answer;
use crate::ports::seal::SubjectKey;

/// Nothing is known.
const NEVER: i64 = i64::MIN;
/// What a poll may take, beside the pause before it.
const MARGIN: Span = Span::from_secs(2);
/// Most accounts whose last answer is remembered.
const MOST: usize = 4_096;

/// What is known, for each IdP and for accounts that were asked about by themselves.
#[derive(Debug, Default)]
pub struct Watch {
    logs: BTreeMap<UpstreamId, Log>,
    asked: Mutex<BTreeMap<SubjectKey, Arc<Seat>>>,
    /// Who was last known to hold a role that may end a freeze.
    holders: Mutex<BTreeMap<UpstreamId, Holders>>,
}

/// Where those wait that want to know about one account.
#[derive(Debug, Default)]
struct Seat {
    answered: AtomicU64,
    last: Turn<Option<Asked>>,
}

#[derive(Debug)]
struct Log {
    until: AtomicI64,
    pause: AtomicI64,
    signed_out: Mutex<SignedOut>,
}

/// An answer, and when the question was put.
#[derive(Clone, Debug)]
struct Asked {
    at: Timestamp,
    answer: Answer,
}

/// How much is known about what an IdP has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Everything up to a moment ago.
    Now,
    /// Not the last few seconds: the account has to be asked about.
    Late,
    /// Nothing: the log was not read to its end since the start.
    Never,
}

impl Watch {
    /// One for each IdP that keeps a log.
    #[must_use]
    pub fn new(upstreams: impl IntoIterator<Item = UpstreamId>) -> Self {
        let log = |id| {
            let log = Log {
                until: AtomicI64::new(NEVER),
                pause: AtomicI64::new(0),
                signed_out: Mutex::default(),
            };
            (id, log)
        };
        Self {
            logs: upstreams.into_iter().map(log).collect(),
            asked: Mutex::default(),
            holders: Mutex::default(),
        }
    }

    /// The holders of the roles that may end a freeze, as the store has them; when it has none any more, as it last had
    /// them while this process ran.
    pub(super) fn holders(&self, upstream: &UpstreamId, stored: Option<Holders>) -> Holders {
        let mut known = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        match stored {
            Some(holders) => {
                known.insert(upstream.clone(), holders.clone());
                holders
            }
            None => known.get(upstream).cloned().unwrap_or_default(),
        }
    }

    /// The log of `upstream` is read once every `pause`.
    pub fn every(&self, upstream: &UpstreamId, pause: Duration) {
        if let Some(log) = self.logs.get(upstream) {
            let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
            log.pause.store(pause, Ordering::Relaxed);
        }
    }

    /// The log of `upstream` was read to its end, by whomever: all that was in it at `at` is stored.
    pub fn read_until(&self, upstream: &UpstreamId, at: Timestamp) {
        if let Some(log) = self.logs.get(upstream) {
            log.until.fetch_max(at.millis(), Ordering::Relaxed);
        }
    }

    /// Everybody was signed out at `upstream` until then. Gives what is known now.
    pub fn sign_out(&self, upstream: &UpstreamId, out: SignedOut) -> SignedOut {
        let Some(log) = self.logs.get(upstream) else {
            return SignedOut::default();
        };
        let mut known = log.signed_out.lock().unwrap_or_else(PoisonError::into_inner);
        *known = known.and(out);
        *known
    }

    /// Until when everybody was signed out at an IdP. Before its log was first read to its end that may be missing, and
    /// nothing is given then (see [`Watch::known`]).
    #[must_use]
    pub fn signed_out(&self, upstream: &UpstreamId) -> SignedOut {
        self.sign_out(upstream, SignedOut::default())
    }

    /// How much is known about an IdP at `now`. One without a log tells by itself.
    #[must_use]
    pub fn known(&self, upstream: &UpstreamId, now: Timestamp) -> Known {
        let Some(log) = self.logs.get(upstream) else {
            return Known::Now;
        };
        let until = log.until.load(Ordering::Relaxed);
        if until == NEVER {
            return Known::Never;
        }
        // Who does not read it but is told has a second pause between.
        let pause = Span::from_millis(log.pause.load(Ordering::Relaxed)).times(2);
        if now.millis() <= Timestamp::from_millis(until).plus(pause).plus(MARGIN).millis() {
            Known::Now
        } else {
            Known::Late
        }
    }

    /// Asks about an account, once for all that want to know it at the same time: an answer to a question that was put
    /// at or after `since` serves. That there was no answer serves those who waited for it, and nobody else.
    pub(super) async fn once(
        &self,
        key: &SubjectKey,
        since: Timestamp,
        now: impl Fn() -> Timestamp,
        ask: impl Future<Output = Answer>,
    ) -> Answer {
        let seat = self.seat(key);
        let before = seat.answered.load(Ordering::SeqCst);
        let mut last = seat.last.lock().await;
        let waited = seat.answered.load(Ordering::SeqCst) != before;
        let serves = |asked: &&Asked| {
            let silent = asked.answer == Answer::Silent;
            (waited && silent) || (!silent && asked.at >= since && asked.at <= now())
        };
        if let Some(asked) = last.as_ref().filter(serves) {
            return asked.answer.clone();
        }
        let at = now();
        let answer = ask.await;
        *last = Some(Asked {
            at,
            answer: answer.clone(),
        });
        seat.answered.fetch_add(1, Ordering::SeqCst);
        answer
    }

    fn seat(&self, key: &SubjectKey) -> Arc<Seat> {
        let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            // Only those that nobody is waiting for; their answers are asked for again.
            all.retain(|_, seat| Arc::strong_count(seat) > 1);
        }
        Arc::clone(all.entry(*key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn what_is_known_has_an_age_and_begins_with_nothing() {
        let (with, without) = (
            UpstreamId::parse("kc").unwrap(),
            UpstreamId::parse("other").unwrap(),
        );
        let watch = Watch::new([with.clone()]);
        watch.every(&with, Duration::from_secs(2));
        assert_eq!(watch.known(&with, at(0)), Known::Never);
        assert_eq!(watch.known(&without, at(0)), Known::Now, "it keeps no log");
        watch.read_until(&with, at(100));
        watch.read_until(&with, at(90));
        assert_eq!(
            watch.known(&with, at(106)),
            Known::Now,
            "what was read stays read"
        );
        assert_eq!(watch.known(&with, at(107)), Known::Late);
    }

    #[tokio::test]
    async fn those_who_ask_at_the_same_time_are_answered_together() {
        let watch = Watch::new([]);
        let key = SubjectKey([1; 16]);
        let asked = AtomicI64::new(0);
        let ask = |since: i64, answer: Answer| {
            let asked = &asked;
            let question = async move {
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                answer
            };
            watch.once(&key, at(since), || at(10), question)
        };
        let silent = |since| ask(since, Answer::Silent);
        futures_util::future::join3(silent(10), silent(10), silent(10)).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        silent(10).await;
        assert_eq!(asked.load(Ordering::SeqCst), 2, "who comes later asks again");
        ask(10, Answer::Gone).await;
        ask(10, Answer::Gone).await;
        assert_eq!(asked.load(Ordering::SeqCst), 3, "an answer serves");
        ask(11, Answer::Gone).await;
        assert_eq!(asked.load(Ordering::SeqCst), 4, "an older answer is none");
    }
}
