//! The contract of the store, run against both adapters: a real `redis-server` and a real file.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "store/house.rs"]
mod house;
#[path = "store/subjects.rs"]
mod subjects;
#[path = "store/values.rs"]
mod values;

/// Runs one set of tests against every adapter.
macro_rules! contract {
    ($($name:ident in $module:ident),* $(,)?) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let mut house = crate::house::Embedded::start().await;
                    crate::$module::$name(&mut house).await;
                }
            )*
        }
        mod redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let mut house = crate::house::Redis::start().await;
                    crate::$module::$name(&mut house).await;
                }
            )*
        }
    };
}

contract! {
    a_stored_value_comes_back in subjects,
}
