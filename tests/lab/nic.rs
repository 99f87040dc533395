//! Network cards of virtual servers, and what each is plugged into.

use std::path::Path;

use super::Lab;
use super::error::Result;

/// A network card.
#[derive(Debug, Clone)]
pub struct Nic {
    /// Its permanent address.
    pub mac: String,
    /// QEMU's device model: `virtio-net-pci`, `e1000e`, `igb`, `vmxnet3`, …
    pub model: String,
    /// Whether the cable is in.
    pub cable: Cable,
}

/// What a card is plugged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// A port of the lab's switch that passes every frame as it is.
    Switch,
    /// A port that carries one VLAN, tagged, and drops what has no tag but LACP's questions, which it answers.
    Tagged {
        /// The VLAN's id, 1 to 4094.
        vlan: u16,
    },
    /// A segment that nobody else is on.
    Nowhere,
}

impl Nic {
    /// A virtio card on the switch.
    pub fn new(mac: &str) -> Self {
        Self {
            mac: mac.to_owned(),
            model: "virtio-net-pci".to_owned(),
            cable: Cable::Switch,
        }
    }

    /// Another model.
    pub fn model(mut self, model: &str) -> Self {
        model.clone_into(&mut self.model);
        self
    }

    /// Plugged into something else.
    pub fn cable(mut self, cable: Cable) -> Self {
        self.cable = cable;
        self
    }

    /// Plugs it in; gives QEMU's `-netdev` for it.
    pub fn plug(&self, lab: &Lab, id: &str, port: &str, dir: &Path) -> Result<String> {
        match self.cable {
            Cable::Switch => {
                lab.tap(port)?;
                Ok(tap(id, port))
            }
            Cable::Nowhere => {
                lab.tap(port)?;
                lab.switch().ip(&["link", "set", port, "nomaster"])?;
                Ok(tap(id, port))
            }
            Cable::Tagged { vlan } => {
                lab.tap(port)?;
                let trunk = super::trunk::Trunk::new(lab, port, vlan, lab.next_trunk(), dir)?;
                let netdev = trunk.netdev(id);
                lab.keep(trunk);
                Ok(netdev)
            }
        }
    }
}

fn tap(id: &str, port: &str) -> String {
    format!("tap,id={id},ifname={port},script=no,downscript=no")
}
