//! The contract of the store, run against both adapters: a real `redis-server` and a real file.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "store/cluster.rs"]
mod cluster;
#[path = "store/guarded.rs"]
mod guarded;
#[path = "store/house.rs"]
mod house;
#[path = "store/loss.rs"]
mod loss;
#[path = "store/older.rs"]
mod older;
#[path = "store/properties.rs"]
mod properties;
#[path = "store/queues.rs"]
mod queues;
#[path = "store/replicas.rs"]
mod replicas;
#[path = "store/sentinel.rs"]
mod sentinel;
#[path = "store/server.rs"]
mod server;
#[path = "store/subjects.rs"]
mod subjects;
#[path = "store/trouble.rs"]
mod trouble;
#[path = "store/values.rs"]
mod values;

/// Runs one set of tests against every adapter. Those that need many servers share them, so they run one after the
/// other, each on an empty store.
macro_rules! contract {
    ($($module:ident :: $name:ident),* $(,)?) => {
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

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn the_contract_holds_on_a_cluster_of_three_masters() {
            let mut servers = reentry_test_support::redis::cluster::Cluster::start();
            $(
                let start = std::time::Instant::now();
                println!("{}::{}", stringify!($module), stringify!($name));
                $module::$name(&mut cluster::Cluster::on(&mut servers).await).await;
                println!("    {:?}", start.elapsed());
            )*
            cluster::a_reading_is_one_round_trip_to_one_slot(&mut servers).await;
            cluster::a_node_killed_takes_only_its_own_partitions_along(&mut servers).await;
            cluster::a_slot_that_moves_is_followed(&mut servers).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn the_contract_holds_under_sentinel_with_failovers_in_the_middle() {
            let mut servers = reentry_test_support::redis::sentinel::SentinelSet::start();
            $(
                let start = std::time::Instant::now();
                println!("{}::{}", stringify!($module), stringify!($name));
                $module::$name(&mut sentinel::Sentinel::on(&mut servers).await).await;
                println!("    {:?}", start.elapsed());
            )*
            sentinel::a_former_master_that_wakes_is_read_from_by_nobody(&mut servers).await;
            sentinel::what_a_connected_replica_lacks_is_not_acknowledged(&mut servers).await;
            assert!(servers.failovers >= 4, "{} failovers", servers.failovers);
        }
    };
}

contract! {
    subjects::a_stored_value_comes_back,
    subjects::a_race_of_writers_loses_no_update,
    subjects::a_mark_lets_an_event_count_once,
    subjects::an_event_that_many_bring_at_once_counts_once,
    subjects::a_mark_of_one_source_is_none_of_another,
    subjects::a_closure_that_writes_what_it_did_not_read_sees_it_first,
    subjects::effects_of_a_subject_without_a_record_need_its_name,
    properties::p9_effects_audit_and_due_follow_the_record_or_nothing_does,
    properties::p9_everything_survives_a_crash_after_the_answer,
    properties::p10_changes_heard_again_much_later_end_the_same_or_stricter,
    properties::p10_delayed_changes_end_the_same_or_stricter,
    properties::p10_repeated_and_reordered_changes_end_the_same_or_stricter,
    loss::p5_a_lost_marker_is_not_believed,
    loss::p5_a_marker_of_other_keys_is_not_believed,
    loss::p5_a_flushed_store_is_not_believed,
    loss::p5_a_due_subject_without_a_record_is_not_believed,
    loss::p5_a_lost_partition_is_refused_until_it_was_rebuilt,
    loss::p5_a_store_made_for_other_upstreams_is_not_believed_and_says_what_to_do,
    loss::p5_a_store_of_another_idp_of_the_same_id_is_not_led_and_says_what_to_do,
    loss::p5_what_was_seen_outlives_the_process,
    older::p5_an_old_value_put_back_beside_newer_ones_is_not_believed,
    older::p5_a_record_of_another_account_is_not_believed,
    older::p5_a_record_taken_away_with_its_due_entry_is_not_believed,
    older::p5_a_snapshot_taken_away_is_not_believed,
    older::grants_that_are_gone_are_no_loss,
    older::p15_an_altered_account_restricts_nobody_else,
    loss::a_newer_record_is_refused_and_kept,
    loss::a_record_of_garbage_is_refused_and_kept,
    loss::p5_a_record_that_is_not_sealed_is_not_believed,
    older::p15_an_account_of_which_nothing_is_left_can_be_mended,
    older::p5_what_was_altered_is_made_anew_and_older_values_stay_out,
    loss::a_wrong_seal_key_reads_nothing_and_loses_nothing,
    loss::wrong_names_read_nothing,
    loss::no_address_can_be_read_in_what_is_stored,
    loss::init_is_for_the_first_time_and_confirms_afterwards,
    queues::the_outbox_keeps_its_order_and_gives_up_only_what_is_done,
    queues::a_deferred_effect_waits_and_holds_up_nobody,
    queues::what_is_put_off_was_not_tried,
    queues::a_dead_letter_stays_until_it_is_sent_again,
    queues::looking_at_the_outbox_moves_nothing,
    queues::the_outbox_survives_a_crash,
    queues::an_outbox_entry_that_cannot_be_read_steps_aside_and_is_kept,
    queues::the_worker_is_woken_by_a_commit,
    queues::due_subjects_come_by_time,
    queues::a_state_is_taken_once_by_one,
    queues::a_state_ends_and_is_never_overwritten,
    queues::a_lease_has_one_holder_and_a_growing_fence,
    queues::a_setting_is_not_set_under_an_old_lease,
    queues::a_setting_that_others_wrote_counts_as_missing,
    queues::audit_lines_come_newest_first_for_all_and_for_one,
    queues::audit_lines_form_a_chain,
}
