//! The HTTP side (actix-web): one file per resource, and around them what all share: `request`
//! (identifier, log, shape of errors), `problem`, `body`, `page` and `cursor`. [`bind`] is called
//! once, by `app.rs`, which owns signals and shutdown. Promises JSON under `/api/v1`, problem
//! documents (RFC 9457) for every error, and that nothing here waits for the hot path.

mod acceptor;
mod access;
mod activity;
mod aggregates;
mod answer;
mod attributes;
mod authenticate;
mod body;
mod browser_guard;
mod caller;
mod config;
mod configuration_diff;
mod configurations;
mod connection;
mod context;
mod cursor;
mod dashboard;
mod export;
mod extractors;
mod field_error;
mod fields;
mod fleet_log;
mod handshakes;
mod health;
mod heartbeats;
mod idempotency;
mod ingest;
mod instances;
mod limits;
mod listeners;
mod live;
mod log_messages;
mod measure;
mod measurements;
mod networks;
mod openapi;
mod openapi_answers;
mod page;
mod path;
mod payload;
mod peer;
mod problem;
mod problem_kind;
mod query;
mod rate_limiter;
mod rejections;
mod replays;
mod request;
mod routes;
mod sensor_list;
mod sensor_summary;
mod sensors;
mod sessions;
mod sign_in_checks;
mod sign_in_queue;
mod status;
mod streams;
mod supervisor_handle;
mod token_cache;
mod tokens;
mod users;
mod values;
mod write_guard;

use std::fmt::Debug;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_cors::Cors;
use actix_http::error::DispatchError;
use actix_http::{HttpService, Request, Response};
use actix_server::Server;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config,
};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Extensions};
use actix_web::middleware::{Compress, Condition, from_fn};
use actix_web::{App, web};
use tokio::net::TcpStream;
use tokio::task::JoinError;
use tracing_actix_web::TracingLogger;

use acceptor::Acceptor;
use connection::ClientStream;
use handshakes::Handshakes;
use problem::Problem;
use routes::Routes;
use sensor_summary::SummaryCache;
use sign_in_checks::SignInChecks;
use token_cache::TokenCache;

pub use access::AccessConfig;
pub(crate) use browser_guard::is_loopback;
pub use config::Config;
pub use context::{Context, Ingest, Settings, Streams};
pub use listeners::check_address;
pub use openapi::{document, document_of_types};
pub use supervisor_handle::SupervisorHandle;

/// How long requests in progress may take at shutdown.
const SHUTDOWN_TIMEOUT_SECS: u64 = 5;

/// How long an HTTP/1 client may take to close a connection that we close.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Binds the address and prepares the server, which then wants to be awaited or spawned; returns the
/// address that it got, which differs from the setting where that says port 0. Signals are left
/// to the caller: stop it by its handle.
///
/// # Errors
/// When the address cannot be bound; the error names it.
pub fn bind(config: &Config, context: Context) -> io::Result<(Server, SocketAddr)> {
    let address = &config.address;
    let tokens = web::Data::new(TokenCache::new(context.access.clone(), config.access));
    let checks = web::Data::new(SignInChecks::new());
    let summaries = web::Data::new(SummaryCache::default());
    let context = web::Data::new(context);
    let settings = web::Data::new(config.clone());
    let origins = config.cors_origins.clone();
    let mut routes = routes();
    if config.dashboard {
        dashboard::routes(&mut routes);
    }
    let routes = Arc::new(routes);
    let application = move || {
        App::new()
            .app_data(context.clone())
            .app_data(settings.clone())
            .app_data(tokens.clone())
            .app_data(checks.clone())
            .app_data(summaries.clone())
            .configure(|config| routes.register(config))
            .default_service(routes::not_found())
            .wrap(Compress::default())
            .wrap(Condition::new(!origins.is_empty(), cors(&origins)))
            .wrap(TracingLogger::<request::RequestSpan>::new())
            .wrap(from_fn(request::identify))
            .wrap(from_fn(measure::measure))
            .wrap(from_fn(write_guard::guard))
    };
    let write_timeout = Duration::from_secs(config.write_timeout_secs);
    let listeners = listeners::bind(address, write_timeout);
    let listeners = listeners.and_then(|listeners| listen(config, listeners, application));
    listeners.map_err(|error| refusal(address, &error))
}

/// Like `actix_web::HttpServer`, but with our own TLS handshakes.
fn listen<A, S, B>(
    config: &Config,
    listeners: Vec<TcpListener>,
    application: impl Fn() -> A + Clone + Send + 'static,
) -> io::Result<(Server, SocketAddr)>
where
    A: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig, Error = actix_web::Error> + 'static,
    S::InitError: Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let handshakes = Arc::<Handshakes>::default();
    let mut bound = None;
    let mut server = Server::build()
        .workers(config.workers)
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_TIMEOUT_SECS);
    let shutdown = server.graceful_shutdown_signal();
    for listener in listeners {
        let address = listener.local_addr()?;
        bound = bound.or(Some(address));
        let acceptor = Acceptor::new(config.tls.as_ref(), Arc::clone(&handshakes), address);
        let (application, shutdown) = (application.clone(), shutdown.clone());
        server = server.listen(address.to_string(), listener, move || {
            let (acceptor, shutdown) = (acceptor.clone(), shutdown.clone());
            let application = application().into_factory().map_err(|error| error.error_response());
            let http = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let shutdown = shutdown.clone();
                    async move { shutdown.notified().await }
                })
                .client_disconnect_timeout(DISCONNECT_TIMEOUT)
                .on_connect_ext(|connection: &ClientStream, data: &mut Extensions| {
                    data.insert(connection.control());
                })
                .finish(map_config(application, |()| AppConfig::default()));
            fn_service(move |socket: TcpStream| acceptor.clone().accept(socket))
                .map_err(DispatchError::Io)
                .and_then(http)
        })?;
    }
    let bound = bound.ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((server.run(), bound))
}

fn refusal(address: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("HTTP_ADDR={address} cannot be listened on: {error}"))
}

/// Every route, in the order of matching.
fn routes() -> Routes {
    let mut routes = Routes::default();
    for declare in [
        health::routes,
        openapi::routes,
        status::routes,
        export::routes,
        rejections::routes,
        replays::routes,
        ingest::routes,
        instances::routes,
        streams::routes,
        activity::routes,
        sensor_list::routes,
        sensor_summary::routes,
        sensors::routes,
        live::routes,
        networks::routes,
        tokens::routes,
        users::routes,
        sessions::routes,
        measurements::routes,
        aggregates::routes,
        attributes::routes,
        log_messages::routes,
        fleet_log::routes,
        heartbeats::routes,
        configurations::routes,
    ] {
        declare(&mut routes);
    }
    routes
}

/// Origins whose pages may call from a browser, and the headers that they may read. The token is in a header;
/// no cookie is accepted.
fn cors(origins: &[String]) -> Cors {
    const LIFETIME_SECS: usize = 3_600;
    let cors = Cors::default()
        .allowed_methods(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
        .allowed_headers([
            "accept",
            "authorization",
            "content-type",
            "idempotency-key",
            "last-event-id",
            "x-request-id",
        ])
        .expose_headers([
            "allow",
            "content-disposition",
            "idempotency-replayed",
            "location",
            "retry-after",
            "www-authenticate",
            "x-request-id",
        ])
        .max_age(LIFETIME_SECS);
    origins.iter().fold(cors, |cors, origin| match origin.as_str() {
        "*" => cors.allow_any_origin().send_wildcard(),
        origin => cors.allowed_origin(origin),
    })
}

/// Completes a change even if the client disconnects, so that the supervisor and the outbox learn of what is
/// committed.
async fn run_to_completion<T: 'static>(
    change: impl Future<Output = Result<T, Problem>> + 'static,
) -> Result<T, Problem> {
    use tracing::Instrument;

    let task = actix_web::rt::spawn(change.in_current_span());
    match task.await.map_err(JoinError::try_into_panic) {
        Ok(outcome) => outcome,
        // As if it had panicked here.
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(aborted)) => Err(Problem::internal(aborted)),
    }
}
