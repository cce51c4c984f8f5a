//! The fault harness with a few short seeds; `scripts/faults` runs hundreds.

use tributary::store::EngineName;

use crate::harness::fault::{Fault, Scale};
use crate::harness::test_bed::TestBed;
use crate::harness::{Plan, run};
use crate::support::postgres::skipped_on;

async fn run_together(seed: u64, faults: &[Fault]) {
    let plan = Plan { seed, faults: Fault::supported(faults), scale: Scale::Short };
    let test_bed = TestBed::prepare().await;
    let report = run(&plan, &test_bed).await;
    assert!(report.is_clean(), "{report:#?}");
    assert!(report.pubacks > 0 && report.items > 100 && report.ledger_reads > 0, "{report:#?}");
}

#[actix_rt::test]
async fn killed_service_and_killed_broker() {
    run_together(1, &[Fault::ServiceKilled, Fault::BrokerKilled, Fault::InputTwice]).await;
}

#[actix_rt::test]
async fn killed_before_puback_and_crashed_postgres() {
    let faults = [Fault::ServiceKilledBeforePuback, Fault::PostgresRestarted, Fault::InputCreated];
    run_together(2, &faults).await;
}

#[actix_rt::test]
async fn panics_and_a_deadlock() {
    let faults = [Fault::PanicInActor, Fault::PanicInDelivery, Fault::PostgresDeadlock];
    run_together(3, &faults).await;
}

#[actix_rt::test]
async fn half_open_connections() {
    run_together(4, &[Fault::BrokerHalfOpen, Fault::PostgresHalfOpen, Fault::InputLimits]).await;
}

#[actix_rt::test]
async fn a_lost_session_and_a_deleted_sensor() {
    run_together(5, &[Fault::BrokerLosesSession, Fault::InputDeleted, Fault::InputGarbage]).await;
}

#[actix_rt::test]
async fn a_failover_with_the_old_primary_up_and_a_commit_that_waits() {
    if skipped_on(&[EngineName::Citus], "its metadata names the node that has failed") {
        return;
    }
    run_together(6, &[Fault::PostgresFailedOver, Fault::PostgresCommitWaits]).await;
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
    run_together(7, &[&operators[..], &[Fault::PostgresWrongClock]].concat()).await;
}

#[actix_rt::test]
async fn an_instance_killed_one_drained_and_one_added() {
    run_together(8, &[Fault::InstanceKilled, Fault::InstanceDrained, Fault::InstanceAdded]).await;
}

#[actix_rt::test]
async fn a_rolling_restart_a_killed_leader_and_a_half_open_instance() {
    let faults = [Fault::InstancesRestarted, Fault::LeaderKilled, Fault::InstanceHalfOpen];
    run_together(9, &faults).await;
}
