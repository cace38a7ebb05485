//! Holding an account: the notes, the roles, the group of its level, and reading all of it back.

use std::time::Duration;

use super::layout::{HOLD_GROUP, HOLD_ROLE, Taken};
use super::{After, Hand, ROOT, ROUNDS, Seen, see, see_after};
use crate::domain::ceiling::Ceiling;
use crate::domain::policy::ContestedAtIdp;
use crate::idp::keycloak::absent::found;
use crate::idp::keycloak::admin::AdminError;
use crate::idp::keycloak::representations::Role;
use crate::idp::keycloak::wire::names::FULL;
use crate::idp::keycloak::{CannotHold, administrators};
use crate::ports::idp::IdpError;

/// Before a step that failed is tried again, the first time.
const BREATH: Duration = Duration::from_millis(300);

/// What came of restricting an account.
#[derive(Default)]
struct Restricted {
    /// How it was read back; nothing where that failed.
    after: Option<After>,
    /// What did not work.
    cannot: Option<String>,
    /// What was read back agrees with the hold, whatever did not work.
    agrees: bool,
}

impl Hand<'_> {
    /// Holds the account at `ceiling`; `contest` says that it is frozen, and how; `barred` that its own acts undid the
    /// hold again and again.
    pub(super) async fn hold(
        &mut self,
        ceiling: &Ceiling,
        contest: Option<ContestedAtIdp>,
        barred: bool,
    ) -> Result<Option<String>, IdpError> {
        let wired = self.layout.wired().is_some();
        let restricted = if wired {
            self.restricted(ceiling, contest).await?
        } else {
            self.unwired().await?
        };
        let keeps = wired && restricted.cannot.is_some() && !restricted.agrees;
        let (undoing, hidden) = match &restricted.after {
            Some(after) => self.undoing(after).await?,
            None => (None, None),
        };
        // Whoever was switched off for what cannot be read just now stays off.
        let certain = restricted.after.is_some() && hidden.is_none();
        self.again |= !certain;
        let seen = restricted.after.map(|after| after.seen).unwrap_or_default();
        let noted = Taken::ALL.into_iter().filter(|taken| self.noted(*taken, &seen));
        let noted: Vec<Taken> = noted.collect();
        self.owed.extend(noted);
        let settings = &self.keycloak.settings;
        // What only waits for our record is done at once, and judged then.
        let off = contest == Some(ContestedAtIdp::Disable)
            || barred
            || (keeps && !self.waits && settings.unholdable == CannotHold::Disable)
            || (undoing.is_some() && settings.held_admins == CannotHold::Disable);
        let refused = if off {
            self.switch_off(&seen).await?
        } else if certain {
            self.switch_on_again(&seen).await?
        } else {
            None
        };
        let why = [restricted.cannot, refused, undoing, hidden];
        let why: Vec<String> = why.into_iter().flatten().collect();
        Ok((!why.is_empty()).then(|| why.join("; ")))
    }

    /// Nothing can be done by roles and groups in a realm that is not wired.
    async fn unwired(&mut self) -> Result<Restricted, IdpError> {
        let after = see_after(self.keycloak, self.sub).await;
        let after = self.told(after).await?;
        Ok(Restricted {
            cannot: self.layout.faults().into_iter().next(),
            after: after.ok(),
            agrees: false,
        })
    }

    /// Why the account could undo its hold, and why that cannot be said.
    async fn undoing(&mut self, after: &After) -> Result<(Option<String>, Option<String>), IdpError> {
        let could = (after.seen.groups.as_slice(), after.effective.as_slice());
        let could = administrators::roles_of_late(self.keycloak, self.sub, could).await;
        Ok(match self.answered(could).await? {
            Ok(roles) => {
                let could = administrators::undoing(roles);
                let why = || format!("it keeps {} and could undo the hold", could.join(", "));
                ((!could.is_empty()).then(why), None)
            }
            Err(why) => (
                None,
                Some(format!("whether it could undo the hold cannot be read: {why}")),
            ),
        })
    }

    /// Restricts the account until what is read back agrees, or says why it does not.
    async fn restricted(
        &mut self,
        ceiling: &Ceiling,
        contest: Option<ContestedAtIdp>,
    ) -> Result<Restricted, IdpError> {
        let mut known = None;
        let mut tries = 0;
        loop {
            let mut done = self.round(ceiling, contest, known).await?;
            tries += 1;
            if done.cannot.is_none() || self.waits || tries >= ROUNDS {
                return Ok(done);
            }
            if self.again {
                tokio::time::sleep(BREATH * tries).await;
            }
            // A group may have gone away, and a realm that was restored has other ids.
            self.look_again().await?;
            known = done.after.take().map(|after| after.seen);
        }
    }

    /// One try.
    async fn round(
        &mut self,
        ceiling: &Ceiling,
        contest: Option<ContestedAtIdp>,
        known: Option<Seen>,
    ) -> Result<Restricted, IdpError> {
        self.again = false;
        let seen = if let Some(seen) = known {
            Ok(seen)
        } else {
            let seen = see(self.keycloak, self.sub).await;
            self.told(seen).await?
        };
        let failed = match &seen {
            Ok(seen) => self.restrict(ceiling, contest, seen).await?,
            Err(why) => Some(why.clone()),
        };
        let after = see_after(self.keycloak, self.sub).await;
        let after = match self.told(after).await? {
            Ok(after) => after,
            Err(why) => {
                return Ok(Restricted {
                    cannot: failed.or(Some(why)),
                    ..Restricted::default()
                });
            }
        };
        let disagrees = self.disagrees(ceiling, &after);
        let agrees = disagrees.is_none();
        // Somebody has to mend it, and nobody may tell us when it is.
        self.again |= !agrees;
        let cannot = match (failed, disagrees) {
            (Some(why), None) => Some(format!("it is held, but something could not be written: {why}")),
            (Some(why), Some(keeps)) => Some(format!("{keeps}: {why}")),
            (None, disagrees) => disagrees,
        };
        Ok(Restricted {
            after: Some(after),
            cannot,
            agrees,
        })
    }

    /// Every step once, each whatever became of the others. Gives why one failed.
    async fn restrict(
        &mut self,
        ceiling: &Ceiling,
        contest: Option<ContestedAtIdp>,
        seen: &Seen,
    ) -> Result<Option<String>, IdpError> {
        let mut failed = Vec::new();
        failed.extend(self.note_again(seen).await.err());
        failed.extend(self.take_default_role(seen).await.err());
        failed.extend(self.take_full_role(seen).await.err());
        failed.extend(self.take_stray_roles(seen).await.err());
        failed.extend(self.move_group(ceiling, seen).await.err());
        if contest.is_some() && self.layout.root.is_some() {
            // Survives the loss of our store, and says more than a level does. Struck out by a lift.
            failed.extend(self.note(Taken::Contested, seen).await.err());
        }
        let mut why = None;
        for error in failed {
            let answer = found(self.keycloak, self.sub, Err::<(), _>(error)).await;
            why = why.or(self.told(answer).await?.err());
        }
        Ok(why)
    }

    /// Puts the account into the group of its level, and out of the others.
    async fn move_group(&mut self, ceiling: &Ceiling, seen: &Seen) -> Result<(), AdminError> {
        // Without any group of a level the account stays without a claim, which reads as `none`.
        let Some((level, group)) = self.layout.level(ceiling) else {
            return Ok(());
        };
        let (level, group) = (level.to_owned(), group.to_owned());
        let admin = &self.keycloak.admin;
        let others = seen
            .group_ids()
            .filter(|id| *id != group && self.layout.is_level(id));
        let mut left = Ok(());
        for other in others.map(str::to_owned).collect::<Vec<_>>() {
            match admin.leave_group(self.sub, &other).await {
                Ok(()) => self.did(format!("left {}", self.named(&other))),
                Err(error) => left = Err(error),
            }
        }
        if !seen.is_in(&group) {
            admin.join_group(self.sub, &group).await?;
            self.did(format!("joined {ROOT}/{HOLD_GROUP}{level}"));
        }
        left
    }

    /// Notes what our record says was taken, where somebody took the note away.
    async fn note_again(&mut self, seen: &Seen) -> Result<(), AdminError> {
        let mut noted = Ok(());
        for taken in self.owed.clone() {
            if self.noted(taken, seen) {
                continue;
            }
            match self.note(taken, seen).await {
                Ok(()) => self.did(format!("joined {ROOT}/{}", taken.group())),
                Err(error) => noted = Err(error),
            }
        }
        noted
    }

    /// Takes the default role, and `reentry-full` with it.
    async fn take_default_role(&mut self, seen: &Seen) -> Result<(), AdminError> {
        let default_role = self.layout.default_role.as_ref();
        let is_default = |role: &&Role| default_role.is_some_and(|known| same(known, role));
        let Some(role) = seen.mapped.iter().find(is_default) else {
            return Ok(());
        };
        if self.may_take(Taken::DefaultRole, seen).await? {
            let admin = &self.keycloak.admin;
            admin
                .remove_realm_roles(self.sub, std::slice::from_ref(role))
                .await?;
            self.did(format!("took role {}", role.name));
        }
        Ok(())
    }

    /// Takes a `reentry-full` of the account's own.
    async fn take_full_role(&mut self, seen: &Seen) -> Result<(), AdminError> {
        let Some(role) = seen.mapped(FULL) else {
            return Ok(());
        };
        let held = seen.group_ids().any(|id| self.layout.is_level(id));
        let noted = self.layout.notes.values().any(|id| seen.is_in(id));
        // What somebody grants during a hold is not given back.
        let before = !held && !noted && !self.known && self.recorded.is_empty();
        if !before || self.may_take(Taken::FullRole, seen).await? {
            let admin = &self.keycloak.admin;
            admin
                .remove_realm_roles(self.sub, std::slice::from_ref(role))
                .await?;
            self.did(format!("took role {FULL}"));
        }
        Ok(())
    }

    /// Takes roles of levels granted one by one: another level's role would be a second claim.
    async fn take_stray_roles(&mut self, seen: &Seen) -> Result<(), AdminError> {
        let stray = seen.mapped.iter().filter(|role| role.name.starts_with(HOLD_ROLE));
        let stray: Vec<Role> = stray.cloned().collect();
        if !stray.is_empty() {
            self.keycloak.admin.remove_realm_roles(self.sub, &stray).await?;
            self.did("took stray hold roles");
        }
        Ok(())
    }

    /// What of the reading back does not agree with a hold at `ceiling`.
    fn disagrees(&self, ceiling: &Ceiling, after: &After) -> Option<String> {
        let Some((level, group)) = self.layout.level(ceiling) else {
            return Some("the realm has no group for it: run `reentry wire keycloak`".to_owned());
        };
        if after.has(FULL) {
            let by = match self
                .layout
                .default_role
                .as_ref()
                .filter(|role| after.has(&role.name))
            {
                Some(default_role) => format!(
                    "through `{}`, inside a group or a composite role",
                    default_role.name
                ),
                None => "through a group or a composite role".to_owned(),
            };
            return Some(format!("it keeps `{FULL}` {by}"));
        }
        if !after.seen.is_in(group) {
            return Some(format!("it does not stay in group {ROOT}/{HOLD_GROUP}{level}"));
        }
        let wanted = format!("{HOLD_ROLE}{level}");
        if !after.has(&wanted) {
            return Some(format!(
                "group {ROOT}/{HOLD_GROUP}{level} does not give `{wanted}`"
            ));
        }
        let mut names = after.effective.iter().map(|role| &role.name);
        let stray = names.find(|role| role.starts_with(HOLD_ROLE) && **role != wanted);
        stray.map(|role| format!("it keeps `{role}` beside `{wanted}`"))
    }
}

/// Whether a role that is mapped is the default role as we know it. In a realm that was restored it has another id.
fn same(known: &Role, role: &Role) -> bool {
    (role.id.is_some() && role.id == known.id) || role.name == known.name
}
