//! A boot menu as true: every entry boots something, and the default is one of them.

use std::sync::Arc;
use std::time::Duration;

use super::model::{Host, Inventory, Profile, Sourced};

/// What a host offers on its console before it boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Menu {
    /// The line above the entries; `None`: site and host.
    pub title: Option<String>,
    /// How long it is shown before the default boots. `None`: until someone chooses; zero: not at all.
    pub timeout: Option<Duration>,
    /// The name of the entry that boots by itself.
    pub default: String,
    /// Whether loaders that can drive the serial line themselves do so (PXELINUX, GRUB on BIOS).
    pub serial: bool,
    /// The entries in the order shown, one to nine.
    pub entries: Vec<MenuEntry>,
}

impl Menu {
    /// The entry of that name.
    pub fn entry(&self, name: &str) -> Option<&MenuEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// One line of a menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MenuEntry {
    /// Its key in `entries:`: a letter, then at most 31 letters, digits, `-` and `_`: safe in every loader's syntax and in URLs.
    pub name: String,
    /// What is shown: at most 60 printable ASCII characters.
    pub label: String,
    /// What it boots.
    pub boots: Boots,
}

impl MenuEntry {
    /// Whether what it boots tells the daemon how it goes on.
    pub fn reports(&self) -> bool {
        matches!(self.boots, Boots::Profile(_))
    }
}

/// What an entry boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boots {
    /// The first disk of the machine, or what its firmware has next.
    LocalDisk,
    /// A profile with what the entry changes of it; its own menu is left out.
    Profile(Arc<Profile>),
    /// A kernel without an initrd, such as a memory test: it never reports.
    Kernel {
        /// Directory in the data directory's `kernels/`.
        kernel: Sourced<String>,
        /// Its whole command line.
        cmdline: Vec<Sourced<String>>,
    },
}

/// The entry that a host booted is not in its menu any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{entry}`, which {host} booted from its menu, is no entry of it in hosts.yaml any more; reset the host"
)]
pub struct EntryGone {
    /// The host.
    pub host: String,
    /// The entry.
    pub entry: String,
}

impl Host {
    /// The host as it is once it has booted this entry of its menu; `None`: it had no menu.
    ///
    /// # Errors
    /// [`EntryGone`] where hosts.yaml has changed since.
    pub fn booted(self: &Arc<Self>, entry: Option<&str>) -> Result<Arc<Self>, EntryGone> {
        let Some(name) = entry else {
            return Ok(self.clone());
        };
        let menu = self.profile.menu.as_ref();
        match menu
            .and_then(|menu| menu.entry(name))
            .map(|entry| &entry.boots)
        {
            Some(Boots::Profile(profile)) => Ok(self.with_profile(profile)),
            _ => Err(EntryGone {
                host: self.name.clone(),
                entry: name.to_owned(),
            }),
        }
    }

    /// The same host with another profile.
    pub fn with_profile(&self, profile: &Arc<Profile>) -> Arc<Self> {
        Arc::new(Self {
            profile: profile.clone(),
            ..self.clone()
        })
    }

    /// The host as each profile makes it that it can boot: its own, and those of its menu.
    pub fn variants(self: &Arc<Self>) -> impl Iterator<Item = Arc<Self>> + '_ {
        let others = self.profile.offered();
        std::iter::once(self.clone()).chain(others.map(|profile| self.with_profile(profile)))
    }
}

impl Profile {
    /// The profiles of its menu's entries.
    pub fn offered(&self) -> impl Iterator<Item = &Arc<Self>> {
        let entries = self.menu.iter().flat_map(|menu| &menu.entries);
        entries.filter_map(|entry| match &entry.boots {
            Boots::Profile(profile) => Some(profile),
            Boots::LocalDisk | Boots::Kernel { .. } => None,
        })
    }

    /// The kernels of its menu's entries that boot without an initrd.
    pub fn bare_kernels(&self) -> impl Iterator<Item = &Sourced<String>> {
        let entries = self.menu.iter().flat_map(|menu| &menu.entries);
        entries.filter_map(|entry| match &entry.boots {
            Boots::Kernel { kernel, .. } => Some(kernel),
            Boots::LocalDisk | Boots::Profile(_) => None,
        })
    }
}

impl Inventory {
    /// Every profile that hosts boot, and every other one; then what their menus offer.
    pub fn all_profiles(&self) -> impl Iterator<Item = &Arc<Profile>> {
        let hosts = self.hosts.values().map(|host| &host.profile);
        let all = hosts.chain(self.profiles.values());
        all.flat_map(|profile| std::iter::once(profile).chain(profile.offered()))
    }
}
