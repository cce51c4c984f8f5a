//! `tributary simulate`: a fleet of simulated sensors publishes at the broker, and the service's ledger shows what
//! became of it. Called by the command line. It promises that every published item is accounted for in the
//! summary, or that the summary counts the missing ones.
//!
//! ```text
//! options → registration → load::Fleet → balance → summary
//! ```

mod balance;
mod options;
mod registration;
mod summary;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::info;

pub use options::Options;
pub use summary::Summary;

use crate::load::{
    Account, Content, Fleet, HttpClient, Invention, Ledgers, Rate, Series, Stop, Totals, progress,
};
use crate::mqtt;
use crate::wire::Topics;
use balance::{Balances, LedgerCheck};

/// Un-acknowledged on each connection: enough to hide the broker's answer time at 100,000 messages/s, few enough to
/// be sent again after a reconnect.
const WINDOW: usize = 1_000;
const TICK: Duration = Duration::from_millis(5);
/// How long the service may make no progress with what was published.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// More than what was published has arrived, part of it duplicate: final when unchanged for this long.
const SETTLE_STABLE: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Registers the fleet, lets it publish, and compares what it published with the service's ledger. The API
/// gets the token, an admin's, if there is one.
///
/// Must be called on an actix or tokio local task set: its connections are not `Send`.
///
/// # Errors
/// When the series cannot be read, or the service or the broker cannot be reached at the start, or refuse.
/// Later failures are in the summary.
pub async fn run(
    options: Options,
    mqtt: mqtt::Config,
    token: Option<SecretString>,
) -> anyhow::Result<Summary> {
    let mut fleet = fleet(&options, &mqtt)?;
    let (stop, mut stopped) = watch::channel(Stop::No);
    // Aborted when dropped.
    let mut interrupts = JoinSet::new();
    interrupts.spawn_local(listen(stop));
    let http = HttpClient::new(&options.api, options.api_ca.clone(), token.as_ref())?;
    let before = http.ledgers().await?;
    let registered = tokio::select! {
        registered = Box::pin(registration::register(&http, &options)) => registered?,
        _ = stopped.changed() => bail!("interrupted before anything was published"),
    };
    fleet.identifiers = registered;
    let steady = match (&fleet.rate, fleet.duration) {
        (Rate::PerSecond(rate), Some(duration)) => Some((rate * duration.as_secs_f64()) as u64),
        _ => None,
    };
    let expected = steady.into_iter().chain(fleet.limit).min();
    let progress = Some(progress(options.quiet, "messages", expected));
    let totals = Rc::new(RefCell::new(Totals { progress, ..Totals::default() }));
    let client_id = format!("tributary-simulate-{:08x}", rand::random::<u32>());
    let elapsed = fleet.publish(&mqtt, &client_id, &totals, stopped.clone()).await?;
    let totals = Totals { progress: None, ..totals.take() };
    let settled = settle(&http, &totals.account, &before, &stopped).await;
    let (balances, check) = match settled {
        Ok(balances) => (Some(balances), balances.check(options.replay.is_some())),
        Err(error) => (None, LedgerCheck::Unknown(error.to_string())),
    };
    let (sensors, connections) = (options.sensor_count(), options.connection_count());
    Ok(Summary { sensors, connections, totals, elapsed, balances, check })
}

/// The fleet of the options, its sensors not registered yet.
fn fleet(options: &Options, mqtt: &mqtt::Config) -> anyhow::Result<Fleet> {
    let (sensors, per_message) = (options.sensor_count(), options.per_message);
    let (content, rate, total) = match &options.replay {
        Some(file) => {
            let series = std::fs::read_to_string(file).map_err(anyhow::Error::from);
            let series = series
                .and_then(|text| Series::parse(&text, options.time_column.as_deref()))
                .with_context(|| format!("{} cannot be replayed", file.display()))?;
            let offsets = series.offsets(per_message);
            let total = (offsets.len() * sensors) as u64;
            let rate = match options.speed {
                None => Rate::Unlimited,
                Some(speed) => Rate::Recorded { offsets, speed, messages: sensors as f64 },
            };
            (Content::Recorded { series: Arc::new(series), per_message }, rate, Some(total))
        }
        None => {
            let invention = Invention {
                // The measurements of a message are spread over the time since the one before.
                spacing: Duration::from_secs_f64(1.0 / options.rate / per_message as f64),
                log_share: options.log_messages,
                bad_share: options.bad,
                is_varied: true,
                ..Invention::of_measurements(u32::try_from(per_message)?)
            };
            (Content::Invented(invention), Rate::PerSecond(options.rate * sensors as f64), None)
        }
    };
    Ok(Fleet {
        seed: options.seed,
        rate,
        limit: total.into_iter().chain(options.messages).min(),
        duration: options.duration(),
        connections: options.connection_count(),
        window: WINDOW,
        tick: TICK,
        is_realistic: true,
        ..Fleet::new(Vec::new(), Topics::new(&mqtt.topic_prefix), content)
    })
}

/// Waits until the service has settled what was published, or makes no progress, or the wait is cancelled.
async fn settle(
    http: &HttpClient,
    published: &Account,
    before: &Ledgers,
    stop: &watch::Receiver<Stop>,
) -> anyhow::Result<Balances> {
    let (mut progressed_at, mut finished) = (Instant::now(), 0);
    loop {
        let balances = http.ledgers().await.map(|after| {
            let has_ended = before.keys().any(|it| !after.contains_key(it));
            (Balances::between(published, before, &after), has_ended)
        });
        let now = Instant::now();
        let mut is_over = now >= progressed_at + SETTLE_TIMEOUT || *stop.borrow() == Stop::Now;
        if let Ok((balances, _)) = &balances {
            if balances.are_stored() {
                return Ok(*balances);
            }
            if balances.finished() > finished {
                (finished, progressed_at) = (balances.finished(), now);
            }
            is_over |= balances.are_settled() && now >= progressed_at + SETTLE_STABLE;
        }
        if is_over {
            let (balances, has_ended) = balances?;
            ensure!(!has_ended, "an instance ended during the run, and its ledger with it");
            return Ok(balances);
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// The first Ctrl-C ends the publishing, the second one the waiting.
async fn listen(stop: watch::Sender<Stop>) {
    const NOTES: [(Stop, &str); 2] = [
        (Stop::Publishing, "interrupted: publishing ends; a second Ctrl-C also ends the waiting"),
        (Stop::Now, "interrupted again: stopping"),
    ];
    for (next, note) in NOTES {
        if let Err(error) = tokio::signal::ctrl_c().await {
            info!(%error, "cannot listen for Ctrl-C");
            break;
        }
        info!("{note}");
        stop.send_replace(next);
    }
    // Keeps the channel open: nobody who waits for a change wakes for nothing.
    std::future::pending::<()>().await;
}
