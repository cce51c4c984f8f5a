//! The fleet's stream with 3,000 sensors that published in each bucket: its events are bounded, the
//! counts per sensor are paged, and the memory of the service is bounded.

use serde_json::Value;
use tributary::domain::Timestamp;

use crate::support::broker::Broker;
use crate::support::events::Events;
use crate::support::postgres::{Database, connect};
use crate::support::service::{Service, count, database};

const FLEET: &str = "/api/v1/streams/sensors";
const ACTIVITY: &str = "/api/v1/activity?limit=1000";
const SENSORS: i64 = 3_000;
const BUCKETS: i64 = 168;
const READERS: usize = 20;

/// The largest event of the fleet's stream.
const MAX_EVENT_BYTES: usize = 512 << 10;

/// How much the readers may increase the memory of the service.
const MAX_GROWTH_BYTES: u64 = 64 << 20;

/// Inserts sensors with counts in every bucket.
async fn fill(database: &Database) {
    let client = connect(&database.url).await.unwrap();
    let present = now() / 14_400;
    let first_day = (present - BUCKETS + 1) / 6;
    let statements = format!(
            "insert into sensor (identifier, name)
             select gen_random_uuid(), 'sensor ' || n from generate_series(1, {SENSORS}) n;
             insert into sensor_hour (sensor_identifier, day, measurement_counts,
                log_message_counts, heartbeat_counts)
             select identifier, date '1970-01-01' + day, measurements, log_messages, heartbeats
             from sensor, (
                 select hour / 24 as day, array_agg(is_first * (1000 + n) order by hour) as measurements,
                     array_agg(is_first * n order by hour) as log_messages,
                     array_agg(is_first order by hour) as heartbeats
                 from generate_series({first_day} * 24, {present} * 4 + 3) hour
                 cross join lateral (select {present} - hour / 4 as n) as ago
                 cross join lateral (select (hour % 4 = 0 and n < {BUCKETS})::integer as is_first) as it
                 group by 1
             ) as days;
             analyze sensor; analyze sensor_hour"
    );
    // Citus rejects them in one transaction.
    for statement in statements.split(';') {
        client.batch_execute(statement).await.unwrap();
    }
}

/// The peak resident memory of the service.
fn peak_memory_bytes(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes << 10
}

#[actix_rt::test]
#[cfg(target_os = "linux")]
async fn many_readers_of_a_large_fleet_use_bounded_memory() {
    let database = database().await;
    let service = Service::start(&database, Broker::shared().await, &[]).await;
    fill(&database).await;
    let before = peak_memory_bytes(&service);

    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(Events::open(&service.url(), FLEET, "").await);
    }
    for reader in &mut readers {
        assert_eq!(reader.status(), 200, "{}", reader.head);
        let first = reader.next().await.unwrap();
        assert_eq!(first.name, "fleet");
        assert!(first.data.to_string().len() < MAX_EVENT_BYTES, "{}", first.data);
        assert_eq!(first.data["sensor_count"], SENSORS);
        assert_eq!(first.data["totals"].as_array().unwrap().len() as i64, BUCKETS);
    }

    // A change of all sensors arrives in bounded events, also if a reader is slow.
    let client = connect(&database.url).await.unwrap();
    let change = "insert into sensor_hour_journal (sensors, hours, kinds, counts)
        select array_agg(identifier), array_agg(floor(extract(epoch from now()) / 3600)::integer),
            array_agg(0::smallint), array_agg(1) from sensor";
    client.batch_execute(change).await.unwrap();
    for reader in &mut readers {
        let change = reader.next().await.unwrap();
        assert_eq!(change.name, "activity");
        assert!(change.data.to_string().len() < MAX_EVENT_BYTES);
        let listed = change.data["sensors"].as_array().unwrap().len() as i64;
        assert_eq!(listed + change.data["sensors_not_listed"].as_i64().unwrap(), SENSORS);
    }

    // The pages return all sensors; with fewer buckets, a page has more sensors.
    let (mut sensors, mut measurements, mut path) = (0, 0, ACTIVITY.to_owned());
    loop {
        let (status, page) = service.get(&path).await.unwrap();
        assert_eq!(status, 200, "{page}");
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 100, "{}", items.len());
        sensors += items.len() as i64;
        measurements += items.iter().map(measurements_in).sum::<i64>();
        let Some(next) = page["next"].as_str() else { break };
        path = format!("{ACTIVITY}&cursor={next}");
    }
    assert_eq!(sensors, SENSORS);
    let sum = "select sum(n)::bigint from sensor_hour, unnest(measurement_counts) n";
    assert_eq!(measurements, count(&database, sum).await);
    let (_, page) = service.get(&format!("{ACTIVITY}&from={}", now())).await.unwrap();
    assert_eq!(page["items"].as_array().unwrap().len(), 1_000);

    let growth = peak_memory_bytes(&service) - before;
    assert!(growth < MAX_GROWTH_BYTES, "{} MiB", growth >> 20);
}

fn measurements_in(sensor: &Value) -> i64 {
    let buckets = sensor["buckets"].as_array().unwrap();
    buckets.iter().map(|it| it["measurements"].as_i64().unwrap()).sum()
}

fn now() -> i64 {
    Timestamp::now().unix_microseconds() / 1_000_000
}
