//! What the fleet's readers are shown: per bucket of four hours what all sensors said, and what each
//! of them did. Pure. Promises that a snapshot and the changes after it say the same as a later
//! snapshot: a change gives a count as it is now, not what was added to it.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::domain::SensorIdentifier;
use crate::store::{Activity, ActivityReading, BUCKET_SECS, BUCKETS, Counts, bucket_begin};

/// Sensors whose changes stand in one event; beyond it the sums alone are told.
const MAX_CHANGES: usize = 2_000;

type Buckets = BTreeMap<i32, Counts>;

/// What is remembered while somebody reads.
#[derive(Debug, Default)]
pub(super) struct Model {
    sensors: BTreeMap<SensorIdentifier, (Uuid, Buckets)>,
    sums: BTreeMap<Uuid, Buckets>,
    /// Of each network.
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

/// What one sensor said.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = FleetSensor)]
pub(crate) struct SensorCounts {
    #[schema(value_type = Uuid)]
    identifier: SensorIdentifier,
    /// Buckets in which it said nothing are left out.
    buckets: Vec<BucketCounts>,
}

/// All of it, as the first event has it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = FleetSnapshot)]
pub(crate) struct Snapshot {
    bucket_seconds: i64,
    /// The begin of the first bucket, and the end of the last.
    from: jiff::Timestamp,
    to: jiff::Timestamp,
    /// One for each bucket, the quiet ones too.
    totals: Vec<BucketCounts>,
    sensors: Vec<SensorCounts>,
    /// Sensors of which only the totals tell: quiet ones, and those beyond the bound.
    sensors_not_listed: u64,
}

/// What has changed, as the later events have it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = FleetChange)]
pub(crate) struct Change {
    totals: Vec<BucketCounts>,
    sensors: Vec<SensorCounts>,
    /// Sensors that have changed and are not listed.
    sensors_not_listed: u64,
}

impl Model {
    /// What was read, and nothing else.
    pub(super) fn new(reading: ActivityReading) -> Self {
        let mut model = Self::default();
        for it in reading.sensors {
            model.track(&it).insert(it.bucket, it.counts);
        }
        for (network, bucket, counts) in reading.sums {
            model.sums.entry(network).or_default().insert(bucket, counts);
        }
        model.sensor_counts = reading.sensor_counts.into_iter().collect();
        model
    }

    /// Takes in what a fold has changed. A sensor that is not known is let in while there is room.
    pub(super) fn apply(&mut self, changed: &[Activity], max_sensors: usize) {
        for it in changed {
            let sums = self.sums.entry(it.network).or_default().entry(it.bucket).or_default();
            sums.measurements += it.added.measurements;
            sums.log_messages += it.added.log_messages;
            sums.heartbeats += it.added.heartbeats;
            if self.sensors.contains_key(&it.sensor) || self.sensors.len() < max_sensors {
                self.track(it).insert(it.bucket, it.counts);
            }
        }
    }

    fn track(&mut self, it: &Activity) -> &mut Buckets {
        let (network, buckets) = self.sensors.entry(it.sensor).or_default();
        *network = it.network;
        buckets
    }

    /// Buckets that are over are forgotten.
    pub(super) fn forget(&mut self, present: i32) {
        let first = present - BUCKETS + 1;
        let over = |buckets: &mut Buckets| *buckets = buckets.split_off(&first);
        self.sensors.values_mut().for_each(|(_, buckets)| over(buckets));
        self.sums.values_mut().for_each(over);
        self.sensors.retain(|_, (_, buckets)| !buckets.is_empty());
    }

    /// All that a reader in this scope may see; `present` is the last bucket.
    pub(super) fn snapshot(&self, scope: Option<Uuid>, present: i32) -> Snapshot {
        let first = present - BUCKETS + 1;
        let sensors: Vec<SensorCounts> = self
            .sensors
            .iter()
            .filter(|(_, (network, _))| is_in(scope, *network))
            .map(|(identifier, (_, buckets))| SensorCounts {
                identifier: *identifier,
                buckets: buckets
                    .range(first..=present)
                    .map(|(bucket, counts)| bucket_counts(*bucket, *counts))
                    .collect(),
            })
            .filter(|sensor| !sensor.buckets.is_empty())
            .collect();
        let in_scope = self.sensor_counts.iter().filter(|(network, _)| is_in(scope, **network));
        let sensor_count: u64 = in_scope.map(|(_, count)| count).sum();
        Snapshot {
            bucket_seconds: BUCKET_SECS,
            from: bucket_begin(first).to_jiff(),
            to: bucket_begin(present + 1).to_jiff(),
            totals: (first..=present)
                .map(|bucket| bucket_counts(bucket, self.sum(scope, bucket)))
                .collect(),
            sensors_not_listed: sensor_count.saturating_sub(sensors.len() as u64),
            sensors,
        }
    }

    /// The changes that a reader in this scope may see; none where there are none. They have been
    /// applied.
    pub(super) fn change(&self, scope: Option<Uuid>, changed: &[Activity]) -> Option<Change> {
        let mine: BTreeMap<(SensorIdentifier, i32), Counts> = changed
            .iter()
            .filter(|it| is_in(scope, it.network))
            .map(|it| ((it.sensor, it.bucket), it.counts))
            .collect();
        let buckets: std::collections::BTreeSet<i32> =
            mine.keys().map(|(_, bucket)| *bucket).collect();
        let mut sensors: Vec<SensorCounts> = Vec::new();
        let mut sensors_not_listed = 0;
        let all: Vec<_> = mine.into_iter().collect();
        for same in all.chunk_by(|((one, _), _), ((next, _), _)| one == next) {
            let identifier = same[0].0.0;
            if sensors.len() == MAX_CHANGES || !self.sensors.contains_key(&identifier) {
                sensors_not_listed += 1;
                continue;
            }
            let buckets = same.iter().map(|((_, bucket), it)| bucket_counts(*bucket, *it));
            sensors.push(SensorCounts { identifier, buckets: buckets.collect() });
        }
        let totals: Vec<BucketCounts> = buckets
            .into_iter()
            .map(|bucket| bucket_counts(bucket, self.sum(scope, bucket)))
            .collect();
        (!totals.is_empty()).then_some(Change { totals, sensors, sensors_not_listed })
    }

    fn sum(&self, scope: Option<Uuid>, bucket: i32) -> Counts {
        let in_scope = self.sums.iter().filter(|(network, _)| is_in(scope, **network));
        in_scope.filter_map(|(_, buckets)| buckets.get(&bucket)).fold(
            Counts::default(),
            |sum, it| Counts {
                measurements: sum.measurements + it.measurements,
                log_messages: sum.log_messages + it.log_messages,
                heartbeats: sum.heartbeats + it.heartbeats,
            },
        )
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
    use serde_json::{Value, json};

    const PRESENT: i32 = 123_456;

    fn said(sensor: SensorIdentifier, network: Uuid, bucket: i32, all: i64, new: i64) -> Activity {
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
    fn a_snapshot_has_every_bucket_and_each_sensor_that_spoke() {
        let (one, network) = (SensorIdentifier::random(), Uuid::new_v4());
        let model = Model::new(ActivityReading {
            sensors: vec![said(one, network, PRESENT, 5, 0)],
            sums: vec![(network, PRESENT, Counts { measurements: 5, ..Counts::default() })],
            sensor_counts: vec![(network, 3)],
        });
        let snapshot = shown(&model.snapshot(None, PRESENT));
        assert_eq!(snapshot["totals"].as_array().unwrap().len(), 168);
        assert_eq!(last_total(&model, None), 5);
        assert_eq!(snapshot["totals"][0]["measurements"], 0);
        assert_eq!(snapshot["sensors"][0]["identifier"], json!(one));
        assert_eq!(snapshot["sensors"][0]["buckets"][0]["measurements"], 5);
        assert_eq!(snapshot["sensors_not_listed"], 2);
        assert_eq!(snapshot["totals"][0]["bucket"], snapshot["from"]);
    }

    #[test]
    fn a_scope_hides_the_other_network() {
        let (one, other) = (SensorIdentifier::random(), SensorIdentifier::random());
        let (mine, theirs) = (Uuid::new_v4(), Uuid::new_v4());
        let changed = [said(one, mine, PRESENT, 2, 2), said(other, theirs, PRESENT, 7, 7)];
        let mut model = Model::default();
        model.apply(&changed, 10);
        assert_eq!(last_total(&model, Some(mine)), 2);
        assert_eq!(last_total(&model, None), 9);
        let change = shown(&model.change(Some(mine), &changed).unwrap());
        assert!(!change.to_string().contains(&other.to_string()), "{change}");
        assert_eq!(change["totals"][0]["measurements"], 2);
        assert!(model.change(Some(Uuid::new_v4()), &changed).is_none());
        let snapshot = shown(&model.snapshot(Some(mine), PRESENT));
        assert!(!snapshot.to_string().contains(&other.to_string()), "{snapshot}");
    }

    #[test]
    fn sensors_beyond_the_bound_are_in_the_sums() {
        let network = Uuid::new_v4();
        let mut model = Model::default();
        let changed: Vec<_> =
            (0..3).map(|_| said(SensorIdentifier::random(), network, PRESENT, 1, 1)).collect();
        model.apply(&changed, 2);
        let change = shown(&model.change(None, &changed).unwrap());
        assert_eq!(change["sensors"].as_array().unwrap().len(), 2);
        assert_eq!(change["sensors_not_listed"], 1);
        assert_eq!(last_total(&model, None), 3);
    }

    #[test]
    fn a_change_says_how_much_it_is_now() {
        let (one, network) = (SensorIdentifier::random(), Uuid::new_v4());
        let mut model = Model::default();
        for (all, new) in [(2, 2), (5, 3)] {
            let changed = [said(one, network, PRESENT, all, new)];
            model.apply(&changed, 10);
            let change = shown(&model.change(None, &changed).unwrap());
            assert_eq!(change["sensors"][0]["buckets"][0]["measurements"], all);
            assert_eq!(change["totals"][0]["measurements"], all);
        }
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let network = Uuid::new_v4();
        let mut model = Model::default();
        let old = [said(SensorIdentifier::random(), network, PRESENT - BUCKETS + 1, 1, 1)];
        model.apply(&old, 10);
        model.forget(PRESENT);
        assert_eq!(model.sensors.len(), 1);
        model.forget(PRESENT + 1);
        assert!(model.sensors.is_empty() && model.sums[&network].is_empty());
    }
}
