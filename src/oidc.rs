//! The protocol's rules without a web framework.
//!
//! Keys and the checking of our own tokens stand here beside the broker's rules, because both sides of a token
//! have to agree on one thing: which key says which algorithm.

pub mod keys;
pub mod verify;
