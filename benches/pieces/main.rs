//! The pieces of the path, each by itself: `cargo bench --bench pieces [FILTER]`. The whole path is
//! measured by `tributary bench`.

mod actors;
mod batch;
mod commit;
mod decode;
mod messages;

criterion::criterion_group!(pieces, decode::decode, batch::batch, actors::actors, commit::commit);
criterion::criterion_main!(pieces);
