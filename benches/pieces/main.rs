//! Benchmarks of the single stages of ingest: `cargo bench --bench pieces [FILTER]`. `tributary bench`
//! measures all stages together.

mod actors;
mod batch;
mod commit;
mod decode;
mod messages;

criterion::criterion_group!(pieces, decode::decode, batch::batch, actors::actors, commit::commit);
criterion::criterion_main!(pieces);
