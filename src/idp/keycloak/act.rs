//! Making Keycloak's own tokens agree with the record (token mode: role-gated client scopes).
//!
//! The order fails closed. A hold first takes the realm's default role, and with it `reentry-full`: from then on the
//! account's tokens carry no claim at all, which a relying party reads as `none`. Then it puts the account into the
//! group of its level. A lift leaves the group first and gives the role back last. In between, and whenever somebody
//! takes the group away, there is no claim; two claims there never are.
//!
//! What a hold takes from an account it first writes down beside it, as membership in a group that maps nothing:
//! `/reentry/lift.default-role`, `lift.full-role` (a `reentry-full` of the account's own, for accounts without the
//! default role), `lift.enabled` (it was switched on). A lift gives back what is written there and nothing else: an
//! account that never had the default role does not get it, one that an administrator had switched off stays off,
//! and a `reentry-full` that somebody granted *during* the hold is taken and not given back. The note is made before
//! the act and struck after its reversal, so that a crash at any point loses no right and grants none.
//!
//! The same is said to our own record ([`Converged::owes`]): notes can be taken away, by a tool that empties groups or
//! with the whole of `/reentry`. What the record names is noted again while the account is held, and given back by the
//! lift whatever is left at the realm.
//!
//! A freeze ends sessions and offline tokens before anything else. Whether the account can be switched off, its user
//! profile and its directory have a say in; neither keeps a session alive.
//!
//! Every act is read back, by effective roles and groups, and repeated if somebody was faster. What still does not
//! agree is told in `cannot`, and the account is switched off where the operator chose so.

mod layout;
mod lift;
mod restore;
mod sessions;
mod switch;

use std::collections::BTreeSet;

use futures_util::future::try_join;

use self::layout::{HOLD_GROUP, HOLD_ROLE, Taken};
pub(super) use self::layout::{Layout, carried, drift, forget_layout, layout};
pub(super) use self::restore::{remove_factor, restore};
pub(super) use self::sessions::{end_session, sessions};
use super::admin::AdminError;
use super::representations::{Group, Role};
use super::wire::names::{FULL, GROUP as ROOT};
use super::{CannotHold, Keycloak, administrators, idp, of_account};
use crate::domain::ceiling::Ceiling;
use crate::domain::hold::Posture;
use crate::domain::policy::ContestedAtIdp;
use crate::ports::idp::{Converged, IdpError, Wanted};

/// Beside what was taken, our record notes that the account is held: what somebody grants after that is no right of before.
const HELD: &str = "held";
/// How often an act is repeated when the reading back does not agree.
const ROUNDS: usize = 3;

/// What a hold changes of an account.
struct Seen {
    groups: Vec<Group>,
    mapped: Vec<Role>,
}

/// What came of a change.
struct After {
    seen: Seen,
    effective: Vec<Role>,
}

impl Seen {
    fn mapped(&self, name: &str) -> Option<&Role> {
        self.mapped.iter().find(|role| role.name == name)
    }

    fn is_in(&self, group: &str) -> bool {
        self.group_ids().any(|id| id == group)
    }

    fn group_ids(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().filter_map(|group| group.id.as_deref())
    }
}

impl After {
    fn has(&self, role: &str) -> bool {
        self.effective.iter().any(|has| has.name == role)
    }
}

async fn see(keycloak: &Keycloak, sub: &str) -> Result<Seen, IdpError> {
    let admin = &keycloak.admin;
    let both = try_join(admin.user_groups(sub), admin.realm_roles(sub)).await;
    let (groups, mapped) = both.map_err(of_account)?;
    Ok(Seen { groups, mapped })
}

/// Reads back what an act brought about.
async fn see_after(keycloak: &Keycloak, sub: &str) -> Result<After, IdpError> {
    let effective = async {
        let effective = keycloak.admin.effective_realm_roles(sub).await;
        effective.map_err(of_account)
    };
    let (seen, effective) = try_join(see(keycloak, sub), effective).await?;
    Ok(After { seen, effective })
}

/// One account being brought to agree.
struct Hand<'a> {
    keycloak: &'a Keycloak,
    layout: Layout,
    sub: &'a str,
    acts: Vec<String>,
    /// What our record and the realm's notes say that holds took.
    owed: BTreeSet<Taken>,
    /// Our record knows of this hold already.
    known: bool,
    again: bool,
}

/// Makes the realm agree with `wanted`.
pub(super) async fn converge(keycloak: &Keycloak, sub: &str, wanted: &Wanted) -> Result<Converged, IdpError> {
    let mut hand = Hand {
        keycloak,
        layout: Layout::default(),
        sub,
        acts: Vec::new(),
        owed: Taken::named(&wanted.owed),
        known: wanted.owed.contains(HELD),
        again: false,
    };
    // What a freeze ends does not wait for anything else that may fail.
    if let Posture::Contested(_) = wanted.posture
        && let Err(error) = hand.stop().await
    {
        tracing::warn!(%error, "sessions of a frozen account could not all be ended; it is tried again below");
    }
    hand.layout = layout(keycloak).await?;
    if hand.layout.wired().is_none() {
        // Somebody may have wired it this minute.
        forget_layout(keycloak).await;
        hand.layout = layout(keycloak).await?;
    }
    let cannot = match &wanted.posture {
        Posture::Free => {
            // A fresh log-in is asked for by ending sessions before the lift: none of them may see it.
            hand.end_sessions(wanted).await?;
            let cannot = hand.lift().await?;
            return Ok(hand.done(cannot, false));
        }
        Posture::Held(ceiling) => hand.hold(ceiling, None, wanted.barred).await?,
        Posture::Contested(at_idp) => hand.hold(&Ceiling::none(), Some(*at_idp), false).await?,
    };
    hand.end_sessions(wanted).await?;
    if matches!(wanted.posture, Posture::Contested(_)) {
        // Who signed in meanwhile, too.
        hand.stop().await?;
    }
    Ok(hand.done(cannot, true))
}

impl Hand<'_> {
    fn did(&mut self, act: impl Into<String>) {
        self.acts.push(act.into());
    }

    fn done(self, cannot: Option<String>, held: bool) -> Converged {
        let owed = self.owed.into_iter().filter(|taken| *taken != Taken::Contested);
        let owed = owed.map(|taken| taken.group().to_owned());
        Converged {
            acts: self.acts,
            cannot,
            again: self.again,
            owes: owed.chain(held.then(|| HELD.to_owned())).collect(),
        }
    }

    async fn end_sessions(&mut self, wanted: &Wanted) -> Result<(), IdpError> {
        let ended = sessions::end_cut(self.keycloak, self.sub, &wanted.cuts, wanted.end_before).await?;
        self.acts.extend(ended);
        Ok(())
    }

    /// Ends every session and offline token.
    async fn stop(&mut self) -> Result<(), IdpError> {
        if sessions::end_all(self.keycloak, self.sub).await? {
            self.did("ended every session");
        }
        Ok(())
    }

    /// Holds the account at `ceiling`; `contest` says that it is frozen, and how; `barred` that its own acts undid the
    /// hold again and again.
    async fn hold(
        &mut self,
        ceiling: &Ceiling,
        contest: Option<ContestedAtIdp>,
        barred: bool,
    ) -> Result<Option<String>, IdpError> {
        let wired = self.layout.wired().is_some();
        let (after, cannot) = if wired {
            self.restricted(ceiling, contest).await?
        } else {
            let after = see_after(self.keycloak, self.sub).await?;
            (after, self.layout.faults().into_iter().next())
        };
        let seen = &after.seen;
        let noted = Taken::ALL.into_iter().filter(|taken| self.noted(*taken, seen));
        let noted: Vec<Taken> = noted.collect();
        self.owed.extend(noted);
        let settings = &self.keycloak.settings;
        let could = (seen.groups.as_slice(), after.effective.as_slice());
        let could = administrators::roles_of_late(self.keycloak, self.sub, could).await;
        let could = administrators::undoing(could.map_err(of_account)?);
        let undoing =
            (!could.is_empty()).then(|| format!("it keeps {} and could undo the hold", could.join(", ")));
        let off = contest == Some(ContestedAtIdp::Disable)
            || barred
            || (cannot.is_some() && wired && settings.unholdable == CannotHold::Disable)
            || (undoing.is_some() && settings.held_admins == CannotHold::Disable);
        let refused = if off {
            self.switch_off(seen).await?
        } else {
            self.switch_on_again(seen).await?
        };
        Ok(refused.or(cannot).or(undoing))
    }

    /// Restricts the account until what is read back agrees, or says why it does not.
    async fn restricted(
        &mut self,
        ceiling: &Ceiling,
        contest: Option<ContestedAtIdp>,
    ) -> Result<(After, Option<String>), IdpError> {
        let mut seen = see(self.keycloak, self.sub).await?;
        let mut tries = 0;
        loop {
            let cannot = self.restrict(ceiling, contest, &seen).await?;
            let after = see_after(self.keycloak, self.sub).await?;
            let cannot = cannot.or_else(|| self.disagrees(ceiling, &after));
            tries += 1;
            if cannot.is_none() || tries >= ROUNDS {
                return Ok((after, cannot));
            }
            seen = after.seen;
        }
    }

    /// One try. Gives why it did not work, as far as a second one may help.
    async fn restrict(
        &mut self,
        ceiling: &Ceiling,
        contest: Option<ContestedAtIdp>,
        seen: &Seen,
    ) -> Result<Option<String>, IdpError> {
        let cannot = match self.hold_once(ceiling, seen).await {
            Ok(()) => None,
            Err(error) if error.is_transient() => return Err(idp(error)),
            Err(AdminError::NotFound { what }) => {
                // A group that went away, or the account did: the next reading tells.
                forget_layout(self.keycloak).await;
                self.layout = layout(self.keycloak).await?;
                Some(format!("{what} is not there"))
            }
            Err(error @ (AdminError::Forbidden { .. } | AdminError::Unauthorized { .. })) => {
                return Err(idp(error));
            }
            Err(error) => Some(error.to_string()),
        };
        if contest.is_some() && self.layout.root.is_some() {
            // Survives the loss of our store, and says more than a level does. Struck out by a lift.
            self.note(Taken::Contested, seen).await.map_err(idp)?;
        }
        Ok(cannot)
    }

    async fn hold_once(&mut self, ceiling: &Ceiling, seen: &Seen) -> Result<(), AdminError> {
        self.note_again(seen).await?;
        self.take_roles(seen).await?;
        // Without any group of a level the account stays without a claim, which reads as `none`.
        let Some((level, group)) = self.layout.level(ceiling) else {
            return Ok(());
        };
        let (level, group) = (level.to_owned(), group.to_owned());
        let admin = &self.keycloak.admin;
        let others = seen
            .group_ids()
            .filter(|id| *id != group && self.layout.is_level(id));
        for other in others.map(str::to_owned).collect::<Vec<_>>() {
            admin.leave_group(self.sub, &other).await?;
            self.did(format!("left {}", self.named(&other)));
        }
        if !seen.is_in(&group) {
            admin.join_group(self.sub, &group).await?;
            self.did(format!("joined {ROOT}/{HOLD_GROUP}{level}"));
        }
        Ok(())
    }

    /// Notes what our record says was taken, where somebody took the note away.
    async fn note_again(&mut self, seen: &Seen) -> Result<(), AdminError> {
        for taken in self.owed.clone() {
            if !self.noted(taken, seen) {
                self.note(taken, seen).await?;
                self.did(format!("joined {ROOT}/{}", taken.group()));
            }
        }
        Ok(())
    }

    /// Takes the default role, a `reentry-full` of the account's own, and roles of levels granted one by one.
    async fn take_roles(&mut self, seen: &Seen) -> Result<(), AdminError> {
        let admin = &self.keycloak.admin;
        let held = seen.group_ids().any(|id| self.layout.is_level(id));
        let noted = self.layout.notes.values().any(|id| seen.is_in(id));
        let default_role = self.layout.default_role.as_ref().and_then(|role| role.id.clone());
        let default_role = seen
            .mapped
            .iter()
            .find(|role| role.id.is_some() && role.id == default_role);
        if let Some(role) = default_role {
            self.note(Taken::DefaultRole, seen).await?;
            admin
                .remove_realm_roles(self.sub, std::slice::from_ref(role))
                .await?;
            self.did(format!("took role {}", role.name));
        }
        if let Some(role) = seen.mapped(FULL) {
            // What somebody grants during a hold is not given back.
            if !held && !noted && !self.known {
                self.note(Taken::FullRole, seen).await?;
            }
            admin
                .remove_realm_roles(self.sub, std::slice::from_ref(role))
                .await?;
            self.did(format!("took role {FULL}"));
        }
        // Another level's role would be a second claim.
        let stray = seen.mapped.iter().filter(|role| role.name.starts_with(HOLD_ROLE));
        let stray: Vec<Role> = stray.cloned().collect();
        if !stray.is_empty() {
            admin.remove_realm_roles(self.sub, &stray).await?;
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

    fn named(&self, group: &str) -> String {
        let level = self.layout.levels.iter().find(|(_, id)| *id == group);
        level.map_or_else(
            || group.to_owned(),
            |(level, _)| format!("{ROOT}/{HOLD_GROUP}{level}"),
        )
    }

    /// Writes down that something is about to be taken.
    async fn note(&mut self, taken: Taken, seen: &Seen) -> Result<(), AdminError> {
        let group = match self.layout.notes.get(&taken) {
            Some(group) => group.clone(),
            None => self.make_note_group(taken).await?,
        };
        if !seen.is_in(&group) {
            self.keycloak.admin.join_group(self.sub, &group).await?;
        }
        self.owed.insert(taken);
        Ok(())
    }

    /// A realm wired without the group gets it now: a hold must not wait for an operator.
    async fn make_note_group(&mut self, taken: Taken) -> Result<String, AdminError> {
        let group = Group {
            name: taken.group().to_owned(),
            ..Group::default()
        };
        let admin = &self.keycloak.admin;
        let id = match admin.create_group(self.layout.root.as_deref(), &group).await {
            Err(AdminError::Conflict { .. }) => {
                let path = format!("{ROOT}/{}", taken.group());
                let found = admin.group_by_path(&path).await?.and_then(|group| group.id);
                found.ok_or(AdminError::NotFound { what: path })?
            }
            other => other?,
        };
        self.layout.notes.insert(taken, id.clone());
        forget_layout(self.keycloak).await;
        Ok(id)
    }

    /// Strikes a note out, after what it says was given back.
    async fn strike(&mut self, taken: Taken) -> Result<(), AdminError> {
        if let Some(group) = self.layout.notes.get(&taken) {
            self.keycloak.admin.leave_group(self.sub, group).await?;
        }
        self.owed.remove(&taken);
        Ok(())
    }

    fn noted(&self, taken: Taken, seen: &Seen) -> bool {
        self.layout
            .notes
            .get(&taken)
            .is_some_and(|group| seen.is_in(group))
    }

    /// Whether a hold took it: the realm says so, or our record does.
    fn took(&self, taken: Taken, seen: &Seen) -> bool {
        self.owed.contains(&taken) || self.noted(taken, seen)
    }
}
