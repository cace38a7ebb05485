//! The Keycloak adapter.
pub mod admin;
pub mod representations;
