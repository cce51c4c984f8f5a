//! A reader of server-sent events on a TCP connection; the test decides when it reads.
//! Returns each event in order and unchanged.

use std::collections::VecDeque;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::wait::TIMEOUT;

/// An open stream.
pub(crate) struct Events {
    connection: TcpStream,
    /// The status line and the headers.
    pub(crate) head: String,
    raw: Vec<u8>,
    text: Vec<u8>,
    events: VecDeque<Event>,
    ended: bool,
}

/// One event, or a comment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
    pub(crate) comment: bool,
}

impl Events {
    /// Sends a GET with these header lines, and reads the head of the answer.
    pub(crate) async fn open(url: &str, path: &str, headers: &str) -> Self {
        let host = url.strip_prefix("http://").expect("the URL has the scheme http");
        let mut connection = TcpStream::connect(host).await.expect("the service listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        connection.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut events = Self {
            connection,
            head: String::new(),
            raw: Vec::new(),
            text: Vec::new(),
            events: VecDeque::new(),
            ended: false,
        };
        while events.head.is_empty() {
            assert!(events.read().await, "the connection closed before the answer");
            if let Some(end) = find(&events.raw, b"\r\n\r\n") {
                events.head = String::from_utf8(events.raw.drain(..end + 4).collect()).unwrap();
            }
        }
        events
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The next event or comment; `None` at the end of the stream.
    pub(crate) async fn next_or_comment(&mut self) -> Option<Event> {
        loop {
            self.decode();
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.ended || !self.read().await {
                return None;
            }
        }
    }

    /// The next event; `None` at the end of the stream. Comments do not extend the timeout.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let next = async {
            loop {
                match self.next_or_comment().await {
                    Some(Event { comment: true, .. }) => {}
                    other => return other,
                }
            }
        };
        tokio::time::timeout(TIMEOUT, next).await.expect("an event arrives within the timeout")
    }

    /// Returns the data of the next event, which must have this name.
    pub(crate) async fn expect(&mut self, name: &str) -> Value {
        let event = self.next().await.unwrap_or_else(|| panic!("the stream ended, no {name}"));
        assert_eq!(event.name, name, "{event:?}");
        event.data
    }

    async fn read(&mut self) -> bool {
        let mut part = vec![0; 64 << 10];
        let read = tokio::time::timeout(TIMEOUT, self.connection.read(&mut part)).await;
        let bytes = read.expect("data arrives within the timeout").unwrap_or(0);
        self.raw.extend_from_slice(&part[..bytes]);
        bytes > 0
    }

    /// Decodes chunks, and then events.
    fn decode(&mut self) {
        while let Some(line) = find(&self.raw, b"\r\n") {
            let size = std::str::from_utf8(&self.raw[..line]).unwrap();
            let size = usize::from_str_radix(size, 16).expect("a chunk begins with its size");
            if self.raw.len() < line + 2 + size + 2 {
                break;
            }
            self.ended |= size == 0;
            self.text.extend_from_slice(&self.raw[line + 2..line + 2 + size]);
            self.raw.drain(..line + 2 + size + 2);
        }
        while let Some(end) = find(&self.text, b"\n\n") {
            let text = String::from_utf8(self.text.drain(..end + 2).collect()).unwrap();
            self.events.push_back(Event::parse(&text));
        }
    }
}

impl Event {
    fn parse(text: &str) -> Self {
        let mut event = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.split_once(": ").expect("a line has a field") {
                ("", _) => event.comment = true,
                ("event", name) => event.name = name.into(),
                ("id", id) => event.id = Some(id.into()),
                ("data", data) => event.data = serde_json::from_str(data).expect("data is JSON"),
                ("retry", _) => {}
                (other, _) => panic!("unknown field of an event: {other} in {text}"),
            }
        }
        event
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
