//! Taking back what came with a contested change (a thaw with the finding `owner`).

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join3;

use crate::domain::subject::account::{Account, ContactKind};
use crate::domain::time::{Span, Timestamp};
use crate::idp::keycloak::absent::found;
use crate::idp::keycloak::account;
use crate::idp::keycloak::admin::{AdminError, AdminEventQuery, Direction, EventQuery};
use crate::idp::keycloak::events::{self, AdminAct};
use crate::idp::keycloak::representations::{Event, User};
use crate::idp::keycloak::{Keycloak, idp};
use crate::ports::idp::IdpError;

/// A credential is stored a moment before the event that tells of it.
const GRACE: Span = Span::from_secs(2);

/// Removes one factor; one that is gone already is no error.
pub(in crate::idp::keycloak) async fn remove_factor(
    keycloak: &Keycloak,
    sub: &str,
    factor: &str,
) -> Result<(), IdpError> {
    let admin = &keycloak.admin;
    let done = match factor.strip_prefix(account::LINK) {
        Some(provider) => admin.remove_federated_identity(sub, provider).await,
        None => admin.delete_credential(sub, factor).await,
    };
    match done {
        Ok(()) | Err(AdminError::NotFound { .. }) => Ok(()),
        Err(error) => Err(idp(error)),
    }
}

/// Takes back what was enrolled and changed since `since`.
pub(in crate::idp::keycloak) async fn restore(
    keycloak: &Keycloak,
    sub: &str,
    since: Timestamp,
    before: &Account,
) -> Result<Vec<String>, IdpError> {
    let admin = &keycloak.admin;
    let (ahead, _) = keycloak.own().await?;
    let since_there = since.plus(ahead).millis();
    let mut done = Vec::new();
    for credential in found(keycloak, sub, admin.credentials(sub).await).await? {
        if credential
            .created_date
            .is_some_and(|created| created >= since_there - GRACE.millis())
        {
            let name = credential.name();
            remove_factor(keycloak, sub, &name).await?;
            done.push(format!("removed {} {name}", credential.kind));
        }
    }
    let (links, phones) = taken_back(keycloak, sub, since_there).await?;
    for provider in links {
        remove_factor(keycloak, sub, &format!("{}{provider}", account::LINK)).await?;
        done.push(format!("removed the link to {provider}"));
    }
    done.extend(restore_contacts(keycloak, sub, since, before, &phones).await?);
    let left = found(keycloak, sub, admin.credentials(sub).await).await?;
    let newer = |at: Option<i64>| at.is_some_and(|created| created >= since_there - GRACE.millis());
    if left.iter().any(|credential| newer(credential.created_date)) {
        return Err(IdpError::Unexpected(
            "a credential was enrolled while they were being removed".to_owned(),
        ));
    }
    Ok(done)
}

/// Logins linked since, and the telephone numbers of before, as the logs tell.
async fn taken_back(
    keycloak: &Keycloak,
    sub: &str,
    since: i64,
) -> Result<(BTreeSet<String>, BTreeMap<String, String>), IdpError> {
    let types = [
        "FEDERATED_IDENTITY_LINK",
        "FEDERATED_IDENTITY_OVERRIDE_LINK",
        "UPDATE_PROFILE",
    ];
    let query = EventQuery {
        types: keycloak.known(&types).await.map_err(idp)?,
        user: Some(sub.to_owned()),
        from_ms: Some(since - GRACE.millis()),
        direction: Direction::Ascending,
        max: 500,
        ..EventQuery::default()
    };
    let admin_query = AdminEventQuery {
        resource_path: Some(format!("users/{sub}/federated-identity/*")),
        from_ms: Some(since - GRACE.millis()),
        direction: Direction::Ascending,
        max: 500,
        ..AdminEventQuery::default()
    };
    let admin = &keycloak.admin;
    let told_of = try_join3(
        admin.events(&query),
        admin.admin_events(&admin_query),
        admin.federated_identities(sub),
    );
    let (events, acts, now) = found(keycloak, sub, told_of.await).await?;
    let (mut links, phones) = told(&events, &keycloak.settings.phone_attributes);
    links.extend(acts.iter().filter_map(|event| match events::admin_act(event) {
        Some((_, AdminAct::Linked(provider))) => Some(provider.to_owned()),
        _ => None,
    }));
    links.retain(|provider| now.iter().any(|link| link.identity_provider == *provider));
    Ok((links, phones))
}

/// What user events say: providers that were linked, and for each attribute its value before the first change.
fn told(events: &[Event], phone_attributes: &[String]) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let mut links = BTreeSet::new();
    let mut phones = BTreeMap::new();
    for event in events.iter().filter(|event| event.error.is_none()) {
        if event.kind != "UPDATE_PROFILE" {
            links.extend(event.details.get("identity_provider").cloned());
        }
        for name in phone_attributes {
            if event.details.contains_key(&format!("updated_{name}")) {
                let previous = event.details.get(&format!("previous_{name}"));
                phones
                    .entry(name.clone())
                    .or_insert_with(|| previous.cloned().unwrap_or_default());
            }
        }
    }
    (links, phones)
}

/// Sets the addresses of before again and reads them back.
async fn restore_contacts(
    keycloak: &Keycloak,
    sub: &str,
    since: Timestamp,
    before: &Account,
    phones: &BTreeMap<String, String>,
) -> Result<Vec<String>, IdpError> {
    let admin = &keycloak.admin;
    let mut done = Vec::new();
    let had = before.contacts.iter().filter(|contact| {
        contact.kind == ContactKind::Email
            && contact.since < since
            && contact.gone.is_none_or(|gone| gone >= since)
    });
    let user = found(keycloak, sub, admin.user(sub).await).await?;
    if let Some(email) = had.max_by_key(|contact| contact.since) {
        let same = |user: &User| {
            user.email
                .as_deref()
                .is_some_and(|now| now.eq_ignore_ascii_case(&email.address))
        };
        if !same(&user) {
            let set = admin.set_email(sub, &email.address, email.verified).await;
            found(keycloak, sub, set).await?;
            let user = found(keycloak, sub, admin.user(sub).await).await?;
            if !same(&user) {
                return Err(IdpError::Unexpected(
                    "the e-mail address of before was not taken".to_owned(),
                ));
            }
            done.push("set the e-mail address of before".to_owned());
        }
    }
    if !phones.is_empty() {
        let updated = admin.update_user(sub, |user| {
            let attributes = user.attributes.get_or_insert_default();
            for (name, previous) in phones {
                let values = previous
                    .split("::")
                    .filter(|value| !value.is_empty())
                    .map(str::to_owned);
                attributes.insert(name.clone(), values.collect());
            }
        });
        found(keycloak, sub, updated.await).await?;
        done.push("set the telephone number of before".to_owned());
    }
    Ok(done)
}
