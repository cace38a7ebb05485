//! Administrators at Keycloak: they switch accounts off and on again, and take a role away and give it back, past
//! Reentry. What they withdraw is to go here too, within the lifetime of a token that is out (P16, ISS-12).

use std::sync::Arc;
use std::time::{Duration, Instant};

use reentry_test_support::clock::now_ms;
use serde_json::json;

use crate::chance::Chance;
use crate::chronicle::{Withdrawal, Withdrawn};
use crate::company::{ACCESS, ROLE, name};
use crate::people::Town;

/// Of whom they take something: the first loses the account, the second the role.
const OF: [(usize, Withdrawn); 2] = [(5, Withdrawn::Account), (6, Withdrawn::Role)];

/// Works until the time is over. Everything is given back in the end.
pub async fn work(town: Arc<Town>, seed: u64) {
    let mut chance = Chance::new(seed, 1_000);
    tokio::time::sleep(chance.span(3_000, 9_000)).await;
    while Instant::now() < town.until {
        let (person, what) = OF[chance.below(OF.len())];
        change(&town, person, what, false).await;
        let withdrawal = Withdrawal {
            person,
            what,
            from: now_ms(),
            until: None,
        };
        town.write(|c| c.withdrawals.push(withdrawal));
        // Long enough for somebody to be refused, and for a token of before to die.
        tokio::time::sleep(Duration::from_millis(2 * ACCESS) + chance.span(2_000, 9_000)).await;
        let until = now_ms();
        town.write(|c| {
            for of in c.withdrawals.iter_mut().filter(|w| w.person == person) {
                of.until = of.until.or(Some(until));
            }
        });
        change(&town, person, what, true).await;
        tokio::time::sleep(chance.span(6_000, 12_000)).await;
    }
}

async fn change(town: &Town, person: usize, what: Withdrawn, given: bool) {
    let id = town.realm.user_id(&name(person)).await;
    match what {
        Withdrawn::Account => {
            let mut user = town.realm.get(&format!("users/{id}")).await;
            user["enabled"] = json!(given);
            town.realm.put(&format!("users/{id}"), &user).await;
        }
        Withdrawn::Role => {
            let role = town.realm.get(&format!("roles/{ROLE}")).await;
            let path = format!("users/{id}/role-mappings/realm");
            if given {
                town.realm.post(&path, &json!([role])).await;
            } else {
                town.realm.delete(&path, Some(&json!([role]))).await;
            }
        }
    }
}
