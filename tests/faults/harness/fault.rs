//! The faults, by name. Called by the plan, which chooses them, and by the run, which plays them: `service`, `postgres`,
//! `replication`, `operators` and `broker` say how. Promises that a fault that was played is over when `play` returns.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;

use super::world::World;
use super::{broker, operators, postgres, replication, service};
use crate::support::server::Place;

macro_rules! faults {
    ($($variant:ident = $name:literal,)+) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Fault { $($variant,)+ }

        impl Fault {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
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
}

/// Where a panic is ordered.
#[derive(Clone, Debug)]
pub(crate) struct Panics {
    spot: &'static str,
    /// At one of these occasions. Those before it are enough for some progress in each life.
    occasions: std::ops::Range<u32>,
}

impl Panics {
    pub(crate) fn ordered(self, rng: &mut StdRng) -> String {
        format!("{}={}", self.spot, rng.random_range(self.occasions))
    }
}

/// How large a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scale {
    /// For every run of the tests.
    Short,
    /// As a fault lasts in the field.
    Long,
    /// Half an hour under a steady load.
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
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|fault| fault.name() == name)
    }

    /// Those of them that can be played together where the servers are.
    pub(crate) fn playable(faults: &[Self]) -> Vec<Self> {
        // A server of its own does not share the small disk.
        let has_own_server = faults.iter().any(|it| it.needs_own_server());
        let is_playable = |fault: &Self| match fault {
            // What a container saves, its clock, and its way to another one are out of reach.
            Self::BrokerKilled
            | Self::BrokerFrozen
            | Self::PostgresFailedOver
            | Self::PostgresWrongClock => Place::of_this_run() == Place::Binaries,
            Self::PostgresDiskFull => !has_own_server,
            _ => true,
        };
        faults.iter().copied().filter(is_playable).collect()
    }

    /// Whether its run has a PostgreSQL that no other run uses.
    pub(crate) const fn needs_own_server(self) -> bool {
        matches!(self, Self::PostgresFailedOver | Self::PostgresWrongClock)
    }

    /// Whether it leaves commits without an answer, which only the service's own deadline ends.
    pub(crate) const fn silences_commits(self) -> bool {
        matches!(
            self,
            Self::PostgresHalfOpen | Self::PostgresFailedOver | Self::PostgresCommitWaits
        )
    }

    /// The panic that it orders from each life of the service.
    pub(crate) const fn panics(self) -> Option<Panics> {
        match self {
            Self::PanicInActor => Some(Panics { spot: "actor", occasions: 1..1_500 }),
            Self::PanicInDelivery => Some(Panics { spot: "delivery", occasions: 1..60 }),
            Self::PanicInIngest => Some(Panics { spot: "ingest", occasions: 30..150 }),
            _ => None,
        }
    }

    /// Plays it, and ends it.
    pub(crate) async fn play(self, world: &World<'_>, rng: &mut StdRng) {
        match self {
            Self::ServiceKilled => service::killed(world, rng).await,
            Self::ServiceKilledAtStart => service::killed_at_start(world, rng).await,
            Self::ServiceKilledBeforePuback => service::killed_before_puback(world, rng).await,
            Self::ServiceKilledInDrain => service::killed_in_drain(world, rng).await,
            Self::ServiceTerminated => service::terminated(world, rng).await,
            Self::Twins => service::twins(world).await,
            Self::PostgresBackendKilled => postgres::backend_killed(world).await,
            Self::PostgresTerminated => postgres::terminated(world, rng).await,
            Self::PostgresRestarted => postgres::restarted(world, rng).await,
            Self::PostgresRefused => postgres::refused(world).await,
            Self::PostgresLocked => postgres::locked(world).await,
            Self::PostgresUsedUp => postgres::used_up(world).await,
            Self::PostgresDiskFull => postgres::disk_full(world).await,
            Self::PostgresReadOnly => postgres::read_only(world).await,
            Self::PostgresDeadlock => postgres::deadlock(world).await,
            Self::PostgresSerialization => postgres::serialization(world).await,
            Self::PostgresClosed => world.to_database.lock().await.cut(),
            Self::PostgresHalfOpen => postgres::half_open(world).await,
            Self::PostgresFailedOver => replication::failed_over(world, rng).await,
            Self::PostgresCommitWaits => replication::commit_waits(world).await,
            Self::PostgresPublication => operators::publication(world).await,
            Self::PostgresGeneratedColumn => operators::generated_column(world, rng).await,
            Self::PostgresWrongClock => operators::wrong_clock(world, rng).await,
            Self::BrokerKilled => broker::killed(world, rng).await,
            Self::BrokerRestarted => broker::restarted(world).await,
            Self::BrokerClosed => broker::closed(world, rng).await,
            Self::BrokerHalfOpen => broker::half_open(world).await,
            Self::BrokerStalled => broker::stalled(world).await,
            Self::BrokerFrozen => broker::frozen(world).await,
            Self::BrokerRefusesLogin => broker::refuses_login(world).await,
            Self::BrokerLosesSession => broker::loses_session(world).await,
            Self::InputDeleted => {
                let path = format!("/api/v1/sensors/{}", world.mortal);
                world.lives.insist("DELETE", &path, None).await;
            }
            Self::InputCreated => {
                let body = json!({ "name": "late", "identifier": world.unborn });
                world.lives.insist("POST", "/api/v1/sensors", Some(&body)).await;
            }
            // What is said, or ordered before the start, is going on all the time.
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
