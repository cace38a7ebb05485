//! What a customer of the demo's bank owns.

/// One customer's account.
#[derive(Clone, Debug)]
pub struct Book {
    pub(super) cents: i64,
    pub(super) payees: Vec<String>,
    pub(super) done: Vec<String>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            cents: 248_050,
            payees: vec!["City Power".to_owned()],
            done: Vec::new(),
        }
    }
}

pub(super) fn euros(cents: i64) -> String {
    format!("€ {}.{:02}", cents / 100, cents % 100)
}
