//! What the benchmarks beside other servers have in common. A bench includes the lab and this:
//!
//! ```ignore
//! #[path = "../../tests/lab/mod.rs"]
//! mod lab;
//! #[path = "../rig/mod.rs"]
//! mod rig;
//! ```
//!
//! [`Wire`] is the network, [`Server`] one contender's process, [`Usage`] what it costs, [`Report`] the table. The
//! order of things, for every case: all contenders in each round, the next round in the opposite order
//! ([`rounds`]), so that a machine that grows slower is as slow for all.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod choice;
mod group;
mod machine;
mod report;
mod server;
mod stats;
mod usage;
mod wire;

use std::path::Path;
use std::process::ExitCode;

use crate::lab::{Result, end_program, repository};

pub use choice::{chosen, order, rounds, runs};
pub use machine::{IDLE, Machine, read};
pub use report::{Aim, Measure, Report, Sample};
pub use server::Server;
pub use stats::{median, percentile, spread};
pub use usage::{Usage, Watch};
pub use wire::{CLIENT, INTERFACE, SERVER, Wire, drops};

/// Runs `bench` with the directory for its results, gives them to who ran sudo, and tells how it ended.
pub fn run_bench(name: &str, bench: impl FnOnce(&Path) -> Result<()>) -> ExitCode {
    let out = repository().join("build/bench");
    let end = bench(&out);
    end_program(&format!("bench {name}"), &out, end)
}
