//! Addresses that come back: RELEASE and DECLINE (RFC 2131 sections 4.3.3 and 4.3.4).

use jiff::Timestamp;

use super::Question;
use crate::inventory::model::Network;
use crate::policy::lease::{DECLINE_REST, LeaseChange};
use crate::policy::verdict::{Because, Verdict};

impl Question<'_> {
    /// Believed of the address that the sender has, and of no other.
    pub(super) fn release(&self, network: &Network) -> Verdict {
        if let Some(server) = self.other_server(network) {
            return Verdict::silence(Because::OtherServer(server));
        }
        let held = self.holds(self.request().ciaddr);
        Verdict {
            lease_change: held.then_some(LeaseChange::Release {
                mac: self.client.mac,
                address: Some(self.request().ciaddr),
                at: self.now,
            }),
            ..Verdict::silence(Because::Noted)
        }
    }

    /// The address rests, if it is one that the sender was just given: nobody takes another's
    /// from it. A reserved one is told to the operator and stays the host's, and one machine's
    /// word goes for a few addresses at a time.
    pub(super) fn decline(&self, network: &Network) -> Verdict {
        if let Some(server) = self.other_server(network) {
            return Verdict::silence(Because::OtherServer(server));
        }
        let (mac, declined) = (self.client.mac, self.request().requested_address());
        let reserved = self.host.is_some_and(|host| Some(*host.ip) == declined);
        let rests = declined.filter(|address| !reserved && self.holds(*address));
        let Some(address) = rests else {
            return Verdict::silence(Because::Noted);
        };
        if !self.world.leases.may_decline(mac) {
            return Verdict::silence(Because::DeclinesMany(address));
        }
        let may_rest = |pool| self.world.leases.may_rest(address, pool);
        if !network.pool.is_none_or(may_rest) {
            return Verdict::silence(Because::HalfRests(address));
        }
        let until = self.now.saturating_add(DECLINE_REST);
        Verdict {
            lease_change: Some(LeaseChange::Decline {
                mac,
                address,
                found: false,
                until: until.unwrap_or(Timestamp::MAX),
            }),
            ..Verdict::silence(Because::Noted)
        }
    }
}
