//! What is served, in a form that outlives the daemon: one that is started while the operator's files have a fault
//! serves the same as before.
//!
//! Boot files and roots are not in it: they lie in the data directory, and only what `hosts.yaml` says of them is needed.

use serde::{Deserialize, Serialize};

use crate::inventory::model::Inventory;
use crate::inventory::{self, FileText};
use crate::render;
use crate::site::host_files::HostFiles;
use crate::site::tls::Pem;

/// What has to be written down of a [`Snapshot`](super::Snapshot). It holds secrets.
#[derive(Debug, Serialize)]
pub struct Keep<'s> {
    pub(super) texts: &'s [FileText],
    pub(super) templates: &'s render::Texts,
    pub(super) files: &'s HostFiles,
    pub(super) tls: Option<&'s Pem>,
}

/// What was written down.
#[derive(Debug, Deserialize)]
pub struct Kept {
    pub(super) texts: Vec<FileText>,
    pub(super) templates: render::Texts,
    pub(super) files: HostFiles,
    pub(super) tls: Option<Pem>,
}

impl Kept {
    /// The inventory of then, if it was another than this; `None` also where this version finds faults in it.
    pub fn inventory_unless(self, now: &Keep<'_>) -> Option<Inventory> {
        let loaded = (self.texts != now.texts).then(|| inventory::load_texts(self.texts))?;
        Some(loaded.ok()?.inventory)
    }
}
