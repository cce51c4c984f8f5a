//! A batch: merging messages, sorting their rows, and encoding them as a COPY stream.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use tributary::domain::{Batch, Kind};
use tributary::store::encode_measurements;

use crate::messages::Messages;

/// Messages, and items per message: one batch of live traffic, and two of a backlog.
const SHAPES: [(usize, usize); 3] = [(100, 1), (30_000, 1), (500, 100)];

pub(crate) fn batch(criterion: &mut Criterion) {
    let messages = Messages::of(1_000);
    let mut group = criterion.benchmark_group("merge and sort");
    for (count, items) in SHAPES {
        group.throughput(Throughput::Elements((count * items) as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{count}x{items}")), |bencher| {
            bencher.iter_batched(
                || messages.uplinks(count, items),
                |uplinks| {
                    let mut batch = Batch::default();
                    uplinks.into_iter().for_each(|uplink| batch.push(uplink));
                    let rows = batch.rows(Kind::Measurement);
                    // Returned, so that dropping them is not measured.
                    (batch, rows)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("encode COPY");
    for (count, items) in SHAPES {
        group.throughput(Throughput::Elements((count * items) as u64));
        let batch = Batch::new(messages.uplinks(count, items));
        let rows = batch.rows(Kind::Measurement);
        group.bench_function(BenchmarkId::from_parameter(format!("{count}x{items}")), |bencher| {
            bencher.iter(|| black_box(encode_measurements(&batch, &rows.new)));
        });
    }
    group.finish();
}
