//! The parts of one run: a database, a broker, a proxy in front of each, the service and the publishers. Used by the harness,
//! which executes the run, and by the faults. A run starts with an empty database and a service that is ready.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::Mutex;
use url::Url;
use uuid::Uuid;

use super::fault::{Fault, Scale};
use super::fleet::{Fleet, Shared};
use super::instances::{self, Companions};
use super::messages::{Expected, MAX_ITEMS, MAX_PAYLOAD_BYTES, MessageSource, Workload};
use super::process_runs::{GRACE_SECS, ProcessRuns};
use super::proxy::Proxy;
use super::puback_check::PubackCheck;
use super::replication::Standby;
use super::test_bed::TestBed;
use crate::support::broker::Broker;
use crate::support::postgres::{Database, Postgres, Settings, connect};
use crate::support::service::Service;
use crate::support::wait::{TIMEOUT, eventually};

const SENSORS: usize = 20;
const PUBLISHERS: usize = 3;

/// How long publishers keep acknowledged messages in a soak test.
const REMEMBERED_FOR: Duration = Duration::from_secs(90);

/// The number of sensors that are configured during the run.
pub(crate) const CONFIGURED: usize = 5;

pub(crate) struct Run<'a> {
    pub(crate) test_bed: &'a TestBed,
    pub(crate) scale: Scale,
    pub(crate) database: Database,
    /// The primary, without the proxy.
    primary_url: RefCell<String>,
    /// The primary. Faults that stop or change a server hold this lock.
    pub(crate) postgres: Rc<Mutex<Postgres>>,
    pub(crate) standby: Option<Mutex<Standby>>,
    pub(crate) broker: Mutex<Broker>,
    pub(crate) broker_url: String,
    pub(crate) to_broker: Mutex<Proxy>,
    pub(crate) to_database: Mutex<Proxy>,
    pub(crate) puback_check: Rc<PubackCheck>,
    pub(crate) process_runs: Rc<ProcessRuns>,
    /// The other instances, if a fault needs several.
    pub(crate) companions: Option<Companions>,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) fleet: Fleet,
    /// The number of the next item.
    pub(crate) numbers: Rc<Cell<u64>>,
    pub(crate) workload: Rc<Workload>,
    pub(crate) sensors: Rc<Vec<Uuid>>,
    /// Deleted while it publishes.
    pub(crate) deleted_sensor: Uuid,
    /// Created after it has published.
    pub(crate) late_sensor: Uuid,
    pub(crate) disk: Option<PathBuf>,
    /// The newest accepted revision (202) of each sensor.
    pub(crate) accepted: RefCell<BTreeMap<Uuid, i64>>,
    pub(crate) configuring: Cell<bool>,
}

impl<'a> Run<'a> {
    pub(crate) async fn build(
        test_bed: &'a TestBed,
        faults: &[Fault],
        scale: Scale,
        rng: &mut StdRng,
    ) -> Self {
        let small = match faults.contains(&Fault::PostgresDiskFull) {
            true => test_bed.small_database().await,
            false => None,
        };
        let postgres = server(test_bed, faults).await;
        let (database, disk) = match small {
            Some((database, disk)) => (database, Some(disk)),
            None => (postgres.lock().await.create_database(None).await, None),
        };
        let standby = match faults.contains(&Fault::PostgresFailedOver) {
            true => Some(Standby::start(&*postgres.lock().await, clock(faults)).await),
            false => None,
        };
        let broker = Broker::start().await;
        let broker_url = broker.url().to_owned();
        let puback_check = PubackCheck::new(&database.url);
        let to_broker = Proxy::start(port(&broker_url), Some(Rc::clone(&puback_check)));
        let to_database = Proxy::start(port(&database.url), None);

        let sensors: Rc<Vec<Uuid>> =
            Rc::new((0..SENSORS).map(|_| Uuid::from_u128(rng.random())).collect());
        let (deleted_sensor, late_sensor) =
            (Uuid::from_u128(rng.random()), Uuid::from_u128(rng.random()));
        let receipt_times = rng.random_bool(0.5);
        let workload = workload(faults, scale, (deleted_sensor, late_sensor));
        let workload = Rc::new(Workload { receipt_times, ..workload });
        let database_url = url(&database, &to_database, standby.as_ref());
        let settings = settings(faults, &workload, (database_url, to_broker.port()), scale, rng);
        let has_group = faults.iter().any(|it| Fault::OF_INSTANCES.contains(it));
        let single = settings;
        let settings = match has_group {
            true => instances::member(&single, &database, "kept"),
            false => single.clone(),
        };
        let borrowed: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let panics = faults.iter().any(|fault| fault.panics().is_some());
        let service = Service::start_unready(&database, &broker, &borrowed);
        // Watched from the start: a planned panic may end the process before it is ready.
        let process_runs = ProcessRuns::keep(service, panics);
        process_runs.wait_until_ready().await;
        let companions = match has_group {
            true => Some(Companions::start(&database, &broker, &single, port(&database.url)).await),
            false => None,
        };
        create_sensors(&database, sensors.iter().chain([&deleted_sensor])).await;

        let numbers = Rc::new(Cell::new(1));
        let sources = (0..PUBLISHERS)
            .map(|_| {
                let content = (Rc::clone(&sensors), Rc::clone(&workload));
                MessageSource::new(
                    rng.random(),
                    &database.name,
                    content,
                    Rc::clone(&numbers),
                    PUBLISHERS,
                )
            })
            .collect();
        let shared = Shared {
            url: broker_url.clone(),
            name: database.name.clone(),
            rate: Cell::new(scale.messages_per_second() / PUBLISHERS as f64),
            twice: workload.twice,
            remembered_for: if scale == Scale::Soak { REMEMBERED_FOR } else { Duration::MAX },
            stopping: Cell::new(false),
            forgotten_since: RefCell::default(),
            resent: Cell::new(0),
            acknowledged: Cell::new(0),
        };
        let fleet = Fleet::start(shared, sources);
        Self {
            test_bed,
            scale,
            primary_url: RefCell::new(database.url.clone()),
            database,
            postgres,
            standby: standby.map(Mutex::new),
            broker: Mutex::new(broker),
            broker_url,
            to_broker: Mutex::new(to_broker),
            to_database: Mutex::new(to_database),
            puback_check,
            process_runs,
            companions,
            settings,
            fleet,
            numbers,
            workload,
            sensors,
            deleted_sensor,
            late_sensor,
            disk,
            accepted: RefCell::default(),
            configuring: Cell::new(true),
        }
    }

    /// Posts configurations until the faults are over.
    pub(crate) async fn configure(&self, mut rng: StdRng) {
        let mut serial = 0;
        while self.configuring.get() {
            let sensor = self.sensors[rng.random_range(0..CONFIGURED)];
            let path = format!("/api/v1/sensors/{sensor}/configurations");
            let body = serde_json::json!({ "serial": serial });
            serial += 1;
            let answer =
                super::process_runs::request(self.process_runs.url(), "POST", &path, Some(&body))
                    .await;
            if let Ok((202, answer)) = answer {
                let revision = answer["revision"].as_i64().expect("the revision is a number");
                let mut accepted = self.accepted.borrow_mut();
                let newest = accepted.entry(sensor).or_insert(revision);
                *newest = revision.max(*newest);
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(50..300))).await;
        }
    }

    /// A connection to the primary without the proxy, once it accepts one.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        eventually(TIMEOUT * 2, async || {
            connect(&self.primary_url()).await.map_err(|error| error.to_string())
        })
        .await
    }

    pub(crate) fn primary_url(&self) -> String {
        self.primary_url.borrow().clone()
    }

    /// Called before the server at this URL, which has every confirmed commit, becomes the primary.
    pub(crate) fn set_primary_url(&self, url: String) {
        self.puback_check.verify_at(&url);
        self.primary_url.replace(url);
    }

    /// Whether other runs use its server too.
    pub(crate) fn shares_server(&self) -> bool {
        Rc::ptr_eq(&self.postgres, &self.test_bed.postgres)
    }

    /// The end of the service's log.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.process_runs.log();
        let mut last: VecDeque<&str> = VecDeque::new();
        for line in log.lines() {
            last.push_back(line);
            if last.len() > 60 {
                last.pop_front();
            }
        }
        Vec::from(last).join("\n")
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}

fn workload(
    faults: &[Fault],
    scale: Scale,
    (deleted_sensor, late_sensor): (Uuid, Uuid),
) -> Workload {
    let has = |fault| faults.contains(&fault);
    let mut uncertain = Vec::new();
    if has(Fault::InputDeleted) || has(Fault::PostgresPublication) {
        uncertain.push((deleted_sensor, Expected::MaybeDeleted));
    }
    if has(Fault::InputCreated) {
        uncertain.push((late_sensor, Expected::Row));
    }
    Workload {
        garbage: has(Fault::InputGarbage),
        limits: has(Fault::InputLimits),
        hot: has(Fault::InputHot),
        twice: has(Fault::InputTwice),
        receipt_times: false,
        all_times: has(Fault::InputTimes),
        weeks_behind: Cell::new(0),
        uncertain,
        plain: scale == Scale::Soak,
        newcomers: if has(Fault::InputNewcomers) { scale.newcomers() } else { 0 },
    }
}

/// The shared server, or a separate one if a fault needs it.
async fn server(test_bed: &TestBed, faults: &[Fault]) -> Rc<Mutex<Postgres>> {
    if !faults.iter().any(|it| it.needs_own_server()) {
        return Rc::clone(&test_bed.postgres);
    }
    let settings = Settings { clock: clock(faults), ..Settings::default() };
    Rc::new(Mutex::new(Postgres::start_with(&settings).await))
}

/// The initial offset of the server's clock; the fault changes it.
fn clock(faults: &[Fault]) -> Option<&'static str> {
    faults.contains(&Fault::PostgresWrongClock).then_some("+0")
}

/// The service's DATABASE_URL, which leads through the proxies.
fn url(database: &Database, to_database: &Proxy, standby: Option<&Standby>) -> String {
    let (name, port) = (&database.name, to_database.port());
    match standby {
        None => format!("postgres://postgres@127.0.0.1:{port}/{name}"),
        Some(standby) => format!(
            "postgres://postgres@127.0.0.1:{port},127.0.0.1:{}/{name}?target_session_attrs=read-write",
            standby.proxy.port()
        ),
    }
}

fn settings(
    faults: &[Fault],
    workload: &Workload,
    (database_url, broker_port): (String, u16),
    scale: Scale,
    rng: &mut StdRng,
) -> Vec<(String, String)> {
    let soak = scale == Scale::Soak;
    // One of three at random; a soak test always uses the last.
    let choose = |rng: &mut StdRng, choices: [u32; 3]| match soak {
        true => choices[2],
        false => choices[rng.random_range(0..3)],
    };
    let window = choose(rng, [50, 1_000, 50_000]);
    let panics: Vec<String> =
        faults.iter().filter_map(|fault| Some(fault.panics()?.setting(rng))).collect();
    let delays_commits = faults.iter().any(|it| it.delays_commits());
    let statement_timeout = if delays_commits { 3 } else { choose(rng, [4, 60, 10]) };
    let unknown = if workload.newcomers > 0 { "register" } else { "reject" };
    let mut settings: Vec<(String, String)> = [
        ("DATABASE_URL", database_url),
        ("MQTT_URL", format!("mqtt://127.0.0.1:{broker_port}")),
        ("MQTT_KEEP_ALIVE_SECS", if soak { "5" } else { "2" }.into()),
        ("MQTT_RECEIVE_MAXIMUM", window.to_string()),
        ("DATABASE_STATEMENT_TIMEOUT_SECS", statement_timeout.to_string()),
        ("DATABASE_WRITERS", choose(rng, [1, 3, 2]).to_string()),
        ("BATCH_MAX_ITEMS", choose(rng, [100, 50_000, 50_000]).to_string()),
        ("MAX_PAYLOAD_BYTES", MAX_PAYLOAD_BYTES.to_string()),
        ("MAX_ITEMS_PER_MESSAGE", MAX_ITEMS.to_string()),
        ("REJECTIONS_PER_SENSOR_HOUR", "10000000".into()),
        ("CONFIGURATION_REPUBLISH_SECS", "1".into()),
        ("SENSOR_IDLE_SECS", choose(rng, [1, 900, 900]).to_string()),
        ("SHUTDOWN_GRACE_SECS", GRACE_SECS.to_string()),
        ("UNKNOWN_SENSOR", unknown.into()),
        ("TIMESTAMP_MISSING", if workload.receipt_times { "receipt" } else { "reject" }.into()),
        ("LOG_FILTER", "info".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if !panics.is_empty() {
        settings.push(("TRIBUTARY_FAULTS".into(), panics.join(",")));
    }
    if faults.contains(&Fault::PostgresWrongClock) {
        // With the wrong clock, all rows may be older than the retention.
        let retention = ["MEASUREMENT", "LOG_MESSAGE", "HEARTBEAT"];
        settings.extend(retention.map(|it| (format!("RETENTION_{it}_DAYS"), "100".into())));
    }
    settings
}

async fn create_sensors(database: &Database, sensors: impl Iterator<Item = &Uuid>) {
    let sensors: Vec<Uuid> = sensors.copied().collect();
    let client = connect(&database.url).await.expect("the database is available");
    let statement =
        "insert into sensor (identifier, name) select it, it::text from unnest($1::uuid[]) it";
    client.execute(statement, &[&sensors]).await.expect("the sensors are new");
}

pub(super) fn port(url: &str) -> u16 {
    let url: Url = url.parse().expect("a valid URL");
    url.port().expect("the URL has a port")
}
