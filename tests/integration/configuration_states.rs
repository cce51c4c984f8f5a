//! The configuration state that lists and counts of sensors read from one row equals the state computed from all rows
//! of the sensor, after any history.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio_postgres::Client;
use tributary::domain::{NetworkIdentifier, Scope, SensorIdentifier, Timestamp};
use tributary::store::{
    Committer, ConfigurationState, CopyMode, NewSensor, Page, PendingConfiguration,
    RefusedConfiguration, SensorFilter, SensorOrder, Store, migrate,
};

use crate::support::postgres::{Database, connect};
use crate::support::service::database;
use crate::support::store::{batch_from, config};

const HISTORIES: usize = 12;
const SENSORS: u128 = 3;

/// A change to one of the sensors; `back` is the number of revisions before the newest.
#[derive(Clone, Debug)]
enum Step {
    Post {
        at_once: usize,
    },
    Send {
        back: i32,
    },
    Publish {
        back: i32,
    },
    Refuse {
        back: i32,
        is_final: bool,
    },
    /// A repetition is a redelivery.
    Heartbeat {
        back: i32,
        success: bool,
        mode: CopyMode,
    },
    Seen {
        minutes: i64,
    },
    Recreate {
        configured: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let back = || prop_oneof![4 => Just(0), 2 => Just(1), 1 => Just(2)];
    let mode = prop_oneof![Just(CopyMode::Direct), Just(CopyMode::Staged)];
    prop_oneof![
        3 => prop_oneof![3 => Just(1_usize), 1 => Just(3)].prop_map(|at_once| Step::Post { at_once }),
        3 => back().prop_map(|back| Step::Send { back }),
        4 => back().prop_map(|back| Step::Publish { back }),
        2 => (back(), any::<bool>()).prop_map(|(back, is_final)| Step::Refuse { back, is_final }),
        4 => (back(), any::<bool>(), mode)
            .prop_map(|(back, success, mode)| Step::Heartbeat { back, success, mode }),
        2 => (0..20_i64).prop_map(|minutes| Step::Seen { minutes }),
        1 => any::<bool>().prop_map(|configured| Step::Recreate { configured }),
    ]
}

/// Computed from all rows of each sensor: its identifier, its newest revision and its state.
const EXPECTED: &str = "\
select s.identifier, n.revision,
    case when n.revision is null then 'none'
         when n.acknowledgement_timestamp is not null and not n.success then 'failed'
         when n.acknowledgement_timestamp is not null then 'acknowledged'
         when n.publication_timestamp is null then 'pending'
         when s.last_seen_timestamp > n.publication_timestamp + interval '5 minutes' then 'stale'
         else 'published' end
from sensor s
left join lateral (
    select * from configuration c where c.sensor_identifier = s.identifier
    order by revision desc limit 1
) n on true";

struct Fixture {
    store: Store,
    committer: Committer,
    reader: Client,
    _database: Database,
}

impl Fixture {
    async fn new() -> Self {
        let database = database().await;
        let config = config(&database);
        migrate(&config).await.unwrap();
        Self {
            store: Store::new(&config),
            committer: Committer::new(&config, 1),
            reader: connect(&database.url).await.unwrap(),
            _database: database,
        }
    }

    async fn create(&self, sensor: SensorIdentifier, configured: bool) {
        let new = NewSensor {
            identifier: sensor,
            network: NetworkIdentifier::DEFAULT,
            name: sensor.to_string(),
            metadata: None,
            configuration: configured.then(|| "{}".into()),
        };
        self.store.create_sensor(&new).await.unwrap();
    }

    async fn recreate(&self, sensor: SensorIdentifier, configured: bool) {
        self.store.delete_sensor(sensor).await.unwrap();
        self.store.purge_sensor(sensor).await.unwrap();
        self.create(sensor, configured).await;
        self.store.record_clearances(&[sensor]).await.unwrap();
    }

    /// The revision `back` before the newest, if it exists.
    async fn revision(&self, sensor: SensorIdentifier, back: i32) -> Option<PendingConfiguration> {
        let newest = self.store.configuration(sensor, None).await.unwrap().unwrap()?;
        let revision = newest.revision - back;
        let found = self.store.configuration(sensor, Some(revision)).await.unwrap().unwrap()?;
        let created_at = found.creation_timestamp.into();
        let value = found.configuration.get().to_owned();
        Some(PendingConfiguration { sensor, revision, value, created_at })
    }

    async fn apply(&self, sensor: SensorIdentifier, step: &Step) {
        let (&Step::Send { back }
        | &Step::Publish { back }
        | &Step::Refuse { back, .. }
        | &Step::Heartbeat { back, .. }) = step
        else {
            return self.apply_to_sensor(sensor, step).await;
        };
        let Some(sent) = self.revision(sensor, back).await else { return };
        match *step {
            Step::Publish { .. } => {
                let published = (sensor, sent.revision, sent.created_at);
                self.store.record_publications(&[published]).await.unwrap();
            }
            Step::Refuse { is_final, .. } => {
                let PendingConfiguration { revision, created_at, .. } = sent;
                let problem = "refused".into();
                let refused =
                    RefusedConfiguration { sensor, revision, created_at, problem, is_final };
                self.store.record_refusals(&[refused]).await.unwrap();
            }
            Step::Heartbeat { success, mode, .. } => {
                let heartbeat = format!(
                    r#"{{"heartbeats":[{{"revision":{},"timestamp":1782896400,"success":{success}}}]}}"#,
                    sent.revision
                );
                let batch = || batch_from(sensor, "heartbeats", &heartbeat);
                // A redelivery violates the unique index; the writer, too, then uses the staging table.
                if self.committer.commit(batch(), mode).await.is_err() {
                    self.committer.commit(batch(), CopyMode::Staged).await.unwrap();
                }
            }
            _ => self.store.record_sending(&[sent]).await.unwrap(),
        }
    }

    async fn apply_to_sensor(&self, sensor: SensorIdentifier, step: &Step) {
        match *step {
            Step::Post { at_once } => {
                let post = || self.store.create_configuration(sensor, "{}", None);
                for created in join_all((0..at_once).map(|_| post())).await {
                    created.unwrap().unwrap();
                }
            }
            Step::Seen { minutes } => {
                let now = Timestamp::now().unix_microseconds();
                let at = Timestamp::from_unix_microseconds(now + minutes * 60_000_000);
                self.store.update_last_seen(&[(sensor, at)]).await.unwrap();
            }
            Step::Recreate { configured } => self.recreate(sensor, configured).await,
            _ => unreachable!("`apply` handles changes of one revision"),
        }
    }

    async fn assert_matches_all_rows(&self, after: &Step) {
        let rows = self.reader.query(EXPECTED, &[]).await.unwrap();
        let expected: BTreeMap<SensorIdentifier, (Option<i32>, String)> = rows
            .iter()
            .map(|row| (SensorIdentifier(row.get(0)), (row.get(1), row.get(2))))
            .collect();
        let now = Timestamp::now();
        let counts = self.store.summarise_sensors(Scope::All, None, now).await.unwrap();
        for state in ConfigurationState::ALL {
            let listed = self.list(Some(state)).await;
            let of_state = expected.iter().filter(|(_, (_, name))| name == state.name());
            let of_state: BTreeMap<_, _> = of_state.map(|(it, of)| (*it, of.clone())).collect();
            assert_eq!(listed, of_state, "{state:?} after {after:?}");
            let count = counts.iter().find(|it| it.state == state).map_or(0, |it| it.sensors);
            assert_eq!(count, of_state.len() as u64, "{state:?} after {after:?}");
        }
        assert_eq!(self.list(None).await, expected, "after {after:?}");
        let unpublished = self.store.unpublished_configurations(None, 100).await.unwrap();
        let computed = self.reader.query(UNPUBLISHED, &[]).await.unwrap();
        let computed: Vec<_> =
            computed.iter().map(|row| (SensorIdentifier(row.get(0)), row.get(1))).collect();
        let unpublished: Vec<(SensorIdentifier, i32)> =
            unpublished.iter().map(|it| (it.sensor, it.revision)).collect();
        assert_eq!(unpublished, computed, "after {after:?}");
    }

    async fn list(
        &self,
        state: Option<ConfigurationState>,
    ) -> BTreeMap<SensorIdentifier, (Option<i32>, String)> {
        let filter = SensorFilter {
            scope: Scope::All,
            network: None,
            name: None,
            part_of_name: None,
            silent_since: None,
            state,
        };
        let page = Page { limit: 100, after: None };
        let sensors = self.store.list_sensors(&page, &filter, SensorOrder::Name).await.unwrap();
        let entry = |it: &tributary::store::Sensor| {
            (it.identifier, (it.newest_revision, it.configuration_state.name().to_owned()))
        };
        sensors.iter().map(entry).collect()
    }
}

const UNPUBLISHED: &str = "\
select sensor_identifier, revision from configuration c
where publication_timestamp is null and revision =
    (select max(revision) from configuration where sensor_identifier = c.sensor_identifier)
order by sensor_identifier";

#[actix_rt::test]
async fn the_stored_configuration_state_equals_the_computed_one_after_any_history() {
    let fixture = Fixture::new().await;
    let sensors: Vec<_> =
        (1..=SENSORS).map(|n| SensorIdentifier(uuid::Uuid::from_u128(n))).collect();
    for sensor in &sensors {
        fixture.create(*sensor, false).await;
    }
    let history = proptest::collection::vec((0..sensors.len(), step()), 30..50);
    let mut runner = TestRunner::default();
    for _ in 0..HISTORIES {
        for sensor in &sensors {
            fixture.recreate(*sensor, true).await;
        }
        for (index, step) in history.new_tree(&mut runner).unwrap().current() {
            fixture.apply(sensors[index], &step).await;
            fixture.assert_matches_all_rows(&step).await;
        }
    }
}
