//! The fault harness in short: a few seeds of those that `scripts/faults` plays by the hundred.

use tributary::store::EngineName;

use crate::harness::fault::{Fault, Scale};
use crate::harness::test_bed::TestBed;
use crate::harness::{Plan, run};
use crate::support::postgres::skipped_on;

/// Plays these faults together.
async fn play(seed: u64, faults: &[Fault]) {
    let plan = Plan { seed, faults: Fault::playable(faults), scale: Scale::Short };
    let test_bed = TestBed::prepare().await;
    let report = run(&plan, &test_bed).await;
    assert!(report.is_clean(), "{report:#?}");
    assert!(report.pubacks > 0 && report.items > 100 && report.ledger_reads > 0, "{report:#?}");
}

#[actix_rt::test]
async fn killed_service_and_killed_broker() {
    play(1, &[Fault::ServiceKilled, Fault::BrokerKilled, Fault::InputTwice]).await;
}

#[actix_rt::test]
async fn killed_before_puback_and_crashed_postgres() {
    let faults = [Fault::ServiceKilledBeforePuback, Fault::PostgresRestarted, Fault::InputCreated];
    play(2, &faults).await;
}

#[actix_rt::test]
async fn panics_and_a_deadlock() {
    let faults = [Fault::PanicInActor, Fault::PanicInDelivery, Fault::PostgresDeadlock];
    play(3, &faults).await;
}

#[actix_rt::test]
async fn half_open_connections() {
    play(4, &[Fault::BrokerHalfOpen, Fault::PostgresHalfOpen, Fault::InputLimits]).await;
}

#[actix_rt::test]
async fn a_lost_session_and_a_deleted_sensor() {
    play(5, &[Fault::BrokerLosesSession, Fault::InputDeleted, Fault::InputGarbage]).await;
}

#[actix_rt::test]
async fn a_primary_that_stays_up_and_a_commit_that_waits() {
    if skipped_on(&[EngineName::Citus], "its metadata names the node that has failed") {
        return;
    }
    play(6, &[Fault::PostgresFailedOver, Fault::PostgresCommitWaits]).await;
}

#[actix_rt::test]
async fn a_wrong_clock_a_publication_and_a_generated_column() {
    let others = [EngineName::TimescaleDb, EngineName::Citus];
    if skipped_on(
        &others,
        "a publication of all tables and a generated column need PostgreSQL's partitions",
    ) {
        return;
    }
    let operators = [Fault::PostgresPublication, Fault::PostgresGeneratedColumn];
    play(7, &[&operators[..], &[Fault::PostgresWrongClock]].concat()).await;
}

#[actix_rt::test]
async fn three_instances_of_which_one_is_killed_drained_and_added() {
    play(8, &[Fault::InstanceKilled, Fault::InstanceDrained, Fault::InstanceAdded]).await;
}

#[actix_rt::test]
async fn a_rolling_restart_a_dead_leader_and_an_instance_that_is_cut_off() {
    let faults = [Fault::InstancesRestarted, Fault::LeaderKilled, Fault::InstanceHalfOpen];
    play(9, &faults).await;
}
