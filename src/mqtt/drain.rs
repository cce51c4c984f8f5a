//! The end of the inbound loop: a shutdown, which keeps the session, or a drain, which leaves the group of shared
//! subscriptions, processes what the session still holds, and ends it. Called by the loop. A session is ended only
//! once everything received is acknowledged and the broker has had nothing more to send.
//!
//! After UNSUBACK the broker adds no message to the session [MQTT-3.10.4-2]. Assumed of the broker, because MQTT does
//! not say when a session is empty: it delivers what it had queued for the session before, and sends what a PUBACK makes
//! room for before it answers a later PINGREQ, or within the pause between two of [`QUIET_ANSWERS`] PINGREQs.

use std::time::Duration;

use ntex_mqtt::v5::codec;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info, warn};

use super::inbound::Inbound;
use super::session::{LEAVING, Session, SessionEnd};
use crate::domain::Part;

/// PINGREQs in a row that are answered without a PUBLISH between.
const QUIET_ANSWERS: u32 = 3;

/// Between two PINGREQs.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// Where the broker and we want no keep-alive.
const SILENCE_WITHOUT_KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How long the broker may answer none of the PINGREQs of a drain.
const fn longest_silence(keep_alive_secs: u16) -> Duration {
    match keep_alive_secs {
        0 => SILENCE_WITHOUT_KEEP_ALIVE,
        secs => Duration::from_secs(secs as u64),
    }
}

/// Whether the session is empty. Pure.
#[derive(Debug, Default)]
struct Quiet {
    /// PINGREQs without an answer.
    unanswered: u64,
    /// Since the one that is waited for, nothing has arrived, and nothing was in flight when it was sent.
    is_quiet: bool,
    /// Answers in a row of which that is true.
    answers: u32,
}

impl Quiet {
    /// A PINGREQ is sent. One behind another proves nothing.
    const fn asked(&mut self, in_flight: usize) {
        self.is_quiet = self.unanswered == 0 && in_flight == 0;
        self.unanswered += 1;
    }

    const fn published(&mut self) {
        (self.is_quiet, self.answers) = (false, 0);
    }

    /// True: the session is empty.
    const fn answered(&mut self) -> bool {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.answers = if self.is_quiet && self.unanswered == 0 { self.answers + 1 } else { 0 };
        self.answers >= QUIET_ANSWERS
    }
}

impl Inbound {
    /// Returns [`SessionEnd::Drained`], or why another connection is needed.
    pub(super) async fn drain(&mut self, session: &mut Session) -> SessionEnd {
        self.handles.health.down(Part::Ingest, "draining: it has left its group".into());
        match self.empty(session).await {
            Ok(()) => {}
            Err(end) => return end,
        }
        match session.end().await {
            // Without subscriptions and messages, a session that remains expires.
            Err(error) => {
                warn!(%error, "the session could not be ended; it is empty and will expire")
            }
            Ok(()) => info!(
                "drained: everything that the session held is stored, and the session is ended"
            ),
        }
        SessionEnd::Drained
    }

    /// Waits for the messages in flight and acknowledges them; new ones are not read.
    pub(super) async fn finish(&mut self, session: &mut Session) {
        let until = Instant::now() + self.stop.grace;
        info!(in_flight = self.window.len(), "shutting down; waiting for messages in flight");
        while !self.window.is_empty() && !self.window.is_blocked() {
            tokio::select! {
                Some(committed) = self.settled.recv() => self.settle(committed),
                Some(lost) = self.lost.recv() => { self.lose(lost); }
                () = sleep_until(until) => {
                    warn!(
                        in_flight = self.window.len(),
                        "shutdown grace period is over; the broker will deliver what is in flight again"
                    );
                    break;
                }
            }
            if self.acknowledge(Some(session)).is_err() {
                break;
            }
        }
        if let Err(error) = session.disconnect().await {
            debug!(%error, "the connection ended before DISCONNECT");
        }
    }

    async fn empty(&mut self, session: &mut Session) -> Result<(), SessionEnd> {
        session.unsubscribe(LEAVING, &self.all_filters())?;
        info!(in_flight = self.window.len(), "draining: unsubscribing");
        let mut quiet = Quiet::default();
        let mut ping = interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_packet_at = Instant::now();
        let silence = longest_silence(session.keep_alive_secs);
        loop {
            let next_sequence = self.window.next_sequence();
            tokio::select! {
                biased;
                _ = self.stop.shutdown.changed() => return Err(SessionEnd::Shutdown),
                Some(committed) = self.settled.recv() => self.settle(committed),
                Some(lost) = self.lost.recv() => {
                    if self.lose(lost) {
                        return Err(SessionEnd::MessageLost);
                    }
                }
                _ = ping.tick() => {
                    if !self.window.has_room() {
                        // Nothing is read, so an answer could not arrive.
                        last_packet_at = Instant::now();
                    } else if last_packet_at.elapsed() > silence {
                        return Err(SessionEnd::Silent(silence.as_secs()));
                    }
                    if session.left {
                        quiet.asked(self.window.len());
                    }
                    session.ping()?;
                }
                packet = session.io.recv(&session.codec), if self.window.has_room() => {
                    last_packet_at = Instant::now();
                    let had_left = session.left;
                    self.read(session, packet)?;
                    if self.window.next_sequence() != next_sequence {
                        quiet.published();
                    }
                    // Those before UNSUBACK answer PINGREQs that were not counted.
                    for _ in 0..std::mem::take(&mut session.ping_answers) {
                        if had_left && quiet.answered() {
                            self.acknowledge(Some(session))?;
                            return Ok(());
                        }
                    }
                }
            }
            self.acknowledge(Some(session))?;
        }
    }

    /// Every filter that a session of ours may have.
    fn all_filters(&self) -> Vec<String> {
        let topics = self.decoder.topics();
        let mut filters = self.filters();
        filters.extend(topics.filters());
        filters.extend(topics.former_filters());
        filters.dedup();
        filters
    }
}

/// The first that the broker did not remove, and why.
pub(super) fn refused_unsubscription(answer: &codec::UnsubscribeAck) -> Option<String> {
    use codec::UnsubscribeAckReason::{NoSubscriptionExisted, Success};
    let refused = answer.status.iter().find(|it| !matches!(it, Success | NoSubscriptionExisted));
    refused.map(|reason| format!("the broker refused to unsubscribe: {reason:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_empty_after_answers_without_a_message_between() {
        let mut quiet = Quiet::default();
        let ask = |quiet: &mut Quiet, in_flight| {
            quiet.asked(in_flight);
            quiet.answered()
        };
        assert!(!ask(&mut quiet, 0) && !ask(&mut quiet, 0), "twice may be chance");
        quiet.published();
        assert!(!ask(&mut quiet, 1), "in flight");
        assert!(!ask(&mut quiet, 0) && !ask(&mut quiet, 0) && ask(&mut quiet, 0));
    }

    #[test]
    fn a_broker_without_keep_alive_has_time_to_answer() {
        assert_eq!(longest_silence(0), SILENCE_WITHOUT_KEEP_ALIVE);
        assert_eq!(longest_silence(5), Duration::from_secs(5));
    }

    #[test]
    fn an_answer_counts_for_the_last_question_only() {
        let mut quiet = Quiet::default();
        for _ in 0..4 {
            quiet.asked(0);
        }
        assert!((0..4).all(|_| !quiet.answered()), "the later three were asked too early");
        quiet.asked(0);
        quiet.published();
        assert!(!quiet.answered());
    }
}
