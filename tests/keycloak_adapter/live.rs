//! A live realm that works against us: administrators, tools and directories undo what a hold did, or get in its way.

use super::*;

/// Everything that an account's log tells after the last reading, whatever it concerns.
async fn heard(world: &mut World, sub: &str) -> Vec<Heard> {
    let lines = world.lines().await.into_iter();
    lines
        .filter(|line| line.sub == sub)
        .map(|line| line.heard)
        .collect()
}

fn is_tampering(heard: &[Heard]) -> bool {
    heard.iter().any(|heard| matches!(heard, Heard::Tampered { .. }))
}

async fn enabled(world: &World, sub: &str) -> bool {
    world.realm.get(&format!("users/{sub}")).await["enabled"] == json!(true)
}

async fn switch(world: &World, sub: &str, on: bool) {
    let mut user = world.realm.get(&format!("users/{sub}")).await;
    user["enabled"] = json!(on);
    world.realm.put(&format!("users/{sub}"), &user).await;
}

async fn declare_department(world: &World, longest: Option<u32>) {
    let mut profile = world.realm.get("users/profile").await;
    let attributes = profile["attributes"].as_array_mut().unwrap();
    attributes.retain(|attribute| attribute["name"] != "department");
    let validations = longest.map_or_else(|| json!({}), |longest| json!({"length": {"max": longest}}));
    attributes.push(json!({
        "name": "department", "validations": validations,
        "permissions": {"view": ["admin"], "edit": ["admin"]},
    }));
    world.realm.put("users/profile", &profile).await;
}

// P2, ISS-10: a rule that was added to the user profile later makes the server refuse every PUT of the account.
#[tokio::test]
async fn a_freeze_ends_sessions_whatever_becomes_of_the_switch() {
    let world = World::new().await;
    declare_department(&world, None).await;
    let mut ann = user("ann", "ann@example.test", OLD);
    ann["attributes"] = json!({"department": ["a very long one"]});
    let ann = world.realm.post("users", &ann).await;
    let tokens = world
        .sign_in(&mut browser(), "ann", OLD, "openid offline_access")
        .await;
    let online = world.sign_in(&mut browser(), "ann", OLD, "openid").await;
    declare_department(&world, Some(5)).await;
    let wanted = world.wanted(&ann, Posture::Contested(ContestedAtIdp::Disable));
    let refused = world.idp.converge(&ann, &wanted).await;
    assert!(enabled(&world, &ann).await, "the PUT is refused");
    assert_eq!(world.idp.sessions(&ann).await.unwrap(), [], "{refused:?}");
    for tokens in [&tokens, &online] {
        assert_eq!(world.rp.refresh(tokens.text("refresh_token")).await.status, 400);
    }
    let groups = world.groups(&ann).await;
    assert!(groups.contains("/reentry/hold.none"), "{groups:?}");
    assert!(groups.contains("/reentry/contested"), "{groups:?}");
    let done = refused.unwrap();
    let cannot = done.cannot.clone().unwrap();
    assert!(cannot.contains("department"), "{cannot}");
    assert!(done.again, "tried again, since somebody may mend the profile");

    declare_department(&world, None).await;
    let done = world.idp.converge(&ann, &wanted).await.unwrap();
    assert_eq!((done.cannot, done.again), (None, false));
    assert!(!enabled(&world, &ann).await);
    world.converge(&ann, Posture::Free).await;
    assert!(
        enabled(&world, &ann).await,
        "what was switched off is switched on"
    );
}

// A help desk switches on what a freeze or a hold switched off.
#[tokio::test]
async fn what_was_switched_off_and_on_again_is_switched_off_again() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    let frozen = Posture::Contested(ContestedAtIdp::Disable);
    world.converge(&ann, frozen.clone()).await;
    world.lines().await;
    let carried = world.idp.account(&ann).await.unwrap().carried.unwrap();
    assert!(carried.agrees(&frozen), "{carried:?}");
    switch(&world, &ann, true).await;
    let heard = heard(&mut world, &ann).await;
    assert!(!heard.is_empty());
    let carried = world.idp.account(&ann).await.unwrap().carried.unwrap();
    assert!(!carried.agrees(&frozen), "{carried:?}");
    world.converge(&ann, frozen.clone()).await;
    assert!(!enabled(&world, &ann).await);
    let carried = world.idp.account(&ann).await.unwrap().carried.unwrap();
    assert!(carried.agrees(&frozen), "{carried:?}");
    world.converge(&ann, Posture::Free).await;
    assert!(enabled(&world, &ann).await);

    // Whom an administrator had switched off before the freeze, a freeze switches off too when somebody lets him in.
    let bob = world.user("bob").await;
    switch(&world, &bob, false).await;
    world.converge(&bob, frozen.clone()).await;
    switch(&world, &bob, true).await;
    let carried = world.idp.account(&bob).await.unwrap().carried.unwrap();
    assert!(!carried.agrees(&frozen), "{carried:?}");
    world.converge(&bob, frozen).await;
    assert!(!enabled(&world, &bob).await);
}

// Keycloak's own lock against guessing is not ours to open.
#[tokio::test]
async fn a_lock_against_guessing_stays_shut() {
    let world = World::with(json!({
        "bruteForceProtected": true, "permanentLockout": false, "failureFactor": 2, "waitIncrementSeconds": 600,
        "maxFailureWaitSeconds": 900, "quickLoginCheckMilliSeconds": 1,
    }))
    .await;
    let ann = world.user("ann").await;
    let mut mine = browser();
    for guess in ["a guess", "another guess", "a third guess"] {
        let (page, _) = world.open(&mut mine, "openid", None).await;
        pages::log_in(&mut mine, &page, "ann", guess).await;
    }
    let lock = format!("attack-detection/brute-force/users/{ann}");
    let locked = async |world: &World| {
        let status = world.realm.get(&lock).await;
        status["disabled"] == json!(true) && status["numFailures"].as_i64().unwrap() >= 2
    };
    assert!(locked(&world).await);
    let before = world.idp.account(&ann).await.unwrap().account;
    let mut moved = world.realm.get(&format!("users/{ann}")).await;
    moved["email"] = json!("thief@example.test");
    moved.as_object_mut().unwrap().remove("enabled");
    world.realm.put(&format!("users/{ann}"), &moved).await;
    assert!(locked(&world).await, "an edit that says nothing of it");
    world.converge(&ann, held("read")).await;
    let since = Timestamp::from_millis(i64::try_from(now_ms()).unwrap()).minus(Span::from_secs(1));
    let mut before = before;
    for contact in &mut before.contacts {
        contact.since = Timestamp::from_secs(1);
    }
    world.idp.restore(&ann, since, &before).await.unwrap();
    assert_eq!(
        world.realm.get(&format!("users/{ann}")).await["email"],
        "ann@example.test"
    );
    world.converge(&ann, Posture::Free).await;
    assert!(locked(&world).await, "neither a thaw nor a lift opened it");
}

// A nightly sync gives roles and groups that have nothing to do with the hold.
#[tokio::test]
async fn unrelated_roles_and_groups_are_no_tampering() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    world.converge(&ann, held("read write")).await;
    world.lines().await;
    world.realm.post("roles", &json!({"name": "newsletter"})).await;
    let role = world.realm.get("roles/newsletter").await;
    let club = world.realm.post("groups", &json!({"name": "club"})).await;
    let roles = format!("users/{ann}/role-mappings/realm");
    world.realm.post(&roles, &json!([role])).await;
    world
        .realm
        .put(&format!("users/{ann}/groups/{club}"), &json!({}))
        .await;
    let heard = heard(&mut world, &ann).await;
    assert!(!heard.is_empty(), "tiers depend on them");
    assert!(!is_tampering(&heard), "{heard:?}");
    let carried = world.idp.account(&ann).await.unwrap().carried.unwrap();
    assert!(carried.agrees(&held("read write")), "{carried:?}");
    world.converge(&ann, held("read write")).await;
    assert!(world.roles(&ann).await.contains("newsletter"), "left alone");
}

// What a hold rests on is compared by its effect: a role inside a role, a role of a group.
#[tokio::test]
async fn what_gives_full_rights_in_another_way_is_found_by_its_effect() {
    let mut world = World::new().await;
    world.set(|settings| settings.unholdable = reentry::idp::keycloak::CannotHold::Alarm);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    world.realm.post("roles", &json!({"name": "staff"})).await;
    let staff = world.realm.get("roles/staff").await;
    let roles = format!("users/{ann}/role-mappings/realm");
    world.realm.post(&roles, &json!([staff])).await;
    let club = world.realm.post("groups", &json!({"name": "club"})).await;
    world
        .realm
        .put(&format!("users/{bob}/groups/{club}"), &json!({}))
        .await;
    let agrees = async |world: &World, sub: &str| {
        let carried = world.idp.account(sub).await.unwrap().carried.unwrap();
        carried.agrees(&held("read"))
    };
    for sub in [&ann, &bob] {
        world.converge(sub, held("read")).await;
        assert!(agrees(&world, sub).await);
    }
    let full = json!([world.realm.get("roles/reentry-full").await]);
    world.realm.post("roles/staff/composites", &full).await;
    let of_club = format!("groups/{club}/role-mappings/realm");
    world.realm.post(&of_club, &full).await;
    for sub in [&ann, &bob] {
        assert!(!agrees(&world, sub).await);
        let wanted = world.wanted(sub, held("read"));
        let done = world.idp.converge(sub, &wanted).await.unwrap();
        assert!(done.cannot.unwrap().contains("reentry-full"));
    }
    // Switched off, nothing is issued whatever its roles say.
    world.set(|_| {});
    let wanted = world.wanted(&bob, held("read"));
    world.idp.converge(&bob, &wanted).await.unwrap();
    assert!(!enabled(&world, &bob).await);
    assert!(agrees(&world, &bob).await);
}

// A configuration tool empties our groups; the account is whole again afterwards all the same.
#[tokio::test]
async fn what_a_hold_took_is_given_back_though_its_notes_were_taken() {
    let mut world = World::new().await;
    let ann = world.user("ann").await;
    let before = world.roles(&ann).await;
    world.converge(&ann, held("read write")).await;
    world.lines().await;
    for group in ["hold.read.write", "lift.default-role"] {
        let group = world.realm.get(&format!("group-by-path/reentry/{group}")).await;
        let path = format!("users/{ann}/groups/{}", group["id"].as_str().unwrap());
        world.realm.delete(&path, None).await;
    }
    let heard = heard(&mut world, &ann).await;
    assert!(is_tampering(&heard), "{heard:?}");
    world.converge(&ann, held("read write")).await;
    assert_eq!(
        world.groups(&ann).await,
        names(&["/reentry/hold.read.write", "/reentry/lift.default-role"]),
        "put back while held"
    );
    // And once more, at the worst moment: nothing is left at the realm when the hold ends.
    for group in ["hold.read.write", "lift.default-role"] {
        let group = world.realm.get(&format!("group-by-path/reentry/{group}")).await;
        let path = format!("users/{ann}/groups/{}", group["id"].as_str().unwrap());
        world.realm.delete(&path, None).await;
    }
    world.converge(&ann, Posture::Free).await;
    assert_eq!(
        (world.roles(&ann).await, world.groups(&ann).await),
        (before, BTreeSet::new())
    );
}

// All of `/reentry` is deleted in a hold and wired anew.
#[tokio::test]
async fn an_account_is_whole_again_after_everything_was_wired_anew() {
    let mut world = World::new().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let before = world.roles(&ann).await;
    world.converge(&ann, held("read write")).await;
    let frozen = Posture::Contested(ContestedAtIdp::Disable);
    world.converge(&bob, frozen.clone()).await;
    let root = world.realm.get("group-by-path/reentry").await;
    let path = format!("groups/{}", root["id"].as_str().unwrap());
    world.realm.delete(&path, None).await;
    world.wire().await;
    world.set(|_| {});
    world.converge(&ann, held("read write")).await;
    world.converge(&bob, frozen).await;
    assert_eq!(
        world.groups(&ann).await,
        names(&["/reentry/hold.read.write", "/reentry/lift.default-role"])
    );
    world.converge(&ann, Posture::Free).await;
    world.converge(&bob, Posture::Free).await;
    assert_eq!(world.roles(&ann).await, before);
    assert_eq!(world.roles(&bob).await, before);
    assert!(enabled(&world, &bob).await);
}

/// Lines of others about what holds rest on, and whether held accounts are to be compared.
async fn drifted(world: &mut World) -> (Vec<String>, bool) {
    let (mut all, mut doubt) = (Vec::new(), false);
    loop {
        let polled = world.idp.poll(&world.cursor, now()).await.unwrap();
        all.extend(polled.drifted);
        doubt |= polled.doubt;
        world.cursor = polled.next;
        if !polled.more {
            return (all, doubt);
        }
    }
}

// Judged by what a line is about, not by what is in its text.
#[tokio::test]
async fn what_holds_rest_on_is_watched_and_an_ordinary_save_is_no_alarm() {
    let mut world = World::new().await;
    assert_eq!(drifted(&mut world).await, (Vec::new(), false), "wiring is none");
    let shop = world.realm.client_uuid("shop").await;
    let path = format!("clients/{shop}");
    let mut client = world.realm.get(&path).await;
    client["description"] = json!("a new description");
    world.realm.put(&path, &client).await;
    world.realm.patch(json!({"displayName": "Another name"})).await;
    world.realm.post("roles", &json!({"name": "staff"})).await;
    assert_eq!(drifted(&mut world).await, (Vec::new(), false));

    let full = json!([world.realm.get("roles/reentry-full").await]);
    let hold = world.realm.client_scope_id("reentry-hold.read").await.unwrap();
    let scope = world.realm.get(&format!("client-scopes/{hold}")).await;
    let mut mapper = scope["protocolMappers"][0].clone();
    mapper["config"]["claim.value"] = json!("full");
    let models = format!("client-scopes/{hold}/protocol-mappers/models");
    let club = world.realm.post("groups", &json!({"name": "club"})).await;
    for step in 0..5 {
        match step {
            0 => drop(world.realm.post("roles/staff/composites", &full).await),
            1 => drop(
                world
                    .realm
                    .post(&format!("groups/{club}/role-mappings/realm"), &full)
                    .await,
            ),
            2 => {
                world
                    .realm
                    .put(&format!("{models}/{}", mapper["id"].as_str().unwrap()), &mapper)
                    .await;
            }
            3 => {
                world
                    .realm
                    .delete(&format!("{path}/default-client-scopes/{hold}"), None)
                    .await;
            }
            _ => {
                let group = world.realm.get("group-by-path/reentry/hold.read").await;
                let renamed = json!({"name": "holidays"});
                world
                    .realm
                    .put(&format!("groups/{}", group["id"].as_str().unwrap()), &renamed)
                    .await;
            }
        }
        let (found, doubt) = drifted(&mut world).await;
        assert!(!found.is_empty(), "step {step}");
        assert_eq!(doubt, matches!(step, 0 | 1 | 4), "step {step}: {found:?}");
        assert_eq!(drifted(&mut world).await, (Vec::new(), false), "told once");
    }
}

// What clients would issue, asked from the server, where our account may view clients.
#[tokio::test]
async fn with_view_clients_what_every_client_would_issue_is_looked_at() {
    let mut world = World::new().await;
    world
        .realm
        .grant_realm_management("reentry", &["view-clients"])
        .await;
    let ann = world.user("ann").await;
    world.converge(&ann, held("read")).await;
    world.set(|_| {});
    assert_eq!(drifted(&mut world).await.0, Vec::<String>::new());
    let shop = world.realm.client_uuid("shop").await;
    let full = world.realm.client_scope_id("reentry-full").await.unwrap();
    let path = format!("clients/{shop}/default-client-scopes/{full}");
    world.realm.delete(&path, None).await;
    // The first look does not need a line.
    world.set(|_| {});
    world.realm.delete("admin-events", None).await;
    world.cursor = Cursor::default();
    let (found, _) = drifted(&mut world).await;
    let said = |text: &str| found.iter().any(|one| one.contains(text));
    assert!(
        said("client `shop` would issue no claim where \"full\" is right"),
        "{found:?}"
    );
    assert_eq!(found.len(), 1, "{found:?}");
}

// A role that is taken from our own account is known at the next poll, not when its token is renewed.
#[tokio::test]
async fn a_role_taken_from_our_account_is_known_at_the_next_poll() {
    let mut world = World::new().await;
    world.lines().await;
    let uuid = world.realm.client_uuid("reentry").await;
    let account = world
        .realm
        .get(&format!("clients/{uuid}/service-account-user"))
        .await;
    let management = world.realm.client_uuid("realm-management").await;
    let role = world
        .realm
        .get(&format!("clients/{management}/roles/view-users"))
        .await;
    let path = format!(
        "users/{}/role-mappings/clients/{management}",
        account["id"].as_str().unwrap()
    );
    world.realm.delete(&path, Some(&json!([role]))).await;
    let alarms = world.idp.poll(&world.cursor, now()).await.unwrap().alarms;
    assert!(
        alarms.iter().any(|alarm| alarm.contains("lacks view-users")),
        "{alarms:?}"
    );
}

/// What of administering the realm an account is known to be able to.
async fn management_roles(world: &World, sub: &str) -> BTreeSet<String> {
    let facts = world.idp.account(sub).await.unwrap().facts.unwrap();
    let of_management = |role: &String| role.strip_prefix("realm-management/").map(str::to_owned);
    facts.roles.iter().filter_map(of_management).collect()
}

// Who could undo a hold is known by effect: by a group, by a role inside a role, by creation, since before the wiring.
#[tokio::test]
async fn administrators_are_known_however_they_came_to_be() {
    let mut world = World::new().await;
    let management = world.realm.client_uuid("realm-management").await;
    let role = async |world: &World, name: &str| {
        let path = format!("clients/{management}/roles/{name}");
        json!([world.realm.get(&path).await])
    };
    let of_users = role(&world, "manage-users").await;
    let of_events = role(&world, "manage-events").await;
    // Before the wiring, which writes it down: a group, a realm role, a mapping of the account's own.
    let admins = world.realm.post("groups", &json!({"name": "admins"})).await;
    let night = world
        .realm
        .post(&format!("groups/{admins}/children"), &json!({"name": "night"}))
        .await;
    let mapping = format!("groups/{admins}/role-mappings/clients/{management}");
    world.realm.post(&mapping, &of_users).await;
    world.realm.post("roles", &json!({"name": "boss"})).await;
    world.realm.post("roles/boss/composites", &of_users).await;
    let boss = json!([world.realm.get("roles/boss").await]);
    let mut subs = BTreeMap::new();
    for name in ["bygroup", "below", "byrole", "direct", "free"] {
        subs.insert(name, world.user(name).await);
    }
    world
        .realm
        .put(&format!("users/{}/groups/{admins}", subs["bygroup"]), &json!({}))
        .await;
    world
        .realm
        .put(&format!("users/{}/groups/{night}", subs["below"]), &json!({}))
        .await;
    world
        .realm
        .post(&format!("users/{}/role-mappings/realm", subs["byrole"]), &boss)
        .await;
    let own = format!("users/{}/role-mappings/clients/{management}", subs["direct"]);
    world.realm.post(&own, &of_events).await;
    world.realm.delete("admin-events", None).await;
    world.wire().await;
    world.set(|_| {});
    for name in ["bygroup", "below", "byrole", "direct"] {
        let roles = management_roles(&world, &subs[name]).await;
        assert!(!roles.is_empty(), "{name}");
        let wanted = world.wanted(&subs[name], held("read"));
        let done = world.idp.converge(&subs[name], &wanted).await.unwrap();
        assert!(done.cannot.unwrap().contains("could undo the hold"), "{name}");
        assert!(!enabled(&world, &subs[name]).await, "{name}");
    }
    assert_eq!(management_roles(&world, &subs["free"]).await, names(&[]));

    // And what came after it, which the log tells: a group, a role inside a role, an account made in the group.
    let late = world.realm.post("groups", &json!({"name": "late"})).await;
    let mapping = format!("groups/{late}/role-mappings/clients/{management}");
    world.realm.post(&mapping, &of_events).await;
    world.realm.post("roles", &json!({"name": "chief"})).await;
    world.realm.post("roles/chief/composites", &boss).await;
    let mut made = user("made", "made@example.test", OLD);
    made["groups"] = json!(["/late"]);
    let made = world.realm.post("users", &made).await;
    let chief = json!([world.realm.get("roles/chief").await]);
    let inside = world.user("inside").await;
    world
        .realm
        .post(&format!("users/{inside}/role-mappings/realm"), &chief)
        .await;
    drifted(&mut world).await;
    for sub in [&made, &inside] {
        assert!(!management_roles(&world, sub).await.is_empty());
    }
    // With view-clients a role inside a realm role is seen in its effect, too.
    world
        .realm
        .grant_realm_management("reentry", &["view-clients"])
        .await;
    world.set(|_| {});
    for sub in [&made, &inside, &subs["bygroup"], &subs["byrole"]] {
        let roles = management_roles(&world, sub).await;
        assert!(
            roles.contains("manage-users") || roles.contains("manage-events"),
            "{roles:?}"
        );
    }
    assert_eq!(management_roles(&world, &subs["free"]).await, names(&[]));
}
