//! The configured sensors: they receive their retained configurations and acknowledge them. Called after the faults.
//! `acknowledge` returns once each sensor has acknowledged its newest revision.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio_postgres::Client as Database;
use uuid::Uuid;

use super::compare::lagging;
use super::run::Run;
use crate::support::client::Client;
use crate::support::wait::eventually;

pub(super) async fn acknowledge(
    run: &Run<'_>,
    database: &Database,
    accepted: &BTreeMap<Uuid, i64>,
    timeout: Duration,
) {
    let prefix = &run.database.name;
    let client = Client::connect(&run.broker_url, &format!("{prefix}-sensors")).await;
    client.subscribe(&format!("{prefix}/configurations/+")).await;
    eventually(timeout, async || {
        let missing = lagging(database, accepted).await.map_err(|error| vec![error.to_string()])?;
        if missing.is_empty() {
            return Ok(());
        }
        let received: BTreeMap<Uuid, i64> = client
            .messages()
            .iter()
            .filter_map(|message| {
                let sensor = message.topic.rsplit('/').next()?.parse().ok()?;
                let configuration: Value = serde_json::from_str(&message.payload).ok()?;
                Some((sensor, configuration["revision"].as_i64()?))
            })
            .collect();
        for sensor in accepted.keys() {
            // Not null: only the publishers send heartbeats without a revision.
            let revision = received.get(sensor).copied().unwrap_or(0);
            let now = SystemTime::UNIX_EPOCH.elapsed().expect("the time is after 1970");
            let heartbeat = format!(
                r#"{{"heartbeats":[{{"revision":{revision},"timestamp":{:.6},"success":true}}]}}"#,
                now.as_secs_f64()
            );
            let topic = format!("{prefix}/heartbeats/{sensor}");
            client.publish(&topic, heartbeat).await.map_err(|error| vec![error])?;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        Err(missing)
    })
    .await;
}
