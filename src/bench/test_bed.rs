//! A database, a session and a topic prefix for each measurement, on the user's two servers. Created by the command,
//! used by the scenarios. `clear` removes everything that was created.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use indicatif::ProgressBar;
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};

use super::meters::{self, Meters};
use crate::config::BenchServers;
use crate::domain::SensorIdentifier;
use crate::load::{Account, Fleet, PublisherConnection, Stop, Totals, progress};
use crate::mqtt::BrokerUrl;
use crate::store::{self, BENCHMARK_DATABASE_PREFIX, Bench, EngineName};
use crate::wire::Topics;

pub(super) struct TestBed {
    pub(super) servers: BenchServers,
    /// Multiplies the size of every load.
    pub(super) scale: f64,
    pub(super) rounds: u32,
    quiet: bool,
    pub(super) engine: EngineName,
    postgres_pid: Option<u32>,
    admin: Bench,
    /// Names of the runs whose databases and sessions exist.
    runs: RefCell<Vec<String>>,
    pub(super) client_options: Option<TempDir>,
}

/// The surroundings of one measurement.
pub(super) struct Run {
    /// Of its database, its session and its topic prefix.
    pub(super) name: String,
    pub(super) topics: Topics,
    pub(super) store: store::Config,
    pub(super) database: Bench,
    pub(super) database_url: String,
}

impl TestBed {
    pub(super) async fn open(
        servers: BenchServers,
        (scale, rounds, quiet, engine): (f64, u32, bool, EngineName),
    ) -> anyhow::Result<Self> {
        let admin = Bench::connect(&servers.store)
            .await
            .context("DATABASE_URL names the server on which databases are created and dropped")?;
        let postgres_pid = match servers.postgres_pid {
            None => meters::postmaster_of(admin.backend_pid().await?),
            known => known,
        };
        let client_options = client_options(&servers.mqtt.broker)?;
        let runs = RefCell::default();
        Ok(Self {
            servers,
            scale,
            rounds,
            quiet,
            engine,
            postgres_pid,
            admin,
            runs,
            client_options,
        })
    }

    pub(super) fn scaled(&self, count: u64) -> u64 {
        ((count as f64 * self.scale) as u64).max(1)
    }

    /// Long enough to measure anything.
    pub(super) fn scaled_time(&self, time: Duration) -> Duration {
        time.mul_f64(self.scale).max(Duration::from_secs(2))
    }

    pub(super) fn progress(&self, step: &str, length: Option<u64>) -> ProgressBar {
        progress(self.quiet, step, length)
    }

    pub(super) async fn database_settings(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut settings = self.admin.settings().await?;
        settings.push(("engine".to_owned(), self.engine.name().to_owned()));
        Ok(settings)
    }

    /// The surroundings of another measurement: a migrated database with these sensors in it.
    pub(super) async fn run(&self, sensors: &[SensorIdentifier]) -> anyhow::Result<Run> {
        // Two benchmarks can share the servers.
        let name = format!("{BENCHMARK_DATABASE_PREFIX}{:08x}", rand::random::<u32>());
        self.runs.borrow_mut().push(name.clone());
        self.admin.create_database(&name).await.context("creating a database")?;
        let mut store = self.servers.store.clone();
        store.postgres.dbname(&name);
        store::create_tables(&store, self.engine).await?;
        let database = Bench::connect(&store).await?;
        database.register(sensors).await?;
        Ok(Run {
            topics: Topics::new(&name),
            database_url: with_database(self.servers.database_url.expose_secret(), &name),
            name,
            store,
            database,
        })
    }

    /// Each measurement begins with nothing left to be written by the one before.
    pub(super) async fn checkpoint(&self) {
        if let Err(error) = self.admin.checkpoint().await {
            tracing::debug!("no checkpoint, the user may not: {error}");
        }
    }

    /// The CPU time of the servers and of a service. Backends that belong to the benchmark are left out.
    pub(super) fn meters(&self, service: Option<u32>, excluded_backends: Vec<u32>) -> Meters {
        let (postgres, broker) = (self.postgres_pid, self.servers.broker_pid);
        Meters { service, postgres, excluded_backends, broker }
    }

    /// Publishes a load on a thread of its own. When it returns, every message was acknowledged, and had a subscriber.
    pub(super) async fn publish(
        &self,
        run: &Run,
        load: &Fleet,
        step: &str,
    ) -> anyhow::Result<Account> {
        // Give or take one.
        let count = |limit: u64| limit + (limit as f64 * load.copies.share) as u64;
        let progress = Some(self.progress(step, load.limit.map(count)));
        let (mqtt, client_id) = (self.servers.mqtt.clone(), format!("{}-fleet", run.name));
        let load = Fleet { topics: run.topics.clone(), ..load.clone() };
        let published = on_own_thread(move || async move {
            let totals = Rc::new(RefCell::new(Totals { progress, ..Totals::default() }));
            let (_stop, stop) = watch::channel(Stop::No);
            load.publish(&mqtt, &client_id, &totals, stop).await?;
            let Totals { account, without_subscriber, refused, unacknowledged, .. } = totals.take();
            ensure!(
                (without_subscriber, refused, unacknowledged) == (0, 0, 0),
                "{without_subscriber} messages had no subscriber, {refused} were refused by the broker, {unacknowledged} not acknowledged"
            );
            Ok(account)
        });
        let (_thread, account) = published.await.context("publishing")?;
        Ok(account)
    }

    /// Removes everything that was created.
    pub(super) async fn clear(&self) -> anyhow::Result<()> {
        for name in self.runs.take() {
            // A clean start ends the session and what is queued for it.
            for session in [mosquitto_session(&name), name.clone()] {
                PublisherConnection::open(&self.servers.mqtt, &session, &[]).await?.close().await?;
            }
            self.admin.drop_database(&name).await?;
        }
        Ok(())
    }
}

/// The session of `mosquitto_sub` in a run.
fn mosquitto_session(run: &str) -> String {
    format!("{run}-mosquitto-sub")
}

impl Run {
    pub(super) fn mosquitto_session(&self) -> String {
        mosquitto_session(&self.name)
    }

    /// The settings of the service; the rest of the environment is the user's.
    pub(super) fn settings(&self, bed: &TestBed) -> Vec<(&'static str, String)> {
        vec![
            ("DATABASE_URL", self.database_url.clone()),
            ("MQTT_URL", bed.servers.mqtt_url.expose_secret().to_owned()),
            // The environment may name files for these.
            ("DATABASE_URL_FILE", String::new()),
            ("MQTT_URL_FILE", String::new()),
            ("HTTP_CERTIFICATE_FILE", String::new()),
            ("HTTP_KEY_FILE", String::new()),
            ("MQTT_CLIENT_ID", self.name.clone()),
            ("MQTT_TOPIC_PREFIX", self.name.clone()),
            ("MIGRATE_ON_START", "true".into()),
            ("UNKNOWN_SENSOR", "reject".into()),
            ("LOG_FILTER", "warn".into()),
            ("LOG_FORMAT", "text".into()),
            ("AUTH", "off".into()),
        ]
    }
}

/// The file in which mosquitto's clients find the password, if the broker requires one.
fn client_options(broker: &BrokerUrl) -> anyhow::Result<Option<TempDir>> {
    let Some(password) = broker.password() else { return Ok(None) };
    // Readable by its owner only.
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("mosquitto_sub"), format!("-P {password}\n"))?;
    Ok(Some(directory))
}

/// A thread that ends with its owner.
pub(super) struct Thread(actix_rt::Arbiter);

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Runs a future on a thread of its own, where the benchmark's other work does not delay it.
pub(super) async fn on_own_thread<T, F>(
    start: impl FnOnce() -> F + Send + 'static,
) -> anyhow::Result<(Thread, T)>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + 'static,
{
    let (done, outcome) = oneshot::channel();
    let thread = Thread(actix_rt::Arbiter::new());
    thread.0.spawn_fn(move || {
        actix_rt::spawn(async move {
            // Nobody waits for it when the benchmark was interrupted.
            done.send(start().await).ok();
        });
    });
    Ok((thread, outcome.await.context("the thread ended")??))
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
