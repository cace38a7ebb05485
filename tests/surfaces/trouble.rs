//! What goes wrong with notices: nothing is lost, nobody else waits, and everything is visible.

use std::time::Duration;

use reentry::domain::time::{Span, Timestamp};
use reentry::flow::deliver;
use reentry_test_support::mail::Behaviour;
use reentry_test_support::receiver::{Manner, Receiver};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::world::{ANA, CLEO, DINA, STATIC_KEY, World};

const SOON: Duration = Duration::from_secs(10);

/// The worker as it runs in `serve`, until the world ends.
fn worker(world: &World) -> CancellationToken {
    let (flow, stop) = (world.flow.clone(), CancellationToken::new());
    let token = stop.clone();
    tokio::spawn(async move { deliver::run(&flow, "worker", &token).await });
    stop
}

/// A reset that is heard of, and not delivered yet.
async fn reset(world: &World, sub: &str) {
    world
        .people
        .lock()
        .unwrap()
        .set_password(sub, "taken", true, "s", world.now().latest());
    reentry::flow::poll::once(
        &world.flow,
        &world.upstream,
        "test",
        &mut reentry::flow::poll::Seen::default(),
    )
    .await
    .unwrap();
}

/// Moves the clock, and tries again what waits: a store looks at what was set aside once a second.
async fn later(world: &World, span: Span) {
    world.after(span).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.deliver().await;
}

async fn letters(world: &World) -> Vec<Value> {
    let (status, body) = world.get("/api/v1/dead-letters", STATIC_KEY).await;
    assert_eq!(status, 200, "{body}");
    body["letters"].as_array().unwrap().clone()
}

async fn actions(world: &World, action: &str) -> usize {
    let far = Timestamp::from_millis(i64::MAX);
    let lines = world.flow.store.audit(None, far, 500).await.unwrap();
    lines.iter().filter(|(_, l)| l.action == action).count()
}

// row C14: what can never be delivered is a dead letter, which an operator sees and sends again.
#[tokio::test]
async fn smtp_refusing_for_good_makes_a_dead_letter_that_can_be_sent_again() {
    let world = World::start().await;
    world.mails.refuse("ana@example.com", 550);
    world.reset(ANA).await;
    assert!(world.mails_to("ana").is_empty());
    let dead = letters(&world).await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["effect"]["address"], "a…@example.com");
    assert!(dead[0]["failure"].as_str().unwrap().contains("550"), "{dead:?}");
    assert_eq!(actions(&world, "notice_undeliverable").await, 1);
    let path = format!(
        "/api/v1/dead-letters/{}/retry",
        dead[0]["letter"].as_str().unwrap()
    );
    assert_eq!(world.post(&path, STATIC_KEY).await, 403, "the static key reads");
    let token = world.token(CLEO, |_| {}).await;
    assert_eq!(
        world.post("/api/v1/dead-letters/000-1-1/retry", &token).await,
        404
    );
    assert_eq!(
        world.post("/api/v1/dead-letters/nonsense/retry", &token).await,
        404
    );
    world.mails.refuse_nobody();
    assert_eq!(world.post(&path, &token).await, 202);
    assert_eq!(world.post(&path, &token).await, 404, "once");
    world.deliver().await;
    assert_eq!(world.mails_to("ana").len(), 1);
    assert!(letters(&world).await.is_empty());
    assert_eq!(actions(&world, "letter_retried").await, 1);
}

#[tokio::test]
async fn smtp_answering_4xx_is_asked_again_and_makes_one_case() {
    let world = World::start().await;
    world.mails.refuse("ana@example.com", 451);
    world.reset(ANA).await;
    for _ in 0..2 {
        later(&world, Span::from_mins(10)).await;
    }
    assert!(world.mails_to("ana").is_empty() && letters(&world).await.is_empty());
    // Greylisting: the same sender is taken after a while.
    world.mails.refuse_nobody();
    later(&world, Span::from_hours(1)).await;
    assert_eq!(world.mails_to("ana").len(), 1);
    later(&world, Span::from_hours(1)).await;
    assert_eq!(world.mails_to("ana").len(), 1, "exactly one");
    assert_eq!(
        world.record(ANA).await.unwrap().causes.len(),
        1,
        "exactly one case"
    );
}

#[tokio::test]
async fn smtp_hanging_for_one_holds_up_nobody_else() {
    let world = World::start().await;
    let stop = worker(&world);
    world.mails.hang_for("ana@example.com");
    reset(&world, ANA).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let start = std::time::Instant::now();
    reset(&world, DINA).await;
    world.mails.wait_count("dina@example.com", 1, SOON).await;
    // The conversation about ana is over after its deadline of 5 s, not before.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    tokio::time::sleep(Duration::from_secs(6)).await;
    world.mails.refuse_nobody();
    world.clock.advance(Span::from_mins(1));
    world.mails.wait_count("ana@example.com", 1, SOON).await;
    stop.cancel();
}

// Domain "End": nobody's hold lapses in silence while mail is down.
#[tokio::test]
async fn mail_down_for_a_day_and_a_hold_that_would_have_lapsed_in_silence() {
    let world = World::start().await;
    let start = world.now().latest();
    world.mails.behave(Behaviour::Close);
    world.reset(ANA).await;
    for _ in 0..5 {
        later(&world, Span::from_hours(5)).await;
    }
    let record = world.record(ANA).await.unwrap();
    let held = record
        .restriction(world.now())
        .expect("held although 24 h are over");
    let began = record.causes.first().unwrap().at;
    assert!(began.since(start).abs() < Span::from_secs(5));
    assert_eq!(
        held.until,
        Some(began.plus(Span::from_hours(48))),
        "until somebody is told"
    );
    world.mails.behave(Behaviour::Accept);
    later(&world, Span::from_hours(2)).await;
    let told = world.now().latest();
    let mails = world.mails_to("ana");
    assert_eq!(mails.len(), 1, "one message");
    let record = world.record(ANA).await.unwrap();
    let end = record.restriction(world.now()).unwrap().until.unwrap();
    let late = told.plus(Span::from_hours(6)).since(end);
    assert!(late.abs() < Span::from_secs(5), "told, and six hours: {late}");
    let words = reentry::domain::wording::Wording::default();
    let said = [end, end.minus(Span::from_secs(1))].map(|at| words.moment(at));
    assert!(
        said.iter().any(|at| mails[0].text.contains(at)),
        "the mail says the end that is true: {}",
        mails[0].text
    );
    world.after(Span::from_hours(6)).await;
    let record = world.record(ANA).await.unwrap();
    assert!(record.restriction(world.now()).is_none());
}

// Domain "Merge": repeated changes by one mailbox hold their nominal length each, are told each, and raise an alarm.
#[tokio::test]
async fn a_mailbox_holder_who_asks_for_ten_resets_in_ten_days() {
    let world = World::start().await;
    for day in 0..10 {
        world.reset(ANA).await;
        let record = world.record(ANA).await.unwrap();
        let last = record.causes.last().unwrap();
        assert_eq!(
            record.restriction(world.now()).unwrap().until,
            Some(last.at.plus(Span::from_hours(24))),
            "day {day}: its nominal length, no more"
        );
        assert_eq!(
            last.bounded,
            day >= 2,
            "day {day}: held for 2 × 24 h by this mailbox before"
        );
        assert_eq!(world.mails_to("ana").len(), day + 1, "day {day}: each is told");
        world.after(Span::from_hours(24)).await;
    }
    let far = Timestamp::from_millis(i64::MAX);
    let lines = world.flow.store.audit(None, far, 500).await.unwrap();
    let alarms = lines.iter().filter(|(_, l)| {
        l.alarm
            && l.details
                .get("alarm")
                .is_some_and(|a| a.contains("keeps holding this account"))
    });
    assert_eq!(alarms.count(), 8);
    assert!(
        world
            .record(ANA)
            .await
            .unwrap()
            .restriction(world.now())
            .is_none()
    );
}

// One dead receiver delays neither mails nor another receiver, and its events wait for it.
#[tokio::test]
async fn a_webhook_receiver_that_hangs_delays_nobody() {
    let (dead, well) = (Receiver::start(), Receiver::start());
    dead.behave(Manner::Hang);
    let world = World::announcing(&[("dead", dead.url()), ("well", well.url())]).await;
    let stop = worker(&world);
    for sub in [ANA, CLEO, DINA] {
        reset(&world, sub).await;
    }
    let start = std::time::Instant::now();
    let received = well.wait_count(3, SOON).await;
    world.mails.wait_count("dina@example.com", 1, SOON).await;
    assert!(
        start.elapsed() < Duration::from_millis(1900),
        "{:?}",
        start.elapsed()
    );
    let body: Value = serde_json::from_slice(&received[0].body).unwrap();
    assert_eq!(body["type"], "hold.started");
    assert_eq!(body["data"]["upstream"], "demo");
    assert!(
        !String::from_utf8_lossy(&received[0].body).contains('@'),
        "no address"
    );
    // Back again: each event comes once more at least, with the id it had.
    dead.behave(Manner::Take);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = dead.received().len();
    world.clock.advance(Span::from_mins(10));
    let all = dead.wait_count(before + 3, SOON).await;
    let ids = |all: &[reentry_test_support::receiver::Received]| {
        let ids = all.iter().map(|r| r.headers["webhook-id"].clone());
        ids.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(ids(&all), ids(&received), "the same three events");
    stop.cancel();
}

#[tokio::test]
async fn a_receiver_that_never_answers_ends_as_dead_letters_and_announces_no_more_of_itself() {
    let dead = Receiver::start();
    dead.behave(Manner::Status(500));
    let world = World::announcing(&[("crm", dead.url())]).await;
    world.reset(ANA).await;
    for days in [2, 4, 3, 3] {
        later(&world, Span::from_days(days)).await;
    }
    let dead = letters(&world).await;
    assert!(!dead.is_empty());
    assert!(
        dead.iter()
            .all(|l| l["effect"]["kind"] == "webhook" && l["effect"]["receiver"] == "crm")
    );
    assert_eq!(dead[0]["failure"], "the receiver answered 500");
    assert_eq!(actions(&world, "webhook_undeliverable").await, dead.len());
    assert!(
        world.flow.store.waiting(9).await.unwrap().len() <= 1,
        "what came last is tried still"
    );
}
