//! Faults of several instances, and the instances beside the one in `process_runs`: all belong to one group of shared
//! subscriptions and use one database. Used by `run` and `fault`. Each fault is over when its function returns, and after
//! `settle_and_stop` every instance has settled all messages that the broker assigned to it.

use std::cell::Cell;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::proxy::Proxy;
use super::run::Run;
use super::service::pause;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::postgres::Database;
use crate::support::service::Service;
use crate::support::wait::{TIMEOUT, eventually};

/// The number of instances beside the one in `process_runs`.
const COMPANIONS: usize = 2;

/// The revision of a heartbeat that no publisher sends.
const PROBE_REVISION: i32 = 999_998;

type Settings = Vec<(String, String)>;

/// The other instances. Their faults are injected one after the other.
pub(crate) struct Companions {
    services: Mutex<Vec<Service>>,
    settings: Settings,
    /// Between the first of them and PostgreSQL.
    to_database: Proxy,
    added: Cell<u32>,
}

/// The settings of a member of the run's group.
pub(crate) fn member(settings: &[(String, String)], database: &Database, name: &str) -> Settings {
    let mut settings = settings.to_vec();
    settings.push(("MQTT_SHARED_GROUP".into(), database.name.clone()));
    settings.push(("MQTT_CLIENT_ID".into(), format!("{}-{name}", database.name)));
    settings
}

fn start(run: (&Database, &Broker), settings: &[(String, String)]) -> Service {
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Service::start_unready(run.0, run.1, &settings)
}

impl Companions {
    pub(crate) async fn start(
        database: &Database,
        broker: &Broker,
        settings: &[(String, String)],
        postgres_port: u16,
    ) -> Self {
        let to_database = Proxy::start(postgres_port, None);
        let mut services = Vec::new();
        for number in 0..COMPANIONS {
            let mut member = member(settings, database, &format!("companion-{number}"));
            if number == 0 {
                let name = &database.name;
                let port = to_database.port();
                let url = format!("postgres://postgres@127.0.0.1:{port}/{name}");
                member.push(("DATABASE_URL".into(), url));
            }
            let mut service = start((database, broker), &member);
            service.wait_until_ready().await;
            services.push(service);
        }
        let services = Mutex::new(services);
        Self { services, settings: settings.to_vec(), to_database, added: Cell::new(0) }
    }

    /// Waits until the instances have settled all messages that the broker assigned to them, and stops them.
    pub(crate) async fn settle_and_stop(&self, run: &Run<'_>) {
        let mut services = self.services.lock().await;
        let probe = Uuid::new_v4();
        let client = run.client().await;
        let create = "insert into sensor (identifier, name) values ($1, 'probe')";
        client.execute(create, &[&probe]).await.expect("the sensor is new");
        let mut urls: Vec<String> = services.iter().map(Service::url).collect();
        urls.push(run.process_runs.url().to_owned());
        let publisher = Client::connect(&run.broker_url, "probe").await;
        let topic = format!("{}/heartbeats/{probe}", run.database.name);
        let path = format!("/api/v1/sensors/{probe}/live");
        let mut has_received = vec![false; urls.len()];
        let mut sent = 0;
        // A session is a queue: an instance that has received the probe has received everything before it.
        eventually(2 * TIMEOUT, async || {
            sent += 1;
            let heartbeat = format!(
                r#"{{"heartbeats":[{{"revision":{PROBE_REVISION},"timestamp":{sent},"success":true}}]}}"#
            );
            publisher.publish(&topic, heartbeat).await?;
            for (url, has_received) in urls.iter().zip(&mut has_received) {
                let (_, live) = super::process_runs::request(url, "GET", &path, None).await?;
                *has_received |= live["live"]["heartbeats"]["messages"].as_u64() > Some(0);
            }
            if has_received.iter().all(|it| *it) { Ok(()) } else { Err(format!("{has_received:?}")) }
        })
        .await;
        for url in &urls {
            eventually(2 * TIMEOUT, async || {
                let (_, status) =
                    super::process_runs::request(url, "GET", "/api/v1/status", None).await?;
                let ledger = status["ledger"].as_object().ok_or("no ledger")?;
                let sum = |name: &str| -> u64 {
                    ledger.values().filter_map(|it| it[name].as_u64()).sum()
                };
                let completed = sum("committed") + sum("duplicate") + sum("rejected");
                assert_eq!(sum("received"), completed + sum("in_flight"), "{status}");
                match sum("in_flight") {
                    0 => Ok(()),
                    in_flight => Err(format!("{in_flight} in flight")),
                }
            })
            .await;
        }
        for service in &mut *services {
            let status = service.terminate().await;
            if !status.success() {
                let log = service.log();
                run.process_runs
                    .report_violation(format!("an instance exited with {status}: {log}"));
            }
            if service.log().contains("panicked at") {
                run.process_runs.report_violation("an instance panicked".into());
            }
        }
    }
}

fn companions<'a>(run: &'a Run<'_>) -> &'a Companions {
    run.companions.as_ref().expect("the run has several instances")
}

/// SIGKILL and a later start; meanwhile the broker queues messages in the session of the instance.
pub(super) async fn killed(run: &Run<'_>, rng: &mut StdRng) {
    let mut services = companions(run).services.lock().await;
    let index = rng.random_range(0..services.len());
    services[index].kill();
    pause(rng, 1_000..4_000).await;
    services[index].start_again().await;
}

/// SIGKILL of the leader.
pub(super) async fn leader_killed(run: &Run<'_>, rng: &mut StdRng) {
    let mut services = companions(run).services.lock().await;
    let mut leader = None;
    for (index, service) in services.iter().enumerate() {
        if let Ok((200, status)) = service.get("/api/v1/status").await
            && status["instance"]["is_leader"] == true
        {
            leader = Some(index);
        }
    }
    match leader {
        Some(index) => {
            services[index].kill();
            pause(rng, 500..8_000).await;
            services[index].start_again().await;
        }
        None => {
            let process_run = run.process_runs.count.get();
            run.process_runs.kill();
            run.process_runs.restarted_after(process_run).await;
        }
    }
}

/// SIGKILL, then `tributary drain` empties the session, and later the instance is started again.
pub(super) async fn drained_by_command(run: &Run<'_>, rng: &mut StdRng) {
    let mut services = companions(run).services.lock().await;
    let index = rng.random_range(0..services.len());
    services[index].kill();
    pause(rng, 200..1_500).await;
    services[index].start_command("drain");
    let status = services[index].wait_for_exit().await;
    if !status.success() {
        let log = services[index].log();
        run.process_runs.report_violation(format!("a drain exited with {status}: {log}"));
    }
    pause(rng, 200..1_500).await;
    services[index].start_again().await;
}

/// One more instance joins the group, and is drained on SIGTERM.
pub(super) async fn added_and_drained(run: &Run<'_>, rng: &mut StdRng) {
    let companions = companions(run);
    let _lock = companions.services.lock().await;
    companions.added.set(companions.added.get() + 1);
    let name = format!("added-{}", companions.added.get());
    let mut settings = member(&companions.settings, &run.database, &name);
    settings.push(("DRAIN_ON_STOP".into(), "true".into()));
    let mut added = {
        let broker = run.broker.lock().await;
        start((&run.database, &broker), &settings)
    };
    added.wait_until_ready().await;
    pause(rng, 500..2_500).await;
    let status = added.terminate().await;
    if !status.success() {
        let log = added.log();
        run.process_runs.report_violation(format!("a drain exited with {status}: {log}"));
    }
}

/// SIGTERM and a start of every instance, one after the other.
pub(super) async fn restarted_in_turn(run: &Run<'_>, rng: &mut StdRng) {
    let mut services = companions(run).services.lock().await;
    for service in &mut *services {
        let status = service.terminate().await;
        if !status.success() {
            run.process_runs
                .report_violation(format!("after SIGTERM an instance exited with {status}"));
        }
        pause(rng, 50..500).await;
        service.start_again().await;
    }
    let process_run = run.process_runs.count.get();
    run.process_runs.terminate(false).await;
    run.process_runs.restarted_after(process_run).await;
}

/// The connections of one instance to PostgreSQL stay open, but their bytes are dropped.
pub(super) async fn half_open(run: &Run<'_>, rng: &mut StdRng) {
    let companions = companions(run);
    let mut services = companions.services.lock().await;
    companions.to_database.drop_bytes();
    pause(rng, 2_000..8_000).await;
    services[0].wait_until_ready().await;
}
