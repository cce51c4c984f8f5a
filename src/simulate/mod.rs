//! `tributary simulate`: a fleet of simulated sensors publishes at the broker, and the service's ledger tells what
//! became of it. Called by the command line. It promises that every published item is accounted for in the
//! summary, or that the summary counts the missing ones.
//!
//! ```text
//! options → fleet → load::Publisher, one per connection, from its sensors (invented or series)
//! registration → … → balance → summary
//! ```

mod balance;
mod fleet;
mod flaws;
mod invented;
mod options;
mod registration;
mod sensor;
mod series;
mod summary;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::info;

pub use options::Options;
pub use summary::Summary;

use crate::domain::LedgerSnapshot;
use crate::load::{Account, HttpClient, Progress, Publisher, Stop, Timing, Totals};
use crate::mqtt;
use balance::{Balances, Verdict};
use fleet::Fleet;
use sensor::Configurations;

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
    let fleet = Fleet::new(&options)?;
    let (stop, stopped) = watch::channel(Stop::No);
    let _interrupts = Interrupts(actix_rt::spawn(listen(stop)));
    let http = HttpClient::new(&options.api, options.api_ca.clone(), token.as_ref())?;
    let before = http.ledger().await?;
    let totals = Rc::new(RefCell::new(Totals::default()));
    let configurations = Rc::new(RefCell::new(Configurations::default()));

    let mut interrupted = stopped.clone();
    let open = async {
        let identifiers = registration::register(&http, &options).await?;
        let publishers = fleet.publishers(&options, &mqtt, &identifiers, &totals, &configurations);
        Publisher::open_all(publishers).await
    };
    let opened = tokio::select! {
        opened = Box::pin(open) => opened?,
        _ = interrupted.changed() => bail!("interrupted before anything was published"),
    };
    let progress = Progress::new(options.quiet, "messages", fleet.message_count());
    let progress = progress.follow(totals.borrow().acknowledged.clone());
    let started_at = Instant::now();
    let timing = Timing { started_at, duration: options.duration(), stop: stopped };
    Publisher::run_all(opened, &timing).await?;
    let elapsed = started_at.elapsed();
    drop(progress);

    let totals = totals.borrow().clone();
    let settled = settle(&http, &totals.account, &before, &timing.stop).await;
    let (balances, verdict) = match settled {
        Ok(balances) => (Some(balances), balances.verdict(options.replay.is_some())),
        Err(error) => (None, Verdict::Unknown(error.to_string())),
    };
    let configurations = *configurations.borrow();
    let (sensors, connections) = (options.sensor_count(), options.connection_count());
    Ok(Summary { sensors, connections, totals, configurations, elapsed, balances, verdict })
}

/// Waits until the service has settled what was published, or makes no progress, or the wait is cancelled.
async fn settle(
    http: &HttpClient,
    published: &Account,
    before: &LedgerSnapshot,
    stop: &watch::Receiver<Stop>,
) -> anyhow::Result<Balances> {
    let (mut progressed_at, mut finished) = (Instant::now(), 0);
    loop {
        let ledger = http.ledger().await;
        let balances = ledger.and_then(|after| {
            Balances::between(published, before, &after)
                .context("the service was restarted during the run, and its ledger with it")
        });
        let now = Instant::now();
        if let Ok(balances) = &balances {
            if balances.are_stored() {
                return Ok(*balances);
            }
            if balances.finished() > finished {
                (finished, progressed_at) = (balances.finished(), now);
            }
            if balances.are_settled() && now >= progressed_at + SETTLE_STABLE {
                return Ok(*balances);
            }
        }
        if now >= progressed_at + SETTLE_TIMEOUT || *stop.borrow() == Stop::Now {
            return balances;
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

struct Interrupts(tokio::task::JoinHandle<()>);

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.0.abort();
    }
}
