//! `dhcp: proxy`: another server gives the addresses, we say what to boot (PXE 2.1 §2.2).

use std::net::Ipv4Addr;

use super::{Question, options};
use crate::inventory::model::Network;
use crate::policy::client::{Asker, Firmware};
use crate::policy::verdict::{Because, Destination, Verdict};
use crate::wire::dhcp::{MessageType, Reply};
use crate::wire::pxe;

impl Question<'_> {
    /// Port 67 beside another server: booting clients' DISCOVERs are answered, and nothing else.
    pub(super) fn beside_another(&self, network: &Network) -> Verdict {
        let request = self.request();
        match request.message_type {
            MessageType::Discover if self.client.boots() => {
                let to = self.to_everybody();
                self.boot_answer(MessageType::Offer, network, to)
            }
            MessageType::Request if request.server_id().is_some() => {
                let server = request.server_id().unwrap_or(Ipv4Addr::UNSPECIFIED);
                Verdict::silence(Because::OtherServer(server))
            }
            _ => Verdict::silence(Because::Proxied(network.name.clone())),
        }
    }

    /// Port 4011, where UEFI asks the proxy for the boot file once it has an address (EDK2
    /// `PxeBcRetryBinlOffer`), and BIOS ROMs ask a boot server that they chose from a menu.
    pub(super) fn at_pxe_port(&self, network: &Network) -> Verdict {
        match self.request().message_type {
            MessageType::Request | MessageType::Inform if self.client.boots() => {
                let to = self.to_who_asked();
                self.boot_answer(MessageType::Ack, network, to)
            }
            kind => Verdict::silence(Because::NotForPxe(kind)),
        }
    }

    /// A reply without an address: class, boot file, and option 43 as the firmware needs it.
    fn boot_answer(&self, kind: MessageType, network: &Network, to: Destination) -> Verdict {
        if let Some(because) = self.stranger(network) {
            return Verdict::silence(because);
        }
        let mut reply = self.reply(kind, network);
        self.add_boot_file(&mut reply, network);
        self.add_class(&mut reply);
        let host = self.host.map(|host| host.name.clone());
        Verdict {
            reply: Some(self.transmit(network, reply, to)),
            ..Verdict::silence(Because::Beside { host })
        }
    }

    /// Without option 60 a proxy's reply is ignored; 97 is echoed where it came.
    ///
    /// BIOS ROMs are told by 43 to take the boot file of this very reply: they look for boot
    /// servers otherwise, until a time-out. UEFI must have no 43: EDK2 forgets a proxy that
    /// sends `PXE_DISCOVERY_CONTROL`; without it asks port 4011, which answers at once.
    fn add_class(&self, reply: &mut Reply) {
        let class: &[u8] = match self.client.asker {
            Asker::HttpBoot => b"HTTPClient",
            _ => b"PXEClient",
        };
        reply.options.insert(60, class.to_vec());
        // no-pxedhcp is for DHCP servers: this is the proxy that iPXE would not listen to.
        reply.options.remove(&175);
        let request = self.request();
        if request.guid().is_some() {
            reply.options.insert(97, request.bytes(97).to_vec());
        }
        if self.client.asker == Asker::PxeRom && self.client.firmware == Some(Firmware::Bios) {
            let vendor = options::boot_item(request.bytes(43));
            let vendor = vendor.unwrap_or_else(|| pxe::BYPASS_DISCOVERY.to_vec());
            reply.options.insert(43, vendor);
        }
    }
}
