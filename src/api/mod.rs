//! The HTTP side.

/// `HTTP_…`
#[derive(Clone, Debug)]
pub struct Config {
    /// `HTTP_ADDR`
    pub address: String,
    /// `HTTP_WORKERS`
    pub workers: usize,
}

impl Config {
    /// Where the API listens when nothing is said.
    pub const DEFAULT_ADDRESS: &'static str = "127.0.0.1:8080";
}

use crate::{domain::*, metrics::Metrics, sensor::*, store::Store};
use actix::{Addr, Recipient};
use std::sync::Arc;
/// stub
pub struct Fleet {
    #[allow(missing_docs)]
    pub observe: Recipient<Observe>,
}
impl Fleet {
    #[allow(missing_docs)]
    pub fn of(a: &Addr<Supervisor>) -> Self {
        Fleet { observe: a.clone().recipient() }
    }
}
#[allow(missing_docs)]
pub struct Context {
    pub store: Store,
    pub fleet: Fleet,
    pub ledger: Arc<Ledger>,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    pub started_at: Timestamp,
}
#[allow(missing_docs)]
pub fn bind(
    config: &Config,
    c: Context,
) -> std::io::Result<(actix_web::dev::Server, std::net::SocketAddr)> {
    use actix_web::*;
    let d = web::Data::new(c);
    let s = HttpServer::new(move || {
        App::new()
            .app_data(d.clone())
            .route("/healthz", web::get().to(|| async { "ok" }))
            .route(
                "/metrics",
                web::get().to(|c: web::Data<Context>| async move { c.metrics.render() }),
            )
            .route(
                "/api/v1/status",
                web::get().to(|c: web::Data<Context>| async move {
                    HttpResponse::Ok().json(c.ledger.snapshot())
                }),
            )
    })
    .workers(1)
    .disable_signals()
    .bind(&config.address)?;
    let a = s.addrs()[0];
    Ok((s.run(), a))
}
