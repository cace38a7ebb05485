//! The only place that names concrete adapters: wiring, workers, life cycle.

pub mod clock;
pub mod serving;
pub mod workers;
