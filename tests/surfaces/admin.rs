//! The admin API: who may read, who may approve, and that nothing here shortens anything.

use reentry::domain::hold::contest::Finding;
use reentry::domain::time::Span;
use reentry::flow::{reconcile, thaw};
use reentry::http::routes::{Listener, ROUTES};
use serde_json::{Value, json};

use crate::world::{ANA, CLEO, DINA, ELI, STATIC_KEY, World};

async fn frozen() -> World {
    let world = World::start().await;
    world.reset(ANA).await;
    let link = world.report_link("ana");
    assert_eq!(world.web.post(link).send().await.unwrap().status(), 303);
    world.deliver().await;
    world
}

#[tokio::test]
async fn only_our_own_token_for_the_api_opens_it() {
    let world = World::start().await;
    let path = "/api/v1/subjects";
    let response = world
        .web
        .get(format!("{}{path}", world.issuer))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 401);
    assert!(
        response.headers()["www-authenticate"]
            .to_str()
            .unwrap()
            .starts_with("Bearer")
    );
    assert_eq!(response.headers()["content-type"], "application/problem+json");

    let good = world.token(CLEO, |_| {}).await;
    assert_eq!(world.get(path, &good).await.0, 200);
    let wrong: Vec<(u16, String)> = vec![
        (401, "not-a-token".to_owned()),
        (401, format!("{good}x")),
        (401, world.token(CLEO, |c| c["aud"] = json!("console")).await),
        (
            401,
            world
                .token(CLEO, |c| c["iss"] = json!("https://other.example"))
                .await,
        ),
        (401, world.token(CLEO, |c| c["test_typ"] = json!("JWT")).await),
        (401, world.token(CLEO, |c| c["exp"] = json!(1)).await),
        (401, world.token(CLEO, |c| c["sid"] = json!("another")).await),
        (401, world.token(CLEO, |c| c["jti"] = json!("another.x")).await),
        (403, world.token(CLEO, |c| c["scope"] = json!("openid")).await),
        (
            403,
            world
                .token(CLEO, |c| c["recovery_scope"] = json!("read write"))
                .await,
        ),
        (
            403,
            world
                .token(CLEO, |c| {
                    c.as_object_mut()
                        .unwrap()
                        .remove("recovery_scope")
                        .expect("it was there");
                })
                .await,
        ),
        // No role that the policy names: the token's own word for it counts for nothing.
        (
            403,
            world.token(ANA, |c| c["roles"] = json!(["reentry-admin"])).await,
        ),
    ];
    for (at, (status, token)) in wrong.iter().enumerate() {
        let (got, body) = world.get(path, token).await;
        assert_eq!(got, *status, "case {at}: {body}");
        assert_eq!(world.thaw(ANA, token, "owner").await.0, *status, "case {at}");
    }
}

// ISS-7: a hold that asks for a fresh log-in is not over for tokens when its time is, and the API says what they say.
#[tokio::test]
async fn a_hold_that_waits_for_a_login_says_so_and_is_listed() {
    let world = World::start().await;
    world.reset(CLEO).await;
    world.after(Span::from_days(8)).await;
    let path = format!("/api/v1/subjects/demo/{CLEO}");
    let (_, account) = world.get(&path, STATIC_KEY).await;
    assert_eq!(account["state"], "awaits_login", "{account}");
    assert_eq!(account["recovery_scope"], "read");
    assert_eq!(account["recovery_until"], Value::Null);
    assert!(account["recovery_ref"].as_str().unwrap().starts_with("rc_"));
    let listed = world
        .get("/api/v1/subjects?state=awaits_login", STATIC_KEY)
        .await
        .1;
    assert_eq!(listed["subjects"][0]["sub"], CLEO, "{listed}");
    assert_eq!(
        world.get("/api/v1/subjects?state=held", STATIC_KEY).await.1["subjects"],
        json!([])
    );
    // A session that logged in after the end has whole tokens.
    world.token(CLEO, |_| {}).await;
    let (_, account) = world.get(&path, STATIC_KEY).await;
    assert_eq!(
        (&account["state"], &account["recovery_scope"]),
        (&json!("quiet"), &json!("full"))
    );
}

// An account of which the store knows nothing is asked for at the identity provider, once, and not for long.
#[tokio::test]
async fn an_account_that_nobody_knows_is_not_found() {
    let world = World::start().await;
    let (status, body) = world.get("/api/v1/subjects/demo/nope", STATIC_KEY).await;
    assert_eq!(
        (status, &body["type"]),
        (404, &json!("urn:reentry:problem:not-found"))
    );
    let (status, body) = world
        .get(&format!("/api/v1/subjects/demo/{ANA}"), STATIC_KEY)
        .await;
    assert!(status == 200 && body["state"] == "quiet", "{body}");
    assert_eq!(world.get("/api/v1/subjects/other/nope", STATIC_KEY).await.0, 404);
}

// row I4: a held administrator acts on nobody, with a token from before, too (ISS-8).
#[tokio::test]
async fn an_administrator_whose_own_account_is_limited_is_refused() {
    let world = frozen().await;
    let before = world.token(CLEO, |_| {}).await;
    world.reset(CLEO).await;
    assert_eq!(
        world.get("/api/v1/audit", &before).await.0,
        401,
        "that session has ended"
    );
    world.clock.advance(Span::from_secs(1));
    let fresh = world.token(CLEO, |_| {}).await;
    let (status, body) = world.get("/api/v1/audit", &fresh).await;
    assert!(
        status == 403 && body["type"] == "urn:reentry:problem:recovery-hold",
        "{body}"
    );
    assert!(body["recovery_until"].is_i64());
    assert_eq!(world.thaw(ANA, &fresh, "owner").await.0, 403);
    assert!(world.record(ANA).await.unwrap().contest.unwrap().thaw.is_none());
}

#[tokio::test]
async fn held_and_frozen_accounts_are_listed_with_their_reasons() {
    let world = frozen().await;
    world.reset(ELI).await;
    let token = world.token(CLEO, |_| {}).await;
    let (status, all) = world.get("/api/v1/subjects", &token).await;
    assert_eq!(status, 200);
    assert_eq!(all["subjects"].as_array().unwrap().len(), 2);
    let (_, held) = world.get("/api/v1/subjects?state=held", &token).await;
    let eli = &held["subjects"][0];
    assert!(
        held["subjects"].as_array().unwrap().len() == 1 && eli["sub"] == ELI,
        "{held}"
    );
    assert_eq!(eli["reasons"], json!(["password_reset"]));
    assert_eq!(eli["recovery_scope"], "read", "an administrator's tier");
    assert_eq!(eli["told"]["state"], "told");
    assert_eq!(eli["rollout"], "on");
    let (_, contested) = world.get("/api/v1/subjects?state=contested", &token).await;
    assert_eq!(contested["subjects"][0]["sub"], ANA);
    assert_eq!(contested["subjects"][0]["recovery_scope"], "none");

    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let (_, page) = world
            .get(&format!("/api/v1/subjects?limit=1{after}"), &token)
            .await;
        seen.extend(
            page["subjects"]
                .as_array()
                .unwrap()
                .iter()
                .map(|s| s["sub"].clone()),
        );
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    seen.sort_by_key(ToString::to_string);
    assert_eq!(seen, [json!(ANA), json!(ELI)]);

    let (status, one) = world.get(&format!("/api/v1/subjects/demo/{ANA}"), &token).await;
    assert_eq!(status, 200);
    assert_eq!(one["freeze"]["confirmed"], false);
    assert_eq!(one["channels"][0]["address"], "a…@example.com");
    assert!(!one.to_string().contains("ana@example.com"));
    assert_eq!(world.get("/api/v1/subjects/other/x", &token).await.0, 404);
    for bad in [
        "?state=open",
        "?limit=0",
        "?limit=501",
        "?after=zz",
        "?limit=1&limit=2",
    ] {
        assert_eq!(
            world.get(&format!("/api/v1/subjects{bad}"), &token).await.0,
            400,
            "{bad}"
        );
    }
}

// row N8: everything is written down, and reading it is all one can do.
#[tokio::test]
async fn the_audit_log_is_read_page_by_page_and_loses_nothing() {
    let world = frozen().await;
    let token = world.token(CLEO, |_| {}).await;
    let (_, whole) = world.get("/api/v1/audit?limit=500", &token).await;
    let ids = |page: &Value| -> Vec<String> {
        page["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = ids(&whole);
    let actions = whole["entries"].to_string();
    for action in ["hold_started", "notice_accepted", "owner_told", "contested"] {
        assert!(actions.contains(action), "{action}");
    }
    assert!(!whole.to_string().contains('@'), "no address");
    let mut paged = Vec::new();
    let mut before = String::new();
    loop {
        let (status, page) = world.get(&format!("/api/v1/audit?limit=3{before}"), &token).await;
        assert_eq!(status, 200);
        paged.extend(ids(&page));
        let Some(next) = page["next_before"].as_i64() else {
            break;
        };
        before = format!("&before={next}");
    }
    assert_eq!(paged, all);
    let (_, ana) = world
        .get(&format!("/api/v1/audit?upstream=demo&sub={ANA}"), &token)
        .await;
    assert!(ids(&ana).len() == all.len());
    let (_, eli) = world
        .get(&format!("/api/v1/audit?upstream=demo&sub={ELI}"), &token)
        .await;
    assert!(ids(&eli).is_empty());
    assert_eq!(world.get("/api/v1/audit?sub=x", &token).await.0, 400);
}

#[tokio::test]
async fn what_could_not_be_delivered_is_visible_without_addresses() {
    let world = World::start().await;
    world.mails.refuse("ana@example.com", 450);
    world.mails.refuse("eli@example.com", 550);
    world.reset(ANA).await;
    world.reset(ELI).await;
    let (status, body) = world.get("/api/v1/outbox", STATIC_KEY).await;
    assert_eq!(status, 200);
    let waiting = body["pending"].as_array().unwrap();
    let notice = waiting
        .iter()
        .find(|p| p["effect"]["kind"] == "notice")
        .unwrap_or_else(|| panic!("a notice waits: {body}"));
    assert!(
        notice["sub"] == ANA && notice["attempts"].as_u64().unwrap() >= 1,
        "{notice}"
    );
    assert_eq!(notice["effect"]["address"], "a…@example.com");
    assert!(notice["failure"].as_str().unwrap().contains("450"));
    assert_eq!(body["undeliverable"][0]["sub"], ELI);
    assert!(
        !body.to_string().contains("ana@") && !body.to_string().contains("eli@"),
        "{body}"
    );
}

// P11: the static key never approves, nor does one administrator alone, nor the same one twice.
#[tokio::test]
async fn it_takes_two_different_administrators() {
    let world = frozen().await;
    let (status, body) = world.thaw(ANA, STATIC_KEY, "owner").await;
    assert!(
        status == 403 && body["detail"].as_str().unwrap().contains("static key"),
        "{body}"
    );
    let cleo = world.token(CLEO, |_| {}).await;
    let (status, body) = world.thaw(ANA, &cleo, "owner").await;
    assert_eq!(
        (status, &body["approvals"], &body["ready"]),
        (200, &json!(1), &Value::Null)
    );
    let again = world.token(CLEO, |_| {}).await;
    let (status, body) = world.thaw(ANA, &again, "owner").await;
    assert!(
        status == 409 && body["type"] == "urn:reentry:problem:second-administrator-needed",
        "{body}"
    );
    world.after(Span::from_hours(48)).await;
    assert!(
        world.record(ANA).await.unwrap().contest.is_some(),
        "one alone thaws nothing, however long one waits"
    );

    let dina = world.token(DINA, |_| {}).await;
    // Two who find different things have not agreed: they are told so, and the later word stands alone.
    let (status, body) = world.thaw(ANA, &dina, "unfounded").await;
    assert!(
        status == 409 && body["type"] == "urn:reentry:problem:findings-differ",
        "{body}"
    );
    assert_eq!(
        (&body["finding"], &body["other_finding"]),
        (&json!("unfounded"), &json!("owner"))
    );
    let cleo = world.token(CLEO, |_| {}).await;
    assert_eq!(world.thaw(ANA, &cleo, "owner").await.0, 409);
    let (_, one) = world.get(&format!("/api/v1/subjects/demo/{ANA}"), &cleo).await;
    assert_eq!(one["freeze"]["thaw"]["finding"], "owner");
    assert_eq!(one["freeze"]["thaw"]["approvals"].as_array().unwrap().len(), 1);
    let (status, body) = world.thaw(ANA, &dina, "owner").await;
    assert!(
        status == 200 && body["finding"] == "owner" && body["approvals"] == 2 && body["ready"].is_string(),
        "{body}"
    );
    world.deliver().await;
    assert!(world.mails_to("ana").last().unwrap().subject.contains("will end"));
    world.after(Span::from_hours(23)).await;
    assert!(
        world.record(ANA).await.unwrap().contest.is_some(),
        "not before the wait is over"
    );
    world.after(Span::from_hours(2)).await;
    let record = world.record(ANA).await.unwrap();
    assert!(record.contest.is_none());
    assert_eq!(
        record.restriction(world.now()).unwrap().allowed.to_string(),
        "read"
    );
    assert!(
        world.people.lock().unwrap().people[ANA].password.is_none(),
        "the attacker's password is gone"
    );
    assert!(
        world
            .mails_to("ana")
            .last()
            .unwrap()
            .subject
            .contains("no longer frozen")
    );
    // What was taken away for the owner is nobody's change, however often it is compared.
    let causes = record.causes.len();
    let differed = reconcile::one(&world.flow, &world.subject(ANA)).await.unwrap();
    assert!(!differed);
    assert_eq!(world.record(ANA).await.unwrap().causes.len(), causes);
}

#[tokio::test]
async fn nobody_thaws_their_own_account_nor_without_the_role_at_that_moment() {
    let world = frozen().await;
    world.reset(ELI).await;
    let link = world.report_link("eli");
    assert_eq!(world.web.post(link).send().await.unwrap().status(), 303);
    world.clock.advance(Span::from_secs(1));
    let eli = world.token(ELI, |_| {}).await;
    assert_eq!(world.thaw(ELI, &eli, "unfounded").await.0, 403);
    let cleo = world.subject(CLEO);
    assert!(
        thaw::approve(&world.flow, &cleo, &cleo, Finding::Owner)
            .await
            .is_err()
    );

    // The token says administrator; the IdP, asked live, no longer does.
    let dina = world.token(DINA, |_| {}).await;
    world
        .people
        .lock()
        .unwrap()
        .people
        .get_mut(DINA)
        .unwrap()
        .roles
        .clear();
    let (status, body) = world.thaw(ANA, &dina, "owner").await;
    assert!(
        status == 403 && body["detail"].as_str().unwrap().contains("at this moment"),
        "{body}"
    );
    assert!(world.record(ANA).await.unwrap().contest.unwrap().thaw.is_none());
    let (_, audit) = world.get("/api/v1/audit", STATIC_KEY).await;
    assert!(
        audit.to_string().contains("thaw_refused"),
        "a refusal is written down"
    );
}

// P11: re-checked at the moment of use.
#[tokio::test]
async fn an_approver_who_lost_the_role_meanwhile_undoes_the_thaw() {
    let world = frozen().await;
    for who in [CLEO, DINA] {
        let token = world.token(who, |_| {}).await;
        assert_eq!(world.thaw(ANA, &token, "unfounded").await.0, 200);
    }
    world
        .people
        .lock()
        .unwrap()
        .people
        .get_mut(DINA)
        .unwrap()
        .roles
        .clear();
    world.after(Span::from_hours(25)).await;
    let contest = world.record(ANA).await.unwrap().contest.expect("still frozen");
    assert!(contest.thaw.is_none());
}

// rows A8, P4: no route and no staff role shortens a clock, lifts a hold or silences a notice.
#[tokio::test]
async fn no_route_of_the_api_shortens_anything() {
    let world = World::start().await;
    world.reset(ANA).await;
    let token = world.token(CLEO, |_| {}).await;
    let before = world.record(ANA).await.unwrap();
    let acts: Vec<_> = ROUTES
        .iter()
        .copied()
        .flatten()
        .filter(|r| r.listener == Listener::Public && r.path.starts_with("/api") && r.method != "GET")
        .map(|r| (r.method, r.path))
        .collect();
    assert_eq!(
        acts,
        [
            ("POST", "/api/v1/subjects/{upstream}/{sub}/thaw"),
            ("POST", "/api/v1/dead-letters/{letter}/retry"),
        ],
        "the only acts there are: the second one only tells"
    );
    let bodies = [
        json!({}),
        json!({"finding": "owner", "until": 1}),
        json!({"finding": "lift"}),
        json!([]),
        json!("owner"),
        json!({"finding": "owner"}),
        json!({"finding": "unfounded"}),
    ];
    for route in ROUTES
        .iter()
        .copied()
        .flatten()
        .filter(|r| r.path.starts_with("/api"))
    {
        let path = route.path.replace("{upstream}", "demo").replace("{sub}", ANA);
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            for body in &bodies {
                let request = world
                    .web
                    .request(
                        method.parse().unwrap(),
                        format!("{}{path}?until=1&end=now&force=true", world.issuer),
                    )
                    .bearer_auth(&token)
                    .json(body);
                let status = request.send().await.unwrap().status().as_u16();
                assert!(status < 500, "{method} {path}: {status}");
            }
        }
    }
    let after = world.record(ANA).await.unwrap();
    assert_eq!(after, before, "the hold is what it was");
}
