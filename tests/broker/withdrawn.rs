//! What the IdP ends or takes away ends or goes here too (ISS-12, P16), and nothing is given before its log was read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reentry::domain::audit::Entry;
use reentry::domain::change::ChangeKind;
use reentry::domain::session::Withdrawal;
use reentry::domain::subject::UpstreamId;
use reentry::domain::subject::account::{ChannelId, Contact, ContactKind};
use reentry::domain::time::{Span, Timestamp};
use reentry::flow::watch::Known;
use reentry::flow::{ingest, session};
use reentry::ports::clock::Clock as _;
use reentry::ports::idp::{Heard, Line};
use serde_json::json;

use crate::house::{House, SUB, payload};
use crate::op::Word;
use crate::rp::{Browser, authorize_url, code, introspect, log_in, redeem, refresh, text, tokens, userinfo};

const OFFLINE: (&str, &str) = ("scope", "openid accounts:read offline_access");

async fn withdraw(house: &House, what: Withdrawal) {
    session::withdraw(&house.flow, &House::subject(), &what)
        .await
        .unwrap();
}

fn now(house: &House) -> Timestamp {
    house.clock.now()
}

async fn audit(house: &House, action: &str) -> Vec<Entry> {
    let key = house.flow.key(&House::subject());
    let end = Timestamp::from_millis(i64::MAX);
    let lines = house.flow.store.audit(Some(&key), end, 100).await.unwrap();
    let lines = lines.into_iter().map(|(_, entry)| entry);
    lines.filter(|entry| entry.action == action).collect()
}

#[tokio::test]
async fn iss12_a_session_that_the_idp_ended_is_dead_at_once_and_what_outlives_it_lives() {
    let house = House::new().await;
    let mut browser = Browser::default();
    let online = tokens(&house, &mut browser, &[]).await;
    let offline = tokens(&house, &mut browser, &[OFFLINE]).await;
    let other = Withdrawal::Session {
        sid: "kc-session-2".to_owned(),
        at: now(&house),
        offline: false,
    };
    withdraw(&house, other).await;
    assert_eq!(
        introspect(&house, text(&online, "access_token")).await.json()["active"],
        true
    );
    let own = |offline| Withdrawal::Session {
        sid: "kc-session-1".to_owned(),
        at: now(&house),
        offline,
    };
    withdraw(&house, own(false)).await;
    for token in ["access_token", "refresh_token"] {
        assert_eq!(
            introspect(&house, text(&online, token)).await.json(),
            json!({"active": false})
        );
    }
    assert_eq!(userinfo(&house, text(&online, "access_token")).await.status, 401);
    let refused = refresh(&house, text(&online, "refresh_token")).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]),
        (400, &json!("invalid_grant"))
    );
    let silent = browser
        .get(&house, &authorize_url(&house, &[("prompt", "none")]))
        .await;
    assert_eq!(silent.error(), "login_required");
    // Back-Channel Logout 1.0 section 2.7.
    assert_eq!(
        introspect(&house, text(&offline, "access_token")).await.json()["active"],
        true
    );
    let next = refresh(&house, text(&offline, "refresh_token")).await;
    assert_eq!(next.status, 200, "{}", next.body);
    withdraw(&house, own(true)).await;
    let gone = refresh(&house, text(&next.json(), "refresh_token")).await;
    assert_eq!(
        (gone.status, &gone.json()["error"]),
        (400, &json!("invalid_grant"))
    );
    withdraw(&house, own(true)).await;
    assert_eq!(
        audit(&house, "sessions_withdrawn").await.len(),
        2,
        "closed, then ended, and nothing when it is heard again"
    );
}

#[tokio::test]
async fn iss12_signed_out_everywhere_spares_a_log_in_of_afterwards() {
    let house = House::new().await;
    let before = tokens(&house, &mut Browser::default(), &[OFFLINE]).await;
    house.pass(Span::from_secs(2));
    let everywhere = Withdrawal::Sessions {
        at: now(&house),
        offline: true,
    };
    house.pass(Span::from_secs(2));
    house.op.say(&Word {
        auth_time: Some(house.now()),
        sid: "kc-session-2".to_owned(),
        ..Word::default()
    });
    let after = tokens(&house, &mut Browser::default(), &[]).await;
    withdraw(&house, everywhere.clone()).await;
    withdraw(&house, everywhere).await;
    assert_eq!(refresh(&house, text(&before, "refresh_token")).await.status, 400);
    assert_eq!(
        introspect(&house, text(&before, "access_token")).await.json()["active"],
        false
    );
    assert_eq!(refresh(&house, text(&after, "refresh_token")).await.status, 200);
}

#[tokio::test]
async fn p16_a_role_that_was_taken_away_leaves_with_the_next_token_and_is_asked_about_once() {
    let house = House::new().await;
    house
        .admin
        .roles
        .lock()
        .unwrap()
        .extend(["payer".to_owned(), "viewer".to_owned()]);
    let (mut one, mut two) = (Browser::default(), Browser::default());
    let first = tokens(&house, &mut one, &[]).await;
    let second = tokens(&house, &mut two, &[]).await;
    assert_eq!(
        payload(text(&first, "access_token"))["roles"],
        json!(["payer", "viewer"])
    );
    house.admin.roles.lock().unwrap().remove("payer");
    let asked = house.admin.asked.load(Ordering::SeqCst);
    house.pass(Span::from_mins(14));
    let young = refresh(&house, text(&first, "refresh_token")).await.json();
    assert_eq!(
        payload(text(&young, "access_token"))["roles"],
        json!(["payer", "viewer"]),
        "not older yet"
    );
    assert_eq!(house.admin.asked.load(Ordering::SeqCst), asked);
    house.pass(Span::from_mins(2));
    let old = refresh(&house, text(&young, "refresh_token")).await.json();
    assert_eq!(payload(text(&old, "access_token"))["roles"], json!(["viewer"]));
    let other = refresh(&house, text(&second, "refresh_token")).await.json();
    assert_eq!(payload(text(&other, "access_token"))["roles"], json!(["viewer"]));
    assert_eq!(
        house.admin.asked.load(Ordering::SeqCst),
        asked + 1,
        "once for the account"
    );
}

#[tokio::test]
async fn p16_an_account_that_was_disabled_or_deleted_gets_nothing_and_loses_what_it_has() {
    for deleted in [false, true] {
        let house = House::new().await;
        let mut browser = Browser::default();
        let online = tokens(&house, &mut browser, &[]).await;
        let offline = tokens(&house, &mut browser, &[OFFLINE]).await;
        let how = if deleted {
            &house.admin.strange
        } else {
            &house.admin.disabled
        };
        how.store(true, Ordering::SeqCst);
        house.pass(Span::from_mins(16));
        let refused = refresh(&house, text(&online, "refresh_token")).await;
        assert_eq!(
            (refused.status, &refused.json()["error"]),
            (400, &json!("invalid_grant"))
        );
        // It has ended for good, offline families too.
        how.store(false, Ordering::SeqCst);
        let gone = refresh(&house, text(&offline, "refresh_token")).await;
        assert_eq!(
            (gone.status, &gone.json()["error"]),
            (400, &json!("invalid_grant"))
        );
        assert_eq!(
            introspect(&house, text(&offline, "access_token")).await.json(),
            json!({"active": false})
        );
        assert_eq!(audit(&house, "sessions_withdrawn").await.len(), 1);

        let house = House::new().await;
        let mut browser = Browser::default();
        tokens(&house, &mut browser, &[]).await;
        let how = if deleted {
            &house.admin.strange
        } else {
            &house.admin.disabled
        };
        how.store(true, Ordering::SeqCst);
        house.pass(Span::from_mins(16));
        let silent = browser
            .get(&house, &authorize_url(&house, &[("prompt", "none")]))
            .await;
        assert_eq!(silent.error(), "login_required");
        assert_eq!(log_in(&house, &mut browser, &[]).await.error(), "access_denied");
    }
}

#[tokio::test]
async fn p16_what_cannot_be_had_restricts_until_it_can() {
    let house = House::new().await;
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    house.pass(Span::from_mins(16));
    house.admin.down.store(true, Ordering::SeqCst);
    let none = refresh(&house, text(&first, "refresh_token")).await.json();
    assert_eq!(payload(text(&none, "access_token"))["recovery_scope"], "none");
    house.admin.down.store(false, Ordering::SeqCst);
    house.pass(Span::from_secs(2));
    let full = refresh(&house, text(&none, "refresh_token")).await.json();
    assert_eq!(payload(text(&full, "access_token"))["recovery_scope"], "full");
}

fn upstream() -> UpstreamId {
    UpstreamId::parse("kc").unwrap()
}

#[tokio::test]
async fn p5_before_the_log_was_read_to_its_end_nothing_is_given_and_nothing_consumed() {
    let house = House::logging().await;
    let watch = &house.flow.watch;
    watch.every(&upstream(), Duration::from_secs(2));
    watch.read_until(&upstream(), now(&house));
    let given = tokens(&house, &mut Browser::default(), &[]).await;
    let waiting = code(&house, &mut Browser::default(), &[]).await;

    // Another process on the same store, which has read nothing yet.
    let other = house.restarted().await;
    assert_eq!(other.flow.watch.known(&upstream(), now(&house)), Known::Never);
    for seen in [
        redeem(&other, &waiting).await,
        refresh(&other, text(&given, "refresh_token")).await,
        introspect(&other, text(&given, "refresh_token")).await,
    ] {
        assert_eq!(seen.status, 503, "{}", seen.body);
        assert!(seen.headers.contains_key("retry-after"));
    }
    for seen in [
        introspect(&other, text(&given, "access_token")).await,
        userinfo(&other, text(&given, "access_token")).await,
    ] {
        assert_eq!(
            (seen.status, &seen.json()["recovery_scope"]),
            (200, &json!("none")),
            "{}",
            seen.body
        );
    }
    other.flow.watch.read_until(&upstream(), now(&house));
    assert_eq!(redeem(&other, &waiting).await.status, 200);
    assert_eq!(refresh(&other, text(&given, "refresh_token")).await.status, 200);
    let seen = introspect(&other, text(&given, "access_token")).await.json();
    assert_eq!(seen["recovery_scope"], "full");
}

#[tokio::test]
async fn p5_a_refresh_asks_as_a_log_in_does_when_the_log_was_not_followed_for_a_moment() {
    let house = Arc::new(House::logging().await);
    let watch = &house.flow.watch;
    watch.every(&upstream(), Duration::from_secs(2));
    watch.read_until(&upstream(), now(&house));
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let second = tokens(&house, &mut Browser::default(), &[]).await;
    let asked = || house.admin.asked.load(Ordering::SeqCst);
    let before = asked();
    let next = refresh(&house, text(&first, "refresh_token")).await.json();
    assert_eq!(asked(), before, "in normal running it costs nothing");
    house.pass(Span::from_secs(10));
    let mut change = house.change(ChangeKind::PasswordReset);
    change.session = Some("kc-session-1".to_owned());
    house.admin.lines.lock().unwrap().push(Line {
        sub: SUB.to_owned(),
        heard: Heard::Change(change),
    });
    let (one, two) = futures_util::future::join(
        refresh(&house, text(&next, "refresh_token")),
        refresh(&house, text(&second, "refresh_token")),
    )
    .await;
    for seen in [one, two] {
        assert_eq!(
            payload(text(&seen.json(), "access_token"))["recovery_scope"],
            "read write"
        );
    }
    assert_eq!(asked(), before + 1, "once for both");
    house.pass(Span::from_secs(10));
    house.admin.down.store(true, Ordering::SeqCst);
    let third = tokens_of_refresh(&house, &second).await;
    assert!(third.is_none() || third.as_deref() == Some("none"), "{third:?}");
}

/// What a refresh with the newest token of a family says; the family of `given` was rotated once.
async fn tokens_of_refresh(house: &House, given: &serde_json::Value) -> Option<String> {
    let seen = refresh(house, text(given, "refresh_token")).await;
    let answer = seen.json();
    let access = answer["access_token"].as_str()?;
    payload(access)["recovery_scope"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn iss6_an_idp_that_does_not_say_when_the_log_in_was_opens_no_session_after_a_cut() {
    let house = House::new().await;
    let silent = Word {
        auth_time: None,
        ..Word::default()
    };
    house.op.say(&silent);
    tokens(&house, &mut Browser::default(), &[]).await;
    house.pass(Span::from_secs(5));
    house.reset(None).await;
    house.pass(Span::from_secs(5));
    let answer = log_in(&house, &mut Browser::default(), &[]).await;
    assert_eq!(answer.error(), "login_required");
    house.op.say(&Word {
        auth_time: Some(house.now()),
        ..Word::default()
    });
    tokens(&house, &mut Browser::default(), &[]).await;
}

#[tokio::test]
async fn the_thirty_third_session_displaces_the_oldest_that_nothing_outlives_and_says_so() {
    let house = House::new().await;
    let kept = tokens(&house, &mut Browser::default(), &[OFFLINE]).await;
    let oldest = tokens(&house, &mut Browser::default(), &[]).await;
    for _ in 0..30 {
        tokens(&house, &mut Browser::default(), &[]).await;
    }
    assert!(audit(&house, "session_displaced").await.is_empty());
    tokens(&house, &mut Browser::default(), &[]).await;
    assert_eq!(
        refresh(&house, text(&kept, "refresh_token")).await.status,
        200,
        "offline"
    );
    assert_eq!(refresh(&house, text(&oldest, "refresh_token")).await.status, 400);
    assert_eq!(
        introspect(&house, text(&oldest, "access_token")).await.json()["active"],
        false
    );
    let told = audit(&house, "session_displaced").await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].details["clients"], "bank");
}

#[tokio::test]
async fn a_lost_answer_is_given_again_for_the_grace_alone_and_a_reuse_is_written_down() {
    let house = House::new().await;
    let mut policy = house.flow.policy.load().as_ref().clone();
    policy.lifetimes.refresh_grace = Span::from_secs(20);
    house.flow.policy.store(Arc::new(policy));
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let next = refresh(&house, text(&first, "refresh_token")).await.json();
    house.pass(Span::from_secs(19));
    let again = refresh(&house, text(&first, "refresh_token")).await.json();
    assert_eq!(again["refresh_token"], next["refresh_token"]);
    house.pass(Span::from_secs(1));
    assert_eq!(
        refresh(&house, text(&first, "refresh_token")).await.status,
        400,
        "asking again extends nothing"
    );
    assert_eq!(refresh(&house, text(&next, "refresh_token")).await.status, 400);
    let told = audit(&house, "refresh_family_revoked").await;
    assert_eq!(told.len(), 1);
    assert_eq!(
        (
            told[0].details["client"].as_str(),
            told[0].details["newest"].as_str()
        ),
        ("bank", "2")
    );

    // Within the grace, but the successor was used: that is no lost answer.
    let first = tokens(&house, &mut Browser::default(), &[]).await;
    let next = refresh(&house, text(&first, "refresh_token")).await.json();
    let last = refresh(&house, text(&next, "refresh_token")).await.json();
    assert_eq!(refresh(&house, text(&first, "refresh_token")).await.status, 400);
    assert_eq!(refresh(&house, text(&last, "refresh_token")).await.status, 400);
}

// P2
#[tokio::test]
async fn p2_an_account_that_was_deleted_while_held_and_made_again_begins_as_restricted() {
    for frozen in [false, true] {
        let house = House::new().await;
        house.admin.created.store(now(&house).millis(), Ordering::SeqCst);
        house
            .admin
            .names
            .lock()
            .unwrap()
            .push("username:alice".to_owned());
        tokens(&house, &mut Browser::default(), &[]).await;
        let made = Line {
            sub: SUB.to_owned(),
            heard: Heard::Touched {
                id: "made".to_owned(),
            },
        };
        ingest::line(&house.flow, &upstream(), &made, ingest::Era::Ours)
            .await
            .unwrap();
        house.pass(Span::from_secs(5));
        if frozen {
            house.freeze().await;
        } else {
            house.reset(None).await;
        }
        let deleted = Line {
            sub: SUB.to_owned(),
            heard: Heard::Withdrawn {
                id: "deleted".to_owned(),
                what: Withdrawal::Account,
            },
        };
        for _ in 0..2 {
            ingest::line(&house.flow, &upstream(), &deleted, ingest::Era::Ours)
                .await
                .unwrap();
        }
        assert_eq!(audit(&house, "held_account_deleted").await.len(), 1);
        house.pass(Span::from_secs(5));
        house.op.say(&Word {
            sub: "alice-again".to_owned(),
            sid: "kc-session-2".to_owned(),
            auth_time: Some(house.now()),
            ..Word::default()
        });
        if frozen {
            assert_eq!(
                log_in(&house, &mut Browser::default(), &[]).await.error(),
                "access_denied"
            );
            continue;
        }
        let given = tokens(&house, &mut Browser::default(), &[]).await;
        assert_eq!(
            payload(text(&given, "access_token"))["recovery_scope"],
            "read write"
        );
        // Somebody else is not meant.
        house.admin.names.lock().unwrap().clear();
        house.op.say(&Word {
            sub: "bob".to_owned(),
            sid: "kc-session-3".to_owned(),
            auth_time: Some(house.now()),
            ..Word::default()
        });
        let given = tokens(&house, &mut Browser::default(), &[]).await;
        assert_eq!(payload(text(&given, "access_token"))["recovery_scope"], "full");
    }
}

fn contact(kind: ContactKind, address: &str, verified: bool) -> Contact {
    Contact {
        id: ChannelId(String::new()),
        kind,
        address: address.to_owned(),
        verified,
        since: Timestamp::from_secs(0),
        gone: None,
    }
}

// P17, P2: what anybody can write into an account is no name of it: a frozen account that goes takes along nobody whose
// address or number it had written down; only an address that it had proven is its own.
#[tokio::test]
async fn p17_an_address_that_was_never_proven_restricts_nobody_whose_it_is() {
    let cases = [
        (ContactKind::Email, false, "full"),
        (ContactKind::Phone, true, "full"),
        (ContactKind::Email, true, "read write"),
    ];
    for (kind, verified, expected) in cases {
        let house = House::new().await;
        house.admin.created.store(now(&house).millis(), Ordering::SeqCst);
        *house.admin.contacts.lock().unwrap() = vec![contact(kind, "somebody@example.com", verified)];
        tokens(&house, &mut Browser::default(), &[]).await;
        house.pass(Span::from_secs(5));
        house.reset(None).await;
        let heard = |id: &str, heard: fn(String) -> Heard| Line {
            sub: SUB.to_owned(),
            heard: heard(id.to_owned()),
        };
        let lines = [
            heard("touched", |id| Heard::Touched { id }),
            heard("deleted", |id| Heard::Withdrawn {
                id,
                what: Withdrawal::Account,
            }),
        ];
        for line in lines {
            ingest::line(&house.flow, &upstream(), &line, ingest::Era::Ours)
                .await
                .unwrap();
        }
        assert_eq!(audit(&house, "held_account_deleted").await.len(), 1);
        house.pass(Span::from_secs(5));
        house.op.say(&Word {
            sub: "somebody".to_owned(),
            sid: "kc-session-2".to_owned(),
            auth_time: Some(house.now()),
            ..Word::default()
        });
        let given = tokens(&house, &mut Browser::default(), &[]).await;
        let scope = payload(text(&given, "access_token"))["recovery_scope"].clone();
        assert_eq!(scope, expected, "{kind:?}, verified: {verified}");
        let told = waiting(&house, "restriction_kept").await;
        assert_eq!(told, expected != "full", "whoever is restricted is told (P8)");
    }
}

/// Whether a message of this kind waits in the outbox.
async fn waiting(house: &House, message: &str) -> bool {
    let all = house.flow.store.waiting(100).await.unwrap();
    all.iter().any(|entry| entry.id.contains(message))
}
