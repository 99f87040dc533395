//! Whether the image drives the NICs that hosts are known to have.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::Catalog;
use super::closure::Closure;
use super::error::Warning;
use super::names::matches;
use crate::inventory::PciId;

/// NICs and the hosts that have them.
pub type Nics = BTreeMap<PciId, Vec<String>>;

/// A warning for each NIC that nothing in the image drives.
pub(crate) fn undriven(catalog: &Catalog, closure: &Closure, nics: &Nics) -> Vec<Warning> {
    let lacking = nics.iter().filter_map(|(id, hosts)| {
        let drivers = drivers(catalog, *id);
        let in_image =
            |name: &&String| closure.modules.contains_key(*name) || catalog.builtin.contains(*name);
        if drivers.iter().any(|name| in_image(&name)) {
            return None;
        }
        Some(Warning::UndrivenNic {
            id: *id,
            hosts: hosts.clone(),
            drivers: drivers.into_iter().collect(),
            release: catalog.release.clone(),
        })
    });
    lacking.collect()
}

/// Modules and built-in drivers whose aliases name the device (kernel, `file2alias.c`,
/// `do_pci_entry`), whatever subsystem ids they want beside it.
fn drivers(catalog: &Catalog, id: PciId) -> BTreeSet<String> {
    let device = format!("pci:v{:08X}d{:08X}", id.vendor, id.device);
    // An Ethernet controller: a driver may take every device of that class.
    let controller = format!("{device}sv00000000sd00000000bc02sc00i00");
    let aliases = catalog.aliases.iter();
    let fitting =
        aliases.filter(|(alias, _)| alias.starts_with(&device) || matches(alias, &controller));
    let known =
        |name: &&String| catalog.modules.contains_key(*name) || catalog.builtin.contains(*name);
    let names = fitting.map(|(_, module)| module).filter(known);
    names.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lab;
    use super::*;

    fn warnings(lab: &Lab, id: &str) -> Vec<String> {
        let catalog = Catalog::read(&lab.kernel_dir(), &[]).unwrap();
        let closure = lab.close(&catalog).unwrap();
        let hosts = (1..=5).map(|n| format!("kvm{n:02}")).collect();
        let nics = Nics::from([(id.parse().unwrap(), hosts)]);
        let found = undriven(&catalog, &closure, &nics);
        found.iter().map(ToString::to_string).collect()
    }

    fn lab() -> Lab {
        let lab = Lab::new();
        lab.module("kernel/igb.ko", &[], &[]);
        lab.module("kernel/i40e.ko", &[], &[]);
        lab.list("igb\n");
        lab.append("modules.builtin", "kernel/drivers/tg3.ko");
        let alias = |id: &str, rest: &str, module: &str| {
            lab.append(
                "modules.alias",
                &format!("alias pci:v0000{id}{rest} {module}"),
            );
        };
        alias("8086d00001521", "sv*sd*bc*sc*i*", "igb");
        alias("8086d00001572", "sv*sd*bc*sc*i*", "i40e");
        alias("8086d0000158A", "sv00001028sd00000001bc*sc*i*", "i40e");
        alias("1AF4d*", "sv*sd*bc02sc00i*", "igb");
        lab.write(
            "kernel/modules/modules.builtin.modinfo",
            "tg3.alias=pci:v000014E4d00001657sv*sd*bc*sc*i*\0",
        );
        lab
    }

    #[test]
    fn a_driver_in_the_image_or_the_kernel_is_enough() {
        for id in ["8086:1521", "14e4:1657", "1af4:1000"] {
            assert_eq!(warnings(&lab(), id), [""; 0], "{id}");
        }
    }

    #[test]
    fn the_module_that_would_drive_it_and_the_hosts_are_named() {
        assert_eq!(
            warnings(&lab(), "8086:1572"),
            [
                "no module in the image drives the NIC 8086:1572 of kvm01, kvm02, kvm03 and 2 more; the kernel's `i40e` would: add a line `i40e` to a modules list"
            ]
        );
        assert!(warnings(&lab(), "8086:158a")[0].contains("`i40e` would"));
    }

    #[test]
    fn a_nic_that_the_kernel_does_not_know_is_told_apart() {
        assert_eq!(
            warnings(&lab(), "abcd:0001"),
            [
                "no module in the image drives the NIC abcd:0001 of kvm01, kvm02, kvm03 and 2 more, and kernel 6.1.0-test has none that would; take a kernel with its driver, or give an out-of-tree one with --modules"
            ]
        );
    }
}
