//! Streams of server-sent events: the items of a sensor, and the counts of the fleet. Opened by dashboards and
//! `curl -N`. Only committed rows become events; a reader that does not keep up gets a last event that says so.

use std::convert::Infallible;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING, HeaderName};
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::Stream;

use super::Context;
use super::access::Access;
use super::caller::Caller;
use super::path::{Path, SensorPath};
use super::problem::{Kind, Problem};
use super::routes::Routes;
use crate::domain::{Scope, Timestamp};
use crate::streams::{NoRoom, NotRead, StreamGrant};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Keeps nginx from buffering events.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) fn routes(routes: &mut Routes) {
    let problems = [Kind::TooManyStreams, Kind::NotReady];
    routes.add(Access::VIEWER, __path_fleet, fleet).fails_with(&problems).streams(&[
        ("fleet", "FleetSnapshot"),
        ("activity", "FleetChange"),
        ("dropped", "StreamDropped"),
    ]);
    let sensor = routes.add(Access::VIEWER, __path_sensor, sensor).fails_with(&problems);
    sensor.fails_with(&[Kind::InvalidHeader]).streams(&[
        ("open", "StreamOpened"),
        ("measurement", "Measurement"),
        ("log_message", "LogMessage"),
        ("heartbeat", "Heartbeat"),
        ("configuration", "StreamConfiguration"),
        ("dropped", "StreamDropped"),
    ]);
}

/// Counts of the fleet per four hours over 28 days, then their changes
///
/// The first event, `fleet`, has `totals` for each of the 168 buckets, by the sensors' clocks, and says
/// in `activity_path` where the counts of each sensor are read, page by page (the schema
/// `FleetSnapshot`). Each `activity` after it gives the counts that have changed, as they are now
/// (`FleetChange`): of at most 2,000 counts of sensors, and `sensors_not_listed` says of how many
/// sensors there are more. `fleet` comes again every five minutes, and instead of all that waits for a
/// client that reads too slowly: it replaces what was sent before. An event has at most 512 KiB.
/// `dropped` is the last event and says why. `Last-Event-ID` changes nothing.
#[utoipa::path(
    get, path = "/api/v1/streams/sensors", tag = "streams", operation_id = "stream_fleet",
    responses((status = 200, description = "Events without end", body = String, content_type = "text/event-stream",
        example = "event: activity\ndata: {\"totals\":[…],\"sensors\":[…],\"sensors_not_listed\":0}\n\n")),
)]
async fn fleet(caller: Caller, context: web::Data<Context>) -> Result<HttpResponse, Problem> {
    let scope = match caller.scope {
        Scope::All => None,
        Scope::Network(network) => Some(network.0),
    };
    let reader = context.streams.fleet.read(grant(&caller), scope).await?;
    Ok(stream(reader))
}

/// Items of a sensor, each after its COMMIT
///
/// First `open` (the schema `StreamOpened`); then `measurement`, `log_message` and `heartbeat`, with the
/// members that the lists have (`Measurement`, `LogMessage`, `Heartbeat`), and `configuration`
/// (`StreamConfiguration`) when one is `pending`, `published`, `acknowledged` or `failed`. What was
/// there before is not sent again. `dropped` (`StreamDropped`) is the last event and says why:
/// `too_slow`, `overrun`, `deleted`, `revoked` or `shutdown`. Past events are not kept: with `Last-Event-ID`, `open` says in
/// `missed_since` from when on the lists hold what the client has missed.
#[utoipa::path(
    get, path = "/api/v1/sensors/{identifier}/stream", tag = "streams", operation_id = "stream_sensor",
    params(("Last-Event-ID" = Option<i64>, Header, description = "The identifier of the last event seen")),
    responses((status = 200, description = "Events without end", body = String, content_type = "text/event-stream",
        example = "event: heartbeat\nid: 1782896400250000\ndata: {…,\"success\":true}\n\n")),
)]
async fn sensor(
    caller: Caller,
    context: web::Data<Context>,
    Path(path): Path<SensorPath>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (sensor, seen) = (path.identifier.0, last_event_id(&request)?);
    // The stream is opened first, so that it reports a deletion that happens meanwhile.
    let reader = context.streams.hub.read_sensor(grant(&caller), sensor, seen)?;
    context.store.sensor(sensor).await?.ok_or_else(Problem::sensor_not_found)?;
    if !context.streams.hub.subscriptions().known_to_peers().await {
        let problem = "another instance does not answer yet; what it commits would be missed";
        return Err(Problem::later(Kind::NotReady, problem));
    }
    Ok(stream(reader))
}

/// The caller's grant, with which the stream ends.
fn grant(caller: &Caller) -> StreamGrant {
    StreamGrant {
        token: caller.token,
        holder: caller.holder(),
        scope: caller.scope,
        expires_at: caller.expires_at,
    }
}

/// The timestamp of the last event that the client has seen; an event's identifier is its timestamp.
fn last_event_id(request: &HttpRequest) -> Result<Option<Timestamp>, Problem> {
    let Some(header) = request.headers().get(LAST_EVENT_ID) else { return Ok(None) };
    let time = header.to_str().ok().and_then(|text| text.parse::<i64>().ok());
    let time = time.filter(|it| (0..=Timestamp::now().unix_microseconds()).contains(it));
    match time {
        Some(time) => Ok(Some(Timestamp::from_unix_microseconds(time))),
        None => Err(Problem::new(
            Kind::InvalidHeader,
            "Last-Event-ID takes the identifier of an event of this stream",
        )),
    }
}

fn stream(events: impl Stream<Item = Result<Bytes, Infallible>> + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((X_ACCEL_BUFFERING, "no"))
        // Compression would hold events back.
        .insert_header((CONTENT_ENCODING, "identity"))
        .streaming(events)
}

impl From<NoRoom> for Problem {
    fn from(why: NoRoom) -> Self {
        match why {
            NoRoom::TooMany => {
                Self::later(Kind::TooManyStreams, "the maximum number of streams is open")
            }
            NoRoom::TooManyOfCaller => Self::later(
                Kind::TooManyStreams,
                "the caller has a quarter of STREAM_MAX_READERS open, the most for one caller",
            ),
            NoRoom::Closed => Self::later(Kind::NotReady, "the service is shutting down"),
        }
    }
}

impl From<NotRead> for Problem {
    fn from(why: NotRead) -> Self {
        match why {
            NotRead::NoRoom(why) => why.into(),
            NotRead::Unavailable => Self::later(
                Kind::DatabaseUnavailable,
                "the counts could not be read from the database in time; try again",
            ),
        }
    }
}
