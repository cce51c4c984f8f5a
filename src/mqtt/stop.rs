//! The request to end the inbound loop, which `app` sends, and the outcome, which it waits for. A loop that has ended
//! has acknowledged only what was committed.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;

/// What ends the loop.
#[derive(Clone, Debug)]
pub struct StopSignals {
    /// True: wait at most `grace` for the messages in flight, and keep the session.
    pub shutdown: watch::Receiver<bool>,
    /// True: leave the group, process what the session holds, and end it.
    pub drain: watch::Receiver<bool>,
    /// For the messages in flight.
    pub grace: Duration,
}

/// How the loop ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InboundEnd {
    /// The session is kept.
    Shutdown,
    /// The session is ended.
    Drained,
    /// There was no session to drain.
    NoSession,
    /// The session could not be drained, because another process has it.
    TakenOver,
}

impl fmt::Display for InboundEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Shutdown => "ingest was shut down",
            Self::Drained => "the session was drained",
            Self::NoSession => {
                "the broker has no session of this client id, so nothing was drained; is MQTT_CLIENT_ID the one of the \
                 instance that has ended?"
            }
            Self::TakenOver => {
                "another process uses this client id and has taken the session over, with what it holds; stop it first"
            }
        })
    }
}
