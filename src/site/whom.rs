//! Who is meant by what an operator types: a host's name in either case, or a MAC in any usual spelling.

use std::sync::Arc;

use crate::inventory::model::{Host, Inventory, MacAddr};
use crate::inventory::suggest::nearest_of_all;
use crate::policy::event::MachineId;

/// A machine that is meant.
#[derive(Debug, Clone)]
pub enum Whom {
    /// A listed host.
    Host(Arc<Host>),
    /// A MAC that is not listed.
    Stranger(MacAddr),
}

impl Whom {
    /// Who is meant, if anybody can be.
    pub fn of(inventory: &Inventory, text: &str) -> Option<Self> {
        if let Some(host) = by_name(inventory, text) {
            return Some(Self::Host(host.clone()));
        }
        let mac = mac_of(text)?;
        let host = inventory.by_mac.get(&mac);
        Some(host.map_or(Self::Stranger(mac), |host| Self::Host(host.clone())))
    }

    /// The name that events and `status` give it.
    pub fn id(&self) -> MachineId {
        match self {
            Self::Host(host) => MachineId(host.name.clone()),
            Self::Stranger(mac) => MachineId::unlisted(*mac),
        }
    }
}

fn by_name<'i>(inventory: &'i Inventory, text: &str) -> Option<&'i Arc<Host>> {
    let hosts = &inventory.hosts;
    let alike = || {
        let mut alike = hosts.values();
        alike.find(|host| host.name.eq_ignore_ascii_case(text))
    };
    hosts.get(text).or_else(alike)
}

/// `52:54:00:00:00:01`, `52-54-…`, `5254.0000.0001` (switches), `525400000001`, `mac-525400000001` (`status`),
/// `01-52-54-…` (BOOTIF): any of them in either case.
pub fn mac_of(text: &str) -> Option<MacAddr> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_prefix("mac-").unwrap_or(&lower);
    let bare = match bare.len() == "01-52-54-00-00-00-01".len() {
        true => bare.strip_prefix("01-").unwrap_or(bare),
        false => bare,
    };
    let groups: Vec<&str> = bare.split([':', '-', '.']).collect();
    let regular = matches!(groups.len(), 1 | 3 | 6);
    let even = groups.iter().all(|group| group.len() == 12 / groups.len());
    if !regular || !even {
        return None;
    }
    MachineId(format!("mac-{}", groups.concat())).unlisted_mac()
}

/// That a name is of something else in the inventory.
pub fn no_host(inventory: &Inventory, text: &str) -> Option<String> {
    let mut racks = inventory
        .hosts
        .values()
        .filter_map(|host| host.rack.as_deref());
    if racks.any(|rack| rack == text) {
        return Some(format!(
            "{text} is a rack, and no host: `bridgehead status --rack {text}` shows its hosts"
        ));
    }
    if inventory.profiles.contains_key(text) {
        return Some(format!(
            "{text} is a profile, and no host: `bridgehead hosts list --profile {text}` lists its hosts"
        ));
    }
    let network = inventory.networks.contains_key(text);
    network.then(|| {
        format!("{text} is a network, and no host: `bridgehead hosts list` lists the hosts")
    })
}

/// That nobody of this name is listed, and who or what may be meant.
pub fn nobody(inventory: &Inventory, text: &str) -> String {
    if let Some(what) = no_host(inventory, text) {
        return what;
    }
    let names = inventory.hosts.keys().map(String::as_str);
    let near = nearest_of_all(text, names).map(|near| format!("did you mean `{near}`? "));
    format!(
        "{text} is neither listed nor was it ever seen; {}`bridgehead status` shows who is",
        near.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        let text = r#"
networks: {boot: {subnet: 10.77.0.0/24}}
profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: "/roots/kvm"}}}
hosts:
  kvm07: {mac: "52:54:00:00:0a:07", ip: 10.77.0.17, profile: kvm, rack: r1}
"#;
        crate::inventory::parse("hosts.yaml", text).unwrap().0
    }

    #[test]
    fn a_host_goes_by_its_name_and_by_its_mac_however_they_are_written() {
        let inventory = inventory();
        let named = |text: &str| Whom::of(&inventory, text).map(|whom| whom.id().0);
        for text in [
            "kvm07",
            "KVM07",
            "52:54:00:00:0a:07",
            "52:54:00:00:0A:07",
            "52-54-00-00-0A-07",
            "5254.0000.0a07",
            "525400000A07",
            "mac-525400000a07",
            "01-52-54-00-00-0a-07",
        ] {
            assert_eq!(named(text).as_deref(), Some("kvm07"), "{text}");
        }
        let stranger = Some("mac-525400000a08".to_owned());
        assert_eq!(named("5254:0000:0A08"), stranger);
        for text in [
            "",
            "kvm7",
            "52:54:00:00:0a",
            "5254000000a07",
            "zz:54:00:00:0a:07",
            "r1",
        ] {
            assert_eq!(named(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_said_to_be_what_it_is() {
        let inventory = inventory();
        let said = |text: &str| nobody(&inventory, text);
        assert_eq!(
            said("kvm7"),
            "kvm7 is neither listed nor was it ever seen; did you mean `kvm07`? `bridgehead status` shows who is"
        );
        assert!(said("r1").contains("is a rack, and no host: `bridgehead status --rack r1`"));
        assert!(said("kvm").contains("is a profile, and no host"));
        assert!(said("boot").contains("is a network, and no host"));
    }
}
