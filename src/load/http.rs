//! A client of the service's HTTP API. Used by `simulate` to register sensors and to read the ledger, and by
//! `bench` to watch the service under measurement. A failure is one sentence: what was asked, what came back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use anyhow::{Context as _, anyhow, bail};
use awc::error::{ConnectError, SendRequestError};
use awc::{Client, Connector};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::domain::LedgerSnapshot;
use crate::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// By instance; each start is another one.
pub(crate) type Ledgers = BTreeMap<Uuid, LedgerSnapshot>;

#[derive(Clone)]
pub(crate) struct HttpClient {
    client: Client,
    base: String,
}

impl HttpClient {
    /// The service at this URL. The certificate of https must be signed by this authority, or else by one
    /// that the system trusts.
    pub(crate) fn new(
        base: &str,
        authority: Option<PathBuf>,
        token: Option<&SecretString>,
    ) -> Result<Self, tls::FileError> {
        let mut connector = Connector::new().timeout(CONNECT_TIMEOUT);
        if base.starts_with("https://") {
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
        Ok(Self { client: builder.finish(), base: base.to_owned() })
    }

    /// Sends a request, and reads the answer to its end, whatever its status.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let url = format!("{}{path}", self.base);
        let request = self.client.request(method.clone(), &url);
        let sent = match body {
            Some(body) => request.send_json(body).await,
            None => request.send().await,
        };
        let unreachable = |why: String| {
            anyhow!("no answer from {url}: {why}. Is `tributary serve` running there?")
        };
        let mut response = sent.map_err(|error| match &error {
            // It does not name its source.
            SendRequestError::Connect(ConnectError::Io(source)) => {
                unreachable(tls::handshake_reason(source).unwrap_or_else(|| error.to_string()))
            }
            _ => unreachable(error.to_string()),
        })?;
        let body = response.body().limit(MAX_ANSWER_BYTES).await;
        let body = body.map_err(|error| unreachable(error.to_string()))?.to_vec();
        Ok(Answer { request: format!("{method} {url}"), status: response.status(), body })
    }

    /// The body of a successful GET.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        self.send(Method::GET, path, None).await?.success()
    }

    /// The JSON body of a successful GET.
    pub(crate) async fn read<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.send(Method::GET, path, None).await?.json()
    }

    /// The ledger of each instance, since it started.
    pub(crate) async fn ledgers(&self) -> anyhow::Result<Ledgers> {
        #[derive(Deserialize)]
        struct Instances {
            items: Vec<Instance>,
        }
        #[derive(Deserialize)]
        struct Instance {
            identifier: Uuid,
            ledger: LedgerSnapshot,
        }
        let Instances { items } = self.read("/api/v1/instances").await?;
        Ok(items.into_iter().map(|it| (it.identifier, it.ledger)).collect())
    }

    /// The service's ledger, since it started.
    pub(crate) async fn ledger(&self) -> anyhow::Result<LedgerSnapshot> {
        let mut status: Value = self.read("/api/v1/status").await?;
        Ok(serde_json::from_value(status["ledger"].take())?)
    }
}

pub(crate) struct Answer {
    request: String,
    pub(crate) status: StatusCode,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        let context = format!("{} was not answered as this version expects", self.request);
        serde_json::from_slice(&self.success()?).context(context)
    }

    fn success(self) -> anyhow::Result<Vec<u8>> {
        let Self { request, status, body } = self;
        if status.is_success() {
            return Ok(body);
        }
        // RFC 9457.
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let reason = status.canonical_reason().unwrap_or("no reason given");
        let detail = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or(reason);
        let hint = match status.as_u16() {
            401 | 403 => ". API_TOKEN must hold the token of an admin",
            _ => "",
        };
        bail!("{request} was answered {}: {detail}{hint}", status.as_u16())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_holds_the_detail_of_the_problem() {
        for (body, detail) in [
            (r#"{"type":"about:blank","title":"Bad Request","detail":"too long"}"#, "too long"),
            (r#"{"title":"Nope"}"#, "Nope"),
            ("<html>", "Bad Request"),
        ] {
            let (request, status) = ("POST http://h/s".into(), StatusCode::BAD_REQUEST);
            let answer = Answer { request, status, body: body.into() };
            let refusal = answer.success().unwrap_err().to_string();
            assert_eq!(refusal, format!("POST http://h/s was answered 400: {detail}"));
        }
    }
}
