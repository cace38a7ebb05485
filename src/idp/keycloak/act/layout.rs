//! What `wire` made of the realm, as far as a hold needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::domain::ceiling::Ceiling;
use crate::domain::hold::rebuild::carried::Carried;
use crate::domain::subject::account::Facts;
use crate::idp::keycloak::representations::{Group, Role};
use crate::idp::keycloak::wire::names::{
    DEFAULT_ROLE_ID, DEFAULT_ROLE_NAME, FULL, GROUP as ROOT, HELD_DEFAULTS,
};
use crate::idp::keycloak::wire::noted::{self, Noted};
use crate::idp::keycloak::{Keycloak, fresh, idp};
use crate::ports::idp::IdpError;

/// Prefix of the roles of levels.
pub(super) const HOLD_ROLE: &str = "reentry-hold.";
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

    /// Those that our own record names.
    pub(super) fn named(names: &BTreeSet<String>) -> BTreeSet<Self> {
        let all = Self::ALL.into_iter();
        all.filter(|taken| names.contains(taken.group())).collect()
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
    /// Every group of ours by its path, the root too.
    groups: BTreeMap<String, String>,
    /// What `wire` wrote down; nothing where it was wired by an older version, or by other means.
    pub(in crate::idp::keycloak) noted: Option<Noted>,
}

impl Layout {
    /// Every group of ours: path and id.
    pub(in crate::idp::keycloak) const fn groups(&self) -> &BTreeMap<String, String> {
        &self.groups
    }

    /// Whether this is the id of a group of ours.
    pub(in crate::idp::keycloak) fn is_ours(&self, group: &str) -> bool {
        self.groups.values().any(|id| id == group)
    }

    /// With groups of ours that may be gone meanwhile: a line that deletes one names it by its id alone.
    pub(in crate::idp::keycloak) fn remembering(&self, before: &BTreeMap<String, String>) -> Self {
        let mut layout = self.clone();
        for (path, id) in before.iter().filter(|(_, id)| !self.is_ours(id)) {
            layout.groups.insert(format!("{path} of before"), id.clone());
        }
        layout
    }

    /// The level that a group of ours stands for.
    pub(in crate::idp::keycloak) fn level_of(&self, group: &str) -> Option<&str> {
        let level = self.levels.iter().find(|(_, id)| *id == group);
        level.map(|(level, _)| level.as_str())
    }

    /// Whether a realm role decides what a held account is issued: ours, and the default role.
    pub(in crate::idp::keycloak) fn decides(&self, role: &str) -> bool {
        let default = self.default_role.as_ref();
        role == FULL
            || role == HELD_DEFAULTS
            || role.starts_with(HOLD_ROLE)
            || default.is_some_and(|default| default.name == role)
    }

    /// Whether this is the id of such a role.
    pub(in crate::idp::keycloak) fn decides_by_id(&self, id: &str) -> bool {
        let default = self.default_role.as_ref().and_then(|role| role.id.as_deref());
        default == Some(id) || self.noted.as_ref().is_some_and(|noted| noted.roles.contains(id))
    }

    /// The name of the default role.
    pub(in crate::idp::keycloak) fn default_role_name(&self) -> Option<&str> {
        self.default_role.as_ref().map(|role| role.name.as_str())
    }

    /// Groups of levels: what they are for, and their ids.
    pub(in crate::idp::keycloak) const fn levels(&self) -> &BTreeMap<String, String> {
        &self.levels
    }

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

pub(in crate::idp::keycloak) async fn forget_layout(keycloak: &Keycloak) {
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
        (Some(id), Some(name)) => Some(as_it_is(keycloak, id, name).await),
        _ => None,
    };
    let children = admin.subgroups(&id).await.map_err(idp)?;
    let named = |group: &Group| group.id.clone().map(|id| (group.name.clone(), id));
    let groups: BTreeMap<String, String> = children.iter().filter_map(named).collect();
    let written = children.iter().find(|group| group.name == noted::NAME);
    let written = written.and_then(|group| Noted::read(&group.attributes));
    let below = groups.iter();
    let below = below.map(|(name, id)| (format!("{ROOT}/{name}"), id.clone()));
    let ours = below.chain([(ROOT.to_owned(), id.clone())]).collect();
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
        groups: ours,
        noted: written,
    })
}

/// The default role that `wire` wrote down, as it is now: one that was renamed is known by its id, and in a realm that was
/// restored, where every id is another, by its name. Our own account has it like everybody else; where it does not, what
/// was written down stands.
async fn as_it_is(keycloak: &Keycloak, id: String, name: String) -> Role {
    let own = match keycloak.own().await {
        Ok((_, Some(own))) => keycloak
            .admin
            .effective_realm_roles(&own)
            .await
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    let by_id = own.iter().find(|role| role.id.as_deref() == Some(id.as_str()));
    let now = by_id.or_else(|| own.iter().find(|role| role.name == name));
    now.cloned().unwrap_or_else(|| Role {
        id: Some(id),
        name,
        ..Role::default()
    })
}

/// What an account with these roles and groups (by their paths) carries of a hold; `on` says whether it is switched on.
pub(in crate::idp::keycloak) fn carried(facts: &Facts, on: bool) -> Carried {
    let below = |path: &str| {
        let name = path.strip_prefix(ROOT)?.strip_prefix('/')?;
        Some(name.to_owned())
    };
    let names: BTreeSet<String> = facts.groups.iter().filter_map(|path| below(path)).collect();
    let has = |taken: Taken| names.contains(taken.group());
    let levels: BTreeSet<&str> = names
        .iter()
        .filter_map(|name| name.strip_prefix(HOLD_GROUP))
        .collect();
    let contested = has(Taken::Contested);
    // A second level's role is a second claim, and which of two is issued nobody knows.
    let stray = |role: &String| {
        role.strip_prefix(HOLD_ROLE)
            .is_some_and(|level| !levels.contains(level))
    };
    let held = contested || !levels.is_empty();
    Carried {
        ceiling: levels
            .iter()
            .map(|level| Ceiling::parse_level(level))
            .reduce(|all, level| all.intersect(&level)),
        contested,
        disabled: has(Taken::Enabled),
        taken: Taken::ALL.into_iter().any(has),
        on,
        whole: held && (facts.roles.contains(FULL) || facts.roles.iter().any(stray)),
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
impl Layout {
    /// A wired realm with one level, for tests of what is judged by it.
    pub(in crate::idp::keycloak) fn of_tests() -> Self {
        let text = |name: &str| name.to_owned();
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (text(a), text(b))).collect();
        Self {
            root: Some(text("g-root")),
            default_role: Some(Role {
                id: Some(text("r-default")),
                name: text("default-roles-shop"),
                ..Role::default()
            }),
            levels: map(&[("read", "g-read")]),
            notes: BTreeMap::new(),
            groups: map(&[("/reentry", "g-root"), ("/reentry/hold.read", "g-read")]),
            noted: Some(Noted {
                scopes: map(&[("s-full", FULL), ("s-hold", "reentry-hold.read")]),
                gates: BTreeSet::from([text("s-payments")]),
                roles: BTreeSet::from([text("r-full"), text("r-default")]),
                ..Noted::default()
            }),
        }
    }
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
