//! What clients would issue, asked from the server: once an hour, and after a change to what holds rest on. It takes
//! `view-clients`; without it, `doctor` says that nobody looks.
//!
//! Our own service account stands for everybody who is free, and one held account of each level for the held.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Seen;
use crate::idp::keycloak::act::Layout;
use crate::idp::keycloak::admin::AdminError;
use crate::idp::keycloak::representations::Client;
use crate::idp::keycloak::wire::names::CLAIM;
use crate::idp::keycloak::{Keycloak, administrators};

/// Between two looks that nothing asks for.
const EACH: Duration = Duration::from_hours(1);
/// Between two looks at least, whatever asks.
const BREATH: Duration = Duration::from_secs(5);
/// The most tokens that one look evaluates.
const MOST: usize = 300;

/// Looks when it is time, or `asked` for.
pub(super) async fn look(keycloak: &Keycloak, layout: &Layout, asked: bool, seen: &mut Seen) {
    let pause = if asked { BREATH } else { EACH };
    let last = keycloak.believed.lock().await.evaluated;
    if layout.groups().is_empty() || last.is_some_and(|last| last.elapsed() < pause) {
        return;
    }
    match keycloak.admin.own().await {
        Ok(own) if administrators::sees(&own) => {}
        Ok(_) => return,
        Err(error) => return tracing::warn!(%error, "what clients would issue was not looked at"),
    }
    keycloak.believed.lock().await.evaluated = Some(Instant::now());
    if let Err(error) = evaluate(keycloak, layout, seen).await {
        tracing::warn!(%error, "what clients would issue could not be looked at");
    }
}

async fn evaluate(keycloak: &Keycloak, layout: &Layout, seen: &mut Seen) -> Result<(), AdminError> {
    let admin = &keycloak.admin;
    let mut canaries: Vec<(String, String)> = Vec::new();
    canaries.extend(admin.own().await?.account.map(|own| (own, "full".to_owned())));
    for (level, group) in layout.levels() {
        let members = admin.group_members(group, 0, 1).await?;
        let held = members
            .read
            .into_iter()
            .filter(|user| user.enabled)
            .filter_map(|user| user.id);
        canaries.extend(held.map(|id| (id, level.replace('.', " "))));
    }
    let clients = admin.clients().await?;
    let speaks = |client: &&Client| {
        let oidc = client
            .protocol
            .as_deref()
            .is_none_or(|protocol| protocol == "openid-connect");
        client.enabled && !client.bearer_only && oidc
    };
    let mut pairs: Vec<(&str, &str, &str, &str)> = Vec::new();
    for client in clients.iter().filter(speaks) {
        for (user, wanted) in &canaries {
            let id = client.id.as_deref();
            pairs.extend(id.map(|id| (id, client.client_id.as_str(), user.as_str(), wanted.as_str())));
        }
    }
    for (id, client, user, wanted) in pairs.into_iter().take(MOST) {
        let token = match admin.example_access_token(id, user, "openid").await {
            Ok(token) => token,
            // Deleted meanwhile, or a client that the server evaluates nothing for.
            Err(AdminError::NotFound { .. } | AdminError::Unexpected { .. }) => continue,
            Err(error) => return Err(error),
        };
        let claim = token.get(CLAIM).and_then(Value::as_str);
        if claim != Some(wanted) {
            let says = claim.map_or_else(|| "no claim".to_owned(), |claim| format!("\"{claim}\""));
            seen.drifted.push(format!(
                "client `{client}` would issue {says} where \"{wanted}\" is right: run `reentry wire keycloak --check`"
            ));
        }
    }
    Ok(())
}
