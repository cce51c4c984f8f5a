//! No row is lost or delayed when an engine is chosen, and when chunks of TimescaleDB expire or are compressed.

use tributary::domain::SensorIdentifier;
use tributary::store::{self, EngineName, Housekeeper, Store};

use crate::engines::{CITUS_STAND_IN, CITUS_STEPS, STAND_IN, STEPS, hypertables, old_chunk};
use crate::support::postgres::{connect, engine};
use crate::support::service::{count, database};
use crate::support::store::config;
use crate::support::wait::{TIMEOUT, eventually};

/// A writer commits between the check for empty tables and the engine's migration.
#[actix_rt::test]
async fn an_engine_is_not_chosen_if_a_row_is_committed_meanwhile() {
    if engine() != EngineName::Postgres {
        return;
    }
    for (stand_in, steps) in [(STAND_IN, STEPS), (CITUS_STAND_IN, CITUS_STEPS)] {
        let database = database().await;
        store::migrate(&config(&database)).await.unwrap();
        let (writer, admin) =
            (connect(&database.url).await.unwrap(), connect(&database.url).await.unwrap());
        admin.batch_execute(stand_in).await.unwrap();
        let insert =
            "begin; insert into heartbeat values (gen_random_uuid(), now(), now(), 0, 0, true)";
        writer.batch_execute(insert).await.unwrap();
        let waiting = "select count(*) from pg_locks where locktype = 'relation' and not granted
            and database = (select oid from pg_database where datname = current_database())";
        let commit = async {
            eventually(TIMEOUT, async || match count(&database, waiting).await {
                0 => Err("the migration does not wait yet"),
                _ => Ok(()),
            })
            .await;
            writer.batch_execute("commit").await.unwrap();
        };
        let (outcome, ()) = tokio::join!(admin.batch_execute(steps), commit);

        let error = outcome.unwrap_err();
        let message = error.as_db_error().map(|it| it.message().to_owned());
        assert_eq!(
            message.as_deref(),
            Some("the table heartbeat has rows already; another engine needs a new database")
        );
        assert_eq!(count(&database, "select count(*) from heartbeat").await, 1);
    }
}

/// TimescaleDB limits how many rows a statement decompresses; the stand-in has no limit.
#[actix_rt::test]
async fn a_sensor_with_110_000_compressed_rows_is_purged() {
    let Some(database) = hypertables().await else { return };
    let admin = connect(&database.url).await.unwrap();
    let sensor = SensorIdentifier::random();
    let config = store::Config { compress_after_days: Some(20), ..config(&database) };
    old_chunk(&database, 30).await;
    let fill = format!(
        "insert into sensor (identifier, name) values ('{sensor}', 'long');
         insert into measurement_chunks
         select '{sensor}', creation_timestamp + n * interval '1 second', receipt_timestamp, 0, 0, '{{}}'
         from measurement, generate_series(1, 110000) as n"
    );
    admin.batch_execute(&fill).await.unwrap();
    let store = Store::new(&config);
    Housekeeper::new(store.clone(), &config).round().await.unwrap();

    assert!(store.delete_sensor(sensor).await.unwrap());
    assert_eq!(store.purge_sensor(sensor).await.unwrap(), 110_000);
    assert_eq!(count(&database, "select count(*) from measurement").await, 1);
}

#[actix_rt::test]
async fn chunks_whose_check_times_out_are_dropped_once_they_have_an_index() {
    let Some(database) = hypertables().await else { return };
    if engine() != EngineName::Postgres {
        return;
    }
    let config = store::Config { measurement_retention_days: Some(100), ..config(&database) };
    old_chunk(&database, 30).await;
    old_chunk(&database, 20).await;
    let admin = connect(&database.url).await.unwrap();
    let slow = "insert into measurement_outlier values
            (gen_random_uuid(), to_timestamp(0), now() - interval '101 days', 0, 0, '{}');
        alter function drop_chunks rename to drop_indexed_chunks;
        create function drop_chunks(relation regclass, older_than timestamptz, newer_than timestamptz)
        returns void language plpgsql as $$ begin
            perform from timescaledb_information.chunks
            join pg_class on relname = chunk_name || '_received'
            where hypertable_name = relation::text and range_end <= older_than and range_start >= newer_than;
            if not found then raise query_canceled; end if;
            perform drop_indexed_chunks(relation, older_than, newer_than);
        end $$";
    admin.batch_execute(slow).await.unwrap();
    let housekeeper = Housekeeper::new(Store::new(&config), &config);

    let blocked = housekeeper.round().await.unwrap();
    assert_eq!(blocked.map(|it| it.to_drop), [2, 0, 0]);
    assert_eq!(count(&database, "select count(*) from measurement_outlier").await, 0);
    assert_eq!(count(&database, "select count(*) from measurement_chunks").await, 2);

    let blocked = housekeeper.round().await.unwrap();
    assert_eq!(blocked.map(|it| it.to_drop), [0, 0, 0]);
    assert_eq!(count(&database, "select count(*) from measurement_chunks").await, 0);
}

#[actix_rt::test]
async fn a_chunk_is_not_compressed_while_it_receives_rows() {
    let Some(database) = hypertables().await else { return };
    let config = store::Config { compress_after_days: Some(20), ..config(&database) };
    old_chunk(&database, 30).await;
    old_chunk(&database, 20).await;
    let admin = connect(&database.url).await.unwrap();
    let housekeeper = Housekeeper::new(Store::new(&config), &config);
    for (receipt, expected) in [("now()", 1), ("now() - interval '2 days'", 2)] {
        let update = format!(
            "update measurement_chunks set receipt_timestamp = {receipt}
             where creation_timestamp > now() - interval '21 weeks'"
        );
        admin.batch_execute(&update).await.unwrap();
        housekeeper.round().await.unwrap();
        let compressed = "select count(*) from timescaledb_information.chunks where is_compressed";
        assert_eq!(count(&database, compressed).await, expected);
    }
}
