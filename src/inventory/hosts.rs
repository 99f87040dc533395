//! Hosts: no two share a name, a MAC or an address, and each address is one it can have.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::faults::Faults;
use super::firmware;
use super::hardware::{PlugKey, serial_key};
use super::hostlist::{self, Seed};
use super::layers::Layer;
use super::menu_settings::Base;
use super::model::{Home, Host, MacAddr, Network, Plug, Profile, Sourced, UnknownPolicy};
use super::networks::{Networks, Placed, unusable};
use super::nics::{self, Named};
use super::profiles::{Profiles, Resolved, keys};
use super::suggest::quote;
use super::taken::Taken;
use super::tree::At;
use super::written::WrittenHost;
use crate::diagnostic::Diagnostic;

/// The hosts, by name and by MAC.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    pub(super) by_name: BTreeMap<String, Arc<Host>>,
    pub(super) by_mac: HashMap<MacAddr, Arc<Host>>,
    pub(super) by_nic: HashMap<MacAddr, Arc<Host>>,
    pub(super) by_serial: HashMap<String, Arc<Host>>,
    pub(super) by_plug: HashMap<PlugKey, Arc<Host>>,
    pub(super) written: BTreeMap<String, Layer>,
}

impl Hosts {
    /// Hosts without a MAC that no machine becomes by itself, once for each entry.
    pub(super) fn warn_unfilled(&self, written: &[WrittenHost], faults: &mut Faults) {
        let mut unfilled: HashMap<&str, &Host> = HashMap::new();
        for host in self.by_name.values() {
            let policy = host.network.unknown.policy;
            // Somebody says there which machine it is.
            if policy == UnknownPolicy::Approve {
                continue;
            }
            if host.waits_for_hardware() && !host.is_filled_by(policy) {
                unfilled.entry(&host.key).or_insert(host);
            }
        }
        for entry in written {
            let Some(host) = unfilled.get(&*entry.key) else {
                continue;
            };
            let network = &host.network;
            let policy = network.unknown.policy;
            let has = match (&host.serial, &host.plug) {
                (None, None) => "no `mac`, `serial` or `port`",
                _ => "no `mac`",
            };
            let message = format!(
                "no machine becomes {} by itself: it has {has}, and the policy of network {} is `{policy}`",
                host.name, network.name
            );
            let warning = Diagnostic::warning("inventory::no_hardware", message)
                .with_label(faults.primary(entry.span, ""))
                .with_help(filled_by(host));
            faults.push(warning);
        }
    }
}

/// What would make a machine the host.
fn filled_by(host: &Host) -> String {
    let policy = match (&host.serial, &host.plug) {
        (Some(_), _) => "by-serial",
        (None, Some(_)) => "by-port",
        (None, None) => "next-free",
    };
    let network = &host.network.name;
    let name = &host.name;
    format!(
        "add its `mac`, approve a machine that waits (`bridgehead discover approve MAC --name {name}`), or say `unknown: {{policy: {policy}}}` in network {network}"
    )
}

/// Who has taken what so far.
struct Check<'w> {
    networks: &'w Networks,
    profiles: &'w Profiles,
    taken: Taken,
    /// Profiles whose missing keys are reported, so that 10,000 hosts don't repeat it.
    incomplete: HashSet<String>,
    hosts: Hosts,
}

/// Checks and builds all hosts, in the order of the file.
pub(super) fn build(
    written: &[WrittenHost],
    networks: &Networks,
    profiles: &Profiles,
    faults: &mut Faults,
) -> Hosts {
    let mut check = Check {
        networks,
        profiles,
        taken: Taken::default(),
        incomplete: HashSet::new(),
        hosts: Hosts::default(),
    };
    for host in written {
        check.entry(host, faults);
    }
    check.hosts
}

impl Check<'_> {
    fn entry(&mut self, written: &WrittenHost, faults: &mut Faults) {
        let profile = self.profile(written, faults);
        if let Some(profile) = &profile {
            nics::check(written, profile, faults);
            for offered in profile.offered() {
                nics::check_offered(written, profile, offered, faults);
            }
        }
        for seed in hostlist::expand(written, faults) {
            self.host(written, seed, profile.as_ref(), faults);
        }
    }

    fn host(
        &mut self,
        written: &WrittenHost,
        seed: Seed,
        profile: Option<&Arc<Profile>>,
        faults: &mut Faults,
    ) {
        if !self.taken.name(&seed.name, written.span, faults) {
            return;
        }
        for mac in seed.macs.iter().chain(seed.nics.iter().map(|(_, mac)| mac)) {
            self.taken.mac(&seed.name, *mac, faults);
        }
        self.taken.hardware(&seed, faults);
        self.taken.slot(&seed, faults);
        let network = seed.ip.and_then(|ip| self.take_ip(&seed.name, ip, faults));
        let bridge = profile.map_or("", |profile| &profile.bridge.name);
        let home = self.take_addresses(&seed, bridge, faults);
        if let (Some(network), Some(profile)) = (network, profile) {
            self.keep(written, seed, (network, home), profile.clone(), faults);
        }
    }

    fn keep(
        &mut self,
        written: &WrittenHost,
        seed: Seed,
        (network, home): (Arc<Network>, Option<Home>),
        profile: Arc<Profile>,
        faults: &Faults,
    ) {
        let layer = &written.layer;
        let sourced_mac = |at| faults.sourced(at, layer);
        let macs: Vec<Sourced<MacAddr>> = seed.macs.into_iter().map(sourced_mac).collect();
        let Some(ip) = seed.ip else {
            return;
        };
        let plug = seed.plug.map(|(switch, port)| {
            Plug::new(faults.sourced(switch, layer), faults.sourced(port, layer))
        });
        let Some(home) = home.or_else(|| home_at(ip.value, &network)) else {
            return;
        };
        let host = Arc::new(Host {
            name: seed.name,
            key: written.key.clone(),
            serial: seed.serial.map(|at| faults.sourced(at, layer)),
            plug,
            ip: faults.sourced(ip, layer),
            network,
            home,
            nics: by_name(seed.nics, layer, faults),
            addresses: by_name(seed.addresses, layer, faults),
            profile,
            loaders: firmware::sourced(&written.loaders, layer, faults),
            rack: seed.rack,
            unit: seed.unit.map(|at| at.value),
            origin: faults.origin(written.span, &written.layer),
            macs,
        });
        for mac in &host.macs {
            self.hosts.by_mac.insert(mac.value, host.clone());
        }
        for mac in host.nics.values() {
            self.hosts.by_nic.insert(mac.value, host.clone());
        }
        if let Some(key) = host.serial.as_ref().and_then(|serial| serial_key(serial)) {
            self.hosts.by_serial.insert(key, host.clone());
        }
        if let Some(plug) = &host.plug {
            self.hosts.by_plug.insert(plug.key.clone(), host.clone());
        }
        let written = written.written.clone();
        self.hosts.written.insert(host.name.clone(), written);
        self.hosts.by_name.insert(host.name.clone(), host);
    }

    fn take_ip(
        &mut self,
        name: &str,
        ip: At<Ipv4Addr>,
        faults: &mut Faults,
    ) -> Option<Arc<Network>> {
        self.taken.address(name, ip, faults);
        let Some(placed) = self.networks.of(ip.value) else {
            self.report_outside(name, ip, faults);
            return None;
        };
        check_ip(name, ip, placed, faults);
        Some(placed.network.clone())
    }

    /// Checks all static addresses; that of the boot bridge is where the host lives.
    fn take_addresses(&mut self, seed: &Seed, bridge: &str, faults: &mut Faults) -> Option<Home> {
        let mut home = None;
        for (name, at) in &seed.addresses {
            let (value, span) = (at.value.addr(), at.span);
            let ip = At { value, span };
            self.taken.address(&seed.name, ip, faults);
            let Some(placed) = self.networks.of(value) else {
                if name.value == bridge {
                    self.report_outside(&seed.name, ip, faults);
                }
                continue;
            };
            check_ip(&seed.name, ip, placed, faults);
            nics::check_prefix(*at, &placed.network, faults);
            if name.value == bridge {
                let boot = seed.ip.and_then(|ip| self.networks.of(ip.value));
                if boot.is_none_or(|boot| boot.network.name != placed.network.name) {
                    nics::check_way(name, &placed.network, span, faults);
                }
                let (address, network) = (at.value, placed.network.clone());
                home = Some(Home { address, network });
            }
        }
        home
    }

    fn report_outside(&self, name: &str, ip: At<Ipv4Addr>, faults: &mut Faults) {
        // The subnet it lies in may be the one that could not be read.
        if self.networks.incomplete {
            return;
        }
        let networks = self.networks.by_name.values();
        let known: Vec<_> = networks
            .take(6)
            .map(|network| format!("{} {}", network.name, network.subnet))
            .collect();
        let message = format!("{name}'s address {} lies in no network", ip.value);
        let help = match known.is_empty() {
            true => String::from("add its network to `networks:`"),
            false => format!("known here: {}", known.join(", ")),
        };
        faults.error("inventory::address_outside", ip.span, message, "", help);
    }

    fn profile(&mut self, written: &WrittenHost, faults: &mut Faults) -> Option<Arc<Profile>> {
        let name = written.profile.as_ref()?;
        let Some(resolved) = self.profiles.get(&name.value) else {
            if !faults.is_full() {
                let message = format!(
                    "{} wants the profile {}, which is not defined",
                    written.layer,
                    quote(&name.value)
                );
                let help = self.profiles.help_for(&name.value);
                faults.error("inventory::unknown_profile", name.span, message, "", help);
            }
            return None;
        };
        if written.settings.is_empty() && resolved.complete.is_some() {
            return resolved.complete.clone();
        }
        let settings = written.settings.over(&resolved.settings);
        let mut profile = settings.profile(&name.value, &resolved.extends);
        if let Some(profile) = &mut profile {
            settings.report_stack(faults);
            let base = Base {
                settings: &settings,
                host: Some(&written.settings),
                name: &name.value,
                extends: &resolved.extends,
            };
            profile.menu = base.menu(self.profiles, faults);
        }
        if profile.is_none() && !settings.broken && self.incomplete.insert(name.value.clone()) {
            report_incomplete(name, resolved, &settings.missing(), faults);
        }
        profile.map(Arc::new)
    }
}

fn home_at(ip: Ipv4Addr, network: &Arc<Network>) -> Option<Home> {
    let address = Ipv4Net::new(ip, network.subnet.prefix_len()).ok()?;
    let network = network.clone();
    Some(Home { address, network })
}

fn by_name<T>(named: Named<T>, layer: &Arc<str>, faults: &Faults) -> BTreeMap<String, Sourced<T>> {
    let named = named.into_iter();
    named
        .map(|(name, at)| (name.value, faults.sourced(at, layer)))
        .collect()
}

fn report_incomplete(
    name: &At<String>,
    resolved: &Resolved,
    missing: &[&str],
    faults: &mut Faults,
) {
    let missing = keys(missing);
    let message = format!(
        "profile {} has no {missing}, and nothing boots without",
        name.value
    );
    let fault = Diagnostic::error("inventory::incomplete_profile", message)
        .with_label(faults.primary(name.span, "first needed here"))
        .with_label(faults.context(resolved.span, "defined here"))
        .with_help("add it to the profile, or to one that it extends");
    faults.push(fault);
}

/// In its subnet, but not an address that is spoken for.
fn check_ip(name: &str, ip: At<Ipv4Addr>, placed: &Placed, faults: &mut Faults) {
    let network = &placed.network;
    if let Some(why) = unusable(network.subnet, ip.value) {
        let message = format!("{name}'s address {} {why}", ip.value);
        let help = "write another address of the subnet";
        faults.error("inventory::bad_address", ip.span, message, "", help);
    }
    if let Some((whose, at)) = placed.taken.iter().find(|(_, at)| at.value == ip.value) {
        let message = format!("{name}'s address {} is that of {whose}", ip.value);
        let fault = Diagnostic::error("inventory::bad_address", message)
            .with_label(faults.primary(ip.span, ""))
            .with_label(faults.context(at.span, format!("{whose} of network {}", network.name)))
            .with_help("write another address of the subnet");
        faults.push(fault);
    }
    if let (Some(pool), Some(span)) = (network.pool, placed.pool)
        && pool.contains(ip.value)
    {
        let message = format!("{name}'s address {} lies inside the pool", ip.value);
        let fault = Diagnostic::error("inventory::address_in_pool", message)
            .with_label(faults.primary(ip.span, ""))
            .with_label(faults.context(span, "the pool is for machines that are not listed"))
            .with_help("move the address, or make the pool smaller");
        faults.push(fault);
    }
}
