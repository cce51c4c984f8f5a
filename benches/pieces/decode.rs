//! Decoding: from the bytes of a PUBLISH to items that can be stored, with 1, 10 and 100 items per message.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};

use crate::messages::Messages;

pub(crate) fn decode(criterion: &mut Criterion) {
    let messages = Messages::of(1_000);
    let mut group = criterion.benchmark_group("decode");
    for items in [1, 10, 100] {
        group.throughput(Throughput::Elements(items as u64));
        group.bench_function(BenchmarkId::from_parameter(items), |bencher| {
            bencher.iter_batched(
                || messages.message(0, items),
                |message| black_box(messages.decode(message)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}
