//! A scripted MQTT 5 broker: a test sets the properties of its CONNACK, and its reaction to each PUBLISH. Called by
//! tests of behaviour that mosquitto does not have. Supports only QoS 1 without sessions.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The reaction to a PUBLISH.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ScriptedAnswer {
    /// PUBACK with this Reason Code.
    Puback(u8),
    /// PUBACKs with Success, once this number of PUBLISHes of the connection wait for them.
    PubackTogether(usize),
    /// No PUBACK.
    Withhold,
    /// Closes the connection.
    Close,
}

type Script = dyn Fn(&str) -> ScriptedAnswer + Send + Sync;

/// The broker; its threads end with the test's process.
pub(crate) struct ScriptedBroker {
    url: String,
    published: Arc<Mutex<Vec<String>>>,
    pings: Arc<Mutex<Vec<usize>>>,
    overruns: Arc<AtomicUsize>,
}

impl ScriptedBroker {
    /// `properties` are the encoded properties of the CONNACK; `script` returns the reaction to a PUBLISH by its topic.
    pub(crate) fn start(
        properties: &'static [u8],
        script: impl Fn(&str) -> ScriptedAnswer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("mqtt://{}", listener.local_addr().unwrap());
        let broker = Self {
            url,
            published: Arc::default(),
            pings: Arc::default(),
            overruns: Arc::default(),
        };
        let (published, pings, overruns) = (
            Arc::clone(&broker.published),
            Arc::clone(&broker.pings),
            Arc::clone(&broker.overruns),
        );
        let script: Arc<Script> = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, published) = (Arc::clone(&script), Arc::clone(&published));
                let (pings, overruns) = (Arc::clone(&pings), Arc::clone(&overruns));
                std::thread::spawn(move || {
                    serve(stream, (properties, &*script), &published, &pings, &overruns)
                });
            }
        });
        broker
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The topics of all PUBLISHes, in order.
    pub(crate) fn published(&self) -> Vec<String> {
        self.published.lock().unwrap().clone()
    }

    /// How often a client sent a packet although [`ScriptedAnswer::PubackTogether`] held all its PUBACKs.
    pub(crate) fn overruns(&self) -> usize {
        self.overruns.load(Ordering::SeqCst)
    }

    /// The number of PINGREQs of the first two connections; the lower one.
    pub(crate) fn fewest_pings(&self) -> usize {
        let pings = self.pings.lock().unwrap();
        if pings.len() < 2 { 0 } else { pings[0].min(pings[1]) }
    }
}

fn serve(
    mut stream: TcpStream,
    (properties, script): (&[u8], &Script),
    published: &Mutex<Vec<String>>,
    pings: &Mutex<Vec<usize>>,
    overruns: &AtomicUsize,
) -> Option<()> {
    let connection = {
        let mut pings = pings.lock().unwrap();
        pings.push(0);
        pings.len() - 1
    };
    let mut held: Vec<u8> = Vec::new();
    loop {
        let (first, body) = packet(&mut stream)?;
        let answer = match first >> 4 {
            1 => {
                let length = u8::try_from(properties.len()).unwrap();
                [&[0x20, length + 3, 0, 0, length], properties].concat()
            }
            3 => {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
                let packet_id = [body[2 + length], body[3 + length]];
                published.lock().unwrap().push(topic.clone());
                match script(&topic) {
                    ScriptedAnswer::Puback(reason) => {
                        vec![0x40, 4, packet_id[0], packet_id[1], reason, 0]
                    }
                    ScriptedAnswer::PubackTogether(count) => {
                        let puback = [0x40, 2, packet_id[0], packet_id[1]];
                        held.extend(puback);
                        if held.len() < count * puback.len() {
                            continue;
                        }
                        if sends_more(&stream)? {
                            overruns.fetch_add(1, Ordering::SeqCst);
                        }
                        std::mem::take(&mut held)
                    }
                    ScriptedAnswer::Withhold => continue,
                    ScriptedAnswer::Close => return None,
                }
            }
            8 => {
                let mut filters = &body[3..];
                let mut granted = vec![body[0], body[1], 0];
                while let [high, low, rest @ ..] = filters {
                    filters = &rest[usize::from(u16::from_be_bytes([*high, *low])) + 1..];
                    granted.push(1);
                }
                [&[0x90, u8::try_from(granted.len()).unwrap()], granted.as_slice()].concat()
            }
            12 => {
                pings.lock().unwrap()[connection] += 1;
                vec![0xd0, 0]
            }
            14 => return None,
            _ => continue,
        };
        stream.write_all(&answer).ok()?;
    }
}

/// Whether the client sends more without a PUBACK within 200 ms. A client that exceeds its limit does so at once.
fn sends_more(stream: &TcpStream) -> Option<bool> {
    stream.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
    let more = stream.peek(&mut [0]).is_ok_and(|count| count > 0);
    stream.set_read_timeout(None).ok()?;
    Some(more)
}

/// Reads a packet: the first byte, and the bytes after the fixed header.
fn packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut byte = || {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok().map(|()| byte[0])
    };
    let first = byte()?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let digit = byte()?;
        length |= usize::from(digit & 0x7f) << shift;
        shift += 7;
        if digit & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((first, body))
}
