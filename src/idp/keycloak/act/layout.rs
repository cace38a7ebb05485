//! What `wire` made of the realm, as far as a hold needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::domain::ceiling::Ceiling;
use crate::domain::hold::rebuild::carried::Carried;
use crate::idp::keycloak::representations::{Group, Role};
use crate::idp::keycloak::wire::names::{DEFAULT_ROLE_ID, DEFAULT_ROLE_NAME, GROUP as ROOT};
use crate::idp::keycloak::{Keycloak, fresh, idp};
use crate::ports::idp::IdpError;

/// Prefix of the groups of levels.
pub(super) const HOLD_GROUP: &str = "hold.";

/// What a lift gives back, each with its group below [`ROOT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Taken {
    DefaultRole,
    FullRole,
    Enabled,
    /// Nothing was taken: it was frozen, and not been free since.
    Contested,
}

impl Taken {
    pub(super) const ALL: [Self; 4] = [Self::DefaultRole, Self::FullRole, Self::Enabled, Self::Contested];

    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::DefaultRole => "lift.default-role",
            Self::FullRole => "lift.full-role",
            Self::Enabled => "lift.enabled",
            Self::Contested => "contested",
        }
    }
}

/// The wired realm as far as a hold needs it.
#[derive(Debug, Clone, Default)]
pub(in crate::idp::keycloak) struct Layout {
    pub(super) root: Option<String>,
    pub(super) default_role: Option<Role>,
    /// Level → group.
    pub(super) levels: BTreeMap<String, String>,
    pub(super) notes: BTreeMap<Taken, String>,
}

impl Layout {
    /// What is missing, with what to do.
    pub(in crate::idp::keycloak) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.root.is_none() {
            faults.push(
                "the realm is not wired, Keycloak's own tokens cannot be held: run `reentry wire keycloak`"
                    .to_owned(),
            );
        } else if self.default_role.is_none() || !self.levels.contains_key("none") {
            faults.push(format!(
                "group {ROOT} is not what `reentry wire keycloak` made: run it again"
            ));
        }
        faults
    }

    pub(super) fn wired(&self) -> Option<(&str, &Role)> {
        Some((self.root.as_deref()?, self.default_role.as_ref()?))
    }

    /// The group of `ceiling`, or of the widest level within it: never more than the record allows.
    pub(super) fn level(&self, ceiling: &Ceiling) -> Option<(&str, &str)> {
        let exact = self.levels.get_key_value(&ceiling.level());
        let within = || {
            let fitting = self
                .levels
                .iter()
                .filter(|(level, _)| Ceiling::parse_level(level).within(ceiling));
            fitting.max_by_key(|(level, _)| {
                if *level == "none" {
                    0
                } else {
                    level.split('.').count()
                }
            })
        };
        exact
            .or_else(within)
            .map(|(level, group)| (level.as_str(), group.as_str()))
    }

    pub(super) fn is_level(&self, group: &str) -> bool {
        self.levels.values().any(|id| id == group)
    }
}

/// The layout, read at most once a minute.
pub(in crate::idp::keycloak) async fn layout(keycloak: &Keycloak) -> Result<Layout, IdpError> {
    if let Some(layout) = fresh(keycloak.believed.lock().await.layout.as_ref()) {
        return Ok(layout);
    }
    let layout = read_layout(keycloak).await?;
    keycloak.believed.lock().await.layout = Some((Instant::now(), layout.clone()));
    Ok(layout)
}

pub(super) async fn forget_layout(keycloak: &Keycloak) {
    keycloak.believed.lock().await.layout = None;
}

async fn read_layout(keycloak: &Keycloak) -> Result<Layout, IdpError> {
    let admin = &keycloak.admin;
    let Some(root) = admin.group_by_path(ROOT).await.map_err(idp)? else {
        return Ok(Layout::default());
    };
    let Some(id) = root.id.clone() else {
        return Ok(Layout::default());
    };
    let attribute = |name: &str| {
        root.attributes
            .get(name)
            .and_then(|values| values.first())
            .cloned()
    };
    let default_role = match (attribute(DEFAULT_ROLE_ID), attribute(DEFAULT_ROLE_NAME)) {
        (Some(id), Some(name)) => Some(Role {
            id: Some(id),
            name,
            ..Role::default()
        }),
        _ => None,
    };
    let children = admin.subgroups(&id).await.map_err(idp)?;
    let named = |group: &Group| group.id.clone().map(|id| (group.name.clone(), id));
    let groups: BTreeMap<String, String> = children.iter().filter_map(named).collect();
    let levels = groups
        .iter()
        .filter_map(|(name, id)| Some((name.strip_prefix(HOLD_GROUP)?.to_owned(), id.clone())))
        .collect();
    let notes = Taken::ALL
        .into_iter()
        .filter_map(|taken| Some((taken, groups.get(taken.group())?.clone())))
        .collect();
    Ok(Layout {
        root: Some(id),
        default_role,
        levels,
        notes,
    })
}

/// Ids of the groups that holds rest on.
pub(in crate::idp::keycloak) async fn our_groups(keycloak: &Keycloak) -> Result<BTreeSet<String>, IdpError> {
    let layout = layout(keycloak).await?;
    let groups = layout
        .levels
        .into_values()
        .chain(layout.notes.into_values())
        .chain(layout.root);
    Ok(groups.collect())
}

/// What an account in these groups (by their paths) carries of a hold.
pub(in crate::idp::keycloak) fn carried(groups: &BTreeSet<String>) -> Carried {
    let below = |path: &str| {
        let name = path.strip_prefix(ROOT)?.strip_prefix('/')?;
        Some(name.to_owned())
    };
    let names: BTreeSet<String> = groups.iter().filter_map(|path| below(path)).collect();
    let has = |taken: Taken| names.contains(taken.group());
    let levels = names.iter().filter_map(|name| name.strip_prefix(HOLD_GROUP));
    Carried {
        ceiling: levels
            .map(Ceiling::parse_level)
            .reduce(|all, level| all.intersect(&level)),
        contested: has(Taken::Contested),
        disabled: has(Taken::Enabled),
        taken: Taken::ALL.into_iter().any(has),
    }
}

/// Where what held accounts keep differs from what free ones have: roles that were added to the realm's default role,
/// or taken from it, since the realm was wired.
pub(in crate::idp::keycloak) async fn drift(keycloak: &Keycloak) -> Result<Vec<String>, IdpError> {
    let layout = layout(keycloak).await?;
    let Some((_, default_role)) = layout.wired() else {
        return Ok(layout.faults());
    };
    let Some(group) = layout.levels.get("none") else {
        return Ok(layout.faults());
    };
    let admin = &keycloak.admin;
    let Some(own) = keycloak.own().await?.1 else {
        return Ok(Vec::new());
    };
    let (effective, mapped, held) = futures_util::future::try_join3(
        // Our service account has the default role like everybody else.
        admin.effective_realm_roles(&own),
        admin.realm_roles(&own),
        admin.group_effective_realm_roles(group),
    )
    .await
    .map_err(idp)?;
    let ours = |name: &str| name.starts_with("reentry-") || name == default_role.name;
    let direct: BTreeSet<String> = mapped.into_iter().map(|role| role.name).collect();
    let of_default: BTreeSet<String> = effective
        .into_iter()
        .map(|role| role.name)
        .filter(|name| !ours(name) && !direct.contains(name))
        .collect();
    let of_held: BTreeSet<String> = held
        .into_iter()
        .map(|role| role.name)
        .filter(|name| !ours(name))
        .collect();
    let mut faults = Vec::new();
    let list = |names: Vec<&String>| {
        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
        names.join(", ")
    };
    let more: Vec<&String> = of_held.difference(&of_default).collect();
    if !more.is_empty() {
        faults.push(format!(
            "`reentry-held-defaults` is out of step: held accounts keep {}, which the default role no longer gives; run `reentry wire keycloak`",
            list(more)
        ));
    }
    let less: Vec<&String> = of_default.difference(&of_held).collect();
    if !less.is_empty() {
        faults.push(format!(
            "`reentry-held-defaults` is out of step: the default role gives {}, which held accounts lose; run `reentry wire keycloak`",
            list(less)
        ));
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idp::keycloak::wire::names::NOTES;

    #[test]
    fn every_note_is_wired() {
        let groups: BTreeSet<&str> = Taken::ALL.into_iter().map(Taken::group).collect();
        assert_eq!(groups, BTreeSet::from(NOTES));
    }
}
