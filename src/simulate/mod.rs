//! `tributary simulate`: a fleet of sensors that says what it is told to say, and then asks the
//! service's ledger what became of it. Called by the command line, and by whoever loads the service.
//! It promises that every published item is found again, or says how many are not.
//!
//! ```text
//! options → fleet → line, one for each connection → connection → broker
//!                    ├ span, pace, window: until when, what is due, what is un-acknowledged
//!                    └ sensor: plan (weather, spoil) or replay, and its configuration
//! service → account → summary
//! ```
//!
//! All of it runs on one thread: the files beside `line`, `connection` and `service` are pure.

mod account;
mod connection;
mod counts;
mod fleet;
mod line;
mod moment;
mod options;
mod pace;
mod plan;
mod random;
mod replay;
mod sensor;
mod service;
mod span;
mod spoil;
mod stop;
mod summary;
mod text;
mod topics;
mod weather;
mod window;

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

pub use account::{Account, Accounts, Published, Verdict};
pub use options::Options;
pub use service::ServiceError;
pub use summary::Summary;

use crate::domain::SensorIdentifier;
use crate::mqtt;
use counts::Counts;
use fleet::{Fleet, Score};
use service::{CONCURRENCY, Ledger, Service};
use stop::{Stop, Switch};

/// How long the service may make no progress with what was published.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Where more than what was published has come, and some of it is a duplicate: what has not
/// changed for so long is final.
const SETTLE_STABLE: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Registers the fleet, lets it speak, and compares what it said with the service's ledger. The
/// token, an admin's, is shown to the API where it asks for one.
///
/// Must be called on an actix or tokio local task set: its connections are not `Send`.
///
/// # Errors
/// When the series cannot be played, or the service or the broker cannot be reached at the start,
/// or refuse. What fails later is in the summary.
pub async fn run(
    options: Options,
    mqtt: mqtt::Config,
    token: Option<SecretString>,
) -> anyhow::Result<Summary> {
    let score = Score::new(&options)?;
    let switch = Switch::listen();
    let service = Service::new(&options.api, options.api_ca.clone(), token.as_ref())?;
    let before = service.ledger().await?;
    let counts = Rc::new(Counts::default());

    let mut interrupt = switch.receiver();
    let fleet = tokio::select! {
        fleet = Box::pin(assemble(&score, &options, &mqtt, &service, &counts)) => fleet?,
        _ = interrupt.wait_for(|stop| *stop != Stop::No) => {
            anyhow::bail!("interrupted before anything was published")
        }
    };
    let bar = bar(options.quiet, score.message_count(), "messages");
    let watcher = actix_rt::spawn(watch_progress(bar.clone(), counts.clone()));
    let elapsed = fleet.play(switch.receiver()).await;
    watcher.abort();
    bar.finish_and_clear();

    let published = Published {
        measurements: counts.measurements.get(),
        log_messages: counts.log_messages.get(),
        heartbeats: counts.heartbeats.get(),
    };
    let replayed = options.replay.is_some();
    let settled = settle(&service, published, &before, switch.receiver()).await;
    let (accounts, verdict) = match settled {
        Ok(accounts) => (Some(accounts), accounts.verdict(replayed)),
        Err(why) => (None, Verdict::Unknown(why)),
    };
    Ok(Summary {
        sensors: options.sensor_count() as u64,
        connections: options.connection_count() as u64,
        messages: counts.messages.get(),
        published,
        bad_items: counts.bad_items.get(),
        acknowledged: counts.acknowledged.get(),
        unheard: counts.unheard.get(),
        refused: counts.refused.get(),
        republished: counts.republished.get(),
        reconnects: counts.reconnects.get(),
        skipped: counts.skipped.get(),
        configurations_applied: counts.configurations_applied.get(),
        configurations_rejected: counts.configurations_rejected.get(),
        configurations_malformed: counts.configurations_malformed.get(),
        elapsed,
        accounts,
        verdict,
    })
}

async fn assemble(
    score: &Score,
    options: &Options,
    mqtt: &mqtt::Config,
    service: &Service,
    counts: &Rc<Counts>,
) -> anyhow::Result<Fleet> {
    let identifiers = register(service, options).await?;
    Fleet::open(score, options, mqtt, &identifiers, counts).await
}

/// The sensors of the fleet, created where the network has none of their names.
async fn register(
    service: &Service,
    options: &Options,
) -> Result<Vec<SensorIdentifier>, ServiceError> {
    let network = match &options.network {
        Some(name) => Some(service.network(name).await?),
        None => None,
    };
    let count = options.sensor_count();
    let bar = bar(options.quiet, Some(count as u64), "sensors registered");
    let registered = stream::iter(1..=count)
        .map(|number| {
            let bar = &bar;
            async move {
                let name = format!("{}-{number:04}", options.prefix);
                let identifier = service.register(&name, network).await?;
                bar.inc(1);
                Ok(identifier)
            }
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await;
    bar.finish_and_clear();
    registered
}

/// Waits until the service has finished with what was published, or makes no progress, or is no
/// longer waited for. The account as it is then.
async fn settle(
    service: &Service,
    published: Published,
    before: &Ledger,
    stop: watch::Receiver<Stop>,
) -> Result<Accounts, String> {
    let mut progressed_at = Instant::now();
    let mut finished = 0;
    loop {
        let accounts = match service.ledger().await {
            Ok(after) => Accounts::between(published, before, &after)
                .ok_or("the service was restarted during the run, and its ledger with it")
                .map_err(str::to_owned),
            Err(error) => Err(error.to_string()),
        };
        let now = Instant::now();
        if let Ok(accounts) = &accounts {
            if accounts.is_stored() {
                return Ok(*accounts);
            }
            if accounts.finished() > finished {
                finished = accounts.finished();
                progressed_at = now;
            }
            if accounts.is_settled() && now >= progressed_at + SETTLE_STABLE {
                return Ok(*accounts);
            }
        }
        if now >= progressed_at + SETTLE_TIMEOUT || *stop.borrow() == Stop::Now {
            return accounts;
        }
        sleep(POLL_INTERVAL).await;
    }
}

async fn watch_progress(bar: ProgressBar, counts: Rc<Counts>) {
    loop {
        bar.set_position(counts.acknowledged.get());
        sleep(POLL_INTERVAL).await;
    }
}

/// Drawn on standard error, where that is a terminal.
fn bar(quiet: bool, length: Option<u64>, unit: &str) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(length, target);
    let template = match length {
        Some(_) => {
            format!("{{bar:30}} {{human_pos}} of {{human_len}} {unit}, {{rate}}, {{eta}} left")
        }
        None => format!("{{spinner}} {{human_pos}} {unit}, {{rate}}"),
    };
    let style = ProgressStyle::with_template(&template).expect("it is written in the source");
    bar.set_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
        // Nothing can be done about a bar that cannot be drawn.
        write!(out, "{:.0} a second", state.per_sec()).ok();
    }));
    bar
}
