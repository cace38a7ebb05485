//! Signing keys come and go under load, and no token ever fails.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use reentry::app::clock::SystemClock;
use reentry::app::keys::Tending;
use reentry::domain::time::{Span, Timestamp};
use reentry::oidc::keys::rotation::{Schedule, Turn, rotate};
use reentry::oidc::keys::{self, KeyRing};
use reentry::ports::clock::Clock as _;
use reentry::ports::signer::{Algorithm, Signer as _};
use serde_json::Value;

use crate::house::House;

const SCHEDULE: Schedule = Schedule {
    every: Span::from_millis(5000),
    ahead: Span::from_millis(3500),
    skew: Span::from_millis(800),
    keep: Span::from_millis(6000),
};
/// How long after its signature a token is still shown to somebody.
const LIFE: Duration = Duration::from_secs(4);

/// Somebody who knows our keys by the JWK Set only, and looks again only when a token names an unknown one.
struct Verifier {
    known: JwkSet,
    looked: u32,
}

impl Verifier {
    fn check(&mut self, token: &str, published: impl Fn() -> String) -> Result<(), String> {
        let header = jsonwebtoken::decode_header(token).map_err(|e| e.to_string())?;
        let kid = header.kid.unwrap();
        if self.known.find(&kid).is_none() {
            self.looked += 1;
            self.known = serde_json::from_str(&published()).unwrap();
        }
        let key = self
            .known
            .find(&kid)
            .ok_or_else(|| format!("{kid} is not published"))?;
        let mut validation = Validation::new(header.alg);
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        let key = DecodingKey::from_jwk(key).unwrap();
        #[expect(clippy::disallowed_methods, reason = "an independent verifier")]
        let checked = jsonwebtoken::decode::<Value>(token, &key, &validation);
        checked.map(|_| ()).map_err(|e| format!("{kid}: {e}"))
    }
}

fn made(directory: &Path) {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
        keys::create(directory, algorithm, true, SystemClock.now()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_at_two_replicas_under_load_without_one_failed_validation() {
    let scratch = tempfile::tempdir().unwrap();
    made(scratch.path());
    let house = House::new().await;
    let ring = || {
        let ring = KeyRing::load(scratch.path(), Arc::new(SystemClock)).unwrap();
        Arc::new(ring.keeping(SCHEDULE.keep))
    };
    let rings = [ring(), ring()];
    let first: BTreeSet<String> = rings[0].keys().iter().map(|k| k.kid.clone()).collect();
    let stop = Arc::new(AtomicBool::new(false));
    for (at, ring) in rings.iter().enumerate() {
        let tending = Tending {
            keys: Arc::clone(ring),
            store: house.flow.store.clone(),
            owner: format!("replica-{at}"),
            schedule: Some(SCHEDULE),
        };
        let stop = Arc::clone(&stop);
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                tending.tend().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    let signed = Arc::new(AtomicU32::new(0));
    let mut load = Vec::new();
    for (at, algorithm) in [(0, Algorithm::Es256), (1, Algorithm::Rs256)] {
        let (rings, stop, signed) = (rings.clone(), Arc::clone(&stop), Arc::clone(&signed));
        load.push(tokio::spawn(async move {
            // The keys are asked for at the other replica than the one that signed.
            let published = || rings[1 - at].jwks();
            let mut verifier = Verifier {
                known: serde_json::from_str(&published()).unwrap(),
                looked: 0,
            };
            let mut shown: Vec<(Instant, String)> = Vec::new();
            let mut kids = BTreeSet::new();
            while !stop.load(Ordering::SeqCst) {
                let token = rings[at]
                    .sign(algorithm, "at+jwt", br#"{"sub":"alice"}"#)
                    .await
                    .unwrap();
                kids.insert(crate::house::header(&token)["kid"].as_str().unwrap().to_owned());
                verifier.check(&token, published).unwrap();
                // Somebody without any memory sees the same token at the end of its life.
                let (old, young): (Vec<_>, Vec<_>) =
                    shown.into_iter().partition(|(at, _)| at.elapsed() >= LIFE);
                for (_, token) in old {
                    let mut stranger = Verifier {
                        known: serde_json::from_str(&published()).unwrap(),
                        looked: 0,
                    };
                    stranger.check(&token, published).unwrap();
                }
                shown = young;
                shown.push((Instant::now(), token));
                signed.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (kids.len(), verifier.looked)
        }));
    }
    tokio::time::sleep(Duration::from_secs(16)).await;
    stop.store(true, Ordering::SeqCst);
    for task in load {
        let (kids, looked) = task.await.unwrap();
        assert!(kids >= 3, "only {kids} keys signed");
        assert!(looked as usize <= kids, "{looked} looks for {kids} keys");
    }
    println!("{} tokens", signed.load(Ordering::SeqCst));
    assert!(signed.load(Ordering::SeqCst) > 300);
    let left: BTreeSet<String> = keys::list(scratch.path())
        .unwrap()
        .into_iter()
        .map(|k| k.kid)
        .collect();
    assert!(left.is_disjoint(&first), "retired keys are gone in the end");
    assert!(left.len() <= 8, "{left:?}");
}

#[test]
fn a_successor_is_published_ahead_and_the_predecessor_retired_late() {
    let scratch = tempfile::tempdir().unwrap();
    let start = Timestamp::from_secs(1_800_000_000);
    let schedule = Schedule {
        every: Span::from_days(30),
        ahead: Span::from_days(1),
        skew: Span::from_mins(5),
        keep: Span::from_days(7),
    };
    for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
        keys::create(scratch.path(), algorithm, true, start).unwrap();
    }
    let at = |span: Span| rotate(scratch.path(), &schedule, start.plus(span)).unwrap();
    let days = |n: i64| Span::from_days(n);
    assert_eq!(at(Span::from_hours(28 * 24 + 23)), []);
    let turns = at(days(29));
    assert_eq!(
        turns.iter().filter(|t| matches!(t, Turn::Made(_))).count(),
        2,
        "one of each kind: {turns:?}"
    );
    assert_eq!(turns.len(), 2);
    assert_eq!(at(days(29)), [], "harmless when repeated");
    assert_eq!(at(days(30)), [], "it signs, and clocks may differ");
    let turns = at(Span::from_millis(days(30).millis() + Span::from_mins(5).millis()));
    assert!(turns.iter().all(|t| matches!(t, Turn::Retired(_))), "{turns:?}");
    assert_eq!(turns.len(), 2);
    assert_eq!(at(days(37)), []);
    let turns = at(days(38));
    assert!(turns.iter().all(|t| matches!(t, Turn::Removed(_))), "{turns:?}");
    assert_eq!(turns.len(), 2);
    assert_eq!(keys::list(scratch.path()).unwrap().len(), 2);
    // A night of a year: one successor, never a gap.
    let turns = at(days(400));
    assert_eq!(
        turns.iter().filter(|t| matches!(t, Turn::Made(_))).count(),
        2,
        "{turns:?}"
    );
    assert!(!turns.iter().any(|t| matches!(t, Turn::Retired(_))), "{turns:?}");
}
