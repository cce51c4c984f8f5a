//! The state behind the fleet's stream: counts per bucket of four hours, and their changes. Pure. An event has at
//! most [`MAX_CHANGES`] counts of sensors. The first event with the changes after it equals a later first event: a
//! change has the new count, not the difference.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use uuid::Uuid;

use crate::domain::SensorIdentifier;
use crate::store::{Activity, ActivityTotals, BUCKET_SECS, BUCKETS, Counts, bucket_begin};

/// Counts of sensors in one event, about 160 bytes each; the sensors over the limit are counted.
const MAX_CHANGES: usize = 2_000;

/// The list of the counts of each sensor.
pub(crate) const ACTIVITY_PATH: &str = "/api/v1/activity";

type Buckets = BTreeMap<i32, Counts>;

/// The sums per network. The counts of single sensors are only in PostgreSQL.
#[derive(Debug, Default)]
pub(super) struct Model {
    sums: BTreeMap<Uuid, Buckets>,
    sensor_counts: BTreeMap<Uuid, u64>,
}

/// The counts of one bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = FleetBucket)]
pub(crate) struct BucketCounts {
    bucket: jiff::Timestamp,
    measurements: i64,
    log_messages: i64,
    heartbeats: i64,
}

/// The counts of one sensor.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = FleetSensor)]
pub(crate) struct SensorCounts {
    #[schema(value_type = Uuid)]
    identifier: SensorIdentifier,
    /// Buckets without an item are left out.
    buckets: Vec<BucketCounts>,
}

/// The first event, and any that restarts the stream.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct FleetSnapshot {
    bucket_seconds: i64,
    /// The beginning of the first bucket; `to` is the end of the last.
    from: jiff::Timestamp,
    to: jiff::Timestamp,
    /// One for each bucket, also without items.
    totals: Vec<BucketCounts>,
    /// Sensors that the caller may see.
    sensor_count: u64,
    /// The list of the counts of each sensor.
    #[schema(example = "/api/v1/activity")]
    activity_path: &'static str,
}

/// Changed counts, as later events have them.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct FleetChange {
    totals: Vec<BucketCounts>,
    sensors: Vec<SensorCounts>,
    /// Sensors that have changed and are not listed.
    sensors_not_listed: u64,
}

impl SensorCounts {
    pub(crate) fn new(identifier: SensorIdentifier, buckets: &[(i32, Counts)]) -> Self {
        let buckets = buckets.iter().map(|(bucket, counts)| bucket_counts(*bucket, *counts));
        Self { identifier, buckets: buckets.collect() }
    }
}

impl Model {
    pub(super) fn new(totals: ActivityTotals) -> Self {
        let mut model = Self::default();
        for (network, bucket, counts) in totals.sums {
            model.sums.entry(network).or_default().insert(bucket, counts);
        }
        model.sensor_counts = totals.sensor_counts.into_iter().collect();
        model
    }

    /// Adds the counts of a fold.
    pub(super) fn apply(&mut self, changed: &[Activity]) {
        for it in changed {
            let sums = self.sums.entry(it.network).or_default().entry(it.bucket).or_default();
            *sums = *sums + it.added;
        }
    }

    /// Drops buckets older than 28 days.
    pub(super) fn forget(&mut self, present: i32) {
        let first = present - BUCKETS + 1;
        self.sums.values_mut().for_each(|buckets| *buckets = buckets.split_off(&first));
    }

    /// The first event of a reader in this scope; `present` is the last bucket.
    pub(super) fn snapshot(&self, scope: Option<Uuid>, present: i32) -> FleetSnapshot {
        let first = present - BUCKETS + 1;
        let in_scope = self.sensor_counts.iter().filter(|(network, _)| is_in(scope, **network));
        FleetSnapshot {
            bucket_seconds: BUCKET_SECS,
            from: bucket_begin(first).to_jiff(),
            to: bucket_begin(present + 1).to_jiff(),
            totals: self.totals(scope, first..=present),
            sensor_count: in_scope.map(|(_, count)| count).sum(),
            activity_path: ACTIVITY_PATH,
        }
    }

    /// The changes that a reader in this scope may see, or `None`. `changed` is sorted by sensor and has been applied.
    pub(super) fn change(&self, scope: Option<Uuid>, changed: &[Activity]) -> Option<FleetChange> {
        let (mut sensors, mut sensors_not_listed) = (Vec::new(), 0);
        let (mut buckets, mut count) = (BTreeSet::new(), 0);
        for same in
            changed.chunk_by(|one, next| (one.sensor, one.network) == (next.sensor, next.network))
        {
            if !is_in(scope, same[0].network) {
                continue;
            }
            buckets.extend(same.iter().map(|it| it.bucket));
            if count + same.len() > MAX_CHANGES {
                sensors_not_listed += 1;
                continue;
            }
            count += same.len();
            let counts: Vec<_> = same.iter().map(|it| (it.bucket, it.counts)).collect();
            sensors.push(SensorCounts::new(same[0].sensor, &counts));
        }
        let totals = self.totals(scope, buckets);
        (!totals.is_empty()).then_some(FleetChange { totals, sensors, sensors_not_listed })
    }

    fn totals(
        &self,
        scope: Option<Uuid>,
        buckets: impl IntoIterator<Item = i32>,
    ) -> Vec<BucketCounts> {
        let in_scope = || self.sums.iter().filter(|(network, _)| is_in(scope, **network));
        let total = |bucket: i32| {
            in_scope()
                .filter_map(|(_, buckets)| buckets.get(&bucket))
                .fold(Counts::default(), |total, it| total + *it)
        };
        buckets.into_iter().map(|bucket| bucket_counts(bucket, total(bucket))).collect()
    }
}

fn is_in(scope: Option<Uuid>, network: Uuid) -> bool {
    scope.is_none_or(|scope| scope == network)
}

fn bucket_counts(bucket: i32, counts: Counts) -> BucketCounts {
    BucketCounts {
        bucket: bucket_begin(bucket).to_jiff(),
        measurements: counts.measurements,
        log_messages: counts.log_messages,
        heartbeats: counts.heartbeats,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const PRESENT: i32 = 123_456;

    fn activity(
        sensor: SensorIdentifier,
        network: Uuid,
        (bucket, all, new): (i32, i64, i64),
    ) -> Activity {
        let counts = |measurements| Counts { measurements, ..Counts::default() };
        Activity { sensor, network, bucket, counts: counts(all), added: counts(new) }
    }

    fn shown(snapshot: &impl Serialize) -> Value {
        serde_json::to_value(snapshot).unwrap()
    }

    fn last_total(model: &Model, scope: Option<Uuid>) -> Value {
        shown(&model.snapshot(scope, PRESENT))["totals"][BUCKETS as usize - 1]["measurements"]
            .clone()
    }

    #[test]
    fn a_scope_hides_the_other_network() {
        let (one, other) = (SensorIdentifier::random(), SensorIdentifier::random());
        let (mine, theirs) = (Uuid::new_v4(), Uuid::new_v4());
        let changed =
            [activity(one, mine, (PRESENT, 2, 2)), activity(other, theirs, (PRESENT, 7, 7))];
        let mut model = Model::default();
        model.apply(&changed);
        assert_eq!(last_total(&model, Some(mine)), 2);
        assert_eq!(last_total(&model, None), 9);
        let change = shown(&model.change(Some(mine), &changed).unwrap());
        assert!(!change.to_string().contains(&other.to_string()), "{change}");
        assert_eq!(change["totals"][0]["measurements"], 2);
        assert!(model.change(Some(Uuid::new_v4()), &changed).is_none());
    }

    #[test]
    fn the_size_of_an_event_is_bounded() {
        let network = Uuid::new_v4();
        let max = i64::MAX / 1_000_000;
        // Sensors that sent the items of 28 days at once, and many that sent one item.
        for (sensors, buckets) in [(100, BUCKETS), (20_000, 1)] {
            let changed: Vec<_> = (0..sensors)
                .map(|_| SensorIdentifier::random())
                .flat_map(|sensor| (0..buckets).map(move |back| (sensor, PRESENT - back)))
                .map(|(sensor, bucket)| activity(sensor, network, (bucket, max, 1)))
                .collect();
            let mut model = Model::default();
            model.apply(&changed);
            let change = shown(&model.change(None, &changed).unwrap());
            let listed = change["sensors"].as_array().unwrap().len() as u64;
            assert_eq!(listed + change["sensors_not_listed"].as_u64().unwrap(), sensors);
            assert!(listed > 0 && change.to_string().len() < 512 << 10, "{listed}");
            assert_eq!(change["totals"].as_array().unwrap().len() as i32, buckets);
            assert_eq!(last_total(&model, None), sensors);
        }
    }

    #[test]
    fn a_change_holds_the_new_counts() {
        let (one, network) = (SensorIdentifier::random(), Uuid::new_v4());
        let mut model = Model::default();
        for (all, new) in [(2, 2), (5, 3)] {
            let changed = [activity(one, network, (PRESENT, all, new))];
            model.apply(&changed);
            let change = shown(&model.change(None, &changed).unwrap());
            assert_eq!(change["sensors"][0]["buckets"][0]["measurements"], all);
            assert_eq!(change["totals"][0]["measurements"], all);
        }
    }

    #[test]
    fn old_buckets_are_dropped() {
        let network = Uuid::new_v4();
        let mut model = Model::default();
        model.apply(&[activity(
            SensorIdentifier::random(),
            network,
            (PRESENT - BUCKETS + 1, 1, 1),
        )]);
        model.forget(PRESENT);
        assert_eq!(model.sums[&network].len(), 1);
        model.forget(PRESENT + 1);
        assert!(model.sums[&network].is_empty());
    }
}
