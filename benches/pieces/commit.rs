//! The commit: one transaction of 1 to 50,000 rows on the server of DATABASE_URL, in a temporary
//! database. Without DATABASE_URL it is skipped with a message.

use std::time::{Duration, Instant};

use actix_rt::{System, SystemRunner};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use tributary::config::{self, environment};
use tributary::domain::Batch;
use tributary::store::{self, BENCHMARK_DATABASE_PREFIX, Bench, Committer, CopyMode};

use crate::messages::Messages;

const ROWS: [usize; 6] = [1, 10, 100, 1_000, 10_000, 50_000];

pub(crate) fn commit(criterion: &mut Criterion) {
    let Ok(mut config) = config::read_store(environment) else {
        report_skipped();
        return;
    };
    let system = System::new();
    let name = format!("{BENCHMARK_DATABASE_PREFIX}{}_pieces", std::process::id());
    let admin = system.block_on(async {
        let admin = Bench::connect(&config).await.expect("the server is available");
        admin.create_database(&name).await.expect("the role may create databases");
        config.postgres.dbname(&name);
        store::create_tables(&config, store::EngineName::default())
            .await
            .expect("the database is empty");
        admin
    });
    measure(criterion, &system, &config);
    system.block_on(admin.drop_database(&name)).expect("the database was created above");
}

#[expect(clippy::print_stdout, reason = "a skipped benchmark must be visible")]
fn report_skipped() {
    println!("commit: skipped, because DATABASE_URL is not set.");
}

fn measure(criterion: &mut Criterion, system: &SystemRunner, config: &store::Config) {
    let messages = Messages::of(1_000);
    let connections = 1;
    // The pool must be created inside a runtime.
    let committer = system.block_on(async { Committer::new(config, connections) });
    let mut group = criterion.benchmark_group("commit");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for rows in ROWS {
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
            bencher.iter_custom(|rounds| {
                system.block_on(async {
                    let mut elapsed = Duration::ZERO;
                    for _ in 0..rounds {
                        elapsed +=
                            commit_once(&committer, Batch::new(messages.uplinks(rows, 1))).await;
                    }
                    elapsed
                })
            });
        });
    }
    group.finish();
}

async fn commit_once(committer: &Committer, batch: Batch) -> Duration {
    let started_at = Instant::now();
    let committed = committer.commit(batch, CopyMode::Direct).await.expect("every row is new");
    let elapsed = started_at.elapsed();
    committed.ack_tokens.into_iter().for_each(|ack_token| assert_eq!(ack_token.settle(), 0));
    elapsed
}
