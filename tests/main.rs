//! The tests that need nothing to themselves, in one program: each program has the whole crate linked into it, 100 MB
//! and many seconds. `cargo test --test integration golden::` runs those of one file.

mod architecture;
mod bench_rig;
mod docs;
mod docs_run;
mod ear;
mod golden;
mod initrd_builder;
mod initrd_stages;
mod inventory;
mod kernel_configs;
mod metrics;
mod packaging;

#[path = "daemon/fake.rs"]
#[allow(dead_code)]
mod fake;
mod lab;
mod openmetrics;
#[path = "../benches/rig/mod.rs"]
mod rig;
