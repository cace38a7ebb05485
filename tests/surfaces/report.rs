//! The page behind a "this was not me" link: looking changes nothing, pressing freezes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reentry::domain::change::{Change, ChangeKind, Proof, Source};
use reentry::domain::policy::Rollout;
use reentry::domain::subject::account::ContactKind;
use reentry::domain::time::Span;
use reentry::flow::ingest;
use reentry::flow::link::{self, Link};
use reentry::ports::clock::Clock;
use reentry::ports::idp::{Heard, Line};
use reentry::ports::store::Parts;

use crate::world::{ANA, CLEO, DINA, World};

async fn get(world: &World, url: &str) -> (u16, reqwest::header::HeaderMap, String) {
    let response = world.web.get(url).send().await.unwrap();
    (
        response.status().as_u16(),
        response.headers().clone(),
        response.text().await.unwrap(),
    )
}

/// Presses the button; a browser goes where the answer leads.
async fn post(world: &World, url: &str) -> (u16, String) {
    let response = world.web.post(url).send().await.unwrap();
    if response.status().as_u16() == 303 {
        let to = response.headers()["location"].to_str().unwrap().to_owned();
        assert_eq!(
            to,
            url.trim_end_matches("/mine"),
            "back to the page that it came from"
        );
        let (status, _, page) = get(world, &to).await;
        return (status, page);
    }
    (response.status().as_u16(), response.text().await.unwrap())
}

// rows C10, P12: mail scanners open links.
#[tokio::test]
async fn looking_changes_nothing_and_pressing_freezes() {
    let world = World::start().await;
    world.reset(ANA).await;
    let link = world.report_link("ana");
    let before = world.record(ANA).await;
    for _ in 0..3 {
        let (status, headers, page) = get(&world, &link).await;
        assert_eq!(status, 200);
        assert!(
            page.contains("Your password was reset") && page.contains("It was not me: freeze the account")
        );
        assert!(page.contains("this computer"), "where from");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["cache-control"], "no-store");
        assert!(
            !headers["content-security-policy"]
                .to_str()
                .unwrap()
                .contains("unsafe")
        );
    }
    assert_eq!(world.record(ANA).await, before, "GET only looks");
    world.web.head(&link).send().await.unwrap();
    assert_eq!(world.record(ANA).await, before, "HEAD only looks");

    let (status, page) = post(&world, &link).await;
    assert!(status == 200 && page.contains("The account is frozen"), "{page}");
    let record = world.record(ANA).await.unwrap();
    assert!(record.contest.is_some() && record.restriction(world.now()).unwrap().allowed.is_none());
    world.deliver().await;
    let mails = world.mails_to("ana");
    let told = mails.last().unwrap();
    assert!(told.subject.contains("frozen"), "{}", told.subject);
    let case = record.contest.as_ref().unwrap().case.clone();
    for said in [
        "It does not end by itself",
        "two people of our staff",
        "help@bank.example",
        case.as_str(),
    ] {
        assert!(told.text.contains(said), "{said}: {}", told.text);
    }
    assert!(!told.text.contains("need not do anything"), "{}", told.text);

    let told_of = world.record(ANA).await.unwrap();
    // The link of the message about the freeze shows how things stand, without signing in; so does the first one.
    for url in [&link, &told.link("/cancel/")] {
        let (status, _, page) = get(&world, url).await;
        let page = page.replace("&#x2F;", "/");
        for said in [
            "It does not end by itself",
            "+351 210 000 000",
            case.as_str(),
            "You told us so on",
            "It was me after all",
        ] {
            assert!(status == 200 && page.contains(said), "{said}: {page}");
        }
        assert!(!page.contains("There is nothing to do"), "{page}");
    }
    // Pressed twice, reloaded or opened again it is one report.
    for url in [&link, &told.link("/cancel/"), &link] {
        assert_eq!(post(&world, url).await.0, 200);
    }
    world.deliver().await;
    assert_eq!(world.record(ANA).await.unwrap(), told_of, "nothing is stored");
    assert_eq!(world.mails_to("ana").len(), mails.len(), "nobody is told anew");
}

// After two administrators found that it was not the owner, the old link says how the account stands, and not that there
// is nothing to do; the link of the message about the end names one case, also when it freezes again.
#[tokio::test]
async fn an_old_link_after_a_thaw_says_what_was_taken_back_and_what_still_limits() {
    let world = World::start().await;
    world.reset(ANA).await;
    let link = world.report_link("ana");
    post(&world, &link).await;
    let (_, _, page) = get(&world, &link).await;
    assert!(
        page.contains("can only be read for 1 day. After that it stays so until you have signed in anew"),
        "{page}"
    );
    assert!(page.contains("every way to sign in to the account is at least 7 days old"));
    assert!(page.contains("may go on for up to 15 minutes"), "{page}");
    world.deliver().await;
    let told = world.mails_to("ana").last().unwrap().text.clone();
    assert!(told.contains("may go on for up to 15 minutes"), "{told}");
    for who in [CLEO, DINA] {
        let token = world.token(who, |_| {}).await;
        world.thaw(ANA, &token, "owner").await;
    }
    world.deliver().await;
    world.after(Span::from_hours(25)).await;
    let ended = world.mails_to("ana").last().unwrap().clone();
    assert!(
        ended
            .text
            .contains("have been removed. No address was concerned.")
            && !ended.text.contains("addresses of before are")
            && ended.text.contains("until you have signed in anew"),
        "{}",
        ended.text
    );
    let (_, _, page) = get(&world, &link).await;
    assert!(
        page.contains("not do anything else") && page.contains("was removed"),
        "{page}"
    );
    assert!(!page.contains("There is nothing to do"), "{page}");
    let (_, page) = post(&world, &ended.link("/cancel/")).await;
    let case = world.record(ANA).await.unwrap().contest.unwrap().case;
    let named: std::collections::BTreeSet<&str> = page
        .match_indices("rc_")
        .map(|(at, _)| &page[at..at + case.len()])
        .collect();
    assert_eq!(named.into_iter().collect::<Vec<_>>(), [case.as_str()]);
}

// Whoever reported wrongly has a way to say so: it ends nothing, and is there for those who decide.
#[tokio::test]
async fn it_was_me_after_all_is_shown_to_those_who_decide_and_ends_nothing() {
    let world = World::start().await;
    world.reset(ANA).await;
    let link = world.report_link("ana");
    assert_eq!(
        post(&world, &format!("{link}/mine")).await.0,
        410,
        "there is no freeze yet"
    );
    post(&world, &link).await;
    let frozen = world.record(ANA).await.unwrap();
    for _ in 0..2 {
        let (status, page) = post(&world, &format!("{link}/mine")).await;
        assert!(status == 200 && page.contains("it was you after all"), "{page}");
    }
    let record = world.record(ANA).await.unwrap();
    assert_eq!(record.restriction(world.now()), frozen.restriction(world.now()));
    let token = world.token(CLEO, |_| {}).await;
    let (_, account) = world.get(&format!("/api/v1/subjects/demo/{ANA}"), &token).await;
    assert_eq!(
        account["freeze"]["owned"].as_array().unwrap().len(),
        1,
        "{account}"
    );
    assert_eq!(account["freeze"]["ends_by_itself"], false);
    let (_, audit) = world
        .get(&format!("/api/v1/audit?upstream=demo&sub={ANA}"), &token)
        .await;
    let lines = audit["entries"].as_array().unwrap();
    assert!(
        lines
            .iter()
            .any(|l| l["action"] == "report_owned" && l["actor"]["type"] == "channel")
    );
}

// A freeze that nobody ends is told of again, with a link that works; a former address's ends by itself and says so, and
// what came with the contested change opens nothing but reading from then on.
#[tokio::test]
async fn time_tells_of_a_freeze_again_and_hands_nothing_back() {
    let world = World::start().await;
    world.move_address(ANA, "taken@example.com").await;
    world.after(Span::from_hours(80)).await;
    world.reset(ANA).await;
    post(&world, &world.report_link("ana")).await;
    world.deliver().await;
    let told = world.mails_to("ana").last().unwrap().text.clone();
    assert!(told.contains("it ends by itself on"), "{told}");
    world.after(Span::from_hours(37)).await;
    let reminder = world.mails_to("ana").last().unwrap().clone();
    assert!(reminder.subject.contains("still frozen") && reminder.text.contains("it ends by itself on"));
    let (status, _, page) = get(&world, &reminder.link("/cancel/")).await;
    assert!(status == 200 && page.contains("it ends by itself on"), "{page}");
    world.after(Span::from_hours(36)).await;
    let record = world.record(ANA).await.unwrap();
    assert!(record.contest.is_none() && record.doubt().is_some());
    let ended = world.mails_to("ana").last().unwrap().clone();
    assert!(
        ended.subject.contains("no longer frozen") && ended.text.contains("Nobody confirmed the report"),
        "{}",
        ended.text
    );
    world.after(Span::from_days(20)).await;
    let record = world.record(ANA).await.unwrap();
    let waits = record.awaits_login(world.now(), Some(world.clock.now()), false);
    assert_eq!(waits.unwrap().allowed.to_string(), "read");
    // People judge it all the same.
    for who in [CLEO, DINA] {
        let token = world.token(who, |_| {}).await;
        let (status, body) = world.thaw(ANA, &token, "owner").await;
        assert!(status == 200 && body["finding"] == "owner", "{body}");
    }
    world.after(Span::from_hours(25)).await;
    assert!(world.record(ANA).await.unwrap().doubt().is_none());
}

// Domain "Cancel": a second report is recorded and told, without effect; told once an hour at most. An address that was
// removed has its say once for good.
#[tokio::test]
async fn an_old_address_that_reports_twice_changes_nothing_and_everyone_is_told() {
    let world = World::start().await;
    world.move_address(ANA, "taken@example.com").await;
    let link = world.report_link("ana");
    let newcomer = world.mails_to("taken");
    assert!(
        newcomer.iter().all(|m| !m.text.contains("/cancel/")),
        "it has no say"
    );
    assert_eq!(post(&world, &link).await.0, 200);
    world.deliver().await;
    let (frozen, mails) = (world.record(ANA).await.unwrap(), world.mails_to("ana").len());
    assert!(frozen.contest.is_some(), "the first word counts");
    for _ in 0..5 {
        let (status, page) = post(&world, &link).await;
        assert!(status == 200 && page.contains("You told us so on"), "{page}");
    }
    world.deliver().await;
    assert_eq!(world.record(ANA).await.unwrap(), frozen, "one report");
    assert_eq!(world.mails_to("ana").len(), mails);
    // Two administrators found nothing; what it says once more freezes nobody again.
    for who in [CLEO, DINA] {
        let token = world.token(who, |_| {}).await;
        let (status, body) = world.thaw(ANA, &token, "unfounded").await;
        assert_eq!(status, 200, "{body}");
    }
    world.after(Span::from_hours(25)).await;
    let thawed = world.record(ANA).await.unwrap();
    assert!(thawed.contest.is_none(), "{thawed:?}");
    let mails = world.mails_to("ana").len();
    for _ in 0..5 {
        let (status, page) = post(&world, &link).await;
        assert!(
            status == 200 && page.contains("You have told us already"),
            "{page}"
        );
    }
    world.deliver().await;
    let record = world.record(ANA).await.unwrap();
    assert!(
        record.contest.is_none(),
        "an old address keeps nobody out for good"
    );
    assert_eq!((record.epoch, &record.reports), (thawed.epoch, &thawed.reports));
    let told = world.mails_to("ana");
    assert_eq!(told.len(), mails + 1, "one message, not one for each attempt");
    let mail = told.last().unwrap();
    assert!(mail.subject.contains("told again"), "{}", mail.subject);
    assert!(mail.text.contains("nothing has changed by it"));
    let other = world.mails_to("taken");
    assert!(
        other.last().unwrap().subject.contains("told again"),
        "the other one too"
    );
    world.clock.advance(Span::from_mins(61));
    post(&world, &link).await;
    world.deliver().await;
    let told = world.mails_to("ana");
    assert_eq!(told.len(), mails + 2);
    let text = &told.last().unwrap().text;
    assert!(text.contains("5 times since our last message"), "{text}");
}

// Reference 5.4: an attempt to take a hold away is undone, alarmed and told, once an hour at most.
#[tokio::test]
async fn a_hold_that_was_tampered_with_is_told_once_an_hour() {
    let world = World::start().await;
    world.reset(ANA).await;
    world.deliver().await;
    let (held, mails) = (world.record(ANA).await.unwrap(), world.mails_to("ana").len());
    for n in 0..40 {
        world.tamper(ANA, n).await;
    }
    world.deliver().await;
    let record = world.record(ANA).await.unwrap();
    assert_eq!(
        record.restriction(world.now()),
        held.restriction(world.now()),
        "nothing was gained by it"
    );
    assert_eq!(record.causes, held.causes, "and its messages shorten no hold");
    let told = world.mails_to("ana");
    assert_eq!(told.len(), mails + 1, "one message, not forty");
    let mail = told.last().unwrap();
    assert!(
        mail.subject.contains("tried to take away the limits"),
        "{}",
        mail.subject
    );
    assert!(
        mail.text.contains("you can sign in, look at everything"),
        "{}",
        mail.text
    );
    let lines = world
        .flow
        .store
        .audit(None, reentry::domain::time::Timestamp::from_millis(i64::MAX), 500)
        .await
        .unwrap();
    let alarms = lines
        .iter()
        .filter(|(_, l)| l.action == "tampered" && l.alarm)
        .count();
    assert_eq!(alarms, 40, "each is written down");
    world.clock.advance(Span::from_mins(61));
    world.tamper(ANA, 100).await;
    world.deliver().await;
    let told = world.mails_to("ana");
    assert_eq!(told.len(), mails + 2);
    assert!(
        told.last()
            .unwrap()
            .text
            .contains("40 times since our last message")
    );
}

#[tokio::test]
async fn a_tampered_or_shortened_link_is_nobodys() {
    let world = World::start().await;
    world.reset(ANA).await;
    let link = world.report_link("ana");
    let (head, token) = link.rsplit_once('/').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
    bytes[30] ^= 1;
    let tampered = URL_SAFE_NO_PAD.encode(&bytes);
    for bad in [
        tampered.as_str(),
        &token[..token.len() - 4],
        "x",
        "%00",
        &"A".repeat(600),
        "..%2f..",
    ] {
        for (status, page) in [
            {
                let (s, _, p) = get(&world, &format!("{head}/{bad}")).await;
                (s, p)
            },
            post(&world, &format!("{head}/{bad}")).await,
        ] {
            assert!(status == 404, "{bad}: {status} {page}");
        }
    }
    assert!(world.record(ANA).await.unwrap().contest.is_none());
}

#[tokio::test]
async fn a_link_that_is_too_old_says_what_to_do_instead() {
    let world = World::start().await;
    world.reset(ANA).await;
    let link = world.report_link("ana");
    world.after(Span::from_days(31)).await;
    let (status, page) = post(&world, &link).await;
    assert!(
        status == 410 && page.contains("too old") && page.contains("href=\"/account\""),
        "{page}"
    );
    assert!(world.record(ANA).await.unwrap().contest.is_none());
}

// A second change must not kill the first one's link.
#[tokio::test]
async fn the_first_link_works_after_a_second_change() {
    let world = World::start().await;
    world.reset(ANA).await;
    let first = world.report_link("ana");
    world.clock.advance(Span::from_hours(2));
    world.reset(ANA).await;
    assert_ne!(first, world.report_link("ana"));
    assert_eq!(post(&world, &first).await.0, 200);
    assert!(world.record(ANA).await.unwrap().contest.is_some());
}

#[tokio::test]
async fn under_observation_the_page_does_not_promise_a_freeze() {
    let world = World::with(|policy| {
        for tier in &mut policy.tiers {
            tier.enforce = Rollout::Shadow;
        }
    })
    .await;
    world.reset(ANA).await;
    assert!(
        world.mails_to("ana").is_empty(),
        "nothing changes, so nobody is told"
    );
    // A link from a time when the rules were in force.
    let link = Link {
        key: world.flow.key(&world.subject(ANA)),
        issued: world.clock.now(),
        case: world.record(ANA).await.unwrap().causes[0].reference.clone(),
        channel: world.flow.seal.channel(ContactKind::Email, "ana@example.com"),
    };
    let link = format!("{}/cancel/{}", world.issuer, link::seal(&world.flow, &link));
    let (_, _, page) = get(&world, &link).await;
    assert!(page.contains("Tell us that it was not you") && !page.contains("freeze the account"));
    let (status, page) = post(&world, &link).await;
    assert!(status == 200 && page.contains("It is written down"), "{page}");
    assert!(
        world
            .record(ANA)
            .await
            .unwrap()
            .restriction(world.now())
            .is_none()
    );
}

// P10, P13: a link was only sent to a channel that had its say, whatever a snapshot that was made anew knows of it.
#[tokio::test]
async fn a_link_speaks_though_nobody_knows_the_age_of_its_address_any_more() {
    let world = World::start().await;
    world.reset(ANA).await;
    let link = world.report_link("ana");
    let (key, now) = (world.flow.key(&world.subject(ANA)), world.clock.now());
    let forgets = |loaded: &reentry::ports::store::Loaded| {
        let mut account = loaded.account.clone()?;
        for contact in &mut account.contacts {
            contact.verified = false;
            contact.since = now;
        }
        Some(reentry::ports::store::Write {
            account: Some(account),
            ..Default::default()
        })
    };
    let parts = reentry::ports::store::Parts::ACCOUNT;
    let store = &world.flow.store;
    store.update(&key, parts, None, &forgets).await.unwrap();
    let (status, page) = post(&world, &link).await;
    assert_eq!(status, 200, "{page}");
    assert!(world.record(ANA).await.unwrap().contest.is_some());
}

// P13: what is pushed says what happened, and never whom we write to.
#[tokio::test]
async fn a_pushed_change_names_no_address_that_we_write_to() {
    let world = World::start().await;
    let now = world.clock.now();
    let change = Change {
        id: "pushed".to_owned(),
        source: Source::Hook,
        kind: ChangeKind::EmailChanged,
        factor: None,
        at: now,
        offset: Span::ZERO,
        received: now,
        proof: Proof::Unproven,
        mediated: false,
        session: None,
        channel: None,
        origin: None,
        previous_address: Some("mallory@example.com".to_owned()),
    };
    let line = Line {
        sub: ANA.to_owned(),
        heard: Heard::Change(change),
    };
    ingest::pushed(&world.flow, &world.upstream, &line).await.unwrap();
    world.deliver().await;
    assert!(!world.mails_to("ana").is_empty());
    assert_eq!(world.mails_to("mallory").len(), 0);
}

// P13: nobody is greeted by a name that was chosen while somebody else may hold the account.
#[tokio::test]
async fn a_name_that_was_chosen_under_a_restriction_greets_nobody() {
    let world = World::start().await;
    let subject = world.subject(ANA);
    let key = world.flow.key(&subject);
    world.reset(ANA).await;
    for (n, greets) in [(0, false), (1, true)] {
        let chosen = format!("Call us now {n}");
        world.people.lock().unwrap().people.get_mut(ANA).unwrap().name = chosen.clone();
        if greets {
            world.clock.advance(Span::from_days(400));
            world.hear().await;
        }
        let reading = world.flow.reading(&subject).await.unwrap();
        ingest::refresh(&world.flow, &key, &reading.account)
            .await
            .unwrap();
        let loaded = world.flow.store.read(&key, Parts::ACCOUNT).await.unwrap();
        assert_eq!(loaded.account.unwrap().name == chosen, greets, "{chosen}");
    }
}
