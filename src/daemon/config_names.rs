//! The names by which loaders look for their configs, the most telling first.
//!
//! PXELINUX asks for UUID, MAC, address in hexadecimal with ever fewer digits, `default`; GRUB's net search (2.04 and
//! newer, where its prefix is on TFTP) the same behind `grub.cfg-`, then `grub.cfg`. The distribution's signed GRUB
//! asks for `grub.cfg` alone. The first that a machine asks for is answered, so that it need not go on.

use std::net::Ipv4Addr;

use crate::inventory::model::MacAddr;
use crate::render::ConfigKind;

/// A config, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Config<'n> {
    pub(super) kind: ConfigKind,
    pub(super) of: Whose,
    /// Of the machine's menu.
    pub(super) entry: Option<&'n str>,
}

/// For which machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// `01-52-54-…`: hardware type and MAC.
    Mac(MacAddr),
    /// `0A4D000B`.
    Address(Ipv4Addr),
    /// A UUID says nothing: `hosts.yaml` has none, and some boards share theirs.
    Uuid,
    /// Whoever asks.
    Asker,
}

impl Whose {
    /// Whether the loader asks for another name where it does not get this one.
    pub(super) fn is_first_try(self) -> bool {
        matches!(self, Self::Uuid | Self::Address(_))
    }

    fn named(name: &str) -> Option<Self> {
        if let Some(mac) = name.strip_prefix("01-") {
            return mac.parse().ok().map(Self::Mac);
        }
        if is_uuid(name) {
            return Some(Self::Uuid);
        }
        let whole = name.len() == 8 && name.bytes().all(|b| b.is_ascii_hexdigit());
        let address = u32::from_str_radix(name, 16).ok().filter(|_| whole)?;
        Some(Self::Address(address.into()))
    }
}

impl<'n> Config<'n> {
    /// `None`: it is no config, or one by a name that we answer nothing to.
    pub(super) fn named(name: &'n str) -> Option<Self> {
        let config = |kind, of, entry| Some(Self { kind, of, entry });
        if let Some(rest) = name.strip_prefix("pxelinux.cfg/") {
            let (id, entry) = match rest.split_once('/') {
                Some((id, entry)) => (id, Some(entry)),
                None => (rest, None),
            };
            return config(ConfigKind::Pxelinux, Whose::named(id)?, entry);
        }
        // The prefix that the distribution's netboot GRUB has built in.
        let below = name.strip_prefix("grub/").unwrap_or(name);
        if let Some(rest) = below.strip_prefix("grub.cfg") {
            let of = match rest.strip_prefix('-') {
                Some(id) => Whose::named(id)?,
                None if rest.is_empty() => Whose::Asker,
                None => return None,
            };
            return config(ConfigKind::Grub, of, None);
        }
        let entry = name.strip_prefix("grub/menu/")?.strip_suffix(".cfg")?;
        config(ConfigKind::Grub, Whose::Asker, Some(entry))
    }
}

/// `8-4-4-4-12` hexadecimal digits.
fn is_uuid(name: &str) -> bool {
    let groups = [8, 4, 4, 4, 12];
    let mut parts = name.split('-');
    groups.iter().all(|&digits| {
        parts
            .next()
            .is_some_and(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit()))
    }) && parts.next().is_none()
}

/// What loaders look for in passing and do well without: GRUB lists of modules that are built in, shim revocations and
/// certificates of the site.
pub(super) fn is_optional(name: &str) -> bool {
    let of_grub = name.starts_with("grub/") && name.ends_with(".lst");
    let of_shim = name.strip_suffix(".efi").is_some_and(|name| {
        name.starts_with("revocations_") || name.starts_with("shim_certificate_")
    });
    of_grub || of_shim
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

    fn named(name: &str) -> Option<(ConfigKind, Whose, Option<&str>)> {
        Config::named(name).map(|config| (config.kind, config.of, config.entry))
    }

    #[test]
    fn each_name_of_a_loaders_search_is_known() {
        use ConfigKind::{Grub, Pxelinux};
        let address = Whose::Address(Ipv4Addr::new(10, 77, 0, 11));
        for (id, of) in [
            ("b8945908-d6a6-41a9-611d-74a6ab80b83d", Whose::Uuid),
            ("01-52-54-00-00-00-01", Whose::Mac(MAC)),
            ("0A4D000B", address),
        ] {
            let name = format!("pxelinux.cfg/{id}");
            assert_eq!(named(&name), Some((Pxelinux, of, None)));
            for prefix in ["grub/", ""] {
                let name = format!("{prefix}grub.cfg-{id}");
                assert_eq!(named(&name), Some((Grub, of, None)), "{name}");
            }
        }
        for name in ["grub/grub.cfg", "grub.cfg"] {
            assert_eq!(named(name), Some((Grub, Whose::Asker, None)));
        }
    }

    #[test]
    fn entries_of_menus_have_names_of_their_own() {
        let entry = Some("rescue");
        assert_eq!(
            named("pxelinux.cfg/01-52-54-00-00-00-01/rescue"),
            Some((ConfigKind::Pxelinux, Whose::Mac(MAC), entry))
        );
        assert_eq!(
            named("grub/menu/rescue.cfg"),
            Some((ConfigKind::Grub, Whose::Asker, entry))
        );
    }

    #[test]
    fn other_names_are_files() {
        for other in [
            "pxelinux.cfg/default",
            "pxelinux.cfg/01-52",
            "pxelinux.cfg/0A4D000",
            "pxelinux.cfg/+A4D000B",
            "pxelinux.cfg/b8945908-d6a6-41a9-611d-74a6ab80b83d-",
            "grub/grub.cfg-",
            "grub/grub.cfg.bak",
            "grub/x86_64-efi/fs.lst",
            "../grub/grub.cfg",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
    }

    #[test]
    fn what_loaders_do_without_is_not_worth_a_word() {
        for name in [
            "grub/i386-pc/fs.lst",
            "revocations_sbat.efi",
            "shim_certificate_0.efi",
        ] {
            assert!(is_optional(name), "{name}");
        }
        for name in ["grubx64.efi", "grub/i386-pc/normal.mod", "fs.lst"] {
            assert!(!is_optional(name), "{name}");
        }
    }
}
