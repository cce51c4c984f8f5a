//! The faults by name. Used by the plan, which chooses them, and by the harness, which injects them; `service`, `postgres`,
//! `replication`, `operators`, `broker` and `instances` implement them. A fault is over when `inject` returns.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;

use super::run::Run;
use super::{broker, instances, operators, postgres, replication, service};
use crate::support::server::Launcher;

macro_rules! faults {
    ($($variant:ident = $name:literal,)+; $($of_instances:ident = $name_of_instances:literal,)+) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Fault { $($variant,)+ $($of_instances,)+ }

        impl Fault {
            /// The faults for one instance.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The faults that need several instances.
            pub(crate) const OF_INSTANCES: &'static [Self] = &[$(Self::$of_instances,)+];

            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                    $(Self::$of_instances => $name_of_instances,)+
                }
            }
        }
    };
}

faults! {
    ServiceKilled = "service-killed",
    ServiceKilledAtStart = "service-killed-at-start",
    ServiceKilledBeforePuback = "service-killed-before-puback",
    ServiceKilledInDrain = "service-killed-in-drain",
    ServiceTerminated = "service-terminated",
    PanicInActor = "panic-in-actor",
    PanicInDelivery = "panic-in-delivery",
    PanicInIngest = "panic-in-ingest",
    Twins = "twins",
    PostgresBackendKilled = "postgres-backend-killed",
    PostgresTerminated = "postgres-terminated",
    PostgresRestarted = "postgres-restarted",
    PostgresRefused = "postgres-refused",
    PostgresLocked = "postgres-locked",
    PostgresUsedUp = "postgres-used-up",
    PostgresDiskFull = "postgres-disk-full",
    PostgresReadOnly = "postgres-read-only",
    PostgresDeadlock = "postgres-deadlock",
    PostgresSerialization = "postgres-serialization",
    PostgresClosed = "postgres-closed",
    PostgresHalfOpen = "postgres-half-open",
    PostgresFailedOver = "postgres-failed-over",
    PostgresCommitWaits = "postgres-commit-waits",
    PostgresPublication = "postgres-publication",
    PostgresGeneratedColumn = "postgres-generated-column",
    PostgresWrongClock = "postgres-wrong-clock",
    BrokerKilled = "broker-killed",
    BrokerRestarted = "broker-restarted",
    BrokerClosed = "broker-closed",
    BrokerHalfOpen = "broker-half-open",
    BrokerStalled = "broker-stalled",
    BrokerFrozen = "broker-frozen",
    BrokerRefusesLogin = "broker-refuses-login",
    BrokerLosesSession = "broker-loses-session",
    InputGarbage = "input-garbage",
    InputLimits = "input-limits",
    InputHot = "input-hot",
    InputNewcomers = "input-newcomers",
    InputTwice = "input-twice",
    InputTimes = "input-times",
    InputDeleted = "input-deleted",
    InputCreated = "input-created",
    ;
    InstanceKilled = "instance-killed",
    InstanceDrained = "instance-drained",
    InstanceAdded = "instance-added",
    InstancesRestarted = "instances-restarted",
    InstanceHalfOpen = "instance-half-open",
    LeaderKilled = "leader-killed",
}

/// A planned panic.
#[derive(Clone, Debug)]
pub(crate) struct Panics {
    spot: &'static str,
    /// It panics at one of these occasions, chosen at random.
    occasions: std::ops::Range<u32>,
}

impl Panics {
    pub(crate) fn setting(self, rng: &mut StdRng) -> String {
        format!("{}={}", self.spot, rng.random_range(self.occasions))
    }
}

/// How large a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scale {
    /// For the integration tests.
    Short,
    /// Faults last as long as in production.
    Long,
    /// A steady load for a soak test.
    Soak,
}

impl Scale {
    pub(crate) const fn seconds(self, short: f64, long: f64) -> Duration {
        match self {
            Self::Short => Duration::from_millis((short * 1e3) as u64),
            Self::Long => Duration::from_millis((long * 1e3) as u64),
            Self::Soak => Duration::from_millis((long.min(20.0) * 1e3) as u64),
        }
    }

    pub(crate) const fn messages_per_second(self) -> f64 {
        match self {
            Self::Short | Self::Long => 300.0,
            Self::Soak => 5_000.0,
        }
    }

    pub(crate) const fn newcomers(self) -> usize {
        match self {
            Self::Short => 3_000,
            Self::Long => 50_000,
            Self::Soak => 0,
        }
    }
}

impl Fault {
    /// The faults that are combined with faults of several instances.
    pub(crate) const BESIDE_INSTANCES: &'static [Self] = &[
        Self::ServiceKilled,
        Self::ServiceKilledBeforePuback,
        Self::PostgresTerminated,
        Self::PostgresRestarted,
        Self::BrokerRestarted,
        Self::BrokerClosed,
        Self::InputTwice,
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().chain(Self::OF_INSTANCES).copied().find(|fault| fault.name() == name)
    }

    /// The faults that can be combined, and that the servers of this run allow.
    pub(crate) fn supported(faults: &[Self]) -> Vec<Self> {
        // The small disk belongs to the shared server.
        let has_own_server = faults.iter().any(|it| it.needs_own_server());
        let is_playable = |fault: &Self| match fault {
            // In a container the harness cannot reach saved files, the clock, or another container.
            Self::BrokerKilled
            | Self::BrokerFrozen
            | Self::PostgresFailedOver
            | Self::PostgresWrongClock => Launcher::for_this_run() == Launcher::Binaries,
            Self::PostgresDiskFull => !has_own_server,
            _ => true,
        };
        faults.iter().copied().filter(is_playable).collect()
    }

    /// Whether its run needs a separate PostgreSQL.
    pub(crate) const fn needs_own_server(self) -> bool {
        matches!(self, Self::PostgresFailedOver | Self::PostgresWrongClock)
    }

    /// Whether commits get no response until the service's own timeout.
    pub(crate) const fn delays_commits(self) -> bool {
        matches!(
            self,
            Self::PostgresHalfOpen
                | Self::PostgresFailedOver
                | Self::PostgresCommitWaits
                | Self::InstanceHalfOpen
        )
    }

    /// The panic that it plans for each run of the process.
    pub(crate) const fn panics(self) -> Option<Panics> {
        match self {
            Self::PanicInActor => Some(Panics { spot: "actor", occasions: 1..1_500 }),
            Self::PanicInDelivery => Some(Panics { spot: "delivery", occasions: 1..60 }),
            Self::PanicInIngest => Some(Panics { spot: "ingest", occasions: 1..120 }),
            _ => None,
        }
    }

    /// Injects the fault, and ends it.
    pub(crate) async fn inject(self, run: &Run<'_>, rng: &mut StdRng) {
        match self {
            Self::ServiceKilled => service::killed(run, rng).await,
            Self::ServiceKilledAtStart => service::killed_at_start(run, rng).await,
            Self::ServiceKilledBeforePuback => service::killed_before_puback(run, rng).await,
            Self::ServiceKilledInDrain => service::killed_in_drain(run, rng).await,
            Self::ServiceTerminated => service::terminated(run, rng).await,
            Self::Twins => service::twins(run).await,
            Self::PostgresBackendKilled => postgres::backend_killed(run).await,
            Self::PostgresTerminated => postgres::terminated(run, rng).await,
            Self::PostgresRestarted => postgres::restarted(run, rng).await,
            Self::PostgresRefused => postgres::refused(run).await,
            Self::PostgresLocked => postgres::locked(run).await,
            Self::PostgresUsedUp => postgres::used_up(run).await,
            Self::PostgresDiskFull => postgres::disk_full(run).await,
            Self::PostgresReadOnly => postgres::read_only(run).await,
            Self::PostgresDeadlock => postgres::deadlock(run).await,
            Self::PostgresSerialization => postgres::serialization(run).await,
            Self::PostgresClosed => run.to_database.lock().await.close_all(),
            Self::PostgresHalfOpen => postgres::half_open(run).await,
            Self::PostgresFailedOver => replication::failed_over(run, rng).await,
            Self::PostgresCommitWaits => replication::commit_waits(run).await,
            Self::PostgresPublication => operators::publication(run).await,
            Self::PostgresGeneratedColumn => operators::generated_column(run, rng).await,
            Self::PostgresWrongClock => operators::wrong_clock(run, rng).await,
            Self::BrokerKilled => broker::killed(run, rng).await,
            Self::BrokerRestarted => broker::restarted(run).await,
            Self::BrokerClosed => broker::closed(run, rng).await,
            Self::BrokerHalfOpen => broker::half_open(run).await,
            Self::BrokerStalled => broker::stalled(run).await,
            Self::BrokerFrozen => broker::frozen(run).await,
            Self::BrokerRefusesLogin => broker::refuses_login(run).await,
            Self::BrokerLosesSession => broker::loses_session(run).await,
            Self::InstanceKilled => instances::killed(run, rng).await,
            Self::InstanceDrained => instances::drained_by_command(run, rng).await,
            Self::InstanceAdded => instances::added_and_drained(run, rng).await,
            Self::InstancesRestarted => instances::restarted_in_turn(run, rng).await,
            Self::InstanceHalfOpen => instances::half_open(run, rng).await,
            Self::LeaderKilled => instances::leader_killed(run, rng).await,
            Self::InputDeleted => {
                let path = format!("/api/v1/sensors/{}", run.deleted_sensor);
                run.process_runs.request_until_success("DELETE", &path, None).await;
            }
            Self::InputCreated => {
                let body = json!({ "name": "late", "identifier": run.late_sensor });
                run.process_runs
                    .request_until_success("POST", "/api/v1/sensors", Some(&body))
                    .await;
            }
            // These are settings of the publishers or of the service.
            Self::PanicInActor
            | Self::PanicInDelivery
            | Self::PanicInIngest
            | Self::InputGarbage
            | Self::InputLimits
            | Self::InputHot
            | Self::InputNewcomers
            | Self::InputTwice
            | Self::InputTimes => {}
        }
    }
}
