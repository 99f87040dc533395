//! Every config rendered before anybody asks for it.

use std::collections::HashMap;
use std::sync::Arc;

use super::boot::{BootRequest, HOLD_S, STAND_IN};
use super::{inventory_boot, menu};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::inventory::model::{Host, Inventory, Profile};
use crate::policy::event::AttemptId;
use crate::render::{ConfigKind, HoldContext, RenderError, ServerContext, Templates};

/// Renders every config of every host as if it asked now, and returns what went wrong.
///
/// One host per profile is enough, the one with the longest words: hosts of a profile differ in
/// names, addresses and MACs alone.
pub fn rehearse(inventory: &Inventory, templates: &Templates) -> Vec<RenderError> {
    let mut longest: HashMap<*const Profile, &Arc<Host>> = HashMap::new();
    for host in inventory.hosts.values() {
        let entry = longest.entry(Arc::as_ptr(&host.profile)).or_insert(host);
        if own_bytes(host) > own_bytes(entry) {
            *entry = host;
        }
    }
    let mut hosts: Vec<_> = longest.into_values().collect();
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    let (attempt, token) = (AttemptId("0".repeat(32)), "0".repeat(32));
    let mut faults = Vec::new();
    for host in hosts {
        for kind in [ConfigKind::Ipxe, ConfigKind::Pxelinux, ConfigKind::Grub] {
            let request = BootRequest {
                kind,
                inventory,
                host,
                mac: host.first_mac().unwrap_or(STAND_IN),
                local: *host.ip,
                attempt: &attempt,
                token: &token,
            };
            faults.extend(templates.boot_config(kind, &request.context(host)).err());
            faults.extend(menu::rehearse(templates, &request));
        }
    }
    faults.extend(rehearse_hold(inventory, templates));
    faults.extend(inventory_boot::rehearse(inventory, templates));
    faults
}

/// The templates, if they could be had and all of them render for each profile: one that asks for what there is not is
/// found now, and not by the first host that boots.
pub(super) fn sound(
    templates: Result<Templates, Vec<RenderError>>,
    inventory: &Inventory,
    found: &mut Diagnostics,
) -> Option<Templates> {
    let templates = match templates {
        Ok(templates) => templates,
        Err(faults) => {
            found.extend(faults.iter().map(template_fault));
            return None;
        }
    };
    let mut said = Vec::new();
    for fault in rehearse(inventory, &templates) {
        let text = fault.to_string();
        if !said.contains(&text) {
            found.push(template_fault(&fault));
            said.push(text);
        }
    }
    Some(templates)
}

fn template_fault(fault: &RenderError) -> Diagnostic {
    if matches!(fault, RenderError::CmdlineTooLong { .. }) {
        return Diagnostic::error("template::cmdline_too_long", fault.to_string())
            .with_help("shorten `cmdline` of its profile, or give the bond fewer ports");
    }
    let cause = std::error::Error::source(fault).map(|cause| format!(": {cause}"));
    Diagnostic::error(
        "template::broken",
        format!("{fault}{}", cause.unwrap_or_default()),
    )
    .with_help("mend the template, or start without --templates to use those that are built in")
}

/// About how much of the command line is the host's own.
fn own_bytes(host: &Host) -> usize {
    let mac = "52:54:00:00:00:01,".len();
    host.name.len() + host.home.address.to_string().len() + host.macs.len() * mac
}

fn rehearse_hold(inventory: &Inventory, templates: &Templates) -> Vec<RenderError> {
    let context = HoldContext {
        site: inventory.site.clone(),
        mac: STAND_IN.to_string(),
        server: ServerContext {
            url: "http://192.0.2.1".into(),
            address: "192.0.2.1".into(),
        },
        hold_seconds: HOLD_S,
    };
    let kinds = [ConfigKind::Ipxe, ConfigKind::Pxelinux, ConfigKind::Grub];
    kinds
        .into_iter()
        .filter_map(|kind| templates.hold_config(kind, &context).err())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERFACES: &str = include_str!("../../tests/inventories/valid/interfaces.yaml");

    #[test]
    fn a_command_line_that_is_too_long_is_found_before_anyone_boots() {
        let (inventory, _) = crate::inventory::parse("interfaces.yaml", INTERFACES).unwrap();
        let templates = Templates::load(None).unwrap();
        assert!(rehearse(&inventory, &templates).is_empty());
        let long = INTERFACES.replace(
            "    kernel: debian\n",
            &format!(
                "    kernel: debian\n    cmdline: [\"a={}\"]\n",
                "x".repeat(1580)
            ),
        );
        let (inventory, _) = crate::inventory::parse("interfaces.yaml", &long).unwrap();
        let faults = rehearse(&inventory, &templates);
        // Only one of the profile with the bond: the lines of the others fit.
        assert!(
            faults
                .iter()
                .all(|fault| fault.to_string().contains("kvm01")),
            "{faults:?}"
        );
        assert_eq!(faults.len(), 3);
    }
}
