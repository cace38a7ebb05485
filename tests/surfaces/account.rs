//! The owner's page: what it says, what it lets one do, and that it shortens nothing.

use reentry::domain::hold::Told;
use reentry::domain::subject::account::{Factor, FactorClass};
use reentry::domain::time::Span;
use reentry::flow::session::{self, Login};
use reentry::ports::clock::Clock;
use reentry::ports::store::{Parts, Write};
use reqwest::header;

use crate::world::{ANA, CLEO, DINA, World};

/// A browser that is signed in as `sub`, by a log-in at the identity provider in `upstream_sid`.
async fn sign_in(world: &World, sub: &str, upstream_sid: &str) -> String {
    let login = Login {
        subject: world.subject(sub),
        upstream_sid: Some(upstream_sid.to_owned()),
        auth_time: Some(world.clock.now()),
        acr: None,
        amr: Vec::new(),
        claims: "{}".to_owned(),
        id_token: String::new(),
    };
    world.people.lock().unwrap().sessions.insert(
        upstream_sid.to_owned(),
        reentry::demo::people::Session {
            sub: sub.to_owned(),
            began: world.clock.now(),
        },
    );
    let opened = session::open(&world.flow, &login, None).await.unwrap();
    format!("reentry_session={}", opened.cookie)
}

async fn page(world: &World, cookie: &str) -> String {
    let request = world
        .web
        .get(format!("{}/account", world.issuer))
        .header(header::COOKIE, cookie);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.text().await.unwrap()
}

async fn post(world: &World, cookie: &str, path: &str, fields: &[(&str, &str)]) -> (u16, String, String) {
    let request = world
        .web
        .post(format!("{}{path}", world.issuer))
        .header(header::COOKIE, cookie)
        .form(fields);
    let response = request.send().await.unwrap();
    let location = response
        .headers()
        .get("location")
        .map_or("", |l| l.to_str().unwrap())
        .to_owned();
    (
        response.status().as_u16(),
        location,
        response.text().await.unwrap(),
    )
}

fn form_token(page: &str) -> String {
    page.split_once("name=\"form\" value=\"")
        .expect("a form")
        .1
        .split('"')
        .next()
        .unwrap()
        .to_owned()
}

// row A11: the owner sees what is limited, why, until when, and who was told.
#[tokio::test]
async fn a_limited_account_says_what_works_what_waits_and_who_was_told() {
    let world = World::start().await;
    world.reset(ANA).await;
    world.clock.advance(Span::from_hours(6));
    let cookie = sign_in(&world, ANA, "s1").await;
    let page = page(&world, &cookie).await;
    for words in [
        "Your account is limited until",
        "Limited for a while",
        "send money",
        "change your password",
        "Changed</strong>",
        "Works again</strong>",
        "in 18 hours",
        "Your password was reset",
        "from this computer",
        "a…@example.com",
        "Password changed: accepted",
        "(this one)",
    ] {
        assert!(page.contains(words), "{words}\n{page}");
    }
    assert!(!page.contains("ana@example.com"), "addresses are masked");
    let words = page.to_lowercase();
    for internal in [
        "hold",
        "contested",
        "tier",
        "recovery_scope",
        "epoch",
        "undefined",
    ] {
        assert!(!words.contains(internal), "{internal}\n{page}");
    }
    for inline in [" style=", "<style", "onclick", "<script>", "javascript:"] {
        assert!(!page.contains(inline), "{inline}");
    }
}

// A store that lost who was told says that, and not that nothing was accepted yet.
#[tokio::test]
async fn what_the_store_lost_about_who_was_told_is_said_as_lost() {
    let world = World::start().await;
    world.reset(ANA).await;
    let key = world.flow.key(&world.subject(ANA));
    let forget = world.flow.store.update(&key, Parts::ACCOUNT, None, &|loaded| {
        let mut record = loaded.record.clone()?;
        for cause in &mut record.causes {
            cause.reference = format!("{}x", cause.reference);
            cause.told = Told::Unknown;
        }
        Some(Write {
            record: Some(record),
            ..Write::default()
        })
    });
    forget.await.unwrap();
    world.clock.advance(Span::from_hours(1));
    let cookie = sign_in(&world, ANA, "s1").await;
    let page = page(&world, &cookie).await;
    assert!(
        page.contains("Our records of who was told, and when, were lost."),
        "{page}"
    );
    assert!(!page.contains("We keep trying"), "{page}");
}

// ISS-7: where a hold ends by a fresh log-in only, the page does not promise that time is enough.
#[tokio::test]
async fn an_administrators_page_says_that_time_alone_is_not_enough() {
    let world = World::start().await;
    world.reset(CLEO).await;
    world.clock.advance(Span::from_hours(6));
    let cookie = sign_in(&world, CLEO, "s1").await;
    let page = page(&world, &cookie).await;
    assert!(
        !page.contains("Everything works again") && !page.contains("Works again"),
        "{page}"
    );
    assert!(page.contains("stays so until you have signed in anew"), "{page}");
    let told = world.mails_to("cleo").last().unwrap().text.clone();
    assert!(told.contains("stays so until you have signed in anew"), "{told}");
}

#[tokio::test]
async fn an_account_with_nothing_says_so_and_a_stranger_is_sent_to_sign_in() {
    let world = World::start().await;
    let cookie = sign_in(&world, ANA, "s1").await;
    assert!(page(&world, &cookie).await.contains("Nothing is limited"));
    for cookie in ["", "reentry_session=x", &format!("{cookie}x")] {
        let request = world
            .web
            .get(format!("{}/account", world.issuer))
            .header(header::COOKIE, cookie);
        let response = request.send().await.unwrap();
        // The identity provider of this test speaks no OpenID: the way to it is closed, and nothing is shown.
        assert_eq!(response.status(), 503, "{cookie}");
        assert!(!response.text().await.unwrap().contains("Nothing is limited"));
    }
}

#[tokio::test]
async fn a_frozen_account_says_how_it_goes_on() {
    let world = World::start().await;
    world.reset(ANA).await;
    let link = world.report_link("ana");
    assert_eq!(world.web.post(link).send().await.unwrap().status(), 303);
    world.clock.advance(Span::from_secs(2));
    let cookie = sign_in(&world, ANA, "s2").await;
    let first = page(&world, &cookie).await;
    assert!(first.contains("Your account is frozen") && first.contains("It does not end by itself"));
    assert!(first.contains("two people of our staff") && first.contains("Get in touch: +351 210 000 000"));
    for (who, words) in [
        (CLEO, "One person of our staff has looked at it"),
        (DINA, "have decided that it ends on"),
    ] {
        let token = world.token(who, |_| {}).await;
        assert_eq!(world.thaw(ANA, &token, "unfounded").await.0, 200);
        assert!(page(&world, &cookie).await.contains(words), "{words}");
    }
    world.after(Span::from_hours(25)).await;
    let cookie = sign_in(&world, ANA, "s3").await;
    let after = page(&world, &cookie).await;
    assert!(
        after.contains("The account was frozen") && after.contains("not do anything else"),
        "{after}"
    );
}

// row A12: sessions one can end, both here and at the identity provider.
#[tokio::test]
async fn sessions_end_by_a_form_of_this_page_only() {
    let world = World::start().await;
    let cookie = sign_in(&world, ANA, "mine").await;
    let other = sign_in(&world, ANA, "other").await;
    sign_in(&world, CLEO, "cleos").await;
    let form = form_token(&page(&world, &cookie).await);
    let path = "/account/sessions/end";
    // Without the token, with another session's token, without the cookie: nothing.
    let foreign = form_token(&page(&world, &other).await);
    for (cookie, form) in [
        (cookie.as_str(), ""),
        (cookie.as_str(), "AAAA"),
        (cookie.as_str(), foreign.as_str()),
        ("", form.as_str()),
    ] {
        let (status, _, body) = post(
            &world,
            cookie,
            path,
            &[("form", form), ("kind", "idp"), ("id", "other")],
        )
        .await;
        assert!(status == 403 && body.contains("Nothing was changed"), "{status}");
    }
    assert!(world.people.lock().unwrap().sessions.contains_key("other"));
    let ended = post(
        &world,
        &cookie,
        path,
        &[("form", &form), ("kind", "idp"), ("id", "other")],
    )
    .await;
    assert!(
        ended.0 == 303 && ended.1.ends_with("/account?done=session-ended"),
        "{ended:?}"
    );
    assert!(!world.people.lock().unwrap().sessions.contains_key("other"));
    let gone = world
        .web
        .get(format!("{}/account", world.issuer))
        .header(header::COOKIE, &other)
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), 503, "our session that came from it has ended too");
    // What was never there is not said to have ended.
    for kind in ["idp", "own"] {
        let gone = post(
            &world,
            &cookie,
            path,
            &[("form", &form), ("kind", kind), ("id", "never")],
        )
        .await;
        assert!(
            gone.0 == 303 && gone.1.ends_with("/account?done=gone"),
            "{gone:?}"
        );
    }
    // Somebody else's session is not one of mine.
    post(
        &world,
        &cookie,
        path,
        &[("form", &form), ("kind", "idp"), ("id", "cleos")],
    )
    .await;
    assert!(world.people.lock().unwrap().sessions.contains_key("cleos"));
    let (status, _, body) = post(
        &world,
        &cookie,
        path,
        &[("form", &form), ("kind", "idp"), ("id", "mine")],
    )
    .await;
    assert!(status == 200 && body.contains("You are signed out"));
}

// row A13: what was added in the hold can go, what was there before cannot.
#[tokio::test]
async fn only_what_was_added_since_can_be_removed() {
    let world = World::start().await;
    let factor = |id: &str, created| Factor {
        id: id.to_owned(),
        class: FactorClass::Otp,
        created,
        gone: None,
        at_creation: false,
        remaining: None,
    };
    let has = |id: &str| {
        world.people.lock().unwrap().people[ANA]
            .factors
            .iter()
            .any(|f| f.id == id)
    };
    let give = |f: Factor| {
        world
            .people
            .lock()
            .unwrap()
            .people
            .get_mut(ANA)
            .unwrap()
            .factors
            .push(f);
    };
    give(factor("of-before", world.clock.now().minus(Span::from_days(60))));
    world.reset(ANA).await;
    let until = world
        .record(ANA)
        .await
        .unwrap()
        .restriction(world.now())
        .unwrap()
        .until;
    world.clock.advance(Span::from_mins(5));
    give(factor("added-by-somebody", world.clock.now()));
    let cookie = sign_in(&world, ANA, "s1").await;
    let page = page(&world, &cookie).await;
    assert!(
        page.contains("Added since the change") && page.contains("added-by-somebody"),
        "{page}"
    );
    assert!(
        !page.contains("of-before") && !page.contains("password-u-1001"),
        "{page}"
    );
    let form = form_token(&page);
    let path = "/account/factors/remove";
    for kept in ["of-before", "password-u-1001", "unknown"] {
        let refused = post(&world, &cookie, path, &[("form", &form), ("id", kept)]).await;
        assert!(refused.1.ends_with("done=gone"), "{kept}: {refused:?}");
    }
    assert!(has("of-before") && world.people.lock().unwrap().people[ANA].password.is_some());
    let removed = post(
        &world,
        &cookie,
        path,
        &[("form", &form), ("id", "added-by-somebody")],
    )
    .await;
    assert!(
        removed.1.ends_with("done=removed") && !has("added-by-somebody"),
        "{removed:?}"
    );
    let now = world
        .record(ANA)
        .await
        .unwrap()
        .restriction(world.now())
        .unwrap()
        .until;
    assert!(now >= until, "and nothing became shorter by it");
}
