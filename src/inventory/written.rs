//! The inventory as written: every value typed and in its place, nothing yet compared with
//! anything else.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::each::{self, Each};
use super::faults::Faults;
use super::fields::Fields;
use super::firmware;
use super::hostlist::{self, Pattern};
use super::layers::{self, Layer};
use super::model::{AddressRange, DhcpMode, MacAddr, Server};
use super::nics::{self, Named};
use super::scalars::Bad;
use super::settings::Settings;
use super::tree::{At, Entry, FileId, Node, Scalar, Span};
use super::{dhcp_options, fields, hardware, names, scalars, server, unknown};

const DHCP_MODES: &[(&str, DhcpMode)] = &[
    ("server", DhcpMode::Server),
    ("proxy", DhcpMode::Proxy),
    ("off", DhcpMode::Off),
];
/// How it is seen whether an address of a pool is free.
const PROBES: &[(&str, bool)] = &[("arp", true), ("off", false)];

/// An hour: a machine that is held asks again long before, and an address is free soon.
const DEFAULT_LEASE: Duration = Duration::from_secs(3600);
const LEASE_BOUNDS: std::ops::RangeInclusive<u64> = 10..=365 * 86_400;

/// The whole file.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) site: String,
    pub(super) server: Server,
    pub(super) networks: Vec<WrittenNetwork>,
    pub(super) profiles: Vec<WrittenProfile>,
    pub(super) hosts: Vec<WrittenHost>,
    pub(super) unknown: unknown::Written,
    pub(super) secrets: Option<At<String>>,
    /// What of it stands outside the sections.
    pub(super) top: Layer,
}

/// One entry of `networks:`.
#[derive(Debug)]
pub(super) struct WrittenNetwork {
    pub(super) name: At<String>,
    pub(super) subnet: Option<At<Ipv4Net>>,
    pub(super) router: Option<At<Ipv4Addr>>,
    pub(super) server: Option<At<Ipv4Addr>>,
    pub(super) dns: Vec<At<Ipv4Addr>>,
    pub(super) domain: Option<At<String>>,
    pub(super) ntp: Vec<At<Ipv4Addr>>,
    pub(super) mtu: Option<At<u16>>,
    pub(super) dhcp: Option<At<DhcpMode>>,
    pub(super) pool: Option<At<AddressRange>>,
    pub(super) probe: bool,
    pub(super) lease_time: Duration,
    pub(super) dhcp_options: dhcp_options::Written,
    pub(super) loaders: firmware::Written,
    pub(super) unknown: unknown::Written,
    pub(super) layer: Arc<str>,
    pub(super) written: Layer,
}

/// One entry of `profiles:`.
#[derive(Debug)]
pub(super) struct WrittenProfile {
    pub(super) name: At<String>,
    pub(super) extends: Option<At<String>>,
    pub(super) settings: Settings,
    pub(super) written: Layer,
}

/// One entry of `hosts:`, a single host or a range.
#[derive(Debug)]
pub(super) struct WrittenHost {
    pub(super) pattern: Pattern,
    pub(super) key: Arc<str>,
    pub(super) span: Span,
    pub(super) layer: Arc<str>,
    pub(super) macs: Each<MacAddr>,
    pub(super) serials: Each<String>,
    pub(super) switch: Option<At<String>>,
    pub(super) port: Option<At<String>>,
    pub(super) ip: Option<At<Ipv4Addr>>,
    pub(super) nics: Named<MacAddr>,
    pub(super) addresses: Named<Ipv4Net>,
    pub(super) profile: Option<At<String>>,
    pub(super) loaders: firmware::Written,
    pub(super) rack: Option<At<String>>,
    pub(super) unit: Option<At<u16>>,
    pub(super) settings: Settings,
    pub(super) written: Layer,
}

/// Reads the whole tree; what is wrong in a duplicate is reported, the duplicate itself dropped.
pub(super) fn read(root: &Node<'_>, faults: &mut Faults) -> Written {
    let start = Span::new(FileId::default(), 1, 1, 1);
    let mut top = Fields::new(root, start, Arc::from(fields::TOP), faults);
    let written = Written {
        site: top
            .get("site", faults, scalars::text)
            .map_or_else(|| String::from("bridgehead"), |at| at.value),
        server: server::read(&mut top, faults),
        networks: section(&mut top, "networks", faults, read_network),
        profiles: section(&mut top, "profiles", faults, read_profile),
        hosts: section(&mut top, "hosts", faults, read_host),
        unknown: unknown::read(&mut top, faults),
        secrets: top.get("secrets", faults, scalars::text),
        top: layers::top(root, faults),
    };
    // Followed before anything was read; what is no text is told now.
    top.list("include", faults, scalars::text);
    top.require("networks", "{boot: {subnet: 10.77.0.0/24}}", faults);
    top.finish(faults);
    written
}

/// A map whose keys are names. Nothing below the key is an empty map: all may be commented out.
fn section<T>(
    top: &mut Fields<'_, '_>,
    key: &'static str,
    faults: &mut Faults,
    read: fn(&Entry<'_>, &mut Faults) -> Option<T>,
) -> Vec<T> {
    let Some(place) = top.key_span(key) else {
        top.node(key);
        return Vec::new();
    };
    let Some(node) = top.node(key) else {
        return Vec::new();
    };
    let fields = Fields::new(node, place, Arc::from(key), faults);
    let read = |entry: &Entry<'_>| read(entry, faults).filter(|_| !entry.duplicate);
    fields.entries().iter().filter_map(read).collect()
}

/// The name an entry has as its key; a bad one is reported and taken as it stands.
fn name(
    entry: &Entry<'_>,
    kind: &str,
    faults: &mut Faults,
    read: impl Fn(&Scalar<'_>) -> Result<String, Bad>,
) -> At<String> {
    let span = entry.key_span;
    let value = read(&entry.key).unwrap_or_else(|bad| {
        bad.report(span, kind, faults);
        entry.key.text.to_string()
    });
    At { value, span }
}

fn fields_of<'t, 'i>(entry: &'t Entry<'i>, kind: &str, faults: &mut Faults) -> Fields<'t, 'i> {
    let shown = super::suggest::quote(&entry.key.text);
    let layer = format!("{kind} {}", shown.trim_matches('`'));
    Fields::new(&entry.node, entry.key_span, Arc::from(layer), faults)
}

fn read_network(entry: &Entry<'_>, faults: &mut Faults) -> Option<WrittenNetwork> {
    let name = name(entry, "networks", faults, names::key_name);
    let mut fields = fields_of(entry, "network", faults);
    let dhcp = scalars::one_of("a DHCP mode", "inventory::unknown_dhcp_mode", DHCP_MODES);
    let mtu = scalars::number("an MTU", 1280..=9216);
    let probe = scalars::one_of(
        "a way to probe addresses",
        "inventory::unknown_probe",
        PROBES,
    );
    let network = WrittenNetwork {
        name,
        subnet: fields.get("subnet", faults, scalars::subnet),
        router: fields.get("router", faults, scalars::ipv4),
        server: fields.get("server", faults, scalars::ipv4),
        dns: fields.list("dns", faults, scalars::ipv4),
        domain: fields.get("domain", faults, names::domain),
        ntp: fields.list("ntp", faults, scalars::ipv4),
        mtu: fields.get("mtu", faults, mtu),
        dhcp: fields.get("dhcp", faults, dhcp),
        pool: fields.get("pool", faults, scalars::address_range),
        probe: fields.get("probe", faults, probe).is_none_or(|at| at.value),
        lease_time: fields
            .get("lease_time", faults, lease_time)
            .map_or(DEFAULT_LEASE, |at| at.value),
        dhcp_options: dhcp_options::read(&mut fields, faults),
        loaders: firmware::read(&mut fields, faults),
        unknown: unknown::read(&mut fields, faults),
        layer: fields.layer().clone(),
        written: layers::layer(&fields, faults),
    };
    fields.require("subnet", "10.77.0.0/24", faults);
    fields.finish(faults);
    Some(network)
}

fn lease_time(scalar: &Scalar<'_>) -> Result<Duration, Bad> {
    let time = scalars::duration(scalar)?;
    if LEASE_BOUNDS.contains(&time.as_secs()) {
        return Ok(time);
    }
    Err(Bad::new(
        "inventory::bad_duration",
        format!("a lease of {} is not sensible", scalar.text),
        "write a duration from 10s to 365d",
    ))
}

fn read_profile(entry: &Entry<'_>, faults: &mut Faults) -> Option<WrittenProfile> {
    let name = name(entry, "profiles", faults, names::key_name);
    let mut fields = fields_of(entry, "profile", faults);
    let profile = WrittenProfile {
        name,
        extends: fields.get("extends", faults, names::key_name),
        settings: Settings::read(&mut fields, faults),
        written: layers::layer(&fields, faults),
    };
    fields.finish(faults);
    Some(profile)
}

fn read_host(entry: &Entry<'_>, faults: &mut Faults) -> Option<WrittenHost> {
    let mut fields = fields_of(entry, "host", faults);
    let unit = scalars::number("a rack unit", 1..=100);
    let host = WrittenHost {
        pattern: hostlist::pattern(entry, faults),
        key: Arc::from(&*entry.key.text),
        span: entry.key_span,
        layer: fields.layer().clone(),
        macs: Each::read(each::MAC, &mut fields, faults, scalars::mac),
        serials: Each::read(each::SERIAL, &mut fields, faults, hardware::serial),
        switch: fields.get("switch", faults, scalars::text),
        port: fields.get("port", faults, scalars::text),
        ip: fields.get("ip", faults, scalars::ipv4),
        nics: nics::read_nics(&mut fields, faults),
        addresses: nics::read_addresses(&mut fields, faults),
        profile: fields.get("profile", faults, names::key_name),
        loaders: firmware::read(&mut fields, faults),
        rack: fields.get("rack", faults, scalars::text),
        unit: fields.get("unit", faults, unit),
        settings: Settings::read(&mut fields, faults),
        written: layers::layer(&fields, faults),
    };
    // Neither says anything without the other.
    if fields.has("port") {
        fields.require("switch", "sw-r1", faults);
    }
    if fields.has("switch") {
        fields.require("port", "Gi1/0/3", faults);
    }
    fields.require("ip", "10.77.0.11", faults);
    fields.require("profile", "kvm-host", faults);
    fields.finish(faults);
    Some(host)
}
