//! An MQTT 5 client that shares no MQTT code with the service. Called by tests, as a sensor or an observer.
//! Guarantees that a publish returns with its PUBACK and a subscribe with its SUBACK; it records all messages that it
//! receives. It has one connection and never reconnects.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;

use super::wait::{TIMEOUT, eventually};

/// Longer than any test.
const SESSION_EXPIRY_SECS: u32 = 3600;

/// The limit of the broker; the default of the library is 10 KiB.
const MAX_PACKET_SIZE_BYTES: u32 = 10_000_000;

/// Requests queued in the library; further requests wait in their callers.
const REQUEST_CAPACITY: usize = 1_000;

const UNPOISONED: &str = "no task panics while it holds the log";

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
}

/// A connection.
pub(crate) struct Client {
    requests: AsyncClient,
    /// Held while a request is queued, so that the waiters have the order of the requests.
    order: tokio::sync::Mutex<()>,
    log: Arc<Mutex<Log>>,
    session_present: bool,
    driver: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    messages: Vec<Message>,
    /// PUBLISHes that have no packet identifier yet.
    unsent: VecDeque<oneshot::Sender<PubAckReason>>,
    unacknowledged: HashMap<u16, oneshot::Sender<PubAckReason>>,
    subscribing: VecDeque<oneshot::Sender<Vec<SubscribeReasonCode>>>,
    end: Option<String>,
}

impl Client {
    /// Connects with a clean session.
    pub(crate) async fn connect(url: &str, client_id: &str) -> Self {
        let clean_start = true;
        Self::try_connect(url, client_id, clean_start)
            .await
            .expect("the broker accepts the connection")
    }

    /// Connects to the existing session of this client identifier, or to a new persistent one.
    pub(crate) async fn resume(url: &str, client_id: &str) -> Self {
        let clean_start = false;
        Self::try_connect(url, client_id, clean_start)
            .await
            .expect("the broker accepts the connection")
    }

    /// Connects, or returns the error.
    pub(crate) async fn try_connect(
        url: &str,
        client_id: &str,
        clean_start: bool,
    ) -> Result<Self, String> {
        let options = options(url, client_id, clean_start);
        let (requests, mut connection) = AsyncClient::new(options, REQUEST_CAPACITY);
        let session_present = loop {
            match connection.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(connack))) => break connack.session_present,
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        };
        let log = Arc::new(Mutex::new(Log::default()));
        let driver = tokio::spawn(drive(connection, Arc::clone(&log)));
        Ok(Self { requests, order: tokio::sync::Mutex::default(), log, session_present, driver })
    }

    /// The Session Present flag of the CONNACK.
    pub(crate) fn session_present(&self) -> bool {
        self.session_present
    }

    /// Publishes at QoS 1 and returns with the PUBACK, or with the reason why the connection closed before it.
    /// Concurrent calls are allowed.
    pub(crate) async fn publish(
        &self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<PubAckReason, String> {
        let retain = false;
        self.publish_with(QoS::AtLeastOnce, retain, topic, payload.into()).await
    }

    /// The same with the retain flag.
    pub(crate) async fn publish_retained(
        &self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<PubAckReason, String> {
        let retain = true;
        self.publish_with(QoS::AtLeastOnce, retain, topic, payload.into()).await
    }

    /// Publishes at QoS 0 and returns when the PUBLISH is written to the connection.
    pub(crate) async fn publish_at_most_once(
        &self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), String> {
        let retain = false;
        self.publish_with(QoS::AtMostOnce, retain, topic, payload.into()).await.map(drop)
    }

    /// The same with the retain flag.
    pub(crate) async fn publish_retained_at_most_once(
        &self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), String> {
        let retain = true;
        self.publish_with(QoS::AtMostOnce, retain, topic, payload.into()).await.map(drop)
    }

    /// Subscribes at QoS 1 and returns with the SUBACK.
    pub(crate) async fn subscribe(&self, filter: &str) {
        let (suback, received) = oneshot::channel();
        {
            let _turn = self.order.lock().await;
            self.log().subscribing.push_back(suback);
            self.requests.subscribe(filter, QoS::AtLeastOnce).await.expect("the driver runs");
        }
        let codes = received.await.unwrap_or_else(|_| panic!("no SUBACK: {:?}", self.end()));
        assert_eq!(codes, [SubscribeReasonCode::Success(QoS::AtLeastOnce)], "{filter}");
    }

    /// All messages received so far, in order.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.log().messages.clone()
    }

    /// Waits for at least `count` messages, and returns all of them.
    pub(crate) async fn wait_for_messages(&self, count: usize) -> Vec<Message> {
        eventually(TIMEOUT, async || {
            let messages = self.messages();
            if messages.len() >= count { Ok(messages) } else { Err(messages) }
        })
        .await
    }

    /// The reason why the connection is closed, or `None` while it is open.
    pub(crate) fn end(&self) -> Option<String> {
        self.log().end.clone()
    }

    /// Sends a DISCONNECT and returns when the connection is closed. Dropping a client closes it without a DISCONNECT.
    pub(crate) async fn disconnect(mut self) {
        drop(self.requests.disconnect().await);
        (&mut self.driver).await.expect("the driver does not panic");
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect(UNPOISONED)
    }

    async fn publish_with(
        &self,
        qos: QoS,
        retain: bool,
        topic: &str,
        payload: Vec<u8>,
    ) -> Result<PubAckReason, String> {
        let (acknowledge, acknowledged) = oneshot::channel();
        {
            let _turn = self.order.lock().await;
            if let Some(end) = self.end() {
                return Err(end);
            }
            self.log().unsent.push_back(acknowledge);
            self.requests
                .publish(topic, qos, retain, payload)
                .await
                .map_err(|error| error.to_string())?;
        }
        acknowledged.await.map_err(|_| self.end().unwrap_or_default())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn options(url: &str, client_id: &str, clean_start: bool) -> MqttOptions {
    let url: Url = url.parse().expect("the URL is valid");
    let host = url.host_str().expect("the URL has a host");
    let mut options = MqttOptions::new(client_id, host, url.port().unwrap_or(1883));
    options.set_clean_start(clean_start);
    options.set_max_packet_size(Some(MAX_PACKET_SIZE_BYTES));
    if !clean_start {
        options.set_session_expiry_interval(Some(SESSION_EXPIRY_SECS));
    }
    if !url.username().is_empty() {
        options.set_credentials(url.username(), url.password().unwrap_or_default());
    }
    options
}

/// Polls until the connection closes. Then the channels of the remaining waiters close.
async fn drive(mut connection: EventLoop, log: Arc<Mutex<Log>>) {
    loop {
        let event = connection.poll().await;
        let mut log = log.lock().expect(UNPOISONED);
        match event {
            Ok(Event::Incoming(packet)) => log.receive(packet),
            Ok(Event::Outgoing(Outgoing::Publish(packet_id))) => log.record_packet_id(packet_id),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                return log.close("disconnected".into());
            }
            Ok(Event::Outgoing(_)) => {}
            Err(error) => return log.close(error.to_string()),
        }
    }
}

impl Log {
    fn receive(&mut self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => self.messages.push(publish.into()),
            Packet::PubAck(ack) => {
                reply(self.unacknowledged.remove(&ack.pkid), ack.reason);
            }
            Packet::SubAck(ack) => {
                reply(self.subscribing.pop_front(), ack.return_codes);
            }
            _ => {}
        }
    }

    fn record_packet_id(&mut self, packet_id: u16) {
        let waiting = self.unsent.pop_front().expect("every PUBLISH has a waiter");
        if packet_id == 0 {
            // QoS 0 has no PUBACK.
            reply(Some(waiting), PubAckReason::Success);
        } else {
            self.unacknowledged.insert(packet_id, waiting);
        }
    }

    fn close(&mut self, end: String) {
        *self = Self {
            messages: std::mem::take(&mut self.messages),
            end: Some(end),
            ..Self::default()
        };
    }
}

/// Does nothing if the caller no longer waits.
fn reply<T>(waiting: Option<oneshot::Sender<T>>, value: T) {
    waiting.and_then(|waiting| waiting.send(value).err());
}

impl From<Publish> for Message {
    fn from(publish: Publish) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (topic, payload) = (text(&publish.topic), text(&publish.payload));
        Self { topic, payload, retain: publish.retain, dup: publish.dup }
    }
}
