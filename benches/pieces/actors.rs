//! The way of a message through the actors: from the router through the actors of 1,000 sensors to an
//! actor on another thread, which collects a batch as the writer does, and settles the ack tokens without
//! writing. Times are per message.

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

/// The router yields after this many messages, as the inbound loop does.
const READ_AT_ONCE: usize = 2_000;

/// Replaces the writer.
struct BatchCollector {
    batch: Batch,
    collected: UnboundedSender<()>,
}

impl Actor for BatchCollector {
    type Context = Context<Self>;
}

impl Handler<Write> for BatchCollector {
    type Result = ();

    fn handle(&mut self, Write(uplinks): Write, _: &mut Context<Self>) {
        uplinks.into_iter().for_each(|uplink| self.batch.push(uplink));
        if self.batch.uplinks().len() == MESSAGES {
            self.collected.send(()).expect("the benchmark keeps the receiver");
            let batch = std::mem::take(&mut self.batch);
            let settled: u64 =
                batch.into_uplinks().into_iter().map(|it| it.ack_token.settle()).sum();
            assert_eq!(settled, 0);
        }
    }
}

/// Replaces the outbox.
struct IgnoreRepublish;

impl Actor for IgnoreRepublish {
    type Context = Context<Self>;
}

impl Handler<Republish> for IgnoreRepublish {
    type Result = ();

    fn handle(&mut self, _: Republish, _: &mut Context<Self>) {}
}

pub(crate) fn actors(criterion: &mut Criterion) {
    // Leaked, because an actor panics if its runtime is dropped first.
    let system = Box::leak(Box::new(System::new()));
    let messages = Messages::of(1_000);
    let (router, mut collected) = system.block_on(async { start(&messages) });
    let mut group = criterion.benchmark_group("actors");
    group.throughput(Throughput::Elements(MESSAGES as u64)).sample_size(20);
    group.bench_function("router to sensor to writer", |bencher| {
        bencher.iter_custom(|rounds| {
            system.block_on(async {
                let mut elapsed = Duration::ZERO;
                for _ in 0..rounds {
                    elapsed += send_all(&router, &messages, &mut collected).await;
                }
                elapsed
            })
        });
    });
    group.finish();
}

fn start(messages: &Messages) -> (Router, UnboundedReceiver<()>) {
    let settings = |name: &str| match name {
        "DATABASE_URL" => Some("postgres://nobody@localhost:1/nothing".to_owned()),
        _ => None,
    };
    let store = Store::new(&config::read_store(settings).expect("the settings are complete"));
    let sensor = Config {
        unknown: UnknownSensor::Reject,
        idle_secs: 3_600,
        republish_secs: 3_600,
        future_tolerance_secs: 3_600,
    };
    let metrics = Arc::new(Metrics::new(Arc::new(Ledger::default())));
    let (sender, collected) = unbounded_channel();
    let collector = BatchCollector { batch: Batch::default(), collected: sender };
    let writer = BatchCollector::start_in_arbiter(&Arbiter::new().handle(), |_| collector);
    let handles = RouterHandles {
        store,
        outbox: IgnoreRepublish.start().recipient(),
        metrics,
        tasks: Tasks::default(),
    };
    let router = Router::start(sensor, handles, |_| writer.recipient()).0;
    for sensor in &messages.sensors {
        router.admit(&KnownSensor {
            identifier: *sensor,
            desired_revision: None,
            last_acknowledged: None,
        });
    }
    (router, collected)
}

async fn send_all(
    router: &Router,
    messages: &Messages,
    collected: &mut UnboundedReceiver<()>,
) -> Duration {
    let uplinks = messages.uplinks(MESSAGES, 1);
    let started_at = Instant::now();
    for (number, uplink) in uplinks.into_iter().enumerate() {
        router.route(uplink);
        if number % READ_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
    }
    collected.recv().await.expect("the collector runs");
    started_at.elapsed()
}
