//! What one run is played on: a database, a broker of its own, proxies before both, the service with its keeper, and the
//! fleet. Promises that a run begins with an empty database and a service that is ready.

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
use super::ground::Ground;
use super::lives::{GRACE_SECS, Lives};
use super::proxy::Proxy;
use super::replication::Standby;
use super::said::{Fate, MAX_ITEMS, MAX_PAYLOAD_BYTES, Mix, Speech};
use super::watcher::Watcher;
use crate::support::broker::Broker;
use crate::support::postgres::{Database, Postgres, Settings, connect};
use crate::support::service::Service;
use crate::support::wait::{PATIENCE, eventually};

const SENSORS: usize = 20;
const VOICES: usize = 3;

/// In a soak the fleet remembers what was acknowledged for so long.
const MEMORY: Duration = Duration::from_secs(90);

/// The sensors that are configured while all this goes on.
pub(crate) const CONFIGURED: usize = 5;

pub(crate) struct World<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) scale: Scale,
    pub(crate) database: Database,
    /// Where it can be written to, past the proxy.
    primary_url: RefCell<String>,
    /// The server that it is on. Whoever stops or changes a server holds this.
    pub(crate) postgres: Rc<Mutex<Postgres>>,
    pub(crate) standby: Option<Mutex<Standby>>,
    pub(crate) broker: Mutex<Broker>,
    pub(crate) broker_url: String,
    pub(crate) to_broker: Mutex<Proxy>,
    pub(crate) to_database: Mutex<Proxy>,
    pub(crate) watcher: Rc<Watcher>,
    pub(crate) lives: Rc<Lives>,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) fleet: Fleet,
    /// The next item's.
    pub(crate) numbers: Rc<Cell<u64>>,
    pub(crate) mix: Rc<Mix>,
    pub(crate) sensors: Rc<Vec<Uuid>>,
    /// Deleted while it speaks.
    pub(crate) mortal: Uuid,
    /// Created after it has spoken.
    pub(crate) unborn: Uuid,
    pub(crate) disk: Option<PathBuf>,
    /// The newest revision that the API has promised, by sensor.
    pub(crate) promised: RefCell<BTreeMap<Uuid, i64>>,
    pub(crate) configuring: Cell<bool>,
}

impl<'a> World<'a> {
    pub(crate) async fn build(
        ground: &'a Ground,
        faults: &[Fault],
        scale: Scale,
        rng: &mut StdRng,
    ) -> Self {
        let small = match faults.contains(&Fault::PostgresDiskFull) {
            true => ground.small_database().await,
            false => None,
        };
        let postgres = server(ground, faults).await;
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
        let watcher = Watcher::new(&database.url);
        let to_broker = Proxy::start(port(&broker_url), Some(Rc::clone(&watcher)));
        let to_database = Proxy::start(port(&database.url), None);

        let sensors: Rc<Vec<Uuid>> =
            Rc::new((0..SENSORS).map(|_| Uuid::from_u128(rng.random())).collect());
        let (mortal, unborn) = (Uuid::from_u128(rng.random()), Uuid::from_u128(rng.random()));
        let mix = Rc::new(mix(faults, scale, (mortal, unborn)));
        let database_url = url(&database, &to_database, standby.as_ref());
        let settings = settings(faults, &mix, (database_url, to_broker.port()), scale, rng);
        let borrowed: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut service = Service::start_unready(&database, &broker, &borrowed);
        service.ready().await;
        create_sensors(&database, sensors.iter().chain([&mortal])).await;
        let panics = faults.iter().any(|fault| fault.panics().is_some());
        let lives = Lives::keep(service, panics);

        let numbers = Rc::new(Cell::new(1));
        let speeches = (0..VOICES)
            .map(|_| {
                let said = (Rc::clone(&sensors), Rc::clone(&mix));
                Speech::new(rng.random(), &database.name, said, Rc::clone(&numbers), VOICES)
            })
            .collect();
        let shared = Shared {
            url: broker_url.clone(),
            name: database.name.clone(),
            rate: Cell::new(scale.messages_per_second() / VOICES as f64),
            twice: mix.twice,
            remembers: if scale == Scale::Soak { MEMORY } else { Duration::MAX },
            stopping: Cell::new(false),
            doubt: RefCell::default(),
            doubted: Cell::new(0),
            acknowledged: Cell::new(0),
        };
        let fleet = Fleet::start(shared, speeches);
        Self {
            ground,
            scale,
            primary_url: RefCell::new(database.url.clone()),
            database,
            postgres,
            standby: standby.map(Mutex::new),
            broker: Mutex::new(broker),
            broker_url,
            to_broker: Mutex::new(to_broker),
            to_database: Mutex::new(to_database),
            watcher,
            lives,
            settings,
            fleet,
            numbers,
            mix,
            sensors,
            mortal,
            unborn,
            disk,
            promised: RefCell::default(),
            configuring: Cell::new(true),
        }
    }

    /// Gives some sensors new configurations all the time.
    pub(crate) async fn configure(&self, mut rng: StdRng) {
        let mut serial = 0;
        while self.configuring.get() {
            let sensor = self.sensors[rng.random_range(0..CONFIGURED)];
            let path = format!("/api/v1/sensors/{sensor}/configurations");
            let body = serde_json::json!({ "serial": serial });
            serial += 1;
            let answer = super::lives::request(self.lives.url(), "POST", &path, Some(&body)).await;
            if let Ok((202, answer)) = answer {
                let revision = answer["revision"].as_i64().expect("it is a number");
                let mut promised = self.promised.borrow_mut();
                let newest = promised.entry(sensor).or_insert(revision);
                *newest = revision.max(*newest);
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(50..300))).await;
        }
    }

    /// A connection to PostgreSQL past the proxy, as soon as it takes one.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        eventually(PATIENCE * 2, async || {
            connect(&self.primary_url()).await.map_err(|error| error.to_string())
        })
        .await
    }

    pub(crate) fn primary_url(&self) -> String {
        self.primary_url.borrow().clone()
    }

    /// Another server is about to become the primary, and has all that was ever confirmed.
    pub(crate) fn set_primary_url(&self, url: String) {
        self.watcher.ask_elsewhere(&url);
        self.primary_url.replace(url);
    }

    /// Whether its server is one that other runs use, too.
    pub(crate) fn shares_server(&self) -> bool {
        Rc::ptr_eq(&self.postgres, &self.ground.postgres)
    }

    /// What it has logged last, for a person.
    pub(crate) fn last_words(&self) -> String {
        let log = self.lives.log();
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

impl Drop for World<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
    }
}

fn mix(faults: &[Fault], scale: Scale, (mortal, unborn): (Uuid, Uuid)) -> Mix {
    let has = |fault| faults.contains(&fault);
    let mut uncertain = Vec::new();
    if has(Fault::InputDeleted) || has(Fault::PostgresPublication) {
        uncertain.push((mortal, Fate::MayGo));
    }
    if has(Fault::InputCreated) {
        uncertain.push((unborn, Fate::Row));
    }
    Mix {
        garbage: has(Fault::InputGarbage),
        limits: has(Fault::InputLimits),
        hot: has(Fault::InputHot),
        twice: has(Fault::InputTwice),
        all_times: has(Fault::InputTimes),
        weeks_behind: Cell::new(0),
        uncertain,
        plain: scale == Scale::Soak,
        newcomers: if has(Fault::InputNewcomers) { scale.newcomers() } else { 0 },
    }
}

/// A server of the run's own, where a fault needs it.
async fn server(ground: &Ground, faults: &[Fault]) -> Rc<Mutex<Postgres>> {
    if !faults.iter().any(|it| it.needs_own_server()) {
        return Rc::clone(&ground.postgres);
    }
    let settings = Settings { clock: clock(faults), ..Settings::default() };
    Rc::new(Mutex::new(Postgres::start_with(&settings).await))
}

/// Right at first.
fn clock(faults: &[Fault]) -> Option<&'static str> {
    faults.contains(&Fault::PostgresWrongClock).then_some("+0")
}

/// The way of the service to the database: by the proxies.
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
    mix: &Mix,
    (database_url, broker_port): (String, u16),
    scale: Scale,
    rng: &mut StdRng,
) -> Vec<(String, String)> {
    let soak = scale == Scale::Soak;
    let any = |rng: &mut StdRng, choices: [u32; 3]| match soak {
        true => choices[2],
        false => choices[rng.random_range(0..3)],
    };
    let window = any(rng, [50, 1_000, 50_000]);
    let panics: Vec<String> =
        faults.iter().filter_map(|fault| Some(fault.panics()?.ordered(rng))).collect();
    let silences_commits = faults.iter().any(|it| it.silences_commits());
    let statement_timeout = if silences_commits { 3 } else { any(rng, [4, 60, 10]) };
    let unknown = if mix.newcomers > 0 { "register" } else { "reject" };
    let mut settings: Vec<(String, String)> = [
        ("DATABASE_URL", database_url),
        ("MQTT_URL", format!("mqtt://127.0.0.1:{broker_port}")),
        ("MQTT_KEEP_ALIVE_SECS", if soak { "5" } else { "2" }.into()),
        ("MQTT_RECEIVE_MAXIMUM", window.to_string()),
        ("DATABASE_STATEMENT_TIMEOUT_SECS", statement_timeout.to_string()),
        ("DATABASE_WRITERS", any(rng, [1, 3, 2]).to_string()),
        ("BATCH_MAX_ITEMS", any(rng, [100, 50_000, 50_000]).to_string()),
        ("MAX_PAYLOAD_BYTES", MAX_PAYLOAD_BYTES.to_string()),
        ("MAX_ITEMS_PER_MESSAGE", MAX_ITEMS.to_string()),
        ("REJECTIONS_PER_SENSOR_HOUR", "10000000".into()),
        ("CONFIGURATION_REPUBLISH_SECS", "1".into()),
        ("SENSOR_IDLE_SECS", any(rng, [1, 900, 900]).to_string()),
        ("SHUTDOWN_GRACE_SECS", GRACE_SECS.to_string()),
        ("UNKNOWN_SENSOR", unknown.into()),
        ("LOG_FILTER", "info".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if !panics.is_empty() {
        settings.push(("TRIBUTARY_FAULTS".into(), panics.join(",")));
    }
    if faults.contains(&Fault::PostgresWrongClock) {
        // By its wrong clock all of it would be over.
        let retention = ["MEASUREMENT", "LOG_MESSAGE", "HEARTBEAT"];
        settings.extend(retention.map(|it| (format!("RETENTION_{it}_DAYS"), "100".into())));
    }
    settings
}

async fn create_sensors(database: &Database, sensors: impl Iterator<Item = &Uuid>) {
    let sensors: Vec<Uuid> = sensors.copied().collect();
    let client = connect(&database.url).await.expect("the database answers");
    let statement =
        "insert into sensor (identifier, name) select it, it::text from unnest($1::uuid[]) it";
    client.execute(statement, &[&sensors]).await.expect("the sensors are new");
}

pub(super) fn port(url: &str) -> u16 {
    let url: Url = url.parse().expect("it is a URL");
    url.port().expect("it names its port")
}
