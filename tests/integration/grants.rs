//! A missing privilege of the service's role is reported in one sentence, and row-level security with a
//! policy closes no connection.

use tokio_postgres::Client;
use tributary::store::{self, Committer, CopyMode, EngineName, StoreError};

use crate::support::payloads::measurement;
use crate::support::postgres::{Database, Postgres, connect, skipped_on};
use crate::support::service::count;
use crate::support::store::{batch, config};

/// The tables belong to the superuser, and the role `service` may use them.
struct Fixture {
    /// As the superuser.
    database: Database,
    admin: Client,
    config: store::Config,
    /// Roles belong to a server, so that each fixture starts one.
    _postgres: Postgres,
}

impl Fixture {
    async fn new() -> Self {
        let postgres = Postgres::start().await;
        let mut database = postgres.create_database(None).await;
        store::migrate(&config(&database)).await.unwrap();
        let admin = connect(&database.url).await.unwrap();
        let grants = "create role service login;
            grant all on all tables in schema public to service;
            grant all on all sequences in schema public to service";
        admin.batch_execute(grants).await.unwrap();
        let url = database.url.clone();
        database.url = url.replace("//postgres@", "//service@");
        let config = config(&database);
        database.url = url;
        Self { database, admin, config, _postgres: postgres }
    }

    async fn commit_error(&self) -> StoreError {
        let committer = Committer::new(&self.config, 1);
        let refused = committer.commit(batch(&measurement(1.0)), CopyMode::Staged).await;
        refused.unwrap_err().error
    }

    async fn measurements(&self) -> i64 {
        count(&self.database, "select count(*) from measurement").await
    }

    async fn backend(&self) -> i64 {
        let backends = "select min(pid)::bigint from pg_stat_activity \
                        where application_name = 'tributary-write'";
        count(&self.database, backends).await
    }
}

/// Whether row-level security on `measurement` does not apply to the tables that store its rows.
fn without_row_level_security() -> bool {
    skipped_on(
        &[EngineName::TimescaleDb, EngineName::Citus],
        "its chunks and shards have no policies",
    )
}

const POLICY: &str = "create policy all_rows on measurement to service using (true)";

#[actix_rt::test]
async fn row_level_security_with_a_policy_closes_no_connection() {
    if without_row_level_security() {
        return;
    }
    let fixture = Fixture::new().await;
    let enable = "alter table measurement enable row level security";
    fixture.admin.batch_execute(&format!("{enable}; {POLICY}")).await.unwrap();
    let committer = Committer::new(&fixture.config, 1);

    committer.commit(batch(&measurement(1.0)), CopyMode::Direct).await.unwrap();
    let backend = fixture.backend().await;
    for second in 2..6 {
        let batch = batch(&measurement(f64::from(second)));
        committer.commit(batch, CopyMode::Direct).await.unwrap();
    }
    assert_eq!((fixture.measurements().await, fixture.backend().await), (5, backend));
}

#[actix_rt::test]
async fn row_level_security_that_is_enabled_later_fails_one_batch_at_most() {
    if without_row_level_security() {
        return;
    }
    let fixture = Fixture::new().await;
    let committer = Committer::new(&fixture.config, 1);
    committer.commit(batch(&measurement(1.0)), CopyMode::Direct).await.unwrap();
    let enable = "alter table measurement enable row level security";
    fixture.admin.batch_execute(&format!("{enable}; {POLICY}")).await.unwrap();

    let failed = committer.commit(batch(&measurement(2.0)), CopyMode::Direct).await.unwrap_err();
    assert_eq!(store::recovery(&failed.error), store::Recovery::Retry, "{}", failed.error);
    for second in 2..6 {
        let batch = batch(&measurement(f64::from(second)));
        committer.commit(batch, CopyMode::Direct).await.unwrap();
    }
    assert_eq!(fixture.measurements().await, 5);
}

/// PostgreSQL rejects such a COPY before its data; from then on, the driver assigns each response to
/// the next request.
#[actix_rt::test]
async fn a_connection_whose_copy_was_rejected_is_not_used_again() {
    if skipped_on(&[EngineName::TimescaleDb], "`measurement` is a view") {
        return;
    }
    let fixture = Fixture::new().await;
    let committer = Committer::new(&fixture.config, 1);
    for second in 0..20 {
        let batch = || batch(&measurement(f64::from(second)));
        fixture.admin.batch_execute("revoke insert on measurement from service").await.unwrap();
        let refused = committer.commit(batch(), CopyMode::Direct).await.unwrap_err().error;
        assert!(refused.to_string().contains("permission denied"), "{second}: {refused}");
        fixture.admin.batch_execute("grant insert on measurement to service").await.unwrap();
        let committed = committer.commit(batch(), CopyMode::Direct).await;
        assert!(committed.is_ok(), "{second}: {:?}", committed.unwrap_err().error);
    }
    assert_eq!(fixture.measurements().await, 20);
}

#[actix_rt::test]
async fn a_missing_privilege_is_named() {
    if without_row_level_security() {
        return;
    }
    let fixture = Fixture::new().await;
    let assert_error_ends_with = async |statement: &str, named: &str| {
        fixture.admin.batch_execute(statement).await.unwrap();
        let error = fixture.commit_error().await.to_string();
        assert!(error.ends_with(named), "{statement}: {error}");
    };
    assert_error_ends_with(
        "alter table measurement enable row level security",
        "; create a policy on measurement that lets the service's role select and insert all rows",
    )
    .await;
    assert_error_ends_with(
        "alter table measurement disable row level security;
         revoke insert on measurement from service",
        "; grant select, insert, update, delete on measurement to the service's role",
    )
    .await;
    let revoke = format!(
        "grant insert on measurement to service; revoke temporary on database {} from public",
        fixture.database.name
    );
    let named =
        format!("; grant temporary on database {} to the service's role", fixture.database.name);
    assert_error_ends_with(&revoke, &named).await;
    assert_eq!(fixture.measurements().await, 0);
}
