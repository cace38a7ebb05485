//! What `wire` made of the realm, as far as a hold needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::domain::ceiling::Ceiling;
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
}

impl Taken {
    pub(super) const ALL: [Self; 3] = [Self::DefaultRole, Self::FullRole, Self::Enabled];

    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::DefaultRole => "lift.default-role",
            Self::FullRole => "lift.full-role",
            Self::Enabled => "lift.enabled",
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
