//! What the handlers work with: built by `app`, one for all HTTP workers.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::SupervisorHandle;
use crate::domain::{Flow, Health, Ledger, Timestamp};
use crate::metrics::Metrics;
use crate::replay::Replays;
use crate::store::Store;
use crate::streams::Hub;
use crate::tasks::Tasks;
use crate::telemetry::LogFilter;
use crate::wire::value::NestedValues;

/// What the handlers work with.
#[derive(Clone)]
pub struct Context {
    /// The tables.
    pub store: Store,
    /// The same by connections of its own: who calls, and whether the database answers.
    pub access: Store,
    /// The same for what takes minutes: purges, and bundles on demand.
    pub work: Store,
    /// The sensors' actors.
    pub supervisor: SupervisorHandle,
    /// What brings rejections through the pipeline again.
    pub replays: Replays,
    /// The account of the items.
    pub ledger: Arc<Ledger>,
    /// What is connected.
    pub health: Arc<Health>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Runs what requests leave running.
    pub tasks: Tasks,
    /// Who is told of what is committed.
    pub streams: Streams,
    /// How ingest flows, and its bounds.
    pub ingest: Ingest,
    /// What clients may depend on.
    pub settings: Settings,
    /// When the process began.
    pub started_at: Timestamp,
}

/// Settings on which clients may depend.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Settings {
    /// `MQTT_TOPIC_PREFIX`, which precedes all topics, without the slash between them.
    pub topic_prefix: String,
    /// `NESTED_VALUES`: whether values and configurations may hold objects and arrays.
    pub nested_values: NestedValues,
    /// `FUTURE_TOLERANCE_SECS`: items further ahead are stored, but never are the latest while there are others.
    pub future_tolerance_secs: u32,
}

/// The streams that can be opened.
#[derive(Clone)]
pub struct Streams {
    /// Of each sensor.
    pub hub: Arc<Hub>,
    /// Of the whole fleet.
    pub fleet: Arc<crate::streams::Fleet>,
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
    /// What is logged.
    pub log: LogFilter,
}
