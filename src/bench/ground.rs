//! Where the measurements take place: the two servers of the user's, and on them a database, a
//! session and a topic prefix for each measurement. Made by the run, used by the scenarios.
//! Promises that whatever it made is gone after `clear`, however the run ended.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;

use super::console::Console;
use super::line::forget_session;
use super::process::{self, Stat};
use super::service::{Service, Settings};
use super::yardstick::ClientOptions;
use crate::config::BenchServers;
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::{self, BENCHMARK_DATABASE_PREFIX, Bench};
use crate::wire::Topics;

/// What is measured is younger than this, so that its partitions are there.
const AGE_MICROSECONDS: i64 = 7_200_000_000;

/// The items of two parts of a measurement are so far apart.
const PART_MICROSECONDS: i64 = 1_200_000_000;

/// The servers, and what was made on them.
pub(super) struct Ground {
    pub(super) servers: BenchServers,
    pub(super) console: Console,
    /// What every load's size is multiplied by.
    pub(super) scale: f64,
    /// So often is measured what has a yardstick.
    pub(super) rounds: u32,
    postgres_pid: Option<u32>,
    admin: Bench,
    /// Of this process, so that two can share the servers.
    run: u32,
    made: Cell<u32>,
    databases: RefCell<Vec<String>>,
    sessions: RefCell<Vec<String>>,
    pub(super) client_options: Option<ClientOptions>,
}

/// One measurement's place.
pub(super) struct Stage {
    /// Of its database, its session and its topic prefix.
    pub(super) name: String,
    pub(super) topics: Topics,
    pub(super) begun_at: Timestamp,
    pub(super) store: store::Config,
    pub(super) database: Bench,
    pub(super) database_url: String,
}

/// Whose CPU time is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters {
    service: Option<u32>,
    postgres: Option<u32>,
    /// Backends that belong to the measurement.
    without: Vec<u32>,
    broker: Option<u32>,
}

/// CPU time, user and system; none where it cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Reading {
    pub(super) service: Option<Duration>,
    pub(super) postgres: Option<Duration>,
    pub(super) broker: Option<Duration>,
}

impl Meters {
    /// Now.
    pub(super) fn read(&self) -> Reading {
        Reading {
            service: self.service.and_then(process::of_process),
            postgres: self.postgres.and_then(|pid| process::of_family(pid, &self.without)),
            broker: self.broker.and_then(process::of_process),
        }
    }
}

impl Reading {
    pub(super) fn since(self, before: Self) -> Self {
        // A process that was not there before has used nothing before.
        let difference = |now: Option<Duration>, then: Option<Duration>| {
            now.map(|now| now.saturating_sub(then.unwrap_or_default()))
        };
        Self {
            service: difference(self.service, before.service),
            postgres: difference(self.postgres, before.postgres),
            broker: difference(self.broker, before.broker),
        }
    }
}

impl Ground {
    /// Connects to the database server.
    pub(super) async fn open(
        servers: BenchServers,
        console: Console,
        (scale, rounds): (f64, u32),
    ) -> anyhow::Result<Self> {
        let admin = Bench::connect(&servers.store)
            .await
            .context("DATABASE_URL names the server on which databases are made and dropped")?;
        let postgres_pid = match servers.postgres_pid {
            None => postmaster_of(admin.backend_pid().await?),
            known => known,
        };
        let client_options = ClientOptions::write(&servers.mqtt.broker)?;
        Ok(Self {
            servers,
            console,
            scale,
            rounds,
            postgres_pid,
            admin,
            run: std::process::id(),
            made: Cell::new(0),
            databases: RefCell::default(),
            sessions: RefCell::default(),
            client_options,
        })
    }

    /// So many, by the scale.
    pub(super) fn scaled(&self, count: u64) -> u64 {
        ((count as f64 * self.scale) as u64).max(1)
    }

    /// So long, by the scale, and long enough to measure anything.
    pub(super) fn scaled_time(&self, time: Duration) -> Duration {
        time.mul_f64(self.scale).max(Duration::from_secs(2))
    }

    /// What the figures depend on.
    pub(super) async fn database_settings(&self) -> anyhow::Result<Vec<(String, String)>> {
        Ok(self.admin.settings().await?)
    }

    /// Another place for a measurement: a migrated database with these sensors in it.
    pub(super) async fn stage(&self, sensors: &[SensorIdentifier]) -> anyhow::Result<Stage> {
        self.made.set(self.made.get() + 1);
        let name = format!("{BENCHMARK_DATABASE_PREFIX}{}_{}", self.run, self.made.get());
        self.databases.borrow_mut().push(name.clone());
        self.admin.create_database(&name).await.context("making a database")?;
        let mut store = self.servers.store.clone();
        store.postgres.dbname(&name);
        store::furnish(&store).await?;
        let database = Bench::connect(&store).await?;
        database.register(sensors).await?;
        let now = Timestamp::now().unix_microseconds();
        Ok(Stage {
            topics: Topics::new(&name),
            begun_at: Timestamp::from_unix_microseconds(now - AGE_MICROSECONDS),
            database_url: with_database(self.servers.database_url.expose_secret(), &name),
            name,
            store,
            database,
        })
    }

    /// The name of a session that ends with the run.
    pub(super) fn session(&self, name: &str) -> String {
        self.sessions.borrow_mut().push(name.to_owned());
        name.to_owned()
    }

    /// A measurement begins with nothing left to be written by the one before.
    pub(super) async fn calm(&self) {
        if let Err(error) = self.admin.checkpoint().await {
            tracing::debug!(%error, "no checkpoint; the user may not");
        }
    }

    /// The CPU time of the servers, and of a service.
    pub(super) fn meters(&self, service: Option<&Service>, without: Vec<u32>) -> Meters {
        Meters {
            service: service.map(Service::pid),
            postgres: self.postgres_pid,
            without,
            broker: self.servers.broker_pid,
        }
    }

    /// Removes everything that was made.
    pub(super) async fn clear(&self) -> anyhow::Result<()> {
        let sessions = std::mem::take(&mut *self.sessions.borrow_mut());
        for session in sessions {
            forget_session(&self.servers.mqtt.broker, &session).await?;
        }
        let databases = std::mem::take(&mut *self.databases.borrow_mut());
        for database in databases {
            self.admin.drop_database(&database).await?;
        }
        Ok(())
    }
}

impl Stage {
    /// When the items of so-and-so part of the measurement begin: no two parts share a moment.
    pub(super) fn part(&self, number: u8) -> Timestamp {
        let since = i64::from(number) * PART_MICROSECONDS;
        Timestamp::from_unix_microseconds(self.begun_at.unix_microseconds() + since)
    }

    /// What the service is started with; the rest of the environment is the user's.
    pub(super) fn settings(&self, ground: &Ground) -> Settings {
        Settings(vec![
            ("DATABASE_URL", self.database_url.clone()),
            ("MQTT_URL", ground.servers.mqtt_url.expose_secret().to_owned()),
            // They may stand in files, whose names the child has from us.
            ("DATABASE_URL_FILE", String::new()),
            ("MQTT_URL_FILE", String::new()),
            ("HTTP_CERTIFICATE_FILE", String::new()),
            ("HTTP_KEY_FILE", String::new()),
            ("MQTT_CLIENT_ID", ground.session(&self.name)),
            ("MQTT_TOPIC_PREFIX", self.name.clone()),
            ("MIGRATE_ON_START", "true".into()),
            ("UNKNOWN_SENSOR", "reject".into()),
            ("LOG_FILTER", "warn".into()),
            ("LOG_FORMAT", "text".into()),
        ])
    }
}

/// The parent of a backend, if the server runs on this machine and in our sight.
fn postmaster_of(backend: u32) -> Option<u32> {
    let backend = Stat::of(backend).filter(|it| it.command == "postgres")?;
    Stat::of(backend.parent).filter(|it| it.command == "postgres").map(|_| backend.parent)
}

/// The same server, another database; a connection string of either form.
fn with_database(url: &str, name: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut url) if url.scheme().starts_with("postgres") => {
            url.set_path(name);
            url.into()
        }
        // The last of two equal keywords counts.
        _ => format!("{url} dbname={name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_the_same_server() {
        for (url, expected) in [
            ("postgres://u:p@h:1/d?sslmode=disable", "postgres://u:p@h:1/x?sslmode=disable"),
            ("postgresql://h", "postgresql://h/x"),
            ("host=h dbname=d", "host=h dbname=d dbname=x"),
        ] {
            assert_eq!(with_database(url, "x"), expected);
        }
    }
}
