//! Taking a hold back: what is noted at the realm, or in our own record, is given back, and nothing else.

use super::layout::Taken;
use super::{Hand, ROUNDS, Seen, see, see_after};
use crate::idp::keycloak::absent::found;
use crate::idp::keycloak::admin::AdminError;
use crate::idp::keycloak::representations::Role;
use crate::idp::keycloak::wire::names::FULL;
use crate::ports::idp::IdpError;

impl Hand<'_> {
    /// Takes a hold back: the group first, the roles last.
    pub(super) async fn lift(&mut self) -> Result<Option<String>, IdpError> {
        if self.layout.root.is_none() {
            if self.owed.is_empty() {
                return Ok(None);
            }
            let seen = see(self.keycloak, self.sub).await?;
            let refused = self.switch_on_again(&seen).await?;
            if self.owed.is_empty() {
                return Ok(refused);
            }
            self.again = true;
            let why = "the realm is not wired any more, so what the hold took cannot be given back: run `reentry wire keycloak`";
            return Ok(Some(why.to_owned()));
        }
        let mut seen = see(self.keycloak, self.sub).await?;
        for _ in 0..ROUNDS {
            let restored = self.took(Taken::DefaultRole, &seen);
            let lifted = self.lift_once(&seen).await;
            if let Err(AdminError::NotFound { .. }) = lifted {
                // A role or a group of before: a realm that was restored has other ids.
                self.look_again().await?;
            }
            found(self.keycloak, self.sub, lifted).await?;
            let refused = self.switch_on_again(&seen).await?;
            let after = see_after(self.keycloak, self.sub).await?;
            let full = after.has(FULL);
            seen = after.seen;
            let held = seen.group_ids().any(|id| self.layout.is_level(id));
            let noted = self.layout.notes.values().any(|id| seen.is_in(id));
            if refused.is_some() {
                return Ok(refused);
            }
            if !held && !noted {
                return Ok((restored && !full).then(|| {
                    format!("its default role no longer holds `{FULL}`: run `reentry wire keycloak`")
                }));
            }
        }
        Ok(Some("it does not stay out of the hold groups".to_owned()))
    }

    async fn lift_once(&mut self, seen: &Seen) -> Result<(), AdminError> {
        let admin = &self.keycloak.admin;
        let groups: Vec<String> = seen
            .group_ids()
            .filter(|id| self.layout.is_level(id))
            .map(str::to_owned)
            .collect();
        for group in groups {
            admin.leave_group(self.sub, &group).await?;
            self.did(format!("left {}", self.named(&group)));
        }
        if self.took(Taken::DefaultRole, seen)
            && let Some(role) = self.layout.default_role.clone()
        {
            admin
                .add_realm_roles(self.sub, std::slice::from_ref(&role))
                .await?;
            self.did(format!("gave role {} back", role.name));
            self.strike(Taken::DefaultRole).await?;
        }
        if self.noted(Taken::Contested, seen) {
            self.strike(Taken::Contested).await?;
        }
        if self.took(Taken::FullRole, seen) {
            if let Some(role) = self.full_role(seen).await? {
                admin.add_realm_roles(self.sub, &[role]).await?;
                self.did(format!("gave role {FULL} back"));
            }
            self.strike(Taken::FullRole).await?;
        }
        Ok(())
    }

    /// `reentry-full` with its id, from wherever we may read it.
    async fn full_role(&self, seen: &Seen) -> Result<Option<Role>, AdminError> {
        if let Some(role) = seen.mapped(FULL) {
            return Ok(Some(role.clone()));
        }
        let admin = &self.keycloak.admin;
        let Some(own) = admin.own().await?.account else {
            return Ok(None);
        };
        // Service accounts have the default role too.
        let roles = admin.effective_realm_roles(&own).await?;
        Ok(roles.into_iter().find(|role| role.name == FULL))
    }
}
