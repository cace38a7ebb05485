//! Two replicas beside a real Keycloak, on a real Redis under Sentinel, while people sign in, renew their sessions,
//! reset their passwords and report, and processes are killed, stopped, slowed and replaced by the seed. Every token
//! and every change is written down, and a checker that knows only the promise says whether one was too strong.
//!
//! `REENTRY_HISTORY_SEED` chooses another seed, `REENTRY_HISTORY_SECONDS` another length.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "history/balancer.rs"]
mod balancer;
#[path = "history/chance.rs"]
mod chance;
#[path = "history/checker.rs"]
mod checker;
#[path = "history/chronicle.rs"]
mod chronicle;
#[path = "history/company.rs"]
mod company;
#[path = "history/observer.rs"]
mod observer;
#[path = "history/officials.rs"]
mod officials;
#[path = "history/people.rs"]
mod people;
#[path = "history/trouble.rs"]
mod trouble;
#[path = "history/writer.rs"]
mod writer;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reentry_test_support::clock::env;
use reentry_test_support::rp::{ClientAuth, RelyingParty};

use checker::{Violation, check, judged, planted};
use chronicle::Chronicle;
use company::{Company, PASSWORD, PEOPLE, REDIRECT, SECRET};
use observer::Observer;
use people::{Person, Town};

fn number(name: &str, otherwise: u64) -> u64 {
    env(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

// P1 to P10 together: no token too strong, no change missed, no notice lost, through everything at once.
#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_too_strong_and_every_change_is_told_through_kills_pauses_failovers_and_slowness() {
    let seed = number("REENTRY_HISTORY_SEED", 1);
    let length = Duration::from_secs(number("REENTRY_HISTORY_SECONDS", 120));
    // The company stays until the judgement: what its replicas wrote is shown when it is bad.
    let (chronicle, _company) = run(seed, length).await;
    let (said, found) = (judged(&chronicle), check(&chronicle));
    let full = chronicle
        .said
        .iter()
        .filter(|s| s.recovery_scope == "full")
        .count();
    println!(
        "seed {seed}: {} tokens and answers, {full} of them full, {} in a hold, {} after a change; {} sessions, {} \
         changes, {} holds, {} reports, {} mails, {} of them repeated; {:?}",
        chronicle.said.len(),
        said.held,
        said.aware,
        chronicle.sessions.len(),
        chronicle.changes.len(),
        chronicle.holds.len(),
        chronicle.reports.len(),
        chronicle.mails.len(),
        said.repeated,
        chronicle.trouble,
    );
    assert!(found.is_empty(), "seed {seed}: {found:#?}");
    let trouble = &chronicle.trouble;
    let enough = [
        trouble.failovers > 0,
        trouble.kills > 0,
        trouble.pauses > 0,
        trouble.slowness > 0,
        said.held > 0,
        said.aware > 0,
        full > 0,
        !chronicle.reports.is_empty(),
        !chronicle.changes.is_empty(),
        !chronicle.withdrawals.is_empty(),
        trouble.unreadable > 0,
        trouble.put_back > 0,
    ];
    assert!(enough.iter().all(|e| *e), "a run that proves nothing: {enough:?}");
    for (what, wrong) in planted(&chronicle) {
        assert!(!check(&wrong).is_empty(), "not caught: {what}");
    }
}

async fn run(seed: u64, length: Duration) -> (Chronicle, Company) {
    let mut company = Company::start().await;
    let shop = ClientAuth::Basic(SECRET.to_owned());
    let until = Instant::now() + length;
    let town = Arc::new(Town {
        realm: Arc::clone(&company.realm),
        mails: Arc::clone(&company.mails),
        shop: RelyingParty::discover(&company.issuer, "shop", shop, REDIRECT).await,
        http: reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .build()
            .unwrap(),
        chronicle: Arc::new(Mutex::new(Chronicle::default())),
        until,
    });
    let observer = Observer::start(&company).await;
    let mut lives = tokio::task::JoinSet::new();
    for index in 0..PEOPLE {
        // Two of them report: one early, one late.
        let reports_after = [1, 3].get(index).copied();
        lives.spawn(Person::new(Arc::clone(&town), index, seed, PASSWORD, reports_after).live());
    }
    let officials = tokio::spawn(officials::work(Arc::clone(&town), seed));
    let trouble = trouble::make(&mut company, seed, until).await;
    while let Some(ended) = lives.join_next().await {
        ended.expect("a person lives to the end");
    }
    officials.await.expect("the administrators work to the end");
    let mut chronicle = town.chronicle.lock().unwrap().clone();
    let holds = observer.settle(&company, &chronicle.changes).await;
    chronicle.holds = holds;
    chronicle.mails = observer::mails(&company);
    chronicle.trouble = trouble;
    (chronicle, company)
}

// The checker itself: it must see what is wrong, and nothing where nothing is.
#[test]
fn the_checker_sees_what_is_wrong_and_nothing_else() {
    let good = observer::example();
    assert_eq!(check(&good), []);
    for (what, wrong) in planted(&good) {
        let found = check(&wrong);
        assert_eq!(found.len(), 1, "{what}: {found:?}");
        let right = match what {
            "a token of a hold that says full" => matches!(found[0], Violation::TooStrong(_)),
            "a hold without its notice" => matches!(found[0], Violation::Untold(_)),
            "a token of an account that was switched off" => matches!(found[0], Violation::Outlived(_)),
            _ => matches!(found[0], Violation::Frozen(_)),
        };
        assert!(right, "{what}: {found:?}");
    }
}
