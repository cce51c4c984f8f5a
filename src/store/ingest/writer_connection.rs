//! A writer's connection, with the statements of a commit prepared. Made by the writers' pool, used by
//! the commit. Its staging tables are temporary: they last as long as the connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bb8::{ManageConnection, Pool};
use tokio_postgres::{Client, Statement};

use super::copy::columns;
use crate::domain::Kind;
use crate::store::connections::connector::{CONNECT_TIMEOUT, Connector, HEALTH_CHECK_TIMEOUT};
use crate::store::connections::last_connect_error::LastConnectError;
use crate::store::connections::pooled_client::{PooledClient, in_time};
use crate::store::engines::engine::Engine;
use crate::store::engines::recorded::recorded;
use crate::store::{Config, StoreError};

/// Then the commit fails, and the writer retries it.
pub(in crate::store) const WRITER_CHECKOUT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection and its statements.
pub(in crate::store) struct WriterConnection {
    pub(in crate::store) client: PooledClient,
    pub(in crate::store) engine: &'static dyn Engine,
    /// The server process's PID, as in `pg_stat_activity` and the server's log.
    pub(in crate::store) backend: i32,
    pub(in crate::store) tombstones: Statement,
    pub(in crate::store) acknowledge: Statement,
    pub(in crate::store) reject: Statement,
    pub(in crate::store) overflow: Statement,
    pub(in crate::store) journal: Statement,
    pub(in crate::store) supersede: Statement,
    /// `TIMESTAMP_MISSING=receipt`
    pub(in crate::store) receipt_times: bool,
    /// Whether row-level security is active: PostgreSQL then refuses COPY.
    row_security: [AtomicBool; Kind::ALL.len()],
    copies: [Statement; Kind::ALL.len()],
    stagings: [Staging; Kind::ALL.len()],
}

/// The statements for one kind's staging table.
pub(in crate::store) struct Staging {
    /// Into the staging table.
    pub(in crate::store) copy: Statement,
    /// From there into the table; returns what was new.
    pub(in crate::store) settle: Statement,
}

impl WriterConnection {
    async fn prepare(client: PooledClient, receipt_times: bool) -> Result<Self, StoreError> {
        // Until it is ready, because the caller may time out.
        client.set_abandoned(true);
        let engine = recorded(&client).await?.engine();
        let mut copies = Vec::with_capacity(Kind::ALL.len());
        let mut stagings = Vec::with_capacity(Kind::ALL.len());
        for kind in Kind::ALL {
            let columns = columns(kind, receipt_times);
            let tables = engine.tables(kind);
            copies.push(client.prepare(&copy_statement(&tables[0], &columns)).await?);
            stagings.push(Staging::prepare(&client, engine, kind, &columns).await?);
        }
        let names = Kind::ALL.map(Kind::name);
        let row_security = client.query_one(ROW_SECURITY, &[&names.as_slice()]).await?;
        let row_security: Vec<bool> = row_security.try_get(0)?;
        let prepared = Self {
            row_security: one_per_kind(row_security.into_iter().map(AtomicBool::new).collect()),
            backend: client.query_one("select pg_backend_pid()", &[]).await?.get(0),
            tombstones: client.prepare(SELECT_TOMBSTONES).await?,
            acknowledge: client.prepare(ACKNOWLEDGE).await?,
            reject: client.prepare(REJECT).await?,
            overflow: client.prepare(OVERFLOW).await?,
            journal: client.prepare(JOURNAL).await?,
            supersede: client.prepare(SUPERSEDE).await?,
            receipt_times,
            copies: one_per_kind(copies),
            stagings: one_per_kind(stagings),
            engine,
            client,
        };
        prepared.client.set_abandoned(false);
        Ok(prepared)
    }

    pub(in crate::store) fn takes_copy(&self, kind: Kind) -> bool {
        !self.row_security[kind as usize].load(Ordering::Relaxed)
    }

    /// For the rest of this connection's life, all rows go through the staging tables.
    pub(in crate::store) fn refused_copy(&self) {
        self.row_security.iter().for_each(|it| it.store(true, Ordering::Relaxed));
    }

    pub(in crate::store) const fn copy(&self, kind: Kind) -> &Statement {
        &self.copies[kind as usize]
    }

    pub(in crate::store) const fn staging(&self, kind: Kind) -> &Staging {
        &self.stagings[kind as usize]
    }
}

fn one_per_kind<T>(values: Vec<T>) -> [T; Kind::ALL.len()] {
    values.try_into().unwrap_or_else(|_| unreachable!("there is one for each kind"))
}

impl Staging {
    /// Creates the temporary staging table outside a transaction, so that no rollback drops it. Its
    /// rows are deleted with each transaction.
    async fn prepare(
        client: &Client,
        engine: &dyn Engine,
        kind: Kind,
        columns: &str,
    ) -> Result<Self, tokio_postgres::Error> {
        let (table, staged) = (kind.name(), staging_table(kind));
        // Only our columns, without constraints or columns that an operator has added.
        client
            .batch_execute(&format!(
                "create temporary table {staged} on commit delete rows
                 as select {columns} from {table} with no data"
            ))
            .await?;
        let copy = client.prepare(&copy_statement(&staged, columns)).await?;
        let settle = client.prepare(&engine.settle(kind, columns, &staged)).await?;
        Ok(Self { copy, settle })
    }
}

pub(in crate::store) fn staging_table(kind: Kind) -> String {
    format!("staged_{}", kind.name())
}

fn copy_statement(table: &str, columns: &str) -> String {
    format!("copy {table} ({columns}) from stdin (format binary)")
}

/// Parameter: tables.
const ROW_SECURITY: &str = "\
select array_agg(row_security_active(name) order by ordinal)
from unnest($1::text[]) with ordinality as tables (name, ordinal)";

const SELECT_TOMBSTONES: &str = "select identifier from deleted_sensor where identifier = any ($1)";

/// One row per commit.
const JOURNAL: &str = "\
insert into sensor_hour_journal (sensors, hours, kinds, counts) values ($1, $2, $3, $4)";

/// A heartbeat that was received before the revision was sent refers to another configuration.
const ACKNOWLEDGE: &str = "\
update configuration
set acknowledgement_timestamp = heartbeats.creation_timestamp,
    acknowledgement_receipt_timestamp = heartbeats.receipt_timestamp,
    success = heartbeats.success
from unnest($1::uuid[], $2::int4[], $3::timestamptz[], $4::timestamptz[], $5::bool[])
    as heartbeats (sensor_identifier, revision, creation_timestamp, receipt_timestamp, success)
where configuration.sensor_identifier = heartbeats.sensor_identifier
    and configuration.revision = heartbeats.revision
    and configuration.acknowledgement_timestamp is null
    and heartbeats.receipt_timestamp
        >= coalesce(configuration.sent_timestamp, configuration.publication_timestamp)
returning configuration.sensor_identifier, configuration.revision, configuration.success";

const REJECT: &str = "\
insert into rejection (receipt_timestamp, topic, sensor_identifier, kind, item_index, item_count,
    reason, detail, raw, digest, delivered_once)
select * from unnest($1::timestamptz[], $2::text[], $3::uuid[], $4::text[], $5::int4[], $6::int4[],
    $7::text[], $8::text[], $9::bytea[], $10::uuid[], $11::bool[])
on conflict do nothing
returning kind, item_count";

const OVERFLOW: &str = "\
insert into rejection_overflow (sensor_identifier, hour, item_count)
select sensor_identifier, date_trunc('hour', now()), item_count
from unnest($1::uuid[], $2::int8[]) as overflow (sensor_identifier, item_count)
on conflict (sensor_identifier, hour)
do update set item_count = rejection_overflow.item_count + excluded.item_count";

/// All rejections of these messages, except of items that are still rejected.
const SUPERSEDE: &str = "\
delete from rejection using unnest($1::uuid[]) as stored (digest)
where rejection.digest = stored.digest and not exists (
    select from unnest($2::uuid[], $3::int4[]) as rejected (digest, item_index)
    where rejected.digest = rejection.digest and rejected.item_index = rejection.item_index
)";

/// For bb8.
pub(in crate::store) struct WriterManager {
    connector: Connector,
    receipt_times: bool,
}

impl ManageConnection for WriterManager {
    type Connection = WriterConnection;
    type Error = StoreError;

    async fn connect(&self) -> Result<WriterConnection, StoreError> {
        let connected = Box::pin(async {
            WriterConnection::prepare(self.connector.connect().await?, self.receipt_times).await
        });
        in_time(CONNECT_TIMEOUT, connected).await
    }

    async fn is_valid(&self, connection: &mut WriterConnection) -> Result<(), StoreError> {
        connection.client.health_check("", HEALTH_CHECK_TIMEOUT).await
    }

    fn has_broken(&self, connection: &mut WriterConnection) -> bool {
        connection.client.is_lost()
    }
}

/// The writers' pool, which connects on first use.
pub(in crate::store) fn writer_pool(
    config: &Config,
    connections: u32,
    last_error: &LastConnectError,
) -> Pool<WriterManager> {
    // A batch takes some hundred milliseconds. One that takes this long waits for a lock; it is
    // cancelled, logged and retried.
    let timeout_secs = config.statement_timeout_secs;
    let connector = Connector::new(config, "tributary-write")
        .watching_commits()
        .with_session(&format!("set statement_timeout = '{timeout_secs}s'"));
    Pool::builder()
        .max_size(connections)
        .connection_timeout(WRITER_CHECKOUT_TIMEOUT)
        .retry_connection(false)
        .test_on_check_out(false)
        .idle_timeout(None)
        .error_sink(Box::new(last_error.clone()))
        .build_unchecked(WriterManager { connector, receipt_times: config.receipt_times })
}
