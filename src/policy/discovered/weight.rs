//! How much memory what is known of a machine takes, about: anybody can be thousands of them, and say much.

use super::{Discovered, Hardware, HardwareNic, Identity, Neighbour};

fn all<'a>(texts: impl IntoIterator<Item = &'a Option<String>>) -> usize {
    texts.into_iter().flatten().map(String::len).sum()
}

impl Discovered {
    /// Bytes.
    pub(super) fn weight(&self) -> usize {
        let Self {
            network,
            architecture,
            identity,
            port,
            circuit_id,
            remote_id,
            elsewhere,
            hardware,
            said,
            ..
        } = self;
        let texts = [network, port, circuit_id, remote_id, elsewhere, said];
        let hardware = hardware.as_ref().map_or(0, Hardware::weight);
        size_of::<Self>() + architecture.len() + all(texts) + identity.weight() + hardware
    }
}

impl Identity {
    fn weight(&self) -> usize {
        all([&self.uuid, &self.serial, &self.manufacturer, &self.product])
    }
}

impl Hardware {
    fn weight(&self) -> usize {
        let nics = self.nics.iter().map(HardwareNic::weight);
        all([&self.cpu_model]) + nics.sum::<usize>()
    }
}

impl HardwareNic {
    pub(super) fn weight(&self) -> usize {
        let heard = self.neighbour.as_ref().map_or(0, Neighbour::weight);
        size_of::<Self>() + self.name.len() + all([&self.driver, &self.lldp_error]) + heard
    }
}

impl Neighbour {
    fn weight(&self) -> usize {
        self.switch.len() + self.port.len() + all([&self.port_description])
    }
}
