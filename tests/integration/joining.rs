//! A stream while another instance joins. Called by nothing else. A stream that may have missed something ends.

use crate::support::broker::Broker;
use crate::support::events::Events;
use crate::support::service::{Service, database};

/// What the newcomer commits before it knows of the stream, it does not tell.
#[actix_rt::test]
async fn a_stream_ends_when_another_instance_joins() {
    let (broker, database) = (Broker::shared().await, database().await);
    let names = [format!("{}-1", database.name), format!("{}-2", database.name)];
    let settings = |name| [("MQTT_SHARED_GROUP", database.name.as_str()), ("MQTT_CLIENT_ID", name)];
    let one = Service::start(&database, broker, &settings(&names[0])).await;
    let sensor = one.create_sensor("joined").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut stream = Events::open(&one.url(), &path, "").await;
    stream.expect("open").await;

    let _other = Service::start(&database, broker, &settings(&names[1])).await;

    assert_eq!(stream.expect("dropped").await["reason"], "overrun");
}
