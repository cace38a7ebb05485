//! The Keycloak adapter.
pub mod admin;
pub mod representations;
pub mod wire;
