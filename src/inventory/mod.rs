//! `hosts.yaml`: as written, with spans, to as true, valid by construction.
//!
//! Text becomes a tree in which each node knows its place (`tree`), the tree becomes typed
//! values (`written`, by `fields` and the readers of single values), and these are held against
//! each other (`networks`, `profiles` with their `stack` of interfaces, `hosts` with their `nics`). Each step reports to one collection and goes
//! on, so that an operator sees every fault in one run. [`artefacts`] then looks whether what
//! the inventory names is there.
//!
//! Files that the first one includes are read before all that (`include`) and laid into it
//! (`merge`). What each value is and where it stands is kept as written, too (`layers`): for
//! `hosts show`, and for what differs between two inventories ([`outline`]). [`edit`] changes the
//! operator's file and keeps the rest of it.

pub mod artefacts;
mod bonds;
mod bridges;
mod dhcp_options;
mod each;
pub mod edit;
mod faults;
mod fields;
mod firmware;
mod free;
pub mod hardware;
mod hostlist;
pub(crate) mod hostnames;
mod hosts;
mod include;
mod interfaces;
mod layers;
mod links;
mod load;
mod mac;
pub mod menu;
mod menu_settings;
mod merge;
pub mod model;
mod names;
mod networks;
mod nics;
mod order;
pub mod outline;
mod pci;
mod pools;
mod profiles;
pub mod rescue;
mod scalars;
pub mod schema;
mod server;
mod settings;
mod spread;
mod stack;
mod storage;
pub(crate) mod suggest;
mod taken;
mod tree;
mod unknown;
mod written;

pub use include::{FileText, Seen};
pub use load::{Faulty, Loaded, MAX_BYTES, load, load_again, load_or_built, load_texts, parse};
pub use pci::{BadPciId, PciId};
