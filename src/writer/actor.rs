//! The writer: collects messages while earlier ones are being written, and starts a delivery for
//! each batch. Sensor actors send to it; the inbound loop hears what was committed.

use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use tracing::error;

use super::budget::RejectionBudget;
use super::delivery::{Commit, Delivery, Reports};
use super::protocol::{Begin, Write};
use super::{Config, policy};
use crate::domain::{Batch, Timestamp};

/// Its permits are the connections of the pool: so many deliveries run at once, and no more.
#[derive(Debug)]
pub struct WriterActor<C> {
    committer: C,
    config: Config,
    reports: Reports,
    budget: RejectionBudget,
    waiting: Batch,
    writing: u32,
    begins: bool,
    rests: bool,
}

impl<C: Commit> WriterActor<C> {
    /// Writes by this committer, and reports to these.
    #[must_use]
    pub fn new(config: Config, committer: C, reports: Reports) -> Self {
        let budget = RejectionBudget::new(config.rejections_per_sensor_hour);
        let waiting = Batch::default();
        Self {
            committer,
            config,
            reports,
            budget,
            waiting,
            writing: 0,
            begins: false,
            rests: false,
        }
    }

    fn begin(&mut self, context: &mut Context<Self>) {
        while policy::starts(
            self.waiting.item_count(),
            (self.writing, self.config.connections),
            self.rests,
        ) {
            let mut batch = self.waiting.take(self.config.batch_items, policy::BATCH_BYTES);
            let beyond = self.budget.apply(&mut batch, Timestamp::now());
            self.reports.metrics.rejections_over_bound.inc_by(beyond);
            self.writing += 1;
            self.reports.metrics.batches_writing.set(self.writing.into());
            let delivery = Delivery::new(self.committer.clone(), self.reports.clone());
            // A task of its own: a panic in it loses this batch's receipts, which the inbound loop
            // notices, and not the actor.
            let begun = Instant::now();
            let delivered = actix_rt::spawn(delivery.deliver(batch));
            context.spawn(delivered.into_actor(self).map(move |outcome, writer, context| {
                if let Err(failure) = outcome {
                    error!(%failure, "a delivery failed; its messages will be delivered again");
                }
                writer.writing -= 1;
                writer.reports.metrics.batches_writing.set(writer.writing.into());
                writer.rest(policy::rest(begun.elapsed()), context);
            }));
        }
        let oldest = self.waiting.uplinks().first().map(|uplink| uplink.origin.received_at);
        self.reports.metrics.writer_oldest.set(oldest);
        let (messages, items) = (self.waiting.uplinks().len(), self.waiting.item_count());
        self.reports.metrics.writer_waiting_items.set(items as i64);
        self.reports.flow.queue(messages, items, self.writing);
    }

    /// Lets messages gather, and begins again.
    fn rest(&mut self, rest: Duration, context: &mut Context<Self>) {
        if !self.rests {
            self.rests = true;
            context.run_later(rest, |writer, context| {
                writer.rests = false;
                writer.begin(context);
            });
        }
        self.begin(context);
    }
}

impl<C: Commit> Actor for WriterActor<C> {
    type Context = Context<Self>;
}

impl<C: Commit> Handler<Write> for WriterActor<C> {
    type Result = ();

    /// Starts nothing by itself: behind this message others may be waiting in the mailbox, and they
    /// belong into the same batch.
    fn handle(&mut self, Write(uplinks): Write, context: &mut Context<Self>) {
        for uplink in uplinks {
            self.waiting.push(uplink);
        }
        if !self.begins {
            self.begins = true;
            context.notify(Begin);
        }
    }
}

impl<C: Commit> Handler<Begin> for WriterActor<C> {
    type Result = ();

    fn handle(&mut self, Begin: Begin, context: &mut Context<Self>) {
        self.begins = false;
        self.begin(context);
    }
}
