//! One connection of the inbound loop: the packets that it sends, and the ways it can end. Used by
//! `inbound` and `intake`. The only code of the service that encodes a PUBACK.

use std::num::NonZeroU16;

use ntex_io::IoBoxed;
use ntex_mqtt::v5::client::Client;
use ntex_mqtt::v5::{QoS, codec};

use super::publish_assembly::PublishAssembly;

/// Packet Identifier of the UNSUBSCRIBE from filters that match nothing which the present ones do not match.
pub(super) const FORMER: NonZeroU16 = NonZeroU16::MIN.saturating_add(1);

/// Packet Identifier of the UNSUBSCRIBE from all filters.
pub(super) const LEAVING: NonZeroU16 = NonZeroU16::MIN.saturating_add(2);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
    #[error("shutdown")]
    Shutdown,
    #[error("to be drained")]
    Draining,
    #[error("drained")]
    Drained,
    #[error("the broker has no session for this client id, so there is nothing to drain")]
    NoSession,
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker ended the session: {0}")]
    Disconnected(String),
    #[error(
        "another client with our client id took the session over; is a second process running?"
    )]
    TakenOver,
    #[error("no answer from the broker for {0} s")]
    Silent(u64),
    #[error("the connection failed: {0}")]
    Unreachable(String),
    #[error("the connection failed: {0}")]
    Failed(String),
    #[error(
        "the broker refused a subscription: {0}; the account must be allowed to subscribe to measurements/#, log-messages/#, heartbeats/#, logs/# and acknowledgments/# under the topic prefix"
    )]
    NotSubscribed(String),
    #[error(
        "the broker has no shared subscriptions, which MQTT_SHARED_GROUP requires; without them, give each instance an MQTT_TOPIC_PREFIX of its own"
    )]
    NotShared,
    #[error("a message was lost in a panic, so the broker must deliver it again")]
    MessageLost,
}

impl SessionEnd {
    /// As in the metrics.
    pub(super) const fn cause(&self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Draining | Self::Drained | Self::NoSession => "drain",
            Self::Closed => "closed",
            Self::Disconnected(_) => "disconnected",
            Self::TakenOver => "taken_over",
            Self::Silent(_) => "silent",
            Self::Unreachable(_) => "unreachable",
            Self::Failed(_) => "failed",
            Self::NotSubscribed(_) | Self::NotShared => "not_subscribed",
            Self::MessageLost => "message_lost",
        }
    }
}

/// One connection.
pub(super) struct Session {
    pub(super) io: IoBoxed,
    pub(super) codec: codec::Codec,
    pub(super) assembly: PublishAssembly,
    /// A packet was received after the last PINGREQ.
    pub(super) received_since_ping: bool,
    /// SUBACK was received.
    pub(super) subscribed: bool,
    /// To be unsubscribed from after SUBACK: the session may have them from an earlier release.
    pub(super) former_filters: Vec<String>,
    /// UNSUBACK for those was received.
    pub(super) left_former: bool,
    /// UNSUBACK for all filters was received.
    pub(super) left: bool,
    /// PINGRESPs received; read by `drain`.
    pub(super) ping_answers: u32,
    /// The broker's Server Keep Alive, else ours; 0: no PINGREQ.
    pub(super) keep_alive_secs: u16,
}

impl Session {
    pub(super) fn new(client: Client, max_payload_bytes: usize, keep_alive_secs: u16) -> Self {
        let keep_alive_secs = client.packet().server_keepalive_sec.unwrap_or(keep_alive_secs);
        let (io, codec) = client.into_inner();
        let assembly = PublishAssembly::new(max_payload_bytes);
        Self {
            io,
            codec,
            assembly,
            received_since_ping: true,
            subscribed: false,
            former_filters: Vec::new(),
            left_former: false,
            left: false,
            ping_answers: 0,
            keep_alive_secs,
        }
    }

    pub(super) fn subscribe(&self, filters: &[String]) -> Result<(), SessionEnd> {
        let options = codec::SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: codec::RetainHandling::AtSubscribeNew,
        };
        self.send(codec::Packet::Subscribe(codec::Subscribe {
            packet_id: NonZeroU16::MIN,
            id: None,
            user_properties: Vec::new(),
            topic_filters: filters.iter().map(|it| (it.as_str().into(), options)).collect(),
        }))
    }

    /// In the order of `filters`.
    pub(super) fn check_granted(
        answer: &codec::SubscribeAck,
        filters: &[String],
    ) -> Result<(), SessionEnd> {
        use codec::SubscribeAckReason::{GrantedQos1, GrantedQos2, SharedSubscriptionNotSupported};
        let mut answers = answer.status.iter().zip(filters);
        match answers.find(|(it, _)| !matches!(it, GrantedQos1 | GrantedQos2)) {
            Some((SharedSubscriptionNotSupported, _)) => Err(SessionEnd::NotShared),
            Some((reason, filter)) => {
                Err(SessionEnd::NotSubscribed(format!("{reason:?} for {filter}")))
            }
            None => Ok(()),
        }
    }

    pub(super) fn unsubscribe(
        &self,
        packet_id: NonZeroU16,
        filters: &[String],
    ) -> Result<(), SessionEnd> {
        self.send(codec::Packet::Unsubscribe(codec::Unsubscribe {
            packet_id,
            user_properties: Vec::new(),
            topic_filters: filters.iter().map(|it| it.as_str().into()).collect(),
        }))
    }

    pub(super) fn ping(&mut self) -> Result<(), SessionEnd> {
        self.received_since_ping = false;
        self.send(codec::Packet::PingRequest)
    }

    pub(super) fn puback(&self, packet_id: NonZeroU16) -> Result<(), SessionEnd> {
        self.send(codec::Packet::PublishAck(codec::PublishAck {
            packet_id,
            reason_code: codec::PublishAckReason::Success,
            properties: Vec::new(),
            reason_string: None,
        }))
    }

    /// Normal disconnection: the broker keeps the session [MQTT-3.14.2.2.2].
    pub(super) async fn disconnect(&self) -> std::io::Result<()> {
        self.disconnect_with(codec::Disconnect::default()).await
    }

    /// The broker discards the session.
    pub(super) async fn end(&self) -> std::io::Result<()> {
        let session_expiry_interval_secs = Some(0);
        let disconnect =
            codec::Disconnect { session_expiry_interval_secs, ..codec::Disconnect::default() };
        self.disconnect_with(disconnect).await
    }

    async fn disconnect_with(&self, disconnect: codec::Disconnect) -> std::io::Result<()> {
        self.send(codec::Packet::Disconnect(disconnect)).map_err(std::io::Error::other)?;
        self.io.flush(true).await?;
        self.io.shutdown().await
    }

    fn send(&self, packet: codec::Packet) -> Result<(), SessionEnd> {
        self.io
            .encode(packet.into(), &self.codec)
            .map_err(|error| SessionEnd::Failed(error.to_string()))
    }
}

/// Why the broker ends the connection, as it says itself.
pub(super) fn disconnect_reason(disconnect: &codec::Disconnect) -> String {
    reason(disconnect.reason_code, disconnect.reason_string.as_ref())
}

/// A reason code, with what the broker says in words.
pub(super) fn reason(code: impl std::fmt::Debug, text: Option<&impl std::fmt::Display>) -> String {
    match text {
        Some(text) => format!("{code:?} ({text})"),
        None => format!("{code:?}"),
    }
}
