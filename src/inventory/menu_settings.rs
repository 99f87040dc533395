//! `menu: {...}` of a profile or host: read, laid over its parent's, and held against the profiles.

use std::sync::Arc;
use std::time::Duration;

use super::faults::Faults;
use super::fields::Fields;
use super::menu::{Boots, Menu, MenuEntry};
use super::model::Profile;
use super::names;
use super::profiles::{Profiles, keys};
use super::scalars::{self, Bad};
use super::settings::Settings;
use super::suggest::{did_you_mean, quote};
use super::tree::{At, Entry, Kind, Scalar, Span};
use crate::diagnostic::Diagnostic;

/// Each entry has a digit as its key.
const MAX_ENTRIES: usize = 9;
/// PXELINUX counts tenths of a second up to 35996.
const MAX_TIMEOUT: u16 = 3599;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What one layer says of the menu, or several laid over each other.
#[derive(Debug, Clone)]
pub(super) struct WrittenMenu {
    place: Span,
    title: Option<At<String>>,
    /// `Some(None)`: `never`.
    timeout: Option<Option<Duration>>,
    default: Option<At<String>>,
    serial: Option<bool>,
    entries: Vec<WrittenEntry>,
}

/// One entry, its values in range.
#[derive(Debug, Clone)]
struct WrittenEntry {
    name: At<String>,
    label: Option<At<String>>,
    kind: WrittenKind,
    /// What of it could be read; a fault in it is told already.
    settings: Settings,
}

#[derive(Debug, Clone)]
enum WrittenKind {
    Local,
    /// The profile at hand, or another one.
    Profile(Option<At<String>>),
    /// `initrd: none`.
    Kernel,
}

/// Reads the menu; `Some(None)`: the layer says `none`.
pub(super) fn read(
    fields: &mut Fields<'_, '_>,
    faults: &mut Faults,
) -> Option<Option<WrittenMenu>> {
    let node = fields.node("menu")?;
    if matches!(&node.kind, Kind::Scalar(word) if word.text == "none") {
        return Some(None);
    }
    let owner = fields.layer().clone();
    let mut menu = fields.map("menu", faults)?;
    let serial = scalars::one_of("a yes or no", "inventory::bad_menu", scalars::BOOLEANS);
    let written = WrittenMenu {
        place: menu.place(),
        title: menu.get("title", faults, shown_text),
        timeout: menu.get("timeout", faults, timeout).map(|at| at.value),
        default: menu.get("default", faults, entry_name),
        serial: menu.get("serial", faults, serial).map(|at| at.value),
        entries: read_entries(&mut menu, &owner, faults),
    };
    menu.finish(faults);
    Some(Some(written))
}

fn read_entries(menu: &mut Fields<'_, '_>, owner: &str, faults: &mut Faults) -> Vec<WrittenEntry> {
    let Some(map) = menu.map("entries", faults) else {
        return Vec::new();
    };
    let entries = map.entries().iter().filter(|entry| !entry.duplicate);
    entries
        .map(|entry| read_entry(entry, owner, faults))
        .collect()
}

fn read_entry(entry: &Entry<'_>, owner: &str, faults: &mut Faults) -> WrittenEntry {
    let span = entry.key_span;
    let value = entry_name(&entry.key).unwrap_or_else(|bad| {
        bad.report(span, "entries", faults);
        entry.key.text.to_string()
    });
    let shown = quote(&entry.key.text);
    let what = format!("menu entry {} of {owner}", shown.trim_matches('`'));
    let mut map = Fields::new(&entry.node, span, what.into(), faults);
    let label = map.get("label", faults, shown_text);
    map.require("label", "\"KVM host\"", faults);
    let (kind, settings) = read_kind(&mut map, faults);
    map.finish(faults);
    let name = At { value, span };
    WrittenEntry {
        name,
        label,
        kind,
        settings,
    }
}

fn read_kind(map: &mut Fields<'_, '_>, faults: &mut Faults) -> (WrittenKind, Settings) {
    let local = scalars::one_of("a yes or no", "inventory::bad_menu", scalars::BOOLEANS);
    let local = map.get("local", faults, local).is_some_and(|at| at.value);
    let profile = map.get("profile", faults, names::key_name);
    let mut settings = Settings::read_bootable(map, faults);
    let alone = settings.take_no_initrd();
    if local {
        refuse_beside_local(map, &settings, profile.as_ref(), faults);
        return (WrittenKind::Local, settings);
    }
    if alone {
        map.require("kernel", "memtest", faults);
        return (WrittenKind::Kernel, settings);
    }
    (WrittenKind::Profile(profile), settings)
}

fn refuse_beside_local(
    map: &Fields<'_, '_>,
    settings: &Settings,
    profile: Option<&At<String>>,
    faults: &mut Faults,
) {
    if settings.is_empty() && profile.is_none() {
        return;
    }
    let message = format!(
        "{} boots the local disk, and names something else to boot",
        map.what()
    );
    let help = "keep `label` and `local: true` alone, or remove `local`";
    faults.error("inventory::bad_menu", map.place(), message, "", help);
}

/// A name that needs no quotes in the syntax of any loader, nor in a URL or file name.
fn entry_name(scalar: &Scalar<'_>) -> Result<String, Bad> {
    scalars::unambiguous(scalar)?;
    let text = &*scalar.text;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    // GRUB takes a number for an entry's place.
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    if begins && text.len() <= 32 && text.bytes().all(legal) {
        return Ok(text.to_owned());
    }
    Err(Bad::new(
        "inventory::bad_name",
        format!("{} can't be the name of a menu entry", quote(text)),
        "write at most 32 letters, digits, `-` and `_`, beginning with a letter; what is shown stands in `label`",
    ))
}

/// Text on a loader's screen: 80 columns, and no character set but ASCII.
fn shown_text(scalar: &Scalar<'_>) -> Result<String, Bad> {
    scalars::unambiguous(scalar)?;
    let text = &*scalar.text;
    let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if printable && begins && text.len() <= 60 {
        return Ok(text.to_owned());
    }
    Err(Bad::new(
        "inventory::bad_text",
        format!("{} can't be shown in a menu", quote(text)),
        "write at most 60 characters of ASCII, beginning with a letter or digit: firmware's consoles show no others",
    ))
}

/// Seconds, or `never`.
fn timeout(scalar: &Scalar<'_>) -> Result<Option<Duration>, Bad> {
    if scalar.text == "never" {
        return Ok(None);
    }
    let seconds = scalars::number("a menu's time-out", 0..=MAX_TIMEOUT);
    match seconds(scalar) {
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds.into()))),
        Err(_) => Err(Bad::new(
            "inventory::bad_number",
            format!("{} is not a menu's time-out", quote(&scalar.text)),
            format!(
                "write seconds from 0 (boots the default at once) to {MAX_TIMEOUT}, or `never`"
            ),
        )),
    }
}

impl WrittenMenu {
    /// This menu where it says something, the parent's elsewhere. An entry of the same name takes its place.
    pub(super) fn over(&self, parent: &Self) -> Self {
        let own = |name: &str| self.entries.iter().find(|entry| entry.name.value == name);
        let kept = parent.entries.iter();
        let kept = kept.map(|entry| own(&entry.name.value).unwrap_or(entry));
        let new = self.entries.iter().filter(|entry| {
            let mut theirs = parent.entries.iter();
            !theirs.any(|their| their.name.value == entry.name.value)
        });
        Self {
            place: self.place,
            title: self.title.as_ref().or(parent.title.as_ref()).cloned(),
            timeout: self.timeout.or(parent.timeout),
            default: self.default.as_ref().or(parent.default.as_ref()).cloned(),
            serial: self.serial.or(parent.serial),
            entries: kept.chain(new).cloned().collect(),
        }
    }

    /// The profiles that its entries name.
    pub(super) fn profiles(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| match &entry.kind {
            WrittenKind::Profile(Some(name)) => Some(name.value.as_str()),
            _ => None,
        })
    }
}

/// Whose menu it is, and what its entries build on.
pub(super) struct Base<'a> {
    /// The profile with all that it inherits, and the host's own settings over it.
    pub(super) settings: &'a Settings,
    /// The host's own settings, which also lie over other profiles that an entry names.
    pub(super) host: Option<&'a Settings>,
    /// The profile's name and chain.
    pub(super) name: &'a str,
    pub(super) extends: &'a [String],
}

impl Base<'_> {
    /// The menu as true; what is wrong with it is reported once for all who inherit it.
    pub(super) fn menu(&self, profiles: &Profiles, faults: &mut Faults) -> Option<Menu> {
        let written = self.settings.menu()?;
        check_entries(written, faults);
        check_default(written, faults);
        let first = written.entries.first()?;
        let entries = written.entries.iter();
        let entries = entries.filter_map(|entry| self.entry(entry, profiles, faults));
        Some(Menu {
            title: written.title.as_ref().map(|at| at.value.clone()),
            timeout: written.timeout.unwrap_or(Some(DEFAULT_TIMEOUT)),
            default: written
                .default
                .as_ref()
                .unwrap_or(&first.name)
                .value
                .clone(),
            serial: written.serial.unwrap_or(true),
            entries: entries.collect(),
        })
    }

    fn entry(
        &self,
        written: &WrittenEntry,
        profiles: &Profiles,
        faults: &mut Faults,
    ) -> Option<MenuEntry> {
        let boots = match &written.kind {
            WrittenKind::Local => Boots::LocalDisk,
            WrittenKind::Kernel => written.settings.bare_kernel()?,
            WrittenKind::Profile(name) => {
                Boots::Profile(self.profile(written, name.as_ref(), profiles, faults)?)
            }
        };
        Some(MenuEntry {
            name: written.name.value.clone(),
            label: written.label.as_ref()?.value.clone(),
            boots,
        })
    }

    fn profile(
        &self,
        written: &WrittenEntry,
        other: Option<&At<String>>,
        profiles: &Profiles,
        faults: &mut Faults,
    ) -> Option<Arc<Profile>> {
        let (name, extends, below) = match other {
            None => (self.name, self.extends, self.settings.clone()),
            Some(at) => {
                let Some(other) = profiles.get(&at.value) else {
                    unknown_profile(written, at, profiles, faults);
                    return None;
                };
                let below = match self.host {
                    Some(host) => host.over(&other.settings),
                    None => other.settings.clone(),
                };
                (at.value.as_str(), other.extends.as_slice(), below)
            }
        };
        let settings = written.settings.over(&below);
        let profile = settings.profile(name, extends);
        if profile.is_none() && !settings.broken {
            let missing = keys(&settings.missing());
            let message = format!(
                "menu entry {} boots a profile that has no {missing}",
                written.name.value
            );
            let label = faults.primary(other.map_or(written.name.span, |at| at.span), "");
            let fault =
                Diagnostic::error("inventory::incomplete_profile", message).with_label(label);
            faults.once(fault.with_help("add it to the profile, or to the entry"));
        }
        if profile.is_some() {
            settings.report_stack(faults);
        }
        profile.filter(|_| !settings.broken).map(Arc::new)
    }
}

fn unknown_profile(
    written: &WrittenEntry,
    at: &At<String>,
    profiles: &Profiles,
    faults: &mut Faults,
) {
    let message = format!(
        "menu entry {} boots the profile {}, which is not defined",
        written.name.value,
        quote(&at.value)
    );
    let fault = Diagnostic::error("inventory::unknown_profile", message)
        .with_label(faults.primary(at.span, ""))
        .with_help(profiles.help_for(&at.value));
    faults.once(fault);
}

fn check_entries(written: &WrittenMenu, faults: &mut Faults) {
    let (message, place, help) = match written.entries.as_slice() {
        [] => (
            String::from("a menu without entries"),
            written.place,
            "add `entries: {kvm: {label: \"KVM host\"}}`, or write `menu: none`",
        ),
        [.., last] if written.entries.len() > MAX_ENTRIES => (
            format!(
                "{} entries, and each needs a key from 1 to {MAX_ENTRIES}",
                written.entries.len()
            ),
            last.name.span,
            "remove some of them",
        ),
        _ => return,
    };
    let fault =
        Diagnostic::error("inventory::bad_menu", message).with_label(faults.primary(place, ""));
    faults.once(fault.with_help(help));
}

fn check_default(written: &WrittenMenu, faults: &mut Faults) {
    let Some(default) = &written.default else {
        return;
    };
    let names: Vec<&str> = written
        .entries
        .iter()
        .map(|entry| entry.name.value.as_str())
        .collect();
    if names.is_empty() || names.contains(&default.value.as_str()) {
        return;
    }
    let message = format!(
        "the menu's default {} is none of its entries",
        quote(&default.value)
    );
    let fault = Diagnostic::error("inventory::unknown_entry", message)
        .with_label(faults.primary(default.span, ""))
        .with_help(did_you_mean(&default.value, names));
    faults.once(fault);
}
