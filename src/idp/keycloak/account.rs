//! One account as Keycloak shows it now: contacts, factors, and the facts that tiers are chosen by.
//!
//! Keycloak keeps no age of an address. It is taken from the logs as far as they go, and from the making of the
//! account otherwise; the snapshot in our store, once it is there, knows better and keeps its own ages.

use std::collections::{BTreeMap, BTreeSet};

mod logs;

use futures_util::future::{join, join3, try_join, try_join3};

use super::absent::{found, there};
use super::admin::{AdminError, AdminEventQuery, AdminOnly, ClientRole, Direction, text};
use super::events::{self, AdminAct};
use super::representations::{AdminEvent, Attributes, Credential, Event, FederatedIdentity, User};
use super::{Keycloak, administrators, idp, story};
use crate::domain::subject::account::{Account, ChannelId, Contact, ContactKind, Factor, FactorClass, Facts};
use crate::domain::time::Timestamp;
use crate::ports::idp::{IdpError, Reading};
use logs::LINKED;
pub use logs::Logs;

/// Prefix of the id of a factor that is a login at another provider.
pub const LINK: &str = "link:";

/// Administrators' acts that linked an account with logins at other providers, as many as are read.
const LINKS: u32 = 200;

/// Attributes by which a realm says that a telephone number was proven.
const PHONE_VERIFIED: [&str; 2] = ["phoneNumberVerified", "phone_number_verified"];

/// Everything that an account's reading is made of.
struct Parts {
    user: User,
    credentials: Vec<Credential>,
    links: Vec<FederatedIdentity>,
    logs: Contacts,
    /// Administrators' acts that gave it logins at other providers.
    links_given: Vec<AdminEvent>,
}

/// What both logs know of an account's addresses, the latest rows.
struct Contacts {
    events: Vec<Event>,
    admin: Vec<AdminEvent>,
}

/// An address that an account no longer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// `email`, or the attribute that a telephone number was in.
    pub name: String,
    /// The address.
    pub address: String,
    /// Since when it is gone, in milliseconds since the epoch by Keycloak's clock: the time of the event that tells so.
    pub gone: i64,
}

/// The addresses that the logs know an account to have had.
pub async fn former(keycloak: &Keycloak, logs: &Logs) -> Result<Vec<Former>, AdminError> {
    let told = contacts_told(keycloak, logs).await?;
    let names = std::iter::once("email").chain(keycloak.settings.phone_attributes.iter().map(String::as_str));
    let each = names.flat_map(|name| {
        let spells = history(&told, name, None, Timestamp::from_millis(0));
        spells.into_iter().filter_map(|spell| {
            Some(Former {
                name: name.to_owned(),
                address: spell.address,
                gone: spell.gone?.millis(),
            })
        })
    });
    Ok(each.collect())
}

async fn contacts_told(keycloak: &Keycloak, logs: &Logs) -> Result<Contacts, AdminError> {
    let (events, admin) = logs.contacts(keycloak).await?;
    Ok(Contacts { events, admin })
}

/// Reads one account live: what the logs tell of it, then all else side by side.
pub async fn read(keycloak: &Keycloak, sub: &str) -> Result<Reading, IdpError> {
    let admin = &keycloak.admin;
    let logs = found(keycloak, sub, Logs::read(keycloak, sub, None).await).await?;
    let itself = try_join(admin.user(sub), admin.credentials(sub));
    let (itself, beside) = join(itself, beside(keycloak, sub, &logs)).await;
    let (user, credentials) = found(keycloak, sub, itself).await?;
    there(keycloak, sub).await;
    reading(keycloak, (user, credentials), beside?, sub).await
}

/// What a reading has beside the account itself and its credentials.
pub struct Beside {
    links: Vec<FederatedIdentity>,
    links_given: Vec<AdminEvent>,
    contacts: Contacts,
    standing: Option<Standing>,
}

/// Reads that.
pub async fn beside(keycloak: &Keycloak, sub: &str, logs: &Logs) -> Result<Beside, IdpError> {
    let links = async {
        let links = keycloak.admin.federated_identities(sub).await?;
        let given = if links.is_empty() {
            Vec::new()
        } else {
            links_given(keycloak, sub, logs).await?
        };
        Ok((links, given))
    };
    let contacts = contacts_told(keycloak, logs);
    let (links, contacts, standing) = join3(links, contacts, standing(keycloak, sub, logs)).await;
    let (links, links_given) = found(keycloak, sub, links).await?;
    let standing = standing.inspect_err(|error| {
        tracing::warn!(%error, "roles, groups or attributes of an account cannot be read: strictest tier");
    });
    Ok(Beside {
        links,
        links_given,
        contacts: found(keycloak, sub, contacts).await?,
        standing: standing.ok(),
    })
}

/// The reading that these parts make.
pub async fn reading(
    keycloak: &Keycloak,
    (user, credentials): (User, Vec<Credential>),
    beside: Beside,
    sub: &str,
) -> Result<Reading, IdpError> {
    let Beside {
        links,
        links_given,
        contacts,
        standing,
    } = beside;
    let on = user.enabled;
    if let Some(standing) = &standing {
        administrators::remember(keycloak, sub, &standing.client).await;
    }
    let facts = standing.map(|standing| facts(standing, &user));
    let parts = Parts {
        user,
        credentials,
        links,
        logs: contacts,
        links_given,
    };
    let ahead = keycloak.ahead(&keycloak.admin.own().await.map_err(idp)?);
    let clock = keycloak.clock.now().plus(ahead);
    let carried = facts.as_ref().map(|facts| super::act::carried(facts, on));
    Ok(Reading {
        account: account(&parts, &keycloak.settings.phone_attributes, clock),
        facts,
        carried,
        ahead,
    })
}

/// The acts of administrators that linked this account with logins at other providers.
async fn links_given(keycloak: &Keycloak, sub: &str, logs: &Logs) -> Result<Vec<AdminEvent>, AdminError> {
    let query = AdminEventQuery {
        resource_path: Some(format!("users/{sub}/federated-identity/*")),
        operation_types: vec!["CREATE".to_owned()],
        direction: Direction::Descending,
        max: LINKS,
        ..AdminEventQuery::default()
    };
    let mut acts = logs.acts(keycloak, &query).await?;
    // An id may hold what stands for anything in a query.
    acts.retain(|act| events::admin_act(act).is_some_and(|(of, _)| of == sub));
    Ok(acts)
}

/// What tiers are chosen by, but for the declared attributes, which the user itself carries.
struct Standing {
    roles: BTreeSet<String>,
    client: Vec<ClientRole>,
    groups: BTreeSet<String>,
    only: AdminOnly,
    undeclared: Attributes,
}

async fn standing(keycloak: &Keycloak, sub: &str, logs: &Logs) -> Result<Standing, AdminError> {
    let admin = &keycloak.admin;
    let (realm, groups, only) = try_join3(
        admin.effective_realm_roles(sub),
        admin.user_groups(sub),
        keycloak.admin_only(),
    )
    .await?;
    let client = administrators::client_roles(keycloak, sub, (&groups, &realm), Some(logs)).await?;
    let undeclared = if only.undeclared {
        admin.undeclared_attributes(sub).await?
    } else {
        Attributes::default()
    };
    let realm = realm.into_iter().map(|role| role.name);
    let of_clients = client.iter().map(|role| format!("{}/{}", role.client, role.role));
    let groups = groups.into_iter().map(|group| group.path.unwrap_or(group.name));
    Ok(Standing {
        roles: realm.chain(of_clients).collect(),
        client,
        groups: groups.collect(),
        only,
        undeclared,
    })
}

fn facts(standing: Standing, user: &User) -> Facts {
    let all = user.attributes.clone().unwrap_or_default();
    let declared = all
        .into_iter()
        .filter(|(name, _)| standing.only.declared.contains(name));
    Facts {
        roles: standing.roles,
        groups: standing.groups,
        attributes: declared.chain(standing.undeclared).collect(),
    }
}

fn account(parts: &Parts, phone_attributes: &[String], clock: Timestamp) -> Account {
    let user = &parts.user;
    let created = story::made(user.created_timestamp.unwrap_or_default(), clock);
    let created = Timestamp::from_millis(created);
    Account {
        created,
        name: name(user),
        contacts: contacts(parts, created, phone_attributes),
        factors: factors(parts, created),
        enabled: user.enabled,
        locale: attribute(user, "locale").next().map(str::to_owned),
        names: names(user),
    }
}

/// What an account is known by that was deleted and made again: its user name, and its id in a directory.
fn names(user: &User) -> Vec<String> {
    let username = user.username.iter().map(|name| format!("username:{name}"));
    let directory = attribute(user, "LDAP_ID").map(|id| format!("directory:{id}"));
    username.chain(directory).collect()
}

fn name(user: &User) -> String {
    let part = |member: &str| {
        user.rest
            .get(member)
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
    };
    let full = format!("{} {}", part("firstName"), part("lastName"));
    let full = full.trim();
    if full.is_empty() {
        user.username.clone().unwrap_or_default()
    } else {
        full.to_owned()
    }
}

fn attribute<'a>(user: &'a User, name: &str) -> impl Iterator<Item = &'a str> {
    let values = user.attributes.as_ref().and_then(|all| all.get(name));
    values
        .into_iter()
        .flatten()
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}

fn factors(parts: &Parts, created: Timestamp) -> Vec<Factor> {
    let factor = |id: String, class, at: i64| Factor {
        id,
        class,
        created: Timestamp::from_millis(at),
        gone: None,
        at_creation: story::is_of_making(at, created.millis()),
        remaining: None,
    };
    let undated = Factor::UNDATED.millis();
    let listed = parts
        .credentials
        .iter()
        .filter(|credential| events::is_factor(&credential.kind));
    let credentials = listed.map(|credential| {
        let at = credential.created_date.unwrap_or(undated);
        Factor {
            remaining: remaining(credential),
            ..factor(credential.name(), events::class(&credential.kind), at)
        }
    });
    // A link has no date of its own: that of the latest line which tells of it, the user's own or an administrator's, or
    // that of the account when the logs have forgotten it.
    let links = parts.links.iter().map(|link| {
        let by_user = parts.logs.events.iter().filter(|event| {
            LINKED.contains(&event.kind.as_str())
                && event.error.is_none()
                && event.details.get("identity_provider") == Some(&link.identity_provider)
        });
        let by_admin = parts.links_given.iter().filter(|act| {
            matches!(events::admin_act(act), Some((_, AdminAct::Linked(provider))) if provider == link.identity_provider)
        });
        let times = by_user.map(|event| event.time).chain(by_admin.map(|act| act.time));
        let at = times.max().unwrap_or(created.millis());
        factor(
            format!("{LINK}{}", link.identity_provider),
            FactorClass::FederatedLink,
            at,
        )
    });
    credentials.chain(links).collect()
}

/// How many recovery codes are left.
fn remaining(credential: &Credential) -> Option<u32> {
    if events::class(&credential.kind) != FactorClass::RecoveryCodes {
        return None;
    }
    let data: serde_json::Value = serde_json::from_str(credential.credential_data.as_deref()?).ok()?;
    u32::try_from(data.get("remainingCodes")?.as_u64()?).ok()
}

fn contacts(parts: &Parts, created: Timestamp, phone_attributes: &[String]) -> Vec<Contact> {
    let user = &parts.user;
    let mut contacts = Vec::new();
    let email = user.email.as_deref().filter(|address| !address.is_empty());
    contacts.extend(
        history(&parts.logs, "email", email, created)
            .into_iter()
            .map(|span| {
                let verified = if span.gone.is_none() {
                    user.email_verified
                } else {
                    verified(parts, &span.address)
                };
                contact(ContactKind::Email, span, verified)
            }),
    );
    let phone_verified = PHONE_VERIFIED
        .iter()
        .any(|name| attribute(user, name).any(|value| value == "true"));
    let mut known = BTreeSet::new();
    for name in phone_attributes {
        let now: Vec<&str> = attribute(user, name).collect();
        for number in now.iter().skip(1) {
            let span = Spell {
                address: (*number).to_owned(),
                since: created,
                gone: None,
            };
            contacts.push(contact(ContactKind::Phone, span, phone_verified));
        }
        let spells = history(&parts.logs, name, now.first().copied(), created);
        contacts.extend(spells.into_iter().map(|span| {
            let verified = phone_verified && span.gone.is_none();
            contact(ContactKind::Phone, span, verified)
        }));
    }
    // Present ones first, each address once.
    contacts.sort_by_key(|contact| (contact.gone.is_some(), contact.kind));
    contacts.retain(|contact| known.insert((contact.kind, contact.address.to_lowercase())));
    contacts
}

fn contact(kind: ContactKind, spell: Spell, verified: bool) -> Contact {
    Contact {
        id: ChannelId(String::new()),
        kind,
        address: spell.address,
        verified,
        since: spell.since,
        gone: spell.gone,
    }
}

fn verified(parts: &Parts, address: &str) -> bool {
    parts.logs.events.iter().any(|event| {
        event.kind == "VERIFY_EMAIL"
            && event.error.is_none()
            && event
                .details
                .get("email")
                .is_some_and(|email| email.eq_ignore_ascii_case(address))
    })
}

/// How long an account had an address.
struct Spell {
    address: String,
    since: Timestamp,
    gone: Option<Timestamp>,
}

/// The addresses that the logs know `name` to have had, and the one it has `now`.
fn history(logs: &Contacts, name: &str, now: Option<&str>, created: Timestamp) -> Vec<Spell> {
    let (previous, updated) = (format!("previous_{name}"), format!("updated_{name}"));
    let text = |details: &BTreeMap<String, String>, key: &str| {
        details
            .get(key)
            .map(|value| value.split("::").next().unwrap_or_default().to_owned())
    };
    // (when, before if said, after)
    let mut seen: Vec<(i64, Option<String>, String)> = Vec::new();
    for event in logs.events.iter().filter(|event| event.error.is_none()) {
        if let Some(after) =
            text(&event.details, &updated).or_else(|| event.details.contains_key(&previous).then(String::new))
        {
            seen.push((event.time, text(&event.details, &previous), after));
        }
    }
    seen.extend(
        logs.admin
            .iter()
            .filter_map(|event| Some((event.time, None, edited(event, name)?))),
    );
    seen.sort_by_key(|(time, ..)| *time);
    let (mut spells, mut current): (Vec<Spell>, Option<(String, Timestamp)>) = (Vec::new(), None);
    for (time, before, after) in seen {
        let at = Timestamp::from_millis(time);
        if current.is_none() {
            let first = before.unwrap_or_else(|| after.clone());
            current = Some((first, created));
        }
        if let Some((address, since)) = current.take_if(|(address, _)| !address.eq_ignore_ascii_case(&after))
        {
            spells.push(Spell {
                address,
                since,
                gone: Some(at),
            });
            current = Some((after, at));
        }
    }
    let since = |address: &str| match &current {
        Some((last, since)) if last.eq_ignore_ascii_case(address) => *since,
        _ => created,
    };
    spells.extend(now.map(|address| Spell {
        address: address.to_owned(),
        since: since(address),
        gone: None,
    }));
    spells.retain(|spell| !spell.address.is_empty());
    spells
}

/// What an administrator's edit sent for `name`.
fn edited(event: &AdminEvent, name: &str) -> Option<String> {
    if !matches!(
        events::admin_act(event),
        Some((_, AdminAct::Created | AdminAct::Edited))
    ) {
        return None;
    }
    let sent: serde_json::Value = text::read(event.representation.as_deref()?.as_bytes()).ok()?;
    let value = sent
        .get(name)
        .or_else(|| sent.get("attributes")?.get(name)?.get(0))?;
    value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Timestamp = Timestamp::from_millis(4_000_000_000_000);

    fn parts(events: serde_json::Value, admin: serde_json::Value) -> Parts {
        let user = serde_json::json!({
            "id": "u", "username": "ann", "email": "new@example.test", "emailVerified": true, "enabled": true,
            "createdTimestamp": 1_000, "firstName": "Ann", "lastName": "Lee",
            "attributes": {"phone": ["+441"], "locale": ["de"], "phoneNumberVerified": ["true"]},
        });
        Parts {
            user: serde_json::from_value(user).unwrap(),
            credentials: serde_json::from_value(serde_json::json!([
                {"id": "p", "type": "password", "createdDate": 2_000},
                {"id": "o", "type": "otp", "createdDate": 900_000_000},
            ]))
            .unwrap(),
            links: serde_json::from_value(serde_json::json!([{"identityProvider": "corp"}])).unwrap(),
            logs: Contacts {
                events: serde_json::from_value(events).unwrap(),
                admin: serde_json::from_value(admin).unwrap(),
            },
            links_given: Vec::new(),
        }
    }

    // row C1: an address that was changed yesterday is still known today.
    #[test]
    fn the_log_knows_the_address_of_before_and_the_age_of_the_new_one() {
        let changed = serde_json::json!([
            {"id": "1", "time": 5_000, "type": "UPDATE_EMAIL", "userId": "u",
             "details": {"previous_email": "Old@example.test", "updated_email": "new@example.test"}},
            {"id": "2", "time": 4_000, "type": "VERIFY_EMAIL", "userId": "u", "details": {"email": "old@example.test"}},
        ]);
        let account = account(
            &parts(changed, serde_json::json!([])),
            &["phone".to_owned()],
            LATER,
        );
        let found: Vec<(&str, i64, Option<i64>, bool)> = account
            .contacts
            .iter()
            .map(|c| {
                (
                    c.address.as_str(),
                    c.since.millis(),
                    c.gone.map(Timestamp::millis),
                    c.verified,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("new@example.test", 5_000, None, true),
                ("+441", 1_000, None, true),
                ("Old@example.test", 1_000, Some(5_000), true),
            ]
        );
        assert_eq!(
            (account.name.as_str(), account.locale.as_deref()),
            ("Ann Lee", Some("de"))
        );
    }

    #[test]
    fn an_edit_by_an_administrator_dates_the_address_too() {
        let edits = serde_json::json!([
            {"id": "1", "time": 1_001, "operationType": "CREATE", "resourcePath": "users/u",
             "representation": "{\"email\":\"old@example.test\"}"},
            {"id": "2", "time": 7_000, "operationType": "UPDATE", "resourcePath": "users/u",
             "representation": "{\"email\":\"new@example.test\"}"},
        ]);
        let account = account(&parts(serde_json::json!([]), edits), &[], LATER);
        let found: Vec<(&str, i64)> = account
            .contacts
            .iter()
            .map(|c| (c.address.as_str(), c.since.millis()))
            .collect();
        assert_eq!(found, [("new@example.test", 7_000), ("old@example.test", 1_000)]);
    }

    // A directory keeps the password: Keycloak lists it without an id, and with `-1` for its date.
    #[test]
    fn a_credential_without_an_id_or_a_date_is_of_unknown_age_and_never_eligible() {
        let mut of_directory = parts(serde_json::json!([]), serde_json::json!([]));
        for forged in [
            serde_json::json!([{"type": "password", "createdDate": -1, "federationLink": "ldap"}]),
            serde_json::json!([{"type": "password", "federationLink": "ldap"}]),
            serde_json::json!([{"id": null, "type": "password", "createdDate": null, "federationLink": "ldap"}]),
        ] {
            of_directory.credentials = serde_json::from_value(forged).unwrap();
            let account = account(&of_directory, &[], LATER);
            let [password, _] = account.factors.as_slice() else {
                panic!("a password and a link");
            };
            assert_eq!(password.id, "stored:password:ldap");
            assert!(!password.is_dated() && !password.at_creation);
            for change in [0, 1_000, 4_000_000_000_000, i64::MAX] {
                let change = Timestamp::from_millis(change);
                assert!(!password.eligible(change, crate::domain::time::Span::ZERO));
            }
        }
    }

    #[test]
    fn factors_carry_their_ages() {
        let linked = serde_json::json!([
            {"id": "1", "time": 800_000, "type": "FEDERATED_IDENTITY_LINK", "userId": "u",
             "details": {"identity_provider": "corp"}},
        ]);
        let account = account(&parts(linked, serde_json::json!([])), &[], LATER);
        let found: Vec<(&str, FactorClass, i64, bool)> = account
            .factors
            .iter()
            .map(|f| (f.id.as_str(), f.class, f.created.millis(), f.at_creation))
            .collect();
        assert_eq!(
            found,
            [
                ("p", FactorClass::Password, 2_000, true),
                ("o", FactorClass::Otp, 900_000_000, false),
                ("link:corp", FactorClass::FederatedLink, 800_000, false),
            ]
        );
    }

    // P7: a link is as old as the latest line that tells of it, whoever made it.
    #[test]
    fn a_login_that_an_administrator_links_is_as_old_as_that_act() {
        let mut parts = parts(serde_json::json!([]), serde_json::json!([]));
        let age = |parts: &Parts| {
            let account = account(parts, &[], LATER);
            let link = account.factors.into_iter().find(|f| f.id == "link:corp").unwrap();
            (link.created.millis(), link.at_creation)
        };
        assert_eq!(age(&parts), (1_000, true), "no line tells of it any more");
        parts.links_given = serde_json::from_value(serde_json::json!([
            {"time": 600_000, "operationType": "CREATE", "resourcePath": "users/u/federated-identity/corp"},
            {"time": 900_000, "operationType": "CREATE", "resourcePath": "users/u/federated-identity/other"},
        ]))
        .unwrap();
        assert_eq!(age(&parts), (600_000, false));
        parts.logs.events = serde_json::from_value(serde_json::json!([
            {"time": 700_000, "type": "FEDERATED_IDENTITY_OVERRIDE_LINK", "details": {"identity_provider": "corp"}},
        ]))
        .unwrap();
        assert_eq!(age(&parts), (700_000, false), "the latest of them");
    }

    #[test]
    fn recovery_codes_say_how_many_are_left() {
        let left = |kind: &str, data: &str| {
            let credential = serde_json::json!({"id": "c", "type": kind, "credentialData": data});
            remaining(&serde_json::from_value(credential).unwrap())
        };
        let data = r#"{"algorithm":"SHA-512","totalCodes":12,"remainingCodes":11}"#;
        assert_eq!(left("recovery-authn-codes", data), Some(11));
        assert_eq!(left("otp", data), None);
        assert_eq!(left("recovery-authn-codes", "?"), None);
    }

    // What nobody did is no reason to be believed: a factor that is older than its account was not made with it.
    #[test]
    fn an_account_that_is_yet_to_be_made_is_as_old_as_anything_and_nothing_is_made_with_it() {
        let of = |made: serde_json::Value| {
            let mut parts = parts(serde_json::json!([]), serde_json::json!([]));
            parts.user.created_timestamp = serde_json::from_value(made).unwrap();
            let account = account(&parts, &["phone".to_owned()], LATER);
            let since: Vec<i64> = account.contacts.iter().map(|c| c.since.millis()).collect();
            (account.created.millis(), since, account.factors[0].at_creation)
        };
        let long_ago = (0, vec![0, 0], true);
        assert_eq!(of(serde_json::json!(1_000)), (1_000, vec![1_000, 1_000], true));
        assert!(
            !of(serde_json::json!(8_000)).2,
            "the password is six seconds older"
        );
        for made in [
            serde_json::json!(null),
            serde_json::json!(-1),
            serde_json::json!(i64::MIN),
            serde_json::json!(i64::MAX),
            serde_json::json!(4_102_444_800_000_i64),
        ] {
            assert_eq!(of(made.clone()), long_ago, "{made}");
        }
    }
}
