//! The service's HTTP side, as the fleet uses it: sensors are registered, the ledger is read. Every
//! failure is one sentence that says what was asked and what came back.

use std::path::PathBuf;
use std::time::Duration;

use actix_web::http::StatusCode;
use awc::error::{ConnectError, SendRequestError};
use awc::{Client, Connector};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use crate::domain::{NetworkIdentifier, SensorIdentifier};
use crate::tls;

/// Requests at a time: registering is bound by the service's transactions.
pub(super) const CONCURRENCY: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A large fleet registers faster than one token may ask.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Why the service did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No answer.
    #[error("no answer from {url}: {why}. Is `tributary serve` running there?")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// It said no.
    #[error("{method} {url} was answered {status}: {detail}")]
    Refused {
        /// How it was asked.
        method: &'static str,
        /// What was asked for.
        url: String,
        /// Its answer.
        status: u16,
        /// In its own words.
        detail: String,
    },
    /// There is no such network, or the token does not see it.
    #[error("no network has the name or the identifier {name:?} in {url}")]
    NoSuchNetwork {
        /// What it was asked for.
        name: String,
        /// Where it was looked for.
        url: String,
    },
    /// It said something else.
    #[error("{url} did not answer as this version expects: {why}")]
    Malformed {
        /// What was asked for.
        url: String,
        /// What was wrong.
        why: String,
    },
}

/// A client of the API.
#[derive(Clone)]
pub(super) struct Service {
    client: Client,
    base: String,
}

#[derive(Deserialize)]
struct Registered {
    identifier: SensorIdentifier,
}

#[derive(Deserialize)]
struct Listed<T> {
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

#[derive(Deserialize)]
struct Status {
    ledger: Ledger,
}

/// The ledger, as the API has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
pub(super) struct Ledger {
    pub(super) measurements: Entry,
    pub(super) log_messages: Entry,
    pub(super) heartbeats: Entry,
}

/// The account of one kind, in items, since the service started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
pub(super) struct Entry {
    pub(super) received: u64,
    pub(super) committed: u64,
    pub(super) duplicate: u64,
    pub(super) rejected: u64,
    pub(super) in_flight: u64,
}

/// RFC 9457.
#[derive(Default, Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

impl Service {
    /// The service at this address; where that is https, its certificate must be signed by this
    /// authority, or else by one that the system trusts.
    pub(super) fn new(
        api: &str,
        authority: Option<PathBuf>,
        token: Option<&SecretString>,
    ) -> Result<Self, tls::FileError> {
        let mut connector = Connector::new().timeout(CONNECT_TIMEOUT).limit(CONCURRENCY);
        if api.starts_with("https://") {
            let options = tls::ClientOptions {
                authority: Some(authority.map_or(tls::Authority::System, tls::Authority::File)),
                check_name: true,
                identity: None,
                protocol: Some("http/1.1"),
            };
            connector = connector.rustls_0_23(tls::Client::new(options)?.configuration());
        }
        let mut builder = Client::builder().timeout(ANSWER_TIMEOUT).connector(connector);
        if let Some(token) = token {
            builder = builder.bearer_auth(token.expose_secret());
        }
        Ok(Self { client: builder.finish(), base: format!("{api}/api/v1") })
    }

    /// The network of this name, or of this identifier.
    pub(super) async fn network(&self, name: &str) -> Result<NetworkIdentifier, ServiceError> {
        let url = format!("{}/networks", self.base);
        let mut page = format!("{url}?limit=1000");
        loop {
            let listed: Listed<ListedNetwork> = self.read(&page).await?;
            let named = |it: &&ListedNetwork| it.name == name || it.identifier.to_string() == name;
            if let Some(network) = listed.items.iter().find(named) {
                return Ok(network.identifier);
            }
            match listed.next {
                Some(cursor) => page = format!("{url}?limit=1000&cursor={cursor}"),
                None => return Err(ServiceError::NoSuchNetwork { name: name.to_owned(), url }),
            }
        }
    }

    /// The sensor of this name in the network, created where it has none. Where no network is named, it
    /// is the one of the token, or the default network.
    pub(super) async fn register(
        &self,
        name: &str,
        network: Option<NetworkIdentifier>,
    ) -> Result<SensorIdentifier, ServiceError> {
        let url = format!("{}/sensors", self.base);
        let mut sensor = serde_json::json!({ "name": name });
        if let Some(network) = network {
            sensor["network"] = network.to_string().into();
        }
        let (status, body) = loop {
            let request = self.client.post(&url).send_json(&sensor);
            match answer(&url, request).await? {
                (StatusCode::TOO_MANY_REQUESTS, _) => tokio::time::sleep(PAUSE).await,
                answered => break answered,
            }
        };
        if status == StatusCode::CONFLICT {
            return self.find(name, network).await;
        }
        let registered: Registered = parse("POST", url, status, &body)?;
        Ok(registered.identifier)
    }

    async fn find(
        &self,
        name: &str,
        network: Option<NetworkIdentifier>,
    ) -> Result<SensorIdentifier, ServiceError> {
        let query: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let url = format!("{}/sensors?name={query}", self.base);
        let listed: Listed<ListedSensor> = self.read(&url).await?;
        // A token of one network sees no other; one of all has met the default network's.
        let network = network.unwrap_or(NetworkIdentifier::DEFAULT);
        let found = match &*listed.items {
            [one] => Some(one),
            several => several.iter().find(|sensor| sensor.network == network),
        };
        found.map(|sensor| sensor.identifier).ok_or_else(|| ServiceError::Malformed {
            url,
            why: format!("the name {name:?} is taken, but no sensor has it"),
        })
    }

    /// The account at this moment.
    pub(super) async fn ledger(&self) -> Result<Ledger, ServiceError> {
        let status: Status = self.read(&format!("{}/status", self.base)).await?;
        Ok(status.ledger)
    }

    async fn read<T: DeserializeOwned>(&self, url: &str) -> Result<T, ServiceError> {
        let (status, body) = answer(url, self.client.get(url).send()).await?;
        parse("GET", url.to_owned(), status, &body)
    }
}

async fn answer(
    url: &str,
    request: awc::SendClientRequest,
) -> Result<(StatusCode, Vec<u8>), ServiceError> {
    let unreachable = |why: String| ServiceError::Unreachable { url: url.to_owned(), why };
    let mut response = request.await.map_err(|error| {
        let reason = match &error {
            // It does not name its source.
            SendRequestError::Connect(ConnectError::Io(source)) => tls::handshake_reason(source),
            _ => None,
        };
        unreachable(reason.unwrap_or_else(|| error.to_string()))
    })?;
    let body = response.body().limit(MAX_ANSWER_BYTES).await;
    let body = body.map_err(|error| unreachable(error.to_string()))?;
    Ok((response.status(), body.to_vec()))
}

fn parse<T: DeserializeOwned>(
    method: &'static str,
    url: String,
    status: StatusCode,
    body: &[u8],
) -> Result<T, ServiceError> {
    if !status.is_success() {
        let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        let detail = problem.detail.or(problem.title).unwrap_or_else(|| {
            status.canonical_reason().unwrap_or("it does not say why").to_owned()
        });
        let detail = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                format!("{detail}. API_TOKEN holds the token that is shown; it takes an admin's")
            }
            _ => detail,
        };
        return Err(ServiceError::Refused { method, url, status: status.as_u16(), detail });
    }
    serde_json::from_slice(body)
        .map_err(|error| ServiceError::Malformed { url, why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> String {
        let url = "http://localhost/api/v1/sensors".to_owned();
        parse::<Registered>("POST", url, StatusCode::BAD_REQUEST, body.as_bytes())
            .map(|_| ())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_refusal_is_told_in_the_service_s_words() {
        assert_eq!(
            refused(r#"{"type":"about:blank","title":"Bad Request","detail":"name is too long"}"#),
            "POST http://localhost/api/v1/sensors was answered 400: name is too long"
        );
        assert!(refused(r#"{"title":"Nope"}"#).ends_with("400: Nope"));
        assert!(refused("<html>").ends_with("400: Bad Request"));
    }

    #[test]
    fn the_ledger_is_read_whatever_else_the_status_holds() {
        let entry =
            r#"{"received":5,"committed":3,"duplicate":1,"rejected":1,"in_flight":0,"released":2}"#;
        let body = format!(
            r#"{{"version":"1","ledger":{{"measurements":{entry},"log_messages":{entry},"heartbeats":{entry},"unknown":{entry}}}}}"#
        );
        let status: Status = serde_json::from_str(&body).unwrap();
        assert_eq!(
            status.ledger.heartbeats,
            Entry { received: 5, committed: 3, duplicate: 1, rejected: 1, in_flight: 0 }
        );
    }
}
