//! A running API with its own database, and a client. Every test of the API uses it. Tests share only the
//! PostgreSQL server.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Addr, Context as ActorContext, Handler};
use actix_web::dev::Server;
use actix_web::error::PayloadError;
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use bytes::Bytes;
use serde_json::Value;
use tributary::api::{self, SupervisorHandle};
use tributary::domain::{
    Faults, Flow, Health, Leadership, Ledger, NetworkIdentifier, Part, Role, Scope,
    SensorIdentifier, Subscriptions, Timestamp, Token,
};
use tributary::instances::Identity;
use tributary::metrics::Metrics;
use tributary::sensor::{Deleted, GetSnapshot, Republish, SetDesiredRevision, Snapshot, Wake};
use tributary::store::{self, NewToken, Store};
use tributary::streams::{self, Hub};
use tributary::telemetry::LogFilterHandle;

use uuid::Uuid;

use crate::support::postgres::{Database, Postgres, connect};

/// A message to the supervisor or to the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SupervisorMessage {
    Configured(SensorIdentifier, i32),
    Republish(SensorIdentifier),
    Deleted(Vec<SensorIdentifier>),
}

/// Replaces the supervisor and the outbox.
struct SupervisorStub {
    messages: Arc<Mutex<Vec<SupervisorMessage>>>,
    live: Arc<Mutex<Option<Snapshot>>>,
}

impl Actor for SupervisorStub {
    type Context = ActorContext<Self>;
}

impl Handler<GetSnapshot> for SupervisorStub {
    type Result = Option<Snapshot>;

    fn handle(&mut self, _: GetSnapshot, _: &mut Self::Context) -> Self::Result {
        self.live.lock().unwrap().clone()
    }
}

impl Handler<SetDesiredRevision> for SupervisorStub {
    type Result = ();

    fn handle(&mut self, message: SetDesiredRevision, _: &mut Self::Context) {
        self.messages
            .lock()
            .unwrap()
            .push(SupervisorMessage::Configured(message.sensor, message.revision));
    }
}

impl Handler<Republish> for SupervisorStub {
    type Result = ();

    fn handle(&mut self, Republish(sensor): Republish, _: &mut Self::Context) {
        self.messages.lock().unwrap().push(SupervisorMessage::Republish(sensor));
    }
}

impl Handler<Deleted> for SupervisorStub {
    type Result = ();

    fn handle(&mut self, message: Deleted, _: &mut Self::Context) {
        self.messages.lock().unwrap().push(SupervisorMessage::Deleted(message.0));
    }
}

impl Handler<Wake> for SupervisorStub {
    type Result = ();

    fn handle(&mut self, Wake: Wake, _: &mut Self::Context) {}
}

/// A running API.
pub(super) struct Api {
    pub(super) base: String,
    pub(super) ledger: Arc<Ledger>,
    pub(super) health: Arc<Health>,
    pub(super) live: Arc<Mutex<Option<Snapshot>>>,
    messages: Arc<Mutex<Vec<SupervisorMessage>>>,
    client: awc::Client,
    pub(super) database: Database,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(super) fn expect_status(self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.text.is_empty() { Value::Null } else { self.json() }
    }
}

impl Api {
    pub(super) async fn start() -> Self {
        Self::start_on(Postgres::shared().await).await
    }

    pub(super) async fn start_on(postgres: &Postgres) -> Self {
        Self::start_with(postgres, &[("AUTH", "off")]).await
    }

    /// Starts an API that requires authentication.
    pub(super) async fn start_guarded() -> Self {
        Self::start_with(Postgres::shared().await, &[]).await
    }

    pub(super) async fn start_with(postgres: &Postgres, settings: &[(&str, &str)]) -> Self {
        Self::start_in(postgres.create_database(None).await, settings).await
    }

    /// Applies the migrations to the database, and serves it.
    pub(super) async fn start_in(database: Database, settings: &[(&str, &str)]) -> Self {
        store::migrate(&store_config(&database.url, &[])).await.unwrap();
        Self::serve(database, settings)
    }

    /// Starts a new API on the same database.
    pub(super) fn start_again(self) -> Self {
        Self::serve(self.database, &[("AUTH", "off")])
    }

    fn serve(database: Database, settings: &[(&str, &str)]) -> Self {
        let config = store_config(&database.url, settings);
        let (messages, live) =
            <(Arc<Mutex<Vec<SupervisorMessage>>>, Arc<Mutex<Option<Snapshot>>>)>::default();
        let supervisor =
            SupervisorStub { messages: Arc::clone(&messages), live: Arc::clone(&live) }.start();
        let context = context(&config, &supervisor);
        let (ledger, health) = (Arc::clone(&context.ledger), Arc::clone(&context.health));
        Part::ALL.into_iter().for_each(|part| health.up(part));
        let fixed = [("HTTP_ADDR", "127.0.0.1:0"), ("HTTP_WORKERS", "2")];
        let http = http_config(&[settings, &fixed].concat());
        let (server, address) = api::bind(&http, context).unwrap();
        actix_rt::spawn(server);
        let client = awc::Client::builder().timeout(Duration::from_secs(20)).finish();
        let base = format!("http://{address}");
        Self { base, ledger, health, live, messages, client, database }
    }

    /// Binds an address without serving.
    pub(super) fn try_bind(address: &str) -> std::io::Result<(Server, SocketAddr)> {
        let (messages, live) =
            <(Arc<Mutex<Vec<SupervisorMessage>>>, Arc<Mutex<Option<Snapshot>>>)>::default();
        let supervisor = SupervisorStub { messages, live }.start();
        let context = context(&store_config("postgres://nowhere/x", &[]), &supervisor);
        api::bind(&http_config(&[("HTTP_ADDR", address)]), context)
    }

    /// An answer whose body is read as a stream.
    pub(super) async fn get_streamed(
        &self,
        path: &str,
    ) -> awc::ClientResponse<impl futures_util::Stream<Item = Result<Bytes, PayloadError>> + use<>>
    {
        let request = self.client.get(format!("{}{path}", self.base));
        request.send().await.unwrap()
    }

    /// The headers of an answer, and its body, still gzipped.
    pub(super) async fn get_gzipped(&self, path: &str) -> (HeaderMap, Vec<u8>) {
        let request = self.client.get(format!("{}{path}", self.base));
        let request = request.no_decompress().insert_header(("accept-encoding", "gzip"));
        let mut response = request.send().await.unwrap();
        let bytes = response.body().limit(16 << 20).await.unwrap();
        (response.headers().clone(), bytes.to_vec())
    }

    /// A request without a body.
    pub(super) async fn request(&self, method: Method, path: &str) -> Answer {
        // With AUTH=off, a POST needs this header even without a body.
        self.send(method, path, &[("content-type", "application/json")], String::new()).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path).await
    }

    pub(super) async fn post(&self, path: &str, body: impl ToString) -> Answer {
        self.send_json(Method::POST, path, body).await
    }

    pub(super) async fn send_json(
        &self,
        method: Method,
        path: &str,
        body: impl ToString,
    ) -> Answer {
        let headers = [("content-type", "application/json")];
        self.send(method, path, &headers, body.to_string()).await
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for header in headers {
            request = request.insert_header(*header);
        }
        let mut response = request.send_body(body.into()).await.unwrap();
        let bytes = response.body().limit(16 << 20).await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: String::from_utf8(bytes.into()).unwrap(),
        }
    }

    /// Sends a request, with a token if there is one; the body is JSON.
    pub(super) async fn call(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> Answer {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers: Vec<(&'static str, &str)> = Vec::new();
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        headers.extend(body.map(|_| ("content-type", "application/json")));
        self.send(method, path, &headers, body.unwrap_or_default()).await
    }

    /// Creates a token with this role, in one network or in all.
    pub(super) async fn token(&self, role: Role, scope: Scope) -> String {
        let token = Token::random();
        let new = NewToken {
            name: format!("{role} {}", uuid::Uuid::new_v4()),
            digest: token.digest(),
            role,
            scope,
            expires_at: None,
            user: None,
        };
        Store::new(&store_config(&self.database.url, &[])).create_token(&new).await.unwrap();
        token.reveal().to_owned()
    }

    /// Creates a network.
    pub(super) async fn network(&self, name: &str) -> NetworkIdentifier {
        let identifier = NetworkIdentifier::random();
        let insert =
            format!("insert into network (identifier, name) values ('{identifier}', '{name}')");
        self.execute(&insert).await;
        identifier
    }

    /// Creates a sensor; returns its identifier and its path.
    pub(super) async fn create_sensor(&self, name: &str) -> (SensorIdentifier, String) {
        let body = serde_json::json!({ "name": name });
        let created = self.post("/api/v1/sensors", body).await.expect(201);
        let identifier = SensorIdentifier::parse(created["identifier"].as_str().unwrap()).unwrap();
        (identifier, format!("/api/v1/sensors/{identifier}"))
    }

    /// The messages that the supervisor and the outbox have received so far, in order.
    pub(super) fn supervisor_messages(&self) -> Vec<SupervisorMessage> {
        self.messages.lock().unwrap().clone()
    }

    /// Runs statements directly in the database.
    pub(super) async fn execute(&self, statements: &str) {
        connect(&self.database.url).await.unwrap().batch_execute(statements).await.unwrap();
    }

    /// One number from the database.
    pub(super) async fn count(&self, query: &str) -> i64 {
        connect(&self.database.url).await.unwrap().query_one(query, &[]).await.unwrap().get(0)
    }
}

fn context(config: &store::Config, supervisor: &Addr<SupervisorStub>) -> api::Context {
    let ledger = Arc::new(Ledger::default());
    let store = Store::new(config);
    let separate = |readers| Store::new(&store::Config { readers, ..config.clone() });
    let (access, work) = (separate(2), separate(3));
    let (subscriptions, mut events) = Subscriptions::new();
    // There is no other instance.
    subscriptions.set_known_version(None);
    let hub = Hub::new(streams::Config::default(), subscriptions);
    actix_rt::spawn({
        let hub = Arc::clone(&hub);
        async move { hub.run(&mut events, &Faults::default()).await }
    });
    let metrics = Arc::new(Metrics::new(Arc::clone(&ledger)));
    metrics.actors_alive.set(7);
    let fleet = streams::FleetStream::new(Arc::clone(&hub), store.clone(), Arc::clone(&metrics));
    actix_rt::spawn({
        let fleet = Arc::clone(&fleet);
        async move { fleet.run(&Faults::default()).await }
    });
    api::Context {
        streams: api::Streams { hub, fleet },
        ingest: api::Ingest {
            flow: Arc::new(Flow::default()),
            max_messages: 50_000,
            max_bytes: 256 << 20,
            max_batch_items: 50_000,
            writers: 2,
            log: LogFilterHandle::nothing(),
        },
        store,
        access,
        work,
        supervisor: SupervisorHandle::new(supervisor, supervisor),
        // Without a receiver: tests of the whole service cover replays.
        replays: tributary::replay::Replays::new().0,
        metrics,
        ledger,
        health: Arc::default(),
        identity: Identity {
            identifier: Uuid::new_v4(),
            client_id: "tributary".into(),
            host: "localhost".into(),
            started_at: Timestamp::now(),
            topic_prefix: String::new(),
            broker: "localhost:1883".into(),
        },
        leadership: Leadership::always(),
        tasks: tributary::tasks::Tasks::default(),
        settings: api::Settings {
            topic_prefix: String::new(),
            nested_values: tributary::wire::value::NestedValues::default(),
            future_tolerance_secs: config.future_tolerance_secs,
        },
        started_at: Timestamp::now(),
    }
}

pub(super) fn store_config(url: &str, settings: &[(&str, &str)]) -> store::Config {
    let set = |name: &str| {
        let known = settings.iter().find(|(known, _)| *known == name);
        known.map(|(_, value)| (*value).to_owned())
    };
    let read = |name: &str| if name == "DATABASE_URL" { Some(url.to_owned()) } else { set(name) };
    tributary::config::read_store(read).unwrap()
}

/// The HTTP config: the defaults, overridden by these settings.
fn http_config(settings: &[(&str, &str)]) -> api::Config {
    let servers = [("DATABASE_URL", "postgres://nowhere/x"), ("MQTT_URL", "mqtt://nowhere")];
    let all: Vec<_> = servers.iter().chain(settings).collect();
    let value = |name: &str| all.iter().find(|(known, _)| *known == name).map(|it| it.1.to_owned());
    tributary::config::Config::read(value).unwrap().http
}
