//! An MQTT 5 client that owes nothing to the service's own MQTT code. Called by tests, in a sensor's or an observer's place.
//! Promises that a publish returns with its PUBACK and a subscribe with its SUBACK; it logs all that it is sent.
//! One connection and no reconnect: a test that wants another one makes another one.

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

/// Longer than any test, so that a session outlives its connection.
const SESSION_EXPIRY_SECS: u32 = 3600;

/// As large as what the broker lets through; the library's own default is 10 KiB.
const MAX_PACKET_SIZE_BYTES: u32 = 10_000_000;

/// Requests that wait in the library; more than that wait in their callers.
const REQUEST_CAPACITY: usize = 1_000;

const UNPOISONED: &str = "nobody panics while holding the log";

/// A message as it arrived.
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
    /// Held while a request is handed over, so that the waiters stand in the order of the requests.
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
            .expect("the broker takes the connection")
    }

    /// Connects to the session that this client identifier had before, or to a new one that will be kept.
    pub(crate) async fn resume(url: &str, client_id: &str) -> Self {
        let clean_start = false;
        Self::try_connect(url, client_id, clean_start)
            .await
            .expect("the broker takes the connection")
    }

    /// Connects, or says why not.
    pub(crate) async fn try_connect(
        url: &str,
        client_id: &str,
        clean_start: bool,
    ) -> Result<Self, String> {
        let options = options(url, client_id, clean_start);
        let (requests, mut connection) = AsyncClient::new(options, REQUEST_CAPACITY);
        let session_present = loop {
            match connection.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(answer))) => break answer.session_present,
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        };
        let log = Arc::new(Mutex::new(Log::default()));
        let driver = tokio::spawn(drive(connection, Arc::clone(&log)));
        Ok(Self { requests, order: tokio::sync::Mutex::default(), log, session_present, driver })
    }

    /// Whether the broker had kept a session for this client.
    pub(crate) fn session_present(&self) -> bool {
        self.session_present
    }

    /// Publishes at QoS 1 and returns with the PUBACK; `Err` says how the connection ended before it came.
    /// Many calls may wait at once.
    pub(crate) async fn publish(
        &self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<PubAckReason, String> {
        let retain = false;
        self.publish_with(QoS::AtLeastOnce, retain, topic, payload.into()).await
    }

    /// The same, retained.
    pub(crate) async fn publish_retained(
        &self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<PubAckReason, String> {
        let retain = true;
        self.publish_with(QoS::AtLeastOnce, retain, topic, payload.into()).await
    }

    /// Publishes at QoS 0 and returns when it has been written to the connection.
    pub(crate) async fn publish_at_most_once(
        &self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), String> {
        let retain = false;
        self.publish_with(QoS::AtMostOnce, retain, topic, payload.into()).await.map(drop)
    }

    /// The same, retained.
    pub(crate) async fn publish_retained_at_most_once(
        &self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), String> {
        let retain = true;
        self.publish_with(QoS::AtMostOnce, retain, topic, payload.into()).await.map(drop)
    }

    /// Subscribes at QoS 1 and returns when the broker has granted it.
    pub(crate) async fn subscribe(&self, filter: &str) {
        let (granted, answer) = oneshot::channel();
        {
            let _turn = self.order.lock().await;
            self.log().subscribing.push_back(granted);
            self.requests.subscribe(filter, QoS::AtLeastOnce).await.expect("the driver lives");
        }
        let codes = answer.await.unwrap_or_else(|_| panic!("no SUBACK: {:?}", self.end()));
        assert_eq!(codes, [SubscribeReasonCode::Success(QoS::AtLeastOnce)], "{filter}");
    }

    /// All that has arrived so far, in order.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.log().messages.clone()
    }

    /// All that has arrived, as soon as it is at least `count` messages.
    pub(crate) async fn wait_for_messages(&self, count: usize) -> Vec<Message> {
        eventually(TIMEOUT, async || {
            let messages = self.messages();
            if messages.len() >= count { Ok(messages) } else { Err(messages) }
        })
        .await
    }

    /// How the connection ended, once it has.
    pub(crate) fn end(&self) -> Option<String> {
        self.log().end.clone()
    }

    /// Says DISCONNECT and returns when the connection is closed. Dropping a client, in contrast, is vanishing.
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
    let url: Url = url.parse().expect("a broker's URL is well formed");
    let host = url.host_str().expect("a broker's URL has a host");
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

/// Polls until the connection ends. Waiters that are left then learn it by their closed channels.
async fn drive(mut connection: EventLoop, log: Arc<Mutex<Log>>) {
    loop {
        let event = connection.poll().await;
        let mut log = log.lock().expect(UNPOISONED);
        match event {
            Ok(Event::Incoming(packet)) => log.take_in(packet),
            Ok(Event::Outgoing(Outgoing::Publish(packet_id))) => log.sent(packet_id),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                return log.end_with("disconnected".into());
            }
            Ok(Event::Outgoing(_)) => {}
            Err(error) => return log.end_with(error.to_string()),
        }
    }
}

impl Log {
    fn take_in(&mut self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => self.messages.push(publish.into()),
            Packet::PubAck(ack) => {
                answer(self.unacknowledged.remove(&ack.pkid), ack.reason);
            }
            Packet::SubAck(ack) => {
                answer(self.subscribing.pop_front(), ack.return_codes);
            }
            _ => {}
        }
    }

    fn sent(&mut self, packet_id: u16) {
        let waiting = self.unsent.pop_front().expect("every PUBLISH has its waiter");
        if packet_id == 0 {
            // QoS 0: there is nothing to wait for.
            answer(Some(waiting), PubAckReason::Success);
        } else {
            self.unacknowledged.insert(packet_id, waiting);
        }
    }

    fn end_with(&mut self, end: String) {
        *self = Self {
            messages: std::mem::take(&mut self.messages),
            end: Some(end),
            ..Self::default()
        };
    }
}

/// Who no longer waits needs no answer.
fn answer<T>(waiting: Option<oneshot::Sender<T>>, value: T) {
    waiting.and_then(|waiting| waiting.send(value).err());
}

impl From<Publish> for Message {
    fn from(publish: Publish) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (topic, payload) = (text(&publish.topic), text(&publish.payload));
        Self { topic, payload, retain: publish.retain, dup: publish.dup }
    }
}
