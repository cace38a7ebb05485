//! What an IdP itself carries of a hold: the floor below a record that was lost (P5).

use crate::domain::ceiling::Ceiling;
use crate::domain::hold::Posture;
use crate::domain::policy::ContestedAtIdp;

/// What an IdP itself carries of a hold, whoever lost the record of it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts of one reading, each independent of the others"
)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The account is held at this ceiling; not at all when `None`.
    pub ceiling: Option<Ceiling>,
    /// It is frozen, or was and has not been free since.
    pub contested: bool,
    /// We switched it off.
    pub disabled: bool,
    /// Something that a lift gives back was taken from it.
    pub taken: bool,
    /// It is switched on, whoever did that.
    pub on: bool,
    /// In spite of a hold it has what only accounts outside one have, or a second level beside its own.
    pub whole: bool,
}

impl Carried {
    /// Whether the IdP carries nothing of a hold.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.ceiling.is_none() && !self.contested && !self.disabled && !self.taken
    }

    /// Whether this is what `posture` asks for.
    #[must_use]
    pub fn agrees(&self, posture: &Posture) -> bool {
        // Who cannot sign in gets nothing, whatever else the account has; who was switched off by us is not on.
        let shut = !self.on || !(self.whole || self.disabled);
        match posture {
            Posture::Free => self.is_free(),
            Posture::Held(ceiling) => shut && self.ceiling.as_ref().is_some_and(|c| c.within(ceiling)),
            Posture::Contested(at_idp) => {
                let off = *at_idp == ContestedAtIdp::IssueNone || !self.on;
                shut && off && self.contested && self.ceiling == Some(Ceiling::none())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(ceiling: Ceiling) -> Carried {
        Carried {
            ceiling: Some(ceiling),
            taken: true,
            on: true,
            ..Carried::default()
        }
    }

    #[test]
    fn what_somebody_switched_on_again_does_not_agree() {
        let read = Ceiling::parse("read").unwrap();
        let posture = Posture::Held(read.clone());
        let carried = held(read);
        assert!(carried.agrees(&posture));
        let off = Carried {
            disabled: true,
            on: false,
            ..carried.clone()
        };
        assert!(off.agrees(&posture));
        assert!(!Carried { on: true, ..off }.agrees(&posture));
        let frozen = Carried {
            contested: true,
            ..held(Ceiling::none())
        };
        assert!(frozen.agrees(&Posture::Contested(ContestedAtIdp::IssueNone)));
        assert!(!frozen.agrees(&Posture::Contested(ContestedAtIdp::Disable)));
        let shut = Carried { on: false, ..frozen };
        assert!(shut.agrees(&Posture::Contested(ContestedAtIdp::Disable)));
    }

    #[test]
    fn full_rights_in_spite_of_a_hold_do_not_agree_unless_the_account_is_off() {
        let read = Ceiling::parse("read").unwrap();
        let posture = Posture::Held(read.clone());
        let whole = Carried {
            whole: true,
            ..held(read)
        };
        assert!(!whole.agrees(&posture));
        assert!(Carried { on: false, ..whole }.agrees(&posture));
    }

    #[test]
    fn a_free_account_carries_nothing_whether_it_is_on_or_not() {
        for on in [true, false] {
            let free = Carried {
                on,
                ..Carried::default()
            };
            assert!(free.is_free() && free.agrees(&Posture::Free));
            assert!(!free.agrees(&Posture::Held(Ceiling::none())));
        }
    }
}
