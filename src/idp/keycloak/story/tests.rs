//! The stories that a live server told, and what may go wrong with them.

use serde_json::{Value, json};

use super::*;

const DAY: i64 = 86_400_000;
/// The change of every story happens here.
const T: i64 = 1_000 * DAY;

fn rules() -> Rules {
    Rules {
        enrolment: Span::from_days(7),
        probation: Span::from_days(7),
        reset_lifespan: Span::from_mins(5),
        admin_lifespan: Span::from_hours(12),
        fresh_login_for_actions: false,
        resets_leave_lines: true,
        phone_attributes: vec!["phone".to_owned()],
        own: Some("us".to_owned()),
    }
}

/// An old account with an old password, and these events at `T` + seconds: (seconds, type, session, code, more).
fn window(events: &[(i64, &str, &str, &str, Value)]) -> Window {
    let event = |(index, (seconds, kind, session, code, more)): (usize, &(i64, &str, &str, &str, Value))| {
        let mut details = json!({"username": "ann"});
        if !code.is_empty() {
            details["code_id"] = json!(code);
        }
        for (name, value) in more.as_object().unwrap() {
            details[name] = value.clone();
        }
        let session = if session.is_empty() {
            Value::Null
        } else {
            json!(session)
        };
        serde_json::from_value(json!({
            "id": format!("e{index}"), "time": T + seconds * 1_000, "type": kind, "userId": "u",
            "sessionId": session, "ipAddress": "203.0.113.7", "details": details,
        }))
        .unwrap()
    };
    Window {
        created: T - 400 * DAY,
        events: events.iter().enumerate().map(event).collect(),
        admin: Vec::new(),
        former: Vec::new(),
        credentials: credentials(&json!([{"id": "p", "type": "password", "createdDate": T - 2}])),
        sessions: BTreeMap::new(),
        whole: None,
    }
}

fn credentials(list: &Value) -> Vec<Credential> {
    serde_json::from_value(list.clone()).unwrap()
}

fn admin(id: &str, seconds: i64, operation: &str, path: &str, by: &str) -> AdminEvent {
    serde_json::from_value(json!({
        "id": id, "time": T + seconds * 1_000, "operationType": operation, "resourceType": "USER",
        "resourcePath": format!("users/u{path}"), "authDetails": {"userId": by},
    }))
    .unwrap()
}

fn password() -> Value {
    json!({"credential_type": "password"})
}

fn none() -> Value {
    json!({})
}

fn changes_of(window: &Window, rules: &Rules) -> Vec<Change> {
    let told = judge(window, rules, Timestamp::from_millis(T + 3_000), Span::ZERO);
    let change = |told: Told| match told.what {
        What::Change(change) => Some(*change),
        _ => None,
    };
    told.into_iter().filter_map(change).collect()
}

fn changes(window: &Window) -> Vec<Change> {
    changes_of(window, &rules())
}

/// (kind, proof, session) of every change.
fn verdicts(window: &Window) -> Vec<(ChangeKind, Proof, Option<String>)> {
    changes(window)
        .into_iter()
        .map(|c| (c.kind, c.proof, c.session))
        .collect()
}

fn verdict(window: &Window) -> (ChangeKind, Proof, Option<String>) {
    let mut all = verdicts(window);
    assert_eq!(all.len(), 1, "one change: {all:?}");
    all.remove(0)
}

fn named(session: &str) -> String {
    session.to_owned()
}

// row A1: the live table, line by line.
#[test]
fn the_stories_of_a_live_server() {
    let reset = [
        (
            -60,
            "SEND_RESET_PASSWORD",
            "",
            "a",
            json!({"email": "ann@example.test"}),
        ),
        (0, "UPDATE_PASSWORD", "", "a", password()),
        (0, "UPDATE_CREDENTIAL", "", "a", password()),
        (0, "LOGIN", "a", "a", none()),
    ];
    let mut same_browser = window(&reset);
    same_browser.events[3].time += 40;
    assert_eq!(
        verdict(&same_browser),
        (ChangeKind::PasswordReset, Proof::Message, Some(named("a"))),
        "forgot password, same browser: the automatic log-in is the session of the change"
    );
    let other_browser = window(&[
        (-60, "SEND_RESET_PASSWORD", "", "a", none()),
        (0, "UPDATE_PASSWORD", "", "b", password()),
        (0, "UPDATE_CREDENTIAL", "", "b", password()),
    ]);
    assert_eq!(
        verdict(&other_browser),
        (ChangeKind::PasswordReset, Proof::Message, Some(named("b"))),
        "forgot password, another browser"
    );
    let voluntary = window(&[
        (-120, "LOGIN", "a", "a", none()),
        (0, "UPDATE_PASSWORD", "", "a", password()),
        (0, "UPDATE_CREDENTIAL", "", "a", password()),
        (1, "LOGIN", "a", "a", none()),
    ]);
    assert_eq!(
        verdict(&voluntary),
        (ChangeKind::PasswordChanged, Proof::RecentLogin, None),
        "voluntary, inside a fresh session"
    );
    let in_one_request = window(&[
        (0, "UPDATE_CREDENTIAL", "", "a", password()),
        (1, "LOGIN", "a", "a", none()),
    ]);
    assert_eq!(
        verdict(&in_one_request),
        (ChangeKind::PasswordReset, Proof::Unproven, Some(named("a"))),
        "log-in and action in one request: nothing before it tells it from a recovery"
    );
    let mut temporary = window(&[
        (0, "UPDATE_CREDENTIAL", "", "a", password()),
        (1, "LOGIN", "a", "a", none()),
    ]);
    temporary.admin = vec![admin("x", -600, "ACTION", "/reset-password", "boss")];
    assert_eq!(
        verdicts(&temporary),
        [
            (ChangeKind::PasswordSetByAdmin, Proof::Administrator, None),
            (
                ChangeKind::PasswordSetByAdmin,
                Proof::Administrator,
                Some(named("a"))
            ),
        ],
        "a temporary password, and the one the user sets in its place"
    );
    let mut mailed = window(&[(0, "UPDATE_CREDENTIAL", "", "a", password())]);
    mailed.admin = vec![admin("x", -600, "ACTION", "/execute-actions-email", "boss")];
    assert_eq!(
        verdict(&mailed),
        (
            ChangeKind::PasswordSetByAdmin,
            Proof::Administrator,
            Some(named("a"))
        ),
        "an administrator's mail alone changes nothing yet; the password that follows does"
    );
    let mut edited = window(&[]);
    edited.admin = vec![admin("x", 0, "UPDATE", "", "boss")];
    let told = judge(&edited, &rules(), Timestamp::from_millis(T), Span::ZERO);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].event.as_str(), &told[0].what), ("x", &What::Touched));
}

// P10: the order of arrival does not matter.
#[test]
fn a_story_told_in_any_order_is_the_same_story() {
    let events = [
        (-60, "SEND_RESET_PASSWORD", "", "a", none()),
        (0, "UPDATE_PASSWORD", "", "a", password()),
        (0, "UPDATE_CREDENTIAL", "", "a", password()),
        (1, "LOGIN", "a", "a", none()),
    ];
    let straight = window(&events);
    for turn in 0..4 {
        let mut turned = straight.clone();
        turned.events.rotate_left(turn);
        assert_eq!(verdicts(&turned), verdicts(&straight));
        turned.events.reverse();
        assert_eq!(verdicts(&turned), verdicts(&straight));
    }
}

// P10: what turns up late is judged again under the same id, and only tighter.
#[test]
fn a_reset_mail_that_turns_up_late_makes_a_voluntary_change_a_recovery() {
    let mut events = vec![
        (-100, "LOGIN", "a", "a", none()),
        (0, "UPDATE_CREDENTIAL", "", "a", password()),
    ];
    let before = changes(&window(&events));
    events.push((-150, "SEND_RESET_PASSWORD", "", "a", none()));
    let after = changes(&window(&events));
    assert_eq!(
        (before[0].kind, after[0].kind),
        (ChangeKind::PasswordChanged, ChangeKind::PasswordReset)
    );
    assert_eq!(before[0].id, after[0].id);
}

#[test]
fn a_deprecated_twin_counts_only_when_it_stands_alone() {
    let alone = window(&[
        (-60, "SEND_RESET_PASSWORD", "", "a", none()),
        (0, "UPDATE_PASSWORD", "", "a", none()),
    ]);
    assert_eq!(verdict(&alone).0, ChangeKind::PasswordReset);
    for (twin, kind) in [
        ("UPDATE_TOTP", "otp"),
        ("CUSTOM_REQUIRED_ACTION", "webauthn"),
        ("CUSTOM_REQUIRED_ACTION", "recovery-authn-codes"),
    ] {
        let detail = || json!({"credential_type": kind});
        let alone = window(&[(0, twin, "", "a", detail())]);
        assert_eq!(verdicts(&alone).len(), 1, "{twin} alone");
        let both = window(&[
            (0, twin, "", "a", detail()),
            (0, "UPDATE_CREDENTIAL", "", "a", detail()),
        ]);
        assert_eq!(verdicts(&both).len(), 1, "{twin} beside the generic one");
    }
    let removed = window(&[
        (0, "REMOVE_TOTP", "", "a", none()),
        (0, "REMOVE_CREDENTIAL", "", "a", json!({"credential_type": "otp"})),
    ]);
    assert_eq!(verdicts(&removed).len(), 1);
    let unrelated = window(&[(
        0,
        "CUSTOM_REQUIRED_ACTION",
        "",
        "a",
        json!({"custom_required_action": "TERMS"}),
    )]);
    assert!(verdicts(&unrelated).is_empty());
}

// P10: what cannot be told apart from a recovery counts as one.
#[test]
fn what_proves_nothing_is_a_recovery() {
    let reset = (ChangeKind::PasswordReset, Proof::Unproven);
    let kind = |events: &[(i64, &str, &str, &str, Value)]| {
        let (kind, proof, _) = verdict(&window(events));
        (kind, proof)
    };
    let set = |code| (0, "UPDATE_CREDENTIAL", "", code, password());
    assert_eq!(kind(&[set("a")]), reset, "no log-in at all");
    assert_eq!(kind(&[set("")]), reset, "no session named");
    assert_eq!(
        kind(&[(-10, "LOGIN", "b", "b", none()), set("a")]),
        reset,
        "a log-in elsewhere"
    );
    assert_eq!(
        kind(&[(-301, "LOGIN", "a", "a", none()), set("a")]),
        reset,
        "an old log-in"
    );
    assert_eq!(
        kind(&[set("a"), (5, "LOGIN", "a", "a", none())]),
        reset,
        "a log-in after it"
    );
    assert_eq!(
        kind(&[(0, "LOGIN", "a", "a", none()), set("a")]),
        reset,
        "a log-in of the same instant"
    );
    let mut failed = window(&[(-10, "LOGIN", "a", "a", none()), set("a")]);
    failed.events[0].error = Some("invalid_user_credentials".to_owned());
    assert_eq!(verdict(&failed).1, Proof::Unproven, "a log-in that failed");
    let fresh = Rules {
        fresh_login_for_actions: true,
        ..rules()
    };
    let old = window(&[(-4_000, "LOGIN", "a", "a", none()), set("a")]);
    assert_eq!(
        changes_of(&old, &fresh)[0].kind,
        ChangeKind::PasswordChanged,
        "an older log-in proves it where every action asks for a fresh one"
    );
}

#[test]
fn a_reset_link_counts_as_long_as_it_lives() {
    let at = |seconds| {
        let events = [
            (seconds, "SEND_RESET_PASSWORD", "", "a", none()),
            (-20, "LOGIN", "b", "b", none()),
            (0, "UPDATE_CREDENTIAL", "", "b", password()),
        ];
        verdict(&window(&events)).0
    };
    assert_eq!(at(-290), ChangeKind::PasswordReset, "within its life");
    assert_eq!(
        at(-7_200),
        ChangeKind::PasswordChanged,
        "long dead, and the owner logged in since"
    );
    assert_eq!(
        at(2),
        ChangeKind::PasswordChanged,
        "asked for after it: the change was proven and is judged once"
    );
    let ahead = [
        (2, "SEND_RESET_PASSWORD", "", "a", none()),
        (0, "UPDATE_CREDENTIAL", "", "b", password()),
    ];
    assert_eq!(
        verdict(&window(&ahead)).1,
        Proof::Message,
        "nothing was proven, and the clock of the node that sent it may be ahead"
    );
    let same_session = [
        (-20, "LOGIN", "a", "a", none()),
        (0, "UPDATE_CREDENTIAL", "", "a", password()),
        (2, "SEND_RESET_PASSWORD", "", "a", none()),
    ];
    assert_eq!(
        verdict(&window(&same_session)).0,
        ChangeKind::PasswordReset,
        "the reset of that very session"
    );
    let same = [
        (-7_200, "SEND_RESET_PASSWORD", "", "a", none()),
        (-20, "LOGIN", "a", "a", none()),
        (0, "UPDATE_CREDENTIAL", "", "a", password()),
    ];
    assert_eq!(
        verdict(&window(&same)).0,
        ChangeKind::PasswordReset,
        "the same session, however late"
    );
    let failed = {
        let mut window = window(&same);
        window.events[0].error = Some("user_not_found".to_owned());
        window
    };
    assert_eq!(
        verdict(&failed).0,
        ChangeKind::PasswordChanged,
        "no mail was sent"
    );
}

#[test]
fn two_resets_are_two_recoveries() {
    let twice = window(&[
        (-60, "SEND_RESET_PASSWORD", "", "a", none()),
        (-30, "SEND_RESET_PASSWORD", "", "b", none()),
        (0, "UPDATE_CREDENTIAL", "", "b", password()),
        (100, "UPDATE_CREDENTIAL", "", "c", password()),
    ]);
    let found = verdicts(&twice);
    assert_eq!(found.len(), 2);
    assert!(
        found
            .iter()
            .all(|(kind, proof, _)| (*kind, proof) == (ChangeKind::PasswordReset, &Proof::Message))
    );
}

#[test]
fn nothing_is_voluntary_in_a_session_that_a_recovery_began() {
    let then = window(&[
        (0, "UPDATE_CREDENTIAL", "", "a", password()),
        (1, "LOGIN", "a", "a", none()),
        (60, "UPDATE_CREDENTIAL", "", "a", password()),
        (
            90,
            "UPDATE_CREDENTIAL",
            "",
            "a",
            json!({"credential_type": "otp"}),
        ),
    ]);
    let found = verdicts(&then);
    assert_eq!(found[1], (ChangeKind::PasswordReset, Proof::Unproven, None));
    assert_eq!(found[2], (ChangeKind::FactorAdded, Proof::Unproven, None));
}

#[test]
fn an_administrators_link_is_used_up_by_the_first_password_after_it() {
    let mut later = window(&[
        (-3_000, "UPDATE_CREDENTIAL", "", "a", password()),
        (-100, "LOGIN", "b", "b", none()),
        (0, "UPDATE_CREDENTIAL", "", "b", password()),
    ]);
    later.admin = vec![admin("x", -3_600, "ACTION", "/execute-actions-email", "boss")];
    let kinds: Vec<ChangeKind> = verdicts(&later).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(
        kinds,
        [ChangeKind::PasswordSetByAdmin, ChangeKind::PasswordChanged]
    );
    // Without a log-in of its own the second one is the link again, as far as anybody can tell.
    later.events.remove(1);
    assert_eq!(verdicts(&later)[1].0, ChangeKind::PasswordSetByAdmin);
    let mut stale = window(&[
        (-10, "LOGIN", "a", "a", none()),
        (0, "UPDATE_CREDENTIAL", "", "a", password()),
    ]);
    stale.admin = vec![admin("x", -43_300, "ACTION", "/execute-actions-email", "boss")];
    assert_eq!(
        verdict(&stale).0,
        ChangeKind::PasswordChanged,
        "the link died after 12 h"
    );
}

// ISS-6: the session of the change itself, and no other.
#[test]
fn the_session_of_a_change_is_its_own_only_when_nobody_was_in_it_before() {
    let session = |events: &[(i64, &str, &str, &str, Value)], began: Option<i64>| {
        let mut window = window(events);
        window
            .sessions
            .extend(began.map(|at| ("a".to_owned(), T + at * 1_000)));
        verdict(&window).2
    };
    let set = (0, "UPDATE_CREDENTIAL", "", "a", password());
    assert_eq!(session(std::slice::from_ref(&set), None), Some(named("a")));
    assert_eq!(
        session(std::slice::from_ref(&set), Some(1)),
        Some(named("a")),
        "it began with the change"
    );
    assert_eq!(
        session(&[(-4_000, "LOGIN", "a", "a", none()), set.clone()], None),
        None,
        "logged in before"
    );
    assert_eq!(
        session(&[(0, "LOGIN", "a", "a", none()), set.clone()], None),
        None,
        "in the same instant"
    );
    assert_eq!(
        session(std::slice::from_ref(&set), Some(-900)),
        None,
        "older than the log goes back"
    );
    assert_eq!(
        session(&[set, (4, "LOGIN", "a", "a", none())], Some(3)),
        Some(named("a")),
        "the automatic log-in"
    );
}

// row A6: an invitation, as far as the logs can speak.
#[test]
fn the_first_credential_of_a_young_account_may_be_an_invitation() {
    let young = |events: &[(i64, &str, &str, &str, Value)]| Window {
        created: T - 2 * DAY,
        ..window(events)
    };
    let set = (0, "UPDATE_CREDENTIAL", "", "a", password());
    let mut invited = young(std::slice::from_ref(&set));
    invited.admin = vec![
        admin("c", -172_800, "CREATE", "", "boss"),
        admin("x", -600, "ACTION", "/execute-actions-email", "boss"),
    ];
    let (kind, proof, _) = verdict(&invited);
    assert_eq!(
        (kind, proof),
        (ChangeKind::CredentialInitialised, Proof::Administrator)
    );
    let kind = |window: &Window| verdicts(window).last().unwrap().0;
    let second = young(&[(-500, "UPDATE_CREDENTIAL", "", "z", password()), set.clone()]);
    assert_eq!(kind(&second), ChangeKind::PasswordReset, "not the first");
    let registered = young(&[(-500, "REGISTER", "", "z", none()), set.clone()]);
    assert_eq!(
        kind(&registered),
        ChangeKind::PasswordReset,
        "it chose a password when it registered"
    );
    let mut set_before = young(std::slice::from_ref(&set));
    set_before.admin = vec![admin("x", -600, "ACTION", "/reset-password", "boss")];
    assert_eq!(kind(&set_before), ChangeKind::PasswordSetByAdmin);
    let old = Window {
        created: T - 8 * DAY,
        ..young(std::slice::from_ref(&set))
    };
    assert_eq!(kind(&old), ChangeKind::PasswordReset, "no longer young");
    let mut listed = young(&[(0, "UPDATE_CREDENTIAL", "", "a", json!({"credential_type": "otp"}))]);
    assert_eq!(kind(&listed), ChangeKind::CredentialInitialised);
    listed.credentials = credentials(&json!([{"id": "o", "type": "otp", "createdDate": T - DAY}]));
    assert_eq!(
        kind(&listed),
        ChangeKind::FactorAdded,
        "there is another one of its class"
    );
}

// P7: only what was past its probation proves a new factor.
#[test]
fn a_factor_is_proven_only_by_factors_that_are_eligible_themselves() {
    let passkey = || json!({"credential_type": "webauthn"});
    let events = [
        (-60, "LOGIN", "a", "a", none()),
        (0, "UPDATE_CREDENTIAL", "", "a", passkey()),
    ];
    let with = |created: i64, more: &[(i64, &str, &str, &str, Value)]| {
        let mut all = events.to_vec();
        all.extend_from_slice(more);
        let mut window = window(&all);
        window.credentials = credentials(&json!([
            {"id": "p", "type": "password", "createdDate": created},
            {"id": "k", "type": "webauthn", "createdDate": T - 3},
        ]));
        let last = changes(&window)
            .into_iter()
            .find(|change| change.id == "e1")
            .unwrap();
        (last.kind, last.proof)
    };
    let added = |proof| (ChangeKind::FactorAdded, proof);
    assert_eq!(with(T - 30 * DAY, &[]), added(Proof::EligibleFactor));
    assert_eq!(
        with(T - 3 * DAY, &[]),
        added(Proof::RecentLogin),
        "the password is younger than the probation"
    );
    let removed = (
        -DAY / 1_000,
        "REMOVE_CREDENTIAL",
        "",
        "b",
        json!({"credential_type": "otp"}),
    );
    assert_eq!(
        with(T - 30 * DAY, &[removed]),
        added(Proof::RecentLogin),
        "something was taken away in between"
    );
    let linked = (
        -DAY / 1_000,
        "FEDERATED_IDENTITY_LINK",
        "",
        "b",
        json!({"identity_provider": "x"}),
    );
    assert_eq!(
        with(T - 30 * DAY, &[linked]),
        added(Proof::RecentLogin),
        "a login was linked in between"
    );
    let reset = (-100, "SEND_RESET_PASSWORD", "", "a", none());
    assert_eq!(with(T - 30 * DAY, &[reset]).1, Proof::Message, "in a recovery");
    // A session that is older proves nothing.
    let mut old = window(&events);
    old.events[0].time = T - 400_000;
    old.credentials = credentials(&json!([{"id": "p", "type": "password", "createdDate": T - 30 * DAY}]));
    assert_eq!(verdict(&old).1, Proof::Unproven);
}

// P7: what nobody can date may be younger than anything.
#[test]
fn a_factor_is_not_proven_beside_one_that_nobody_can_date() {
    let mut window = window(&[
        (-60, "LOGIN", "a", "a", none()),
        (
            0,
            "UPDATE_CREDENTIAL",
            "",
            "a",
            json!({"credential_type": "webauthn"}),
        ),
    ]);
    let dates = [
        (json!(T - 30 * DAY), Proof::EligibleFactor),
        (json!(-1), Proof::RecentLogin),
    ];
    for (date, proof) in dates {
        window.credentials = credentials(&json!([
            {"id": "p", "type": "password", "createdDate": T - 30 * DAY},
            {"id": "o", "type": "otp", "createdDate": date},
            {"id": "k", "type": "webauthn", "createdDate": T - 3},
        ]));
        assert_eq!(verdict(&window).1, proof, "{date}");
    }
}

#[test]
fn every_kind_of_factor_has_its_row() {
    let kind = |event: &str, credential: &str| {
        let found = changes(&window(&[(
            0,
            event,
            "",
            "a",
            json!({"credential_type": credential}),
        )]));
        (found[0].kind, found[0].factor.unwrap())
    };
    assert_eq!(
        kind("UPDATE_CREDENTIAL", "otp"),
        (ChangeKind::FactorAdded, FactorClass::Otp)
    );
    assert_eq!(
        kind("UPDATE_CREDENTIAL", "webauthn-passwordless"),
        (ChangeKind::FactorAdded, FactorClass::Passkey)
    );
    assert_eq!(
        kind("UPDATE_CREDENTIAL", "recovery-authn-codes"),
        (ChangeKind::RecoveryCodesReset, FactorClass::RecoveryCodes)
    );
    assert_eq!(
        kind("UPDATE_CREDENTIAL", "something-new"),
        (ChangeKind::FactorAdded, FactorClass::Other)
    );
    assert_eq!(
        kind("REMOVE_CREDENTIAL", "otp"),
        (ChangeKind::FactorRemoved, FactorClass::Otp)
    );
    // The default reset flow lets a mail replace the one-time-password generator.
    let replaced = window(&[
        (-30, "SEND_RESET_PASSWORD", "", "a", none()),
        (0, "UPDATE_CREDENTIAL", "", "a", json!({"credential_type": "otp"})),
    ]);
    assert_eq!(verdict(&replaced).0, ChangeKind::FactorRemoved);
    let linked = window(&[(
        0,
        "FEDERATED_IDENTITY_LINK",
        "",
        "a",
        json!({"identity_provider": "x"}),
    )]);
    assert_eq!(verdict(&linked).0, ChangeKind::FederatedLinkChanged);
}

// row C1, C2: contacts, with the address of before.
#[test]
fn a_changed_contact_names_the_one_of_before() {
    let details = json!({
        "previous_email": "old@example.test", "updated_email": "new@example.test",
        "previous_phone": "+441::+442", "updated_phone": "+443", "previous_lastName": "A", "updated_lastName": "B",
    });
    let found = changes(&window(&[(0, "UPDATE_PROFILE", "", "a", details)]));
    let told: Vec<(ChangeKind, &str, Option<&str>)> = found
        .iter()
        .map(|c| (c.kind, c.id.as_str(), c.previous_address.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            (ChangeKind::EmailChanged, "e0", Some("old@example.test")),
            (ChangeKind::PhoneChanged, "e0#phone", Some("+441")),
        ]
    );
    assert_eq!(found[0].origin.as_deref(), Some("203.0.0.0/16"));
    let same = json!({"previous_email": "a@example.test", "updated_email": "a@example.test"});
    assert!(changes(&window(&[(0, "UPDATE_EMAIL", "", "a", same)])).is_empty());
    // The first address of an account that is being made is no change; of an older one it is.
    let first = || json!({"updated_email": "a@example.test", "context": "IDP_REVIEW"});
    let born = Window {
        created: T - 1_000,
        ..window(&[(0, "UPDATE_PROFILE", "", "a", first())])
    };
    assert!(changes(&born).is_empty());
    assert_eq!(
        changes(&window(&[(0, "UPDATE_PROFILE", "", "a", first())]))[0].kind,
        ChangeKind::EmailChanged
    );
}

#[test]
fn administrators_acts_and_our_own() {
    let mut acts = window(&[]);
    acts.admin = vec![
        admin("1", 0, "ACTION", "/credentials/c", "boss"),
        admin("2", 1, "CREATE", "/federated-identity/x", "boss"),
        admin("3", 2, "DELETE", "/groups/g", "boss"),
        admin("4", 3, "CREATE", "/role-mappings/realm", "boss"),
        admin("5", 4, "ACTION", "/logout", "boss"),
        admin("6", 5, "DELETE", "/groups/g", "us"),
        admin("7", 6, "UPDATE", "", "us"),
        admin("8", 7, "ACTION", "/credentials/c", "us"),
        admin("9", 8, "ACTION", "/reset-password", "us"),
    ];
    acts.admin[0]
        .details
        .insert("credential_type".to_owned(), "otp".to_owned());
    acts.admin[3].representation = Some("[{\"name\":\"reentry-full\"}]".to_owned());
    let told = judge(&acts, &rules(), Timestamp::from_millis(T), Span::ZERO);
    let short: Vec<(String, String)> = told
        .into_iter()
        .map(|line| {
            let what = match line.what {
                What::Change(change) => format!("{:?} {:?}", change.kind, change.factor.unwrap()),
                What::Touched => "touched".to_owned(),
                What::Moved { what, .. } => what,
            };
            (line.event, what)
        })
        .collect();
    let expected = [
        ("1", "FactorRemoved Otp"),
        ("2", "FederatedLinkChanged FederatedLink"),
        ("3", "DELETE users/u/groups/g"),
        ("4", "CREATE users/u/role-mappings/realm reentry-full"),
        ("9", "PasswordSetByAdmin Password"),
    ];
    assert_eq!(short, expected.map(|(id, what)| (id.to_owned(), what.to_owned())));
}

#[test]
fn an_attempt_that_failed_changes_nothing() {
    let mut failed = window(&[(0, "UPDATE_CREDENTIAL", "", "a", password())]);
    failed.events[0].error = Some("password_rejected".to_owned());
    failed.admin = vec![admin("x", 0, "ACTION", "/reset-password", "boss")];
    failed.admin[0].error = Some("refused".to_owned());
    assert!(changes(&failed).is_empty());
}

// P6: both clocks go into the change, unmixed.
#[test]
fn a_change_carries_both_clocks() {
    let one = window(&[(0, "UPDATE_CREDENTIAL", "", "a", password())]);
    let received = Timestamp::from_millis(T - 20_000);
    let told = judge(&one, &rules(), received, Span::from_secs(25));
    let What::Change(change) = &told[0].what else {
        panic!("a change")
    };
    assert_eq!(
        (change.at.millis(), change.received, change.offset),
        (T, received, Span::from_secs(25))
    );
    assert_eq!(change.start().millis(), T - 25_000);
}

// Contract section 3, profile "broker": credential dates are asked for too.
#[test]
fn a_credential_that_no_line_tells_of_is_a_change_of_its_own() {
    let found = |credential: Value, events: &[(i64, &str, &str, &str, Value)]| {
        let mut window = window(events);
        window.credentials = credentials(&json!([credential]));
        let told = judge(&window, &rules(), Timestamp::from_millis(T + 600_000), Span::ZERO);
        let reconciled = told.into_iter().filter_map(|told| match told.what {
            What::Change(change) if change.source == Source::Reconcile => Some((change.kind, change.id)),
            _ => None,
        });
        reconciled.collect::<Vec<_>>()
    };
    let password = || json!({"id": "p", "type": "password", "createdDate": T});
    let before = (-9_000, "LOGIN", "a", "a", none());
    let expected = [(ChangeKind::PasswordReset, format!("p@{T}"))];
    assert_eq!(found(password(), std::slice::from_ref(&before)), expected);
    let told = (
        1,
        "UPDATE_CREDENTIAL",
        "",
        "a",
        json!({"credential_type": "password"}),
    );
    assert_eq!(
        found(password(), &[before.clone(), told]),
        [],
        "a line tells of it"
    );
    let other = (1, "UPDATE_CREDENTIAL", "", "a", json!({"credential_type": "otp"}));
    assert_eq!(
        found(password(), &[before.clone(), other]),
        expected,
        "of something else"
    );
    assert_eq!(found(password(), &[]), [], "the log does not go back so far");
    let fresh = json!({"id": "p", "type": "password", "createdDate": T + 590_000});
    assert_eq!(
        found(fresh, std::slice::from_ref(&before)),
        [],
        "its line may be on its way"
    );
    let otp = json!({"id": "o", "type": "otp", "createdDate": T});
    assert_eq!(
        found(otp, std::slice::from_ref(&before))[0].0,
        ChangeKind::FactorAdded
    );
    // The owner took a while to write them down.
    let codes = || json!({"id": "c", "type": "recovery-authn-codes", "createdDate": T});
    for (seconds, credential, explains) in [
        (300, codes(), true),
        (300, password(), false),
        (-300, codes(), false),
    ] {
        let of = json!({"credential_type": credential["type"]});
        let sent = (seconds, "UPDATE_CREDENTIAL", "", "a", of);
        let changes = found(credential.clone(), &[before.clone(), sent]);
        assert_eq!(changes.is_empty(), explains, "{credential} {seconds}");
    }
}

// P8, row C1: an address that an administrator takes away is a change, also when the log knows it.
#[test]
fn an_address_that_an_administrator_takes_away_is_a_change() {
    let former = |name: &str, address: &str, seconds: i64| Former {
        name: name.to_owned(),
        address: address.to_owned(),
        gone: T + seconds * 1_000,
    };
    let mut window = window(&[]);
    window.former = vec![
        former("email", "old@example.test", 0),
        former("phone", "+441", 0),
        former("email", "older@example.test", -50),
    ];
    window.admin = vec![
        admin("a", 0, "UPDATE", "", "someone"),
        admin("later", 1, "UPDATE", "", "someone"),
        admin("ours", -50, "UPDATE", "", "us"),
    ];
    let found = changes_of(&window, &rules());
    let seen: Vec<(&str, ChangeKind, &Proof, Option<&str>)> = found
        .iter()
        .map(|c| (c.id.as_str(), c.kind, &c.proof, c.previous_address.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [
            (
                "a",
                ChangeKind::EmailChanged,
                &Proof::Administrator,
                Some("old@example.test")
            ),
            (
                "a#phone",
                ChangeKind::PhoneChanged,
                &Proof::Administrator,
                Some("+441")
            ),
        ]
    );
}

// P10: single sign-on repeats the line of a log-in, member by member, without asking for anything.
#[test]
fn a_repeated_log_in_of_single_sign_on_proves_nothing_fresh() {
    let seen = |first: i64, listed: Option<i64>| {
        let mut window = window(&[
            (first, "LOGIN", "a", "a", none()),
            (-3, "LOGIN", "a", "a", none()),
            (0, "UPDATE_CREDENTIAL", "", "a", password()),
            (1, "LOGIN", "a", "a", none()),
        ]);
        let listed = listed.map(|at| ("a".to_owned(), T + at * 1_000));
        window.sessions.extend(listed);
        window
    };
    let reset = (ChangeKind::PasswordReset, Proof::Unproven, None);
    let changed = (ChangeKind::PasswordChanged, Proof::RecentLogin, None);
    assert_eq!(
        verdict(&seen(-330, None)),
        reset,
        "the session is older than 300 s"
    );
    assert_eq!(verdict(&seen(-290, None)), changed, "it is not");
    assert_eq!(
        verdict(&seen(-100, Some(-4_000))),
        reset,
        "the log forgot what began it, the session did not"
    );
    assert_eq!(
        verdict(&seen(-299, Some(-300))),
        changed,
        "start times have whole seconds"
    );
    let fresh = Rules {
        fresh_login_for_actions: true,
        ..rules()
    };
    assert_eq!(
        changes_of(&seen(-330, None), &fresh)[0].kind,
        ChangeKind::PasswordChanged,
        "every action asks for a log-in of its own"
    );
    let mut factor = seen(-330, None);
    factor.events[2]
        .details
        .insert("credential_type".to_owned(), "otp".to_owned());
    factor.credentials = credentials(&json!([{"id": "p", "type": "password", "createdDate": T - 30 * DAY}]));
    assert_eq!(
        verdict(&factor),
        (ChangeKind::FactorAdded, Proof::Unproven, None),
        "nor for a factor"
    );
}

// P10: what began a session counts for all that is done in it.
#[test]
fn nothing_is_voluntary_in_a_session_that_began_with_something_else_than_the_old_factors() {
    let kind = |began: (&str, Value)| {
        let (kind, more) = began;
        verdicts(&window(&[
            (-20, kind, "a", "a", more),
            (-10, "LOGIN", "a", "a", none()),
            (0, "UPDATE_CREDENTIAL", "", "a", password()),
        ]))
        .last()
        .unwrap()
        .0
    };
    assert_eq!(kind(("LOGIN", none())), ChangeKind::PasswordChanged);
    let code = || json!({"credential_type": "recovery-authn-codes"});
    assert_eq!(
        kind(("LOGIN", code())),
        ChangeKind::PasswordReset,
        "a recovery code"
    );
    let mut enrolled = code();
    enrolled["custom_required_action"] = json!("CONFIGURE_RECOVERY_AUTHN_CODES");
    assert_eq!(
        kind(("LOGIN", enrolled)),
        ChangeKind::PasswordChanged,
        "codes were only enrolled"
    );
    assert_eq!(
        kind(("IMPERSONATE", json!({"impersonator": "boss"}))),
        ChangeKind::PasswordReset,
        "an administrator in its place"
    );
    assert_eq!(
        kind(("FEDERATED_IDENTITY_LINK", json!({"identity_provider": "x"}))),
        ChangeKind::PasswordReset,
        "a login that was linked a moment ago"
    );
}

/// What Keycloak says of a required action.
fn action(credential: &str, action: &str) -> Value {
    json!({"credential_type": credential, "custom_required_action": action})
}

/// A password set inside a log-in, and the log-in's own line.
fn inside() -> Window {
    let mut inside = window(&[
        (
            0,
            "UPDATE_PASSWORD",
            "",
            "a",
            action("password", "UPDATE_PASSWORD"),
        ),
        (
            0,
            "UPDATE_CREDENTIAL",
            "",
            "a",
            action("password", "UPDATE_PASSWORD"),
        ),
        (1, "LOGIN", "a", "a", action("password", "UPDATE_PASSWORD")),
    ]);
    inside.whole = Some(Whole::assumed());
    inside
}

/// `inside` with one line more.
fn and(line: (i64, &str, &str, &str, Value)) -> Window {
    let mut window = inside();
    let more = self::window(&[line]).events;
    window.events.extend(more.into_iter().map(|mut event| {
        event.id = Some("more".to_owned());
        event
    }));
    window
}

fn of_password(window: &Window) -> (ChangeKind, Proof) {
    let found = changes(window);
    let change = found.into_iter().find(|change| change.id == "e1").unwrap();
    (change.kind, change.proof)
}

const CHANGED: (ChangeKind, Proof) = (ChangeKind::PasswordChanged, Proof::RecentLogin);

// row A1: a temporary or expired password, or one that an administrator has people change.
#[test]
fn a_password_set_inside_a_log_in_is_a_change_where_a_whole_log_shows_no_recovery() {
    assert_eq!(of_password(&inside()), CHANGED);
    let mut unfinished = inside();
    unfinished.events.pop();
    assert_eq!(
        of_password(&unfinished),
        CHANGED,
        "the next action is still waiting"
    );
    let unknown = Window {
        whole: None,
        ..inside()
    };
    assert_eq!(
        of_password(&unknown),
        (ChangeKind::PasswordReset, Proof::Unproven),
        "nobody knows what the log does not show"
    );
    let mut first = inside();
    first.created = T - 2 * DAY;
    first.admin = vec![
        admin("c", -172_800, "CREATE", "", "boss"),
        admin("x", -172_790, "ACTION", "/reset-password", "boss"),
    ];
    assert_eq!(
        of_password(&first),
        CHANGED,
        "the first password, which was to be changed"
    );
}

// P13: whoever holds the mailbox can start resets, open tabs and choose the order; none of it makes a reset a change.
#[test]
fn what_a_recovery_leaves_is_a_recovery_also_inside_a_log_in() {
    let mail = |seconds, code| and((seconds, "SEND_RESET_PASSWORD", "", code, none()));
    for (seconds, code) in [
        (-60, "a"),
        (-60, "z"),
        (-6 * 86_400, "z"),
        (-6 * 86_400, "a"),
        (50, "z"),
        (3, "a"),
    ] {
        let (kind, _) = of_password(&mail(seconds, code));
        assert_eq!(kind, ChangeKind::PasswordReset, "a mail at {seconds} s in {code}");
    }
    assert_eq!(of_password(&mail(-8 * 86_400, "z")), CHANGED, "long dead");
    let strict = (ChangeKind::PasswordReset, Proof::Unproven);
    let cases = [
        (
            "a reset by a flow of its own",
            (-30, "RESET_PASSWORD", "", "z", none()),
        ),
        ("single sign-on", (-4_000, "LOGIN", "a", "a", none())),
        (
            "another provider's word",
            (2, "LOGIN", "a", "a", json!({"identity_provider": "x"})),
        ),
        (
            "a login linked on the way",
            (
                -1,
                "FEDERATED_IDENTITY_LINK",
                "",
                "a",
                json!({"identity_provider": "x"}),
            ),
        ),
        (
            "an administrator in its place",
            (-5, "IMPERSONATE", "a", "", none()),
        ),
    ];
    for (what, line) in cases {
        assert_eq!(of_password(&and(line)), strict, "{what}");
    }
    let mut listed = inside();
    listed.sessions.insert("a".to_owned(), T - 3_600_000);
    assert_eq!(of_password(&listed), strict, "a session that is older");
    let mut brokered = inside();
    for event in &mut brokered.events {
        event
            .details
            .insert("identity_provider".to_owned(), "x".to_owned());
    }
    assert_eq!(of_password(&brokered), strict, "a log-in by another provider");
    let mut bare = inside();
    for event in &mut bare.events {
        event.details.remove("custom_required_action");
    }
    assert_eq!(of_password(&bare), strict, "no required action");
    for path in ["/execute-actions-email", "/send-verify-email", "/reset-password"] {
        for seconds in [-600, -3 * 86_400, 30] {
            let mut led = inside();
            led.admin = vec![admin("x", seconds, "ACTION", path, "boss")];
            assert_ne!(
                of_password(&led).0,
                ChangeKind::PasswordChanged,
                "{path} {seconds}"
            );
        }
    }
}

// P5: what is not proven to be whole does not speak.
#[test]
fn a_log_speaks_by_what_it_lacks_only_where_it_is_known_to_be_whole() {
    let judged = |since: i64, edits: &[i64], created: i64| {
        let mut window = inside();
        window.created = T + created * 1_000;
        window.whole = Some(Whole {
            since: T + since * 1_000,
            edits: edits.iter().map(|at| T + at * 1_000).collect(),
        });
        let found = changes_of(
            &window,
            &Rules {
                enrolment: Span::ZERO,
                ..rules()
            },
        );
        found.into_iter().find(|change| change.id == "e1").unwrap().kind
    };
    let (old, half_a_day) = (-40_000_000, -43_260);
    let (changed, reset) = (ChangeKind::PasswordChanged, ChangeKind::PasswordReset);
    assert_eq!(judged(half_a_day, &[], old), changed, "as long as a link lives");
    assert_eq!(judged(half_a_day + 1, &[], old), reset, "not long enough");
    assert_eq!(
        judged(-700, &[], -600),
        changed,
        "as long as there is the account"
    );
    assert_eq!(judged(-500, &[], -600), reset);
    assert_eq!(judged(old, &[-9], old), reset, "what is recorded was changed");
    assert_eq!(
        judged(old, &[9, half_a_day - 1], old),
        changed,
        "before, or since"
    );
    let custom = Rules {
        resets_leave_lines: false,
        ..rules()
    };
    let found = changes_of(&inside(), &custom);
    assert_eq!(found[0].kind, reset, "a realm with resets that leave no line");
}

// P10: whatever turns up more, the verdict of an inside change only becomes stricter.
#[test]
fn lines_that_turn_up_only_take_the_old_proof_away() {
    let lines = [
        (-60, "SEND_RESET_PASSWORD", "", "z", none()),
        (-400, "LOGIN", "a", "a", none()),
        (-4, "IMPERSONATE", "a", "", none()),
        (1, "LOGIN", "a", "a", none()),
    ];
    let rank = |window: &Window| u8::from(of_password(window) != CHANGED);
    for chosen in 0_u8..16 {
        let with = |chosen: u8| {
            let mut window = inside();
            window.events.truncate(2);
            for (place, line) in lines.iter().enumerate() {
                if chosen & (1 << place) != 0 {
                    let mut more = self::window(std::slice::from_ref(line)).events.remove(0);
                    more.id = Some(format!("more{place}"));
                    window.events.push(more);
                }
            }
            window
        };
        for place in 0..4 {
            assert!(
                rank(&with(chosen)) <= rank(&with(chosen | 1 << place)),
                "{chosen} {place}"
            );
        }
    }
}

// P7: the factors that everybody has to enrol, and those that an application asks for with the log-in.
#[test]
fn a_factor_enrolled_inside_a_log_in_is_proven_by_it() {
    let enrolled = |created: i64| {
        let mut window = window(&[
            (0, "UPDATE_TOTP", "", "a", action("otp", "CONFIGURE_TOTP")),
            (0, "UPDATE_CREDENTIAL", "", "a", action("otp", "CONFIGURE_TOTP")),
            (1, "LOGIN", "a", "a", action("otp", "CONFIGURE_TOTP")),
        ]);
        window.credentials = credentials(&json!([
            {"id": "p", "type": "password", "createdDate": created},
            {"id": "o", "type": "otp", "createdDate": T - 3},
        ]));
        window
    };
    let whole = |window: Window| {
        let window = Window {
            whole: Some(Whole::assumed()),
            ..window
        };
        let found = verdict(&window);
        (found.0, found.1)
    };
    let added = |proof| (ChangeKind::FactorAdded, proof);
    assert_eq!(whole(enrolled(T - 30 * DAY)), added(Proof::EligibleFactor));
    assert_eq!(
        whole(enrolled(T - 3 * DAY)),
        added(Proof::RecentLogin),
        "the password is younger than the probation"
    );
    assert_eq!(
        verdict(&enrolled(T - 30 * DAY)).1,
        Proof::Unproven,
        "the log is not whole"
    );
}

// row B1: Keycloak has no line of its own for it; the log-in names the type of credential.
#[test]
fn a_log_in_with_a_recovery_code_is_the_use_of_one() {
    let code = || json!({"credential_type": "recovery-authn-codes"});
    let used = window(&[
        (-9_000, "LOGIN", "z", "z", none()),
        (0, "LOGIN", "a", "a", code()),
        (5, "LOGIN", "a", "a", none()),
    ]);
    assert_eq!(
        verdict(&used),
        (ChangeKind::RecoveryCodeUsed, Proof::Unproven, Some(named("a")))
    );
    assert_eq!(changes(&used)[0].factor, Some(FactorClass::RecoveryCodes));
    let again = window(&[(-50, "LOGIN", "a", "a", none()), (0, "LOGIN", "a", "a", code())]);
    assert_eq!(verdict(&again).2, None, "a session that others were in");
    let enrolled = action("recovery-authn-codes", "CONFIGURE_RECOVERY_AUTHN_CODES");
    assert!(changes(&window(&[(0, "LOGIN", "a", "a", enrolled)])).is_empty());
    let mut failed = used.clone();
    failed.events[1].error = Some("invalid_user_credentials".to_owned());
    assert!(changes(&failed).is_empty());
}

// A reset by a node whose clock is behind, on an account that another node made: nothing was ever set before an account
// was there, so it is no invitation, nor anything else that an account is made with.
#[test]
fn what_is_dated_before_the_account_was_made_belongs_to_no_making() {
    let kind = |events: &[(i64, &str, &str, &str, Value)], made: i64| {
        let mut window = window(events);
        window.created = T + made * 1_000;
        verdict(&window).0
    };
    let reset = [(0, "UPDATE_CREDENTIAL", "", "a", password())];
    assert_eq!(kind(&reset, -600), ChangeKind::CredentialInitialised);
    assert_eq!(
        kind(&reset, 5),
        ChangeKind::CredentialInitialised,
        "clocks differ"
    );
    assert_eq!(kind(&reset, 6), ChangeKind::PasswordReset);
    assert_eq!(
        kind(&reset, 600),
        ChangeKind::PasswordReset,
        "it is yet to be made"
    );
    assert_eq!(kind(&reset, i64::MAX / 2_000), ChangeKind::PasswordReset);
    let link = [(
        0,
        "FEDERATED_IDENTITY_LINK",
        "",
        "a",
        json!({"identity_provider": "x"}),
    )];
    assert_eq!(kind(&link, -60), ChangeKind::CredentialInitialised);
    assert_eq!(kind(&link, 60), ChangeKind::FederatedLinkChanged);
    let phone = json!({"updated_phone": "+441"});
    let filled_in = |made: i64| {
        let mut window = window(&[(0, "UPDATE_PROFILE", "", "a", phone.clone())]);
        window.created = T + made * 1_000;
        changes(&window).len()
    };
    assert_eq!((filled_in(-60), filled_in(60)), (0, 1));
    // By an administrator, too.
    let mut set = window(&[]);
    set.admin = vec![admin("x", 0, "ACTION", "/reset-password", "boss")];
    set.created = T - 60_000;
    assert_eq!(verdict(&set).0, ChangeKind::CredentialInitialised);
    set.created = T + 60_000;
    assert_eq!(verdict(&set).0, ChangeKind::PasswordSetByAdmin);
}

/// Every instant of a window that has a line of every sort in it.
fn redated(window: &mut Window, mut next: impl FnMut() -> i64) {
    window.created = next();
    window.events.iter_mut().for_each(|event| event.time = next());
    window.admin.iter_mut().for_each(|act| act.time = next());
    window.former.iter_mut().for_each(|former| former.gone = next());
    for credential in &mut window.credentials {
        credential.created_date = Some(next());
    }
    window.sessions.values_mut().for_each(|began| *began = next());
    window.whole = Some(Whole {
        since: next(),
        edits: vec![next(), next()],
    });
}

fn everything() -> Window {
    let otp = || json!({"credential_type": "otp"});
    let codes = || json!({"credential_type": "recovery-authn-codes"});
    let mut window = window(&[
        (0, "SEND_RESET_PASSWORD", "", "a", none()),
        (1, "UPDATE_PASSWORD", "", "a", password()),
        (1, "UPDATE_CREDENTIAL", "", "a", password()),
        (2, "LOGIN", "a", "a", none()),
        (3, "LOGIN", "b", "b", codes()),
        (4, "UPDATE_CREDENTIAL", "", "b", otp()),
        (5, "REMOVE_CREDENTIAL", "", "b", otp()),
        (6, "UPDATE_CREDENTIAL", "", "c", codes()),
        (
            7,
            "FEDERATED_IDENTITY_LINK",
            "",
            "c",
            json!({"identity_provider": "x"}),
        ),
        (
            8,
            "UPDATE_PROFILE",
            "",
            "c",
            json!({"previous_phone": "+1", "updated_phone": "+2"}),
        ),
        (
            9,
            "UPDATE_CREDENTIAL",
            "",
            "d",
            json!({"credential_type": "password", "custom_required_action": "x"}),
        ),
        (10, "REGISTER", "", "e", none()),
    ]);
    window.admin = vec![
        admin("x", 0, "ACTION", "/reset-password", "boss"),
        admin("y", 1, "PUT", "/execute-actions-email", "boss"),
        admin("z", 2, "UPDATE", "", "boss"),
    ];
    window.former = vec![Former {
        name: "email".to_owned(),
        address: "old@example.test".to_owned(),
        gone: T,
    }];
    window.credentials = credentials(&json!([
        {"id": "p", "type": "password", "createdDate": 1}, {"id": "o", "type": "otp", "createdDate": 1},
        {"id": "r", "type": "recovery-authn-codes", "createdDate": 1},
    ]));
    window.sessions = ["a", "b", "c", "d"].map(|id| (id.to_owned(), T)).into();
    window
}

mod instants {
    use proptest::prelude::*;

    use super::*;

    fn instant() -> impl Strategy<Value = i64> {
        let near = |at: i64| (-100_000_000_i64..100_000_000).prop_map(move |off| at.saturating_add(off));
        prop_oneof![
            any::<i64>(),
            Just(i64::MIN),
            Just(i64::MAX),
            near(0),
            near(T),
            near(i64::MIN),
            near(i64::MAX),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

        // P15: whatever an instant from outside is, the account is judged, and nobody else waits for it.
        #[test]
        fn no_instant_makes_a_story_panic(
            instants in proptest::collection::vec(instant(), 40),
            received in instant(),
            ahead in instant(),
        ) {
            let mut window = everything();
            let mut each = instants.into_iter().cycle();
            redated(&mut window, || each.next().unwrap_or_default());
            let told = judge(&window, &rules(), Timestamp::from_millis(received), Span::from_millis(ahead));
            prop_assert!(told.len() >= 8);
        }
    }
}
