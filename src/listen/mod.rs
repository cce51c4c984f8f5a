//! `tributary listen`: subscribes to every topic of the broker for a while, with a session of its own, and prints for
//! each topic whether the service accepts its messages. Started by `cli`. Changes nothing at the broker
//! and needs no database.

mod observed;

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep_until};

use self::observed::Observed;
use crate::config::parse_duration;
use crate::domain::{RawMessage, Timestamp};
use crate::load::{BrokerEvent, PublisherConnection};
use crate::mqtt;
use crate::wire::{Decoder, Limits, Topics};

/// Every topic but those that begin with `$`.
const EVERYTHING: &str = "#";

/// The command line of `tributary listen`; `cli.rs` documents the command.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How long to listen: 30s, 2m, 1h or a number of seconds
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    duration: Duration,
}

/// Listens until the time is over or `stop`, and returns what there is to print.
///
/// # Errors
/// When the broker cannot be reached, refuses the subscription, or closes the connection.
pub async fn run(
    options: &Options,
    (mqtt, limits): (mqtt::Config, Limits),
    stop: impl Future<Output = ()>,
) -> anyhow::Result<String> {
    let decoder = Decoder::new(Topics::new(&mqtt.topic_prefix), limits);
    let client_id = format!("tributary-listen-{:08x}", rand::random::<u32>());
    let broker = mqtt.broker.shown();
    let mut connection = PublisherConnection::open(&mqtt, &client_id, &[EVERYTHING.into()])
        .await
        .with_context(|| format!("at {broker}"))?;
    announce(&broker, options.duration);
    let started_at = Instant::now();
    let end = started_at + options.duration;
    let mut observed = Observed::new(decoder);
    tokio::pin!(stop);
    loop {
        let ping_at = connection.keep_alive(Instant::now())?;
        tokio::select! {
            () = &mut stop => break,
            () = sleep_until(end) => break,
            () = sleep_until(ping_at) => {}
            events = connection.events(Duration::ZERO) => {
                for event in events.with_context(|| format!("at {broker}"))? {
                    if let BrokerEvent::Publish { topic, payload, retain, at_most_once } = event {
                        let now = Timestamp::now();
                        let mut message = match retain {
                            true => RawMessage::retained(&topic, &payload, now),
                            false => RawMessage::new(&topic, &payload, now, false),
                        };
                        message.delivered_once = at_most_once && !retain;
                        observed.add(&message);
                    }
                }
            }
        }
    }
    connection.close().await?;
    let seconds = started_at.elapsed().as_secs_f64().round();
    Ok(observed.report(&format!("in {seconds} s at {broker}")))
}

#[expect(clippy::print_stderr, reason = "the user must see that it is still listening")]
fn announce(broker: &str, duration: Duration) {
    let seconds = duration.as_secs_f64();
    eprintln!("Listening for {seconds} s to everything that is published at {broker} …");
}
