//! Counts and times every request, labelled by the route's template, never by its path. The outermost
//! middleware but one, so that it measures what the client sees.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::{Error, web};

use super::Context;

const NO_ROUTE: &str = "none";

/// A bounded set of labels: clients can invent methods.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Updates `tributary_http_…`.
pub(super) async fn measure(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let started_at = Instant::now();
    let context = request.app_data::<web::Data<Context>>().cloned();
    let route = request.match_pattern().unwrap_or_else(|| NO_ROUTE.into());
    let method = method_name(request.method());
    let metrics = context.as_ref().map(|context| &context.metrics);
    let in_flight = metrics.map(|metrics| RequestInFlight::new(&metrics.http_requests_in_flight));
    let outcome = next.call(request).await;
    drop(in_flight);
    if let Some(metrics) = metrics {
        let status = match &outcome {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        let labels = [route.as_str(), method, status.as_str()];
        metrics.http_requests.with_label_values(&labels).inc();
        metrics
            .http_request_seconds
            .with_label_values(&labels[..2])
            .observe(started_at.elapsed().as_secs_f64());
    }
    outcome
}

fn method_name(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// Decrements the gauge when dropped, also when the client disconnects.
struct RequestInFlight(prometheus::IntGauge);

impl RequestInFlight {
    fn new(gauge: &prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
