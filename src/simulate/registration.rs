//! Registers the sensors of the fleet over HTTP: existing ones of their names are used, the others created. Called
//! by the run before anything is published.

use actix_web::http::{Method, StatusCode};
use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use url::form_urlencoded;

use super::options::Options;
use crate::domain::{NetworkIdentifier, SensorIdentifier};
use crate::load::{HttpClient, progress};

/// Requests at a time: registering is bound by the service's transactions.
const CONCURRENCY: usize = 16;
/// A large fleet registers faster than REQUESTS_PER_SECOND allows.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(Deserialize)]
struct ListedPage<T> {
    items: Vec<T>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct ListedSensor {
    identifier: SensorIdentifier,
    network: NetworkIdentifier,
}

#[derive(Deserialize)]
struct ListedNetwork {
    identifier: NetworkIdentifier,
    name: String,
}

pub(super) async fn register(
    http: &HttpClient,
    options: &Options,
) -> anyhow::Result<Vec<SensorIdentifier>> {
    let network = match &options.network {
        Some(name) => Some(find_network(http, name).await?),
        None => None,
    };
    let count = options.sensor_count();
    let progress = progress(options.quiet, "sensors registered", Some(count as u64));
    let names =
        (1..=count).map(|number| (number as u64, format!("{}-{number:04}", options.prefix)));
    let registered = stream::iter(names).map(|(number, name)| {
        let progress = &progress;
        async move {
            let identifier = register_sensor(http, &name, network).await?;
            progress.set_position(number);
            Ok(identifier)
        }
    });
    registered.buffered(CONCURRENCY).try_collect().await
}

/// The network of this name or identifier.
async fn find_network(http: &HttpClient, name: &str) -> anyhow::Result<NetworkIdentifier> {
    let mut cursor = String::new();
    loop {
        let page: ListedPage<ListedNetwork> =
            http.read(&format!("/api/v1/networks?limit=1000{cursor}")).await?;
        let is_wanted = |it: &&ListedNetwork| it.name == name || it.identifier.to_string() == name;
        if let Some(network) = page.items.iter().find(is_wanted) {
            return Ok(network.identifier);
        }
        let Some(next) = page.next else {
            bail!("no network that API_TOKEN can see has the name or the identifier {name:?}");
        };
        cursor = format!("&cursor={next}");
    }
}

async fn register_sensor(
    http: &HttpClient,
    name: &str,
    network: Option<NetworkIdentifier>,
) -> anyhow::Result<SensorIdentifier> {
    let mut sensor = serde_json::json!({ "name": name });
    if let Some(network) = network {
        sensor["network"] = network.to_string().into();
    }
    loop {
        let answer = http.send(Method::POST, "/api/v1/sensors", Some(&sensor)).await?;
        match answer.status {
            StatusCode::TOO_MANY_REQUESTS => tokio::time::sleep(PAUSE).await,
            StatusCode::CONFLICT => return find_sensor(http, name, network).await,
            _ => return Ok(answer.json::<ListedSensor>()?.identifier),
        }
    }
}

async fn find_sensor(
    http: &HttpClient,
    name: &str,
    network: Option<NetworkIdentifier>,
) -> anyhow::Result<SensorIdentifier> {
    let query: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let page: ListedPage<ListedSensor> =
        http.read(&format!("/api/v1/sensors?name={query}")).await?;
    // A token of one network sees no other; for other tokens the conflict is in the default network.
    let network = network.unwrap_or(NetworkIdentifier::DEFAULT);
    let found = match &*page.items {
        [one] => Some(one),
        several => several.iter().find(|sensor| sensor.network == network),
    };
    let found = found.with_context(|| format!("the name {name:?} is taken, but no sensor has it"));
    Ok(found?.identifier)
}
