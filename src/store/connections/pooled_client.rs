//! A client whose connection is closed at once if it is dropped in the middle of a request. Made by
//! `connector.rs`, held by the pools and the exports. Otherwise the driver would wait for the answers as
//! long as the socket stays open, and PostgreSQL would keep uncommitted rows and locks. (On a Unix
//! socket the driver does wait, until statement_timeout.)

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::{Client, CopyInSink, SimpleQueryMessage, Statement};

use super::stream::Cutter;
use crate::store::StoreError;

#[derive(Debug)]
pub(in crate::store) struct PooledClient {
    client: Client,
    cutter: Cutter,
    is_abandoned: AtomicBool,
    /// Its answers no longer belong to its requests.
    is_out_of_step: AtomicBool,
    /// `target_session_attrs=read-write`: a server that became read-only is unusable.
    must_write: bool,
    unconfirmed: Arc<AtomicBool>,
}

impl PooledClient {
    pub(super) fn new(
        client: Client,
        cutter: Cutter,
        must_write: bool,
        unconfirmed: Arc<AtomicBool>,
    ) -> Self {
        let (is_abandoned, is_out_of_step) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { client, cutter, is_abandoned, is_out_of_step, must_write, unconfirmed }
    }

    /// Whether PostgreSQL has cancelled the wait for a synchronous standby since the last call: the
    /// transaction is committed on this server, and possibly on no other.
    pub(in crate::store) fn take_unconfirmed(&self) -> bool {
        self.unconfirmed.swap(false, Ordering::Acquire)
    }

    /// True while a request is in progress: if its future is dropped then, the connection is unusable.
    pub(in crate::store) fn set_abandoned(&self, is_abandoned: bool) {
        self.is_abandoned.store(is_abandoned, Ordering::Relaxed);
    }

    /// Whether it is unusable.
    pub(in crate::store) fn is_lost(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
            || self.is_out_of_step.load(Ordering::Relaxed)
            || self.client.is_closed()
    }

    /// Begins a COPY. If PostgreSQL refuses it before its data, the connection is lost: the driver still
    /// sends CopyFail and a second Sync, PostgreSQL answers both Syncs, and from then on each request
    /// would read the answer to the previous one.
    pub(in crate::store) async fn copy_in(
        &self,
        statement: &Statement,
    ) -> Result<CopyInSink<Bytes>, tokio_postgres::Error> {
        let sink = self.client.copy_in(statement).await;
        if sink.is_err() {
            self.is_out_of_step.store(true, Ordering::Relaxed);
        }
        sink
    }

    /// Sends these statements, or the empty query. Other requests may be pipelined after it. Until it is
    /// answered the connection counts as lost.
    pub(in crate::store) async fn health_check(
        &self,
        statements: &str,
        timeout: Duration,
    ) -> Result<(), StoreError> {
        self.set_abandoned(true);
        if self.must_write {
            let separator = if statements.is_empty() { "" } else { "; " };
            let text = format!("{statements}{separator}show transaction_read_only");
            let answer = in_time(timeout, self.client.simple_query(&text)).await?;
            let is_read_only = answer.iter().any(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0) == Some("on"),
                _ => false,
            });
            if is_read_only {
                return Err(StoreError::ReadOnly);
            }
        } else {
            in_time(timeout, self.client.batch_execute(statements)).await?;
        }
        self.set_abandoned(false);
        Ok(())
    }
}

impl Drop for PooledClient {
    fn drop(&mut self) {
        if *self.is_abandoned.get_mut() || *self.is_out_of_step.get_mut() {
            self.cutter.cut();
        }
    }
}

impl Deref for PooledClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for PooledClient {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Fails after `timeout`.
pub(in crate::store) async fn in_time<T, E: Into<StoreError>>(
    timeout: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(timeout, work).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_elapsed) => Err(StoreError::Silence { waited: timeout }),
    }
}
