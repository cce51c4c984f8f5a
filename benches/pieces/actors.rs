//! The hop through the actors: from the router through the actors of 1,000 sensors to an actor on
//! another thread that gathers a batch as the writer does, and settles the ack tokens without writing
//! anything. Per message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler};
use actix_rt::{Arbiter, System};
use criterion::{Criterion, Throughput};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tributary::config;
use tributary::domain::{Batch, Ledger};
use tributary::metrics::Metrics;
use tributary::sensor::{Config, Republish, Router, RouterHandles, UnknownSensor};
use tributary::store::{KnownSensor, Store};
use tributary::tasks::Tasks;
use tributary::writer::Write;

use crate::messages::Messages;

const MESSAGES: usize = 20_000;

/// As the inbound loop takes them in.
const READ_AT_ONCE: usize = 2_000;

/// Stands for the writer.
struct Gatherer {
    waiting: Batch,
    gathered: UnboundedSender<()>,
}

impl Actor for Gatherer {
    type Context = Context<Self>;
}

impl Handler<Write> for Gatherer {
    type Result = ();

    fn handle(&mut self, Write(uplinks): Write, _: &mut Context<Self>) {
        uplinks.into_iter().for_each(|uplink| self.waiting.push(uplink));
        if self.waiting.uplinks().len() == MESSAGES {
            self.gathered.send(()).expect("the bench waits for it");
            let batch = std::mem::take(&mut self.waiting);
            let settled: u64 =
                batch.into_uplinks().into_iter().map(|it| it.ack_token.settle()).sum();
            assert_eq!(settled, 0);
        }
    }
}

/// Stands for the outbox.
struct Deaf;

impl Actor for Deaf {
    type Context = Context<Self>;
}

impl Handler<Republish> for Deaf {
    type Result = ();

    fn handle(&mut self, _: Republish, _: &mut Context<Self>) {}
}

pub(crate) fn actors(criterion: &mut Criterion) {
    // It lasts as long as the process: an actor whose runtime is dropped under it panics.
    let system = Box::leak(Box::new(System::new()));
    let messages = Messages::of(1_000);
    let (router, mut gathered) = system.block_on(async { start(&messages) });
    let mut group = criterion.benchmark_group("actors");
    group.throughput(Throughput::Elements(MESSAGES as u64)).sample_size(20);
    group.bench_function("router to sensor to writer", |bencher| {
        bencher.iter_custom(|rounds| {
            system.block_on(async {
                let mut elapsed = Duration::ZERO;
                for _ in 0..rounds {
                    elapsed += hop(&router, &messages, &mut gathered).await;
                }
                elapsed
            })
        });
    });
    group.finish();
}

fn start(messages: &Messages) -> (Router, UnboundedReceiver<()>) {
    let servers = |name: &str| match name {
        "DATABASE_URL" => Some("postgres://nobody@localhost:1/nothing".to_owned()),
        _ => None,
    };
    let store = Store::new(&config::read_store(servers).expect("the settings are complete"));
    let sensor = Config {
        unknown: UnknownSensor::Reject,
        idle_secs: 3_600,
        republish_secs: 3_600,
        future_tolerance_secs: 3_600,
    };
    let metrics = Arc::new(Metrics::new(Arc::new(Ledger::default())));
    let (sender, gathered) = unbounded_channel();
    let gatherer = Gatherer { waiting: Batch::default(), gathered: sender };
    let writer = Gatherer::start_in_arbiter(&Arbiter::new().handle(), |_| gatherer);
    let handles =
        RouterHandles { store, outbox: Deaf.start().recipient(), metrics, tasks: Tasks::default() };
    let router = Router::start(sensor, handles, |_| writer.recipient()).0;
    for sensor in &messages.sensors {
        router.admit(&KnownSensor {
            identifier: *sensor,
            desired_revision: None,
            last_acknowledged: None,
        });
    }
    (router, gathered)
}

async fn hop(
    router: &Router,
    messages: &Messages,
    gathered: &mut UnboundedReceiver<()>,
) -> Duration {
    let uplinks = messages.uplinks(MESSAGES, 1);
    let begun_at = Instant::now();
    for (number, uplink) in uplinks.into_iter().enumerate() {
        router.route(uplink);
        if number % READ_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
    }
    gathered.recv().await.expect("the gatherer lives");
    begun_at.elapsed()
}
