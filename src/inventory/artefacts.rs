//! Whether what the inventory names is in the data directory.
//!
//! Kernels, initrds, roots and loaders are built by verbs of make; each fault points at the
//! value that names the missing thing and says which verb builds it.

mod release;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::model::{Inventory, Loader, Origin, Profile, RootSource, Sourced};
use super::suggest::nearest;
use crate::diagnostic::{Diagnostic, Label, Severity, Sources};
use release::read_release;

/// Checks that every kernel, initrd, root and loader that a profile names is in the data
/// directory `data`, and that each initrd was built for its profile's kernel.
///
/// `sources` are the texts of the inventory, for the length of what is marked. What only
/// profiles without hosts miss is a warning. Touches `data` and nothing else.
pub fn check(inventory: &Inventory, data: &Path, sources: &Sources) -> Vec<Diagnostic> {
    check_some(inventory, data, sources, |_| true)
}

/// The same where the inventory has faults, of which `inventory` is what could be understood: only of what stands in the
/// file, for what would come of a default may be what the faults hide. Where no sound host boots it, it is a warning.
pub fn check_beside_faults(
    inventory: &Inventory,
    data: &Path,
    sources: &Sources,
) -> Vec<Diagnostic> {
    check_some(inventory, data, sources, |one| one.place().is_some())
}

fn check_some(
    inventory: &Inventory,
    data: &Path,
    sources: &Sources,
    counts: impl Fn(&Diagnostic) -> bool,
) -> Vec<Diagnostic> {
    let mut check = Check {
        data,
        sources,
        found: BTreeMap::new(),
    };
    for (profile, severity) in profiles(inventory) {
        check.profile(&profile, severity);
    }
    check.named_loaders(inventory);
    let mut found: Vec<_> = check.found.into_values().filter(counts).collect();
    let refuses = |one: &Diagnostic| one.severity == Severity::Error;
    if let Some(nothing) = no_data(data).filter(|_| found.iter().any(refuses)) {
        return vec![nothing];
    }
    found.sort_by(Diagnostic::by_place);
    found
}

/// One fault instead of one for each file, where the whole directory is not there or is another.
fn no_data(data: &Path) -> Option<Diagnostic> {
    let folders = ["kernels", "initrds", "loaders", "roots"];
    if folders.iter().any(|folder| data.join(folder).is_dir()) {
        return None;
    }
    let what = match data.is_dir() {
        true => "is no data directory: it has no kernels, initrds, loaders or roots",
        false => "is not there",
    };
    let message = format!("the data directory {} {what}", data.display());
    let help = "name it with --data DIR; in the source tree that is --data build, and `make kernel loaders initrd root` fills it";
    Some(Diagnostic::error("artefacts::no_data", message).with_help(help))
}

/// Every profile once; those that hosts boot first, so that their faults are errors.
fn profiles(inventory: &Inventory) -> Vec<(Arc<Profile>, Severity)> {
    let mut seen = HashSet::new();
    let booted = inventory.hosts.values().map(|host| &host.profile);
    let booted = booted.flat_map(|profile| std::iter::once(profile).chain(profile.offered()));
    let booted = booted.map(|profile| (profile.clone(), Severity::Error));
    let idle = inventory.all_profiles();
    let idle = idle.map(|profile| (profile.clone(), Severity::Warning));
    booted
        .chain(idle)
        .filter(|(profile, _)| seen.insert(Arc::as_ptr(profile)))
        .collect()
}

struct Check<'a> {
    data: &'a Path,
    sources: &'a Sources,
    /// By what is missing, so that ten profiles with one kernel make one fault.
    found: BTreeMap<String, Diagnostic>,
}

/// One thing that must be there.
struct Wanted<'a> {
    /// `kernel debian`.
    what: String,
    code: &'static str,
    /// Relative to the data directory.
    path: String,
    help: &'static str,
    origin: Option<&'a Origin>,
    /// Directory of the data directory in which the names stand, and what follows a name.
    siblings: (&'static str, &'static str),
    name: &'a str,
}

impl Check<'_> {
    fn profile(&mut self, profile: &Profile, severity: Severity) {
        for bare in profile.bare_kernels() {
            self.want(severity, &kernel(bare));
        }
        let kernel = self.want(severity, &kernel(&profile.kernel));
        let initrd = self.want(severity, &initrd(profile));
        if let RootSource::Embedded { name } = &profile.root.source {
            self.root(profile, name, severity);
        }
        if kernel && initrd {
            self.release(profile, severity);
        }
        self.loader(profile, severity);
    }

    /// Whether the file is there; reports it if not.
    fn want(&mut self, severity: Severity, wanted: &Wanted<'_>) -> bool {
        let is_there = self.data.join(&wanted.path).is_file();
        if !is_there {
            self.missing(severity, wanted);
        }
        is_there
    }

    fn root(&mut self, profile: &Profile, name: &str, severity: Severity) {
        let wanted = Wanted {
            what: format!("root {name}"),
            code: "artefacts::missing_root",
            path: format!("roots/{name}"),
            help: "run `make root` to build it",
            origin: profile.root.origin.as_ref(),
            siblings: ("roots", ""),
            name,
        };
        // A symlink to a tree is the operator's way to keep roots elsewhere, and is followed.
        if self.data.join(&wanted.path).is_dir() {
            self.modules(profile, name);
        } else {
            self.missing(severity, &wanted);
        }
    }

    /// A root can load modules of the very release that runs. One without any may want none.
    fn modules(&mut self, profile: &Profile, name: &str) {
        let kernel = &*profile.kernel;
        let release = read_release(&self.data.join(format!("kernels/{kernel}/release")));
        let folder = self.data.join(format!("roots/{name}/usr/lib/modules"));
        let Some(release) = release.filter(|_| folder.is_dir()) else {
            return;
        };
        let key = format!("modules {kernel} {name}");
        if folder.join(&release).is_dir() || self.found.contains_key(&key) {
            return;
        }
        let message =
            format!("the root {name} has no modules for kernel {kernel}, release {release}");
        let mut diagnostic = Diagnostic::warning("artefacts::root_without_modules", message)
            .with_help(format!(
                "run `make root KERNEL={kernel}`: a host finds no KVM without them"
            ));
        let label = profile.root.origin.as_ref();
        diagnostic
            .labels
            .extend(label.map(|origin| self.label(origin, "")));
        self.found.insert(key, diagnostic);
    }

    fn missing(&mut self, severity: Severity, wanted: &Wanted<'_>) {
        if self.found.contains_key(&wanted.path) {
            return;
        }
        let path = self.data.join(&wanted.path);
        let message = format!("the {} is not there: no {}", wanted.what, path.display());
        let near = self.nearest_sibling(wanted);
        let help = near.map_or_else(
            || wanted.help.to_owned(),
            |near| format!("did you mean `{near}`? Otherwise {}", wanted.help),
        );
        let mut diagnostic = Diagnostic::error(wanted.code, message).with_help(help);
        diagnostic.severity = severity;
        let label = wanted.origin.map(|origin| self.label(origin, ""));
        diagnostic.labels.extend(label);
        self.found.insert(wanted.path.clone(), diagnostic);
    }

    fn nearest_sibling(&self, wanted: &Wanted<'_>) -> Option<String> {
        let (directory, suffix) = wanted.siblings;
        let entries = fs::read_dir(self.data.join(directory)).ok()?;
        let names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(suffix).map(str::to_owned))
            .filter(|name| name != wanted.name)
            .collect();
        nearest(wanted.name, names.iter().map(String::as_str)).map(str::to_owned)
    }

    fn loader(&mut self, profile: &Profile, severity: Severity) {
        let (word, files) = required(*profile.loader);
        let of_menu = match (&profile.menu, *profile.loader) {
            (Some(_), Loader::Pxelinux) => PXELINUX_MENU,
            _ => &[],
        };
        for alternatives in files.iter().chain(of_menu) {
            let path = |name: &&str| format!("loaders/{name}");
            let mut paths = alternatives.iter().map(path);
            if paths.any(|path| self.data.join(path).is_file()) {
                continue;
            }
            let Some(first) = alternatives.first() else {
                continue;
            };
            let wanted = Wanted {
                what: format!("loader {first}, which {word} needs,"),
                code: "artefacts::missing_loader",
                path: path(first),
                help: "run `make loaders` to get it",
                // The default loader stands nowhere; the kernel that it is to fetch does.
                origin: profile
                    .loader
                    .origin
                    .as_ref()
                    .or(profile.kernel.origin.as_ref()),
                siblings: ("loaders", ""),
                name: "",
            };
            self.missing(severity, &wanted);
        }
    }

    /// The files that networks and hosts name for kinds of firmware.
    fn named_loaders(&mut self, inventory: &Inventory) {
        let networks = inventory.networks.values();
        let networks = networks.flat_map(|network| &network.loaders);
        let hosts = inventory.hosts.values().flat_map(|host| &host.loaders);
        for (firmware, file) in networks.chain(hosts) {
            let wanted = Wanted {
                what: format!("loader {} for {firmware}", file.value),
                code: "artefacts::missing_loader",
                path: format!("loaders/{}", file.value),
                help: "put the file there",
                origin: file.origin.as_ref(),
                siblings: ("loaders", ""),
                name: &file.value,
            };
            self.want(Severity::Error, &wanted);
        }
    }

    fn label(&self, origin: &Origin, text: &str) -> Label {
        label(origin, self.sources, text)
    }
}

/// Marks the value that stands at `origin`.
pub(crate) fn label(origin: &Origin, sources: &Sources, text: &str) -> Label {
    let line = sources.line(&origin.file, origin.line);
    Label {
        file: origin.file.clone(),
        line: origin.line,
        column: origin.column,
        length: line.map_or(1, |line| token_length(line, origin.column)),
        text: text.to_owned(),
        primary: true,
    }
}

fn kernel(at: &Sourced<String>) -> Wanted<'_> {
    let name = at.as_str();
    Wanted {
        what: format!("kernel {name}"),
        code: "artefacts::missing_kernel",
        path: format!("kernels/{name}/vmlinuz"),
        help: "run `make kernel` to get it",
        origin: at.origin.as_ref(),
        siblings: ("kernels", ""),
        name,
    }
}

fn initrd(profile: &Profile) -> Wanted<'_> {
    let name = profile.initrd.as_str();
    Wanted {
        what: format!("initrd {name}"),
        code: "artefacts::missing_initrd",
        path: format!("initrds/{name}.img"),
        help: "run `make initrd` to build it",
        origin: profile.initrd.origin.as_ref(),
        siblings: ("initrds", ".img"),
        name,
    }
}

/// What PXELINUX shows a menu with.
const PXELINUX_MENU: &[&[&str]] = &[&["menu.c32"], &["libutil.c32"]];

/// A loader's word and its files: of each group one must be there.
fn required(loader: Loader) -> (&'static str, &'static [&'static [&'static str]]) {
    match loader {
        Loader::Ipxe => ("ipxe", &[&["undionly.kpxe"], &["snponly.efi"]]),
        // PXELINUX serves BIOS only: UEFI machines of such a profile get iPXE.
        Loader::Pxelinux => (
            "pxelinux",
            &[&["pxelinux.0"], &["ldlinux.c32"], &["snponly.efi"]],
        ),
        Loader::Grub => (
            "grub",
            &[&["grub-bios.pxe"], &["shimx64.efi"], &["grubx64.efi"]],
        ),
    }
}

/// Characters of the scalar that begins at `column`, quotes included.
fn token_length(line: &str, column: usize) -> usize {
    let mut rest = line.chars().skip(column.saturating_sub(1)).peekable();
    match rest.peek().copied() {
        Some(quote @ ('"' | '\'')) => {
            let inner = rest.skip(1).take_while(|c| *c != quote).count();
            inner + 2
        }
        _ => {
            let token = rest.take_while(|c| !c.is_whitespace() && !",]}".contains(*c));
            token.count().max(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_at_blank_comma_or_bracket() {
        assert_eq!(token_length("kernel: debian # c", 9), 6);
        assert_eq!(token_length("{kernel: debian, x: y}", 10), 6);
        assert_eq!(token_length("{kernel: debian}", 10), 6);
        assert_eq!(token_length("nfs: \"10.0.0.9:/a, b\" # c", 6), 16);
        assert_eq!(token_length("short", 40), 1);
        assert_eq!(token_length("zürich: ö", 9), 1);
    }
}
