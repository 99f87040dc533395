//! Bridgehead turns bare servers into diskless KVM hosts over the network.
//!
//! # The boot, in ten lines
//!
//! 1. Firmware broadcasts a DHCP DISCOVER; [`dhcp`] hands it to [`policy`], which knows the MAC from [`inventory`].
//! 2. The OFFER names an address and the loader that fits the firmware (option 93).
//! 3. [`tftp`] sends the loader; the loader asks for its script or config, which [`render`] makes for this host.
//! 4. The loader fetches kernel and initrd from [`assets`], by HTTP where it can, by TFTP where it can't.
//! 5. The initrd (packed by [`initrd`]) finds the boot NIC and **builds the bridge over it**,
//! 6. and only then takes its address, fetches its configuration from [`http`],
//! 7. and mounts the root from [`nfs`], read-only, under a tmpfs overlay.
//! 8. It leaves run-time units behind and switches root;
//! 9. the root mounts the image pool, starts libvirt, checks itself and reports *joined*.
//! 10. Every step lands in the [`timeline`]; every silence has a deadline and an explanation.
//!
//! # Invariants
//!
//! - [`policy`] and [`wire`] do no I/O and read no clock (`tests/architecture.rs` checks the imports).
//! - A packet that gets no answer yields an event that says why.
//! - The inventory is replaced whole or not at all; a boot under way goes on with the one that it began with.
//! - Nothing is rendered to disk per host.
//! - In the initrd, nothing touches the bridge once the NFS root is mounted.
//! - A host's secrets go to that host alone, in one boot attempt, until it has them.
//! - No unbounded queue, no unbounded wait, no per-host metric label.

// The protocol core: pure functions of bytes and state.
pub mod policy;
pub mod wire;

// What the operator wrote, and what is made of it.
pub mod assets;
pub mod initrd;
pub mod inventory;
pub mod render;

// What bounds those who ask too often.
mod floodgate;
// Files that an operator names.
mod regular;
// Spans of time in words.
mod span;

// Who writes the operator's file for the daemon.
pub mod scribe;

// What is served, as one snapshot.
pub mod site;

// What happened: durable state, and what is counted of it.
pub mod leases;
pub mod metrics;
pub mod timeline;

// What would happen, without a packet being sent.
pub mod explain;

// Thin shells around sockets.
pub mod dhcp;
pub mod http;
pub mod nfs;
pub mod syslog;
pub mod tftp;

// Faces and wiring.
pub mod cli;
pub mod daemon;
pub mod diagnostic;
pub mod page;
