//! Who may end a freeze waits and is told, and a running freeze keeps the clocks it began with (P11, P14).

use reentry::domain::policy::Policy;
use reentry::domain::time::Span;
use reentry::flow::{holders, inforce};
use reentry::ports::clock::Clock as _;
use serde_json::{Value, json};

use crate::world::{ANA, CLEO, DINA, STATIC_KEY, World};

const FAY: &str = "u-fay";
const GUS: &str = "u-gus";

async fn frozen() -> World {
    let world = World::start().await;
    world.reset(ANA).await;
    let link = world.report_link("ana");
    assert_eq!(world.web.post(link).send().await.unwrap().status(), 303);
    // Nothing but two administrators ends it.
    let key = world.flow.key(&world.subject(ANA));
    world
        .flow
        .store
        .update(&key, reentry::ports::store::Parts::RECORD, None, &|loaded| {
            let mut record = loaded.record.clone()?;
            record.contest.as_mut()?.lapses = None;
            Some(reentry::ports::store::Write {
                record: Some(record),
                ..Default::default()
            })
        })
        .await
        .unwrap();
    world.deliver().await;
    world
}

/// Whoever may manage users makes an administrator.
fn make(world: &World, sub: &str, name: &str) {
    let mut people = world.people.lock().unwrap();
    let mut person = people.people[CLEO].clone();
    sub.clone_into(&mut person.sub);
    name.clone_into(&mut person.username);
    person.email = format!("{name}@example.com");
    people.people.insert(sub.to_owned(), person);
}

fn actions(audit: &Value, action: &str) -> Vec<Value> {
    let lines = audit["entries"].as_array().or_else(|| audit.as_array());
    let lines = lines.unwrap();
    lines.iter().filter(|l| l["action"] == action).cloned().collect()
}

#[tokio::test]
async fn p11_two_administrators_made_a_minute_ago_end_no_freeze_and_the_others_are_told() {
    let world = frozen().await;
    make(&world, FAY, "fay");
    make(&world, GUS, "gus");
    for who in [FAY, GUS] {
        let token = world.token(who, |_| {}).await;
        let (status, body) = world.thaw(ANA, &token, "owner").await;
        assert_eq!(
            (status, &body["type"]),
            (403, &json!("urn:reentry:problem:role-too-new")),
            "{body}"
        );
    }
    assert!(world.record(ANA).await.unwrap().contest.unwrap().thaw.is_none());
    world.deliver().await;
    for told in ["cleo", "dina", "eli"] {
        let mails = world.mails_to(told);
        let about = mails
            .iter()
            .filter(|m| m.subject.contains("Another account may now"));
        assert_eq!(about.count(), 2, "{told}");
        assert!(
            !mails.last().unwrap().text.contains("/cancel/"),
            "a notice without a link"
        );
    }
    let (_, audit) = world.get("/api/v1/audit", STATIC_KEY).await;
    let lines = actions(&audit, "administrator_added");
    assert_eq!(lines.len(), 2, "{audit}");
    assert!(lines.iter().all(|l| l["alarm"] == true));
    // The same again tells nobody anything new, and a week later the word counts.
    let token = world.token(FAY, |_| {}).await;
    assert_eq!(world.thaw(ANA, &token, "owner").await.0, 403);
    world.deliver().await;
    assert_eq!(
        world
            .mails_to("cleo")
            .iter()
            .filter(|m| m.subject.contains("Another"))
            .count(),
        2
    );
    world.after(Span::from_days(7)).await;
    for who in [FAY, GUS] {
        let token = world.token(who, |_| {}).await;
        assert_eq!(world.thaw(ANA, &token, "owner").await.0, 200, "{who}");
    }
}

#[tokio::test]
async fn p11_a_role_that_was_taken_away_and_given_back_waits_anew_at_the_moment_of_use_too() {
    let world = frozen().await;
    for who in [CLEO, DINA] {
        let token = world.token(who, |_| {}).await;
        assert_eq!(world.thaw(ANA, &token, "unfounded").await.0, 200);
    }
    let roles = world.people.lock().unwrap().people[DINA].roles.clone();
    let give = |roles| world.people.lock().unwrap().people.get_mut(DINA).unwrap().roles = roles;
    give(std::collections::BTreeSet::new());
    world.flow.reading(&world.subject(DINA)).await.unwrap();
    give(roles);
    world.after(Span::from_hours(25)).await;
    let contest = world.record(ANA).await.unwrap().contest.expect("still frozen");
    assert!(contest.thaw.is_none(), "the thaw is void");
}

#[tokio::test]
async fn p14_a_running_freeze_keeps_the_clocks_it_began_with() {
    let world = frozen().await;
    make(&world, FAY, "fay");
    world.flow.reading(&world.subject(FAY)).await.unwrap();
    let mut looser = (**world.flow.policy.load()).clone();
    looser.thaw_wait = Span::from_secs(1);
    looser.report_window = Span::from_secs(1);
    looser.probation = Span::ZERO;
    world.flow.policy.store(std::sync::Arc::new(looser));
    let fay = world.token(FAY, |_| {}).await;
    assert_eq!(
        world.thaw(ANA, &fay, "owner").await.0,
        403,
        "the probation of then"
    );
    for who in [CLEO, DINA] {
        let token = world.token(who, |_| {}).await;
        assert_eq!(world.thaw(ANA, &token, "unfounded").await.0, 200);
    }
    world.after(Span::from_hours(23)).await;
    assert!(
        world.record(ANA).await.unwrap().contest.is_some(),
        "the wait of then"
    );
    world.after(Span::from_hours(2)).await;
    assert!(world.record(ANA).await.unwrap().contest.is_none());
}

// Whoever writes to the store can take the list of administrators away, and makes nobody older by it: a process that
// begins knows nobody, and one that runs knows whom it knew.
#[tokio::test]
async fn p11_a_list_of_administrators_that_is_gone_or_forged_makes_nobody_older() {
    let world = frozen().await;
    for value in ["", "{}", "AAAA.{\"founding\":true,\"people\":{}}"] {
        world
            .flow
            .store
            .set_setting("holders:demo", value, None)
            .await
            .unwrap();
        let (store, seal) = (world.flow.store.as_ref(), world.flow.seal.as_ref());
        let kept = holders::known(store, seal, &world.upstream).await.unwrap();
        assert!(kept.is_empty(), "{value}");
        let token = world.token(CLEO, |_| {}).await;
        let (status, body) = world.thaw(ANA, &token, "owner").await;
        assert_ne!(status, 403, "{value}: {body}");
    }
}

// P11: what is kept of administrators is one value, and nobody is forgotten for another.
#[tokio::test(flavor = "multi_thread")]
async fn p11_two_who_get_the_role_side_by_side_are_both_remembered() {
    let world = World::start().await;
    for round in 0..10 {
        let names = [format!("fay{round}"), format!("gus{round}")];
        for name in &names {
            make(&world, &format!("u-{name}"), name);
        }
        let [fay, gus] = names.map(|name| world.subject(&format!("u-{name}")));
        let (one, other) = tokio::join!(world.flow.reading(&fay), world.flow.reading(&gus));
        one.unwrap();
        other.unwrap();
        let (store, seal) = (world.flow.store.as_ref(), world.flow.seal.as_ref());
        let known = holders::known(store, seal, &world.upstream).await.unwrap();
        for who in [&fay, &gus] {
            assert!(
                known.others("").any(|sub| sub == who.sub),
                "{} is forgotten",
                who.sub
            );
        }
    }
}

/// Which policy holds, as a process that starts, or looks again, finds out.
async fn settled(world: &World, today: &Policy) -> Policy {
    let (store, seal) = (world.flow.store.as_ref(), world.flow.seal.as_ref());
    let now = world.clock.now();
    let settled = inforce::settle(store, seal, &world.upstream, today, now).await;
    settled.unwrap().policy
}

// P14: what got looser is told, once, and waits over every start in between.
#[tokio::test]
async fn p14_a_policy_that_got_looser_is_told_once_and_waits_for_every_process() {
    let world = World::start().await;
    let strict = (**world.flow.policy.load()).clone();
    assert_eq!(settled(&world, &strict).await.thaw_wait, strict.thaw_wait);
    let looser = Policy {
        thaw_wait: Span::from_hours(1),
        ..strict.clone()
    };
    for _ in 0..3 {
        assert_eq!(settled(&world, &looser).await.thaw_wait, strict.thaw_wait);
    }
    let (_, audit) = world.get("/api/v1/audit", STATIC_KEY).await;
    let lines = actions(&audit, "policy_loosened");
    assert_eq!(lines.len(), 1, "{audit}");
    assert_eq!(lines[0]["alarm"], true);
    assert!(lines[0].to_string().contains("thaw_wait"), "{lines:?}");
    world.clock.advance(strict.loosening_wait);
    assert_eq!(settled(&world, &looser).await.thaw_wait, looser.thaw_wait);
}

// P14: whoever writes to the store takes the right to end a freeze from nobody.
#[tokio::test]
async fn p14_what_is_kept_of_the_policy_in_force_is_believed_with_our_mac_alone() {
    let world = World::start().await;
    let today = (**world.flow.policy.load()).clone();
    settled(&world, &today).await;
    let kept = world
        .flow
        .store
        .setting("policy_in_force")
        .await
        .unwrap()
        .unwrap();
    let role = today.admin_roles.first().unwrap();
    let forged = kept.replace(&format!("\"{role}\""), "\"nobody\"");
    assert_ne!(forged, kept);
    world
        .flow
        .store
        .set_setting("policy_in_force", &forged, None)
        .await
        .unwrap();
    assert_eq!(settled(&world, &today).await.admin_roles, today.admin_roles);
}
