//! The parts of the service that handlers use. Built by `app`, shared by all HTTP workers.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::SupervisorHandle;
use crate::domain::{Flow, Health, Leadership, Ledger, Timestamp};
use crate::instances::Identity;
use crate::metrics::Metrics;
use crate::replay::Replays;
use crate::store::Store;
use crate::streams::Hub;
use crate::tasks::Tasks;
use crate::telemetry::LogFilterHandle;
use crate::wire::value::NestedValues;

/// The parts of the service that handlers use.
#[derive(Clone)]
pub struct Context {
    /// The tables.
    pub store: Store,
    /// The same with a pool of its own, for authentication and readiness.
    pub access: Store,
    /// The same for what takes minutes: purges, and bundles on demand.
    pub work: Store,
    /// The sensors' actors.
    pub supervisor: SupervisorHandle,
    /// Replays rejections through the pipeline.
    pub replays: Replays,
    /// The counts of all items.
    pub ledger: Arc<Ledger>,
    /// The state of the connections.
    pub health: Arc<Health>,
    /// Who this process is.
    pub identity: Identity,
    /// Whether it leads.
    pub leadership: Leadership,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Supervises tasks that outlive their request.
    pub tasks: Tasks,
    /// The readers of committed items.
    pub streams: Streams,
    /// The load of ingest, and its bounds.
    pub ingest: Ingest,
    /// The settings that clients may depend on.
    pub settings: Settings,
    /// When the process started.
    pub started_at: Timestamp,
}

/// The settings that clients may depend on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Settings {
    /// `MQTT_TOPIC_PREFIX`, which precedes all topics, without the slash between them.
    pub topic_prefix: String,
    /// `NESTED_VALUES`: whether values and configurations may hold objects and arrays.
    pub nested_values: NestedValues,
    /// `FUTURE_TOLERANCE_SECS`: items further ahead are stored, but never are the latest while there are others.
    pub future_tolerance_secs: u32,
}

/// The streams that clients can open.
#[derive(Clone)]
pub struct Streams {
    /// Of each sensor.
    pub hub: Arc<Hub>,
    /// Of the whole fleet.
    pub fleet: Arc<crate::streams::FleetStream>,
}

/// Ingest, as an operator sees it.
#[derive(Clone)]
pub struct Ingest {
    /// The load of ingest, and its pause.
    pub flow: Arc<Flow>,
    /// `MQTT_RECEIVE_MAXIMUM`
    pub max_messages: u64,
    /// `WINDOW_BYTES`
    pub max_bytes: u64,
    /// `BATCH_MAX_ITEMS`
    pub max_batch_items: u64,
    /// `DATABASE_WRITERS`
    pub writers: u32,
    /// The log filter.
    pub log: LogFilterHandle,
}
