//! Hosts that the next machines become, whichever those are: in their order, without those whose machine lives.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Because, Evidence, Life, Taken, hindrance};
use crate::inventory::model::{Host, Inventory, MacAddr, UnknownPolicy};

/// Those of each network, by rack, unit and name: what waits for any machine.
#[derive(Debug, Default)]
pub struct FreeHosts(HashMap<String, Vec<Arc<Host>>>);

impl FreeHosts {
    /// Of an inventory. All its hosts are looked at; so once for each inventory.
    pub fn of(inventory: &Inventory) -> Self {
        let mut networks: HashMap<String, Vec<Arc<Host>>> = HashMap::new();
        for host in inventory.hosts.values().filter(|host| is_free(host)) {
            let of_network = networks.entry(host.network.name.clone()).or_default();
            of_network.push(host.clone());
        }
        for hosts in networks.values_mut() {
            hosts.sort_by(|a, b| before(a, b));
        }
        Self(networks)
    }

    /// What decides of each network: the first of all, and the first whose machine does not live. For those who ask for
    /// thousands of machines at one time.
    #[must_use]
    pub fn narrowed(&self, life: impl Fn(&Host) -> Life, now: Timestamp) -> Self {
        let nobody = MacAddr([0; 6]);
        let lives = |host: &Arc<Host>| {
            let because = hindrance(host, nobody, &Evidence::NextFree, life(host), now);
            because.is_some_and(|because| !matches!(because, Because::Unasked(_)))
        };
        let narrowed = |(network, hosts): (&String, &Vec<Arc<Host>>)| {
            let living = hosts.iter().take_while(|host| lives(host)).count();
            let first = hosts.iter().take(living.min(1));
            let decides = first.chain(hosts.get(living)).cloned();
            (network.clone(), decides.collect())
        };
        Self(self.0.iter().map(narrowed).collect())
    }

    /// Those of a network.
    pub fn on(&self, network: &str) -> &[Arc<Host>] {
        self.0.get(network).map_or(&[], Vec::as_slice)
    }

    /// The first whose machine does not live, and that nobody takes.
    pub(super) fn next(
        &self,
        network: &str,
        taken: &Taken,
        mac: MacAddr,
        life: impl Fn(&Host) -> Life,
        now: Timestamp,
    ) -> Result<(&Arc<Host>, Evidence), Because> {
        let mut first = None;
        let left = |host: &&Arc<Host>| !taken.contains(&host.name);
        for host in self.on(network).iter().filter(left) {
            match hindrance(host, mac, &Evidence::NextFree, life(host), now) {
                // It is asked first.
                None | Some(Because::Unasked(_)) => return Ok((host, Evidence::NextFree)),
                Some(because) => first.get_or_insert(because),
            };
        }
        Err(first.unwrap_or_else(|| Because::NoFreeHost(network.to_owned())))
    }
}

/// The host that the next machine of a network becomes.
pub fn free_host<'a>(inventory: &'a Inventory, network: &str) -> Option<&'a Arc<Host>> {
    let hosts = inventory.hosts.values();
    let free = hosts.filter(|host| host.network.name == network && is_free(host));
    free.min_by(|a, b| before(a, b))
}

/// Whether it has neither MAC, nor serial number, nor port.
fn is_free(host: &Host) -> bool {
    host.waits_for_hardware() && host.is_filled_by(UnknownPolicy::NextFree)
}

/// By rack, unit and name; what has no place comes last.
fn before(a: &Host, b: &Host) -> Ordering {
    let racks = match (&a.rack, &b.rack) {
        (Some(a), Some(b)) => natural(a, b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    };
    let units = || (a.unit.is_none(), a.unit).cmp(&(b.unit.is_none(), b.unit));
    racks
        .then_with(units)
        .then_with(|| natural(&a.name, &b.name))
}

/// `r2` comes before `r10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let ((first, rest_of_a), (second, rest_of_b)) = match (piece(a), piece(b)) {
            (Some(a), Some(b)) => (a, b),
            (a, b) => return a.is_some().cmp(&b.is_some()),
        };
        if first != second {
            return first.cmp(&second);
        }
        (a, b) = (rest_of_a, rest_of_b);
    }
}

/// A number, or the letter in front, and the rest.
fn piece(text: &[u8]) -> Option<((u64, u8), &[u8])> {
    let (first, rest) = text.split_first()?;
    if !first.is_ascii_digit() {
        return Some(((0, *first), rest));
    }
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let (number, length) = digits.fold((0_u64, 0), |(number, length), digit| {
        let number = number.saturating_mul(10);
        (number.saturating_add(u64::from(digit - b'0')), length + 1)
    });
    Some(((number, b'0'), text.get(length..)?))
}
