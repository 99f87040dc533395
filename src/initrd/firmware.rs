//! Firmware that modules name: found where the kernel would look, stored unpacked.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::catalog::Catalog;
use super::closure::Closure;
use super::compress;
use super::error::{BuildError, MissingFirmware, Warning};
use super::faults::Faults;
use super::firmware_list::WantedFirmware;
use super::list::{FirmwarePolicy, fault};
use super::names::matches;

/// The operator's own firmware, then the kernel's search order (kernel,
/// `drivers/base/firmware_loader/main.c`, `fw_path`).
#[derive(Debug)]
pub(crate) struct FirmwareDirs {
    own: PathBuf,
    root: PathBuf,
    search: Vec<PathBuf>,
}

/// A firmware file of the image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FirmwareFile {
    /// Below `lib/firmware/`, as the module names it.
    pub(crate) name: String,
    pub(crate) reason: FirmwareReason,
    pub(crate) bytes: Vec<u8>,
}

/// Why a firmware file is in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FirmwareReason {
    /// A module names it; the first that does.
    Module {
        /// The module.
        name: String,
    },
    /// A line of `firmware.list` names it.
    Listed {
        /// File name of the list.
        list: String,
        /// 1-based line.
        line: usize,
    },
}

impl fmt::Display for FirmwareReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module { name } => write!(f, "firmware of {name}"),
            Self::Listed { list, line } => write!(f, "listed in {list}:{line}"),
        }
    }
}

impl FirmwareDirs {
    /// `initrd/firmware` and `kernels/NAME/firmware`, which need not exist.
    pub(crate) fn new(source_dir: &Path, kernel_dir: &Path, release: &str) -> Self {
        let own = source_dir.join("firmware");
        let root = kernel_dir.join("firmware");
        let updates = root.join("updates");
        Self {
            search: vec![
                own.clone(),
                updates.join(release),
                updates,
                root.join(release),
                root.clone(),
            ],
            own,
            root,
        }
    }

    /// The files of `files` that can't be found, if any.
    pub(crate) fn missing(&self, module: &str, files: &[String]) -> Option<MissingFirmware> {
        let missing = files.iter().filter(|file| self.find(file).is_empty());
        let files: Vec<String> = missing.cloned().collect();
        let package = package_of(files.first()?);
        Some(MissingFirmware {
            module: module.to_owned(),
            files,
            directory: self.root.clone(),
            own: self.own.clone(),
            package,
        })
    }

    /// Name and file of each match; a name may be a pattern (`MODULE_FIRMWARE("a/*.bin")`).
    fn find(&self, name: &str) -> Vec<(String, PathBuf)> {
        if name.split('/').any(|part| part.is_empty() || part == "..") {
            return Vec::new();
        }
        if name.contains(['*', '?', '[']) {
            return self.find_pattern(name);
        }
        let places = self
            .search
            .iter()
            .flat_map(|dir| ["", ".xz", ".zst"].map(|suffix| dir.join(format!("{name}{suffix}"))));
        let found = places.into_iter().find(|path| path.is_file());
        found
            .map(|path| (name.to_owned(), path))
            .into_iter()
            .collect()
    }

    fn find_pattern(&self, pattern: &str) -> Vec<(String, PathBuf)> {
        let names = self.search.iter().flat_map(|dir| matching(dir, pattern));
        let names: BTreeSet<String> = names.collect();
        // A file whose own name looks like a pattern would be looked up as one for ever.
        let literal = |name: &&String| !name.contains(['*', '?', '[']);
        let literal = names.iter().filter(literal);
        literal.flat_map(|name| self.find(name)).collect()
    }
}

/// Names of the files below `dir` that fit, without a compression suffix.
fn matching(dir: &Path, pattern: &str) -> Vec<String> {
    let files = WalkDir::new(dir).follow_links(true).into_iter();
    let names = files.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.path().strip_prefix(dir).ok()?.to_str()?;
        let name = name.strip_suffix(".xz").unwrap_or(name);
        let name = name.strip_suffix(".zst").unwrap_or(name);
        (entry.file_type().is_file() && matches(pattern, name)).then(|| name.to_owned())
    });
    names.collect()
}

/// Reads what `firmware.list`, the chosen modules and listed built-in drivers name; warns of what
/// isn't there.
pub(crate) fn collect(
    dirs: &FirmwareDirs,
    catalog: &Catalog,
    listed: &[WantedFirmware],
    closure: &mut Closure,
    faults: &mut Faults,
) -> Vec<FirmwareFile> {
    let mut collected = Collected::default();
    for wanted in listed {
        let found = dirs.find(&wanted.name);
        if found.is_empty() {
            not_found(dirs, wanted, &mut closure.warnings, faults);
        }
        let reason = FirmwareReason::Listed {
            list: wanted.at.list(),
            line: wanted.at.line,
        };
        for (name, path) in found {
            faults.keep(collected.add(&name, &path, &reason));
        }
    }
    for (name, names) in named(catalog, closure) {
        if let Some(missing) = dirs.missing(&name, &names) {
            closure.warnings.push(Warning::Firmware(missing));
        }
        let found: BTreeMap<String, PathBuf> =
            names.iter().flat_map(|name| dirs.find(name)).collect();
        let fallbacks = superseded(found.keys());
        let reason = FirmwareReason::Module { name };
        for (name, path) in found {
            if !fallbacks.contains(&name) {
                faults.keep(collected.add(&name, &path, &reason));
            }
        }
    }
    collected.files
}

/// Firmware files, each once, with the first reason.
#[derive(Default)]
struct Collected {
    files: Vec<FirmwareFile>,
    names: BTreeSet<String>,
}

impl Collected {
    fn add(&mut self, name: &str, path: &Path, reason: &FirmwareReason) -> Result<(), BuildError> {
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        let bytes = fs::read(path).map_err(BuildError::io("read firmware", path))?;
        let bytes = compress::unpack(bytes).map_err(BuildError::io("unpack firmware", path))?;
        self.files.push(FirmwareFile {
            name: name.to_owned(),
            reason: reason.clone(),
            bytes,
        });
        Ok(())
    }
}

/// A line of `firmware.list` that nothing fits.
fn not_found(
    dirs: &FirmwareDirs,
    wanted: &WantedFirmware,
    warnings: &mut Vec<Warning>,
    faults: &mut Faults,
) {
    let problem = format!(
        "firmware `{}` is neither in {} nor in {}; put it into the first, or mark the line `optional`",
        wanted.name,
        dirs.own.display(),
        dirs.root.display()
    );
    let error = fault(wanted.at.clone(), problem);
    if wanted.required {
        return faults.add(error);
    }
    warnings.push(Warning::LeftOut {
        module: wanted.name.clone(),
        because: error.to_string(),
    });
}
/// Files that a driver asks for only where a newer version of the same is missing: bnx2x names
/// `bnx2x-e2-7.13.15.0.fw` behind `bnx2x-e2-7.13.21.0.fw`, and each is a tenth of the image.
///
/// A version is three or more numbers with dots between; `rtl8168e-2.fw` is another chip's.
fn superseded<'a>(names: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    let mut newest: BTreeMap<(&str, &str), (Vec<u32>, &String)> = BTreeMap::new();
    let mut older = BTreeSet::new();
    for name in names {
        let Some((stem, version, tail)) = versioned(name) else {
            continue;
        };
        let this = (version, name);
        match newest.entry((stem, tail)) {
            Entry::Vacant(slot) => drop(slot.insert(this)),
            Entry::Occupied(mut slot) if slot.get().0 < this.0 => {
                older.insert(slot.insert(this).1.clone());
            }
            Entry::Occupied(_) => drop(older.insert(name.clone())),
        }
    }
    older
}

/// `dir/stem-`, `[7, 13, 21, 0]`, `.fw`.
fn versioned(name: &str) -> Option<(&str, Vec<u32>, &str)> {
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let end = name.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = name[..end].rfind(|c| !digits(c)).map_or(0, |at| at + 1);
    let version: Option<Vec<u32>> = name[start..end]
        .split('.')
        .map(|n| n.parse().ok())
        .collect();
    let version = version.filter(|version| version.len() >= 3)?;
    Some((&name[..start], version, &name[end..]))
}

fn named(catalog: &Catalog, closure: &Closure) -> Vec<(String, Vec<String>)> {
    let modules = closure
        .modules
        .iter()
        .filter(|(_, chosen)| chosen.firmware != FirmwarePolicy::None)
        .map(|(name, chosen)| (name.clone(), chosen.loaded.info.firmware()));
    let builtin = closure
        .builtin
        .iter()
        .filter(|(_, policy)| **policy != FirmwarePolicy::None)
        .filter_map(|(name, _)| Some((name.clone(), catalog.builtin_firmware.get(name)?.clone())));
    modules.chain(builtin).collect()
}

/// Debian's package that usually holds a file (Debian 12, section non-free-firmware).
fn package_of(file: &str) -> &'static str {
    match file.split('/').next().unwrap_or_default() {
        "bnx2" => "firmware-bnx2",
        "bnx2x" => "firmware-bnx2x",
        "rtl_nic" | "rtl_bt" | "rtlwifi" => "firmware-realtek",
        "qed" | "ql2400_fw.bin" | "netxen" => "firmware-qlogic",
        "mellanox" => "firmware-mellanox",
        "netronome" => "firmware-netronome",
        "intel" if file.starts_with("intel/ice") => {
            "firmware-misc-nonfree (from Debian 13 firmware-intel-misc)"
        }
        "tigon" | "e100" | "cxgb3" | "cxgb4" | "intel" => "firmware-misc-nonfree",
        _ => "linux-firmware (Debian: firmware-misc-nonfree)",
    }
}

#[cfg(test)]
mod tests {
    use super::super::compress::{pack_zstd, tests::xz};
    use super::super::firmware_list;
    use super::super::testing::Lab;
    use super::*;

    fn collect_all(lab: &Lab) -> (Vec<FirmwareFile>, Vec<Warning>) {
        let (files, warnings, faults) = collect_listed(lab);
        faults.done().unwrap();
        (files, warnings)
    }

    fn collect_listed(lab: &Lab) -> (Vec<FirmwareFile>, Vec<Warning>, Faults) {
        let catalog = Catalog::read(&lab.kernel_dir(), &[]).unwrap();
        let mut closure = lab.close(&catalog).unwrap();
        let mut faults = Faults::default();
        let listed = firmware_list::read(&lab.path("initrd"), &mut faults);
        let dirs = lab.firmware_dirs();
        let files = collect(&dirs, &catalog, &listed, &mut closure, &mut faults);
        (files, closure.warnings, faults)
    }

    #[test]
    fn packed_and_linked_firmware_is_stored_plain_under_its_name() {
        let lab = Lab::new();
        lab.module(
            "kernel/ice.ko",
            &[],
            &[
                ("firmware", "ddp/ice.pkg"),
                ("firmware", "a.fw"),
                ("firmware", "b.fw"),
            ],
        );
        lab.list("ice firmware=required\n");
        lab.write("kernel/firmware/ddp/ice-1.3.pkg", "package");
        std::os::unix::fs::symlink("ice-1.3.pkg", lab.path("kernel/firmware/ddp/ice.pkg")).unwrap();
        lab.write("kernel/firmware/a.fw.xz", xz(b"a"));
        lab.write("kernel/firmware/b.fw.zst", pack_zstd(b"b", 3).unwrap());
        lab.write("kernel/firmware/updates/b.fw", "newer b");
        let (files, warnings) = collect_all(&lab);
        let found: Vec<(&str, &[u8])> = files
            .iter()
            .map(|file| (file.name.as_str(), file.bytes.as_slice()))
            .collect();
        assert_eq!(
            found,
            [
                ("a.fw", &b"a"[..]),
                ("b.fw", b"newer b"),
                ("ddp/ice.pkg", b"package")
            ]
        );
        assert!(warnings.is_empty());
    }

    #[test]
    fn of_two_versions_the_newer_is_enough_and_other_chips_stay() {
        let names = [
            "bnx2x/bnx2x-e2-7.13.15.0.fw",
            "bnx2x/bnx2x-e2-7.13.21.0.fw",
            "bnx2x/bnx2x-e1-7.13.15.0.fw",
            "rtl_nic/rtl8168e-1.fw",
            "rtl_nic/rtl8168e-2.fw",
            "intel/ice/ddp/ice.pkg",
        ]
        .map(String::from);
        let old: Vec<String> = superseded(names.iter()).into_iter().collect();
        assert_eq!(old, ["bnx2x/bnx2x-e2-7.13.15.0.fw"]);
    }

    #[test]
    fn missing_optional_firmware_is_one_warning_per_module() {
        let lab = Lab::new();
        let names: Vec<String> = (0..5).map(|n| format!("rtl_nic/{n}.fw")).collect();
        let entries: Vec<(&str, &str)> = names
            .iter()
            .map(|name| ("firmware", name.as_str()))
            .collect();
        lab.module("kernel/r8169.ko", &[], &entries);
        lab.list("r8169\n");
        let (files, warnings) = collect_all(&lab);
        assert!(files.is_empty());
        assert_eq!(
            warnings[0].to_string(),
            format!(
                "module `r8169` names firmware that is not in {}: rtl_nic/0.fw, rtl_nic/1.fw, rtl_nic/2.fw and 2 more; package firmware-realtek usually holds it: put the file below {}",
                lab.path("kernel/firmware").display(),
                lab.path("initrd/firmware").display()
            )
        );
        lab.list("r8169 firmware=none\n");
        assert!(collect_all(&lab).1.is_empty());
    }

    #[test]
    fn a_built_in_drivers_firmware_is_packed() {
        let lab = Lab::new();
        lab.append("modules.builtin", "kernel/drivers/tg3.ko");
        lab.write(
            "kernel/modules/modules.builtin.modinfo",
            "tg3.firmware=tigon/tg3.bin\0tg3.license=GPL\0",
        );
        lab.write("kernel/firmware/tigon/tg3.bin", "tg3");
        lab.list("tg3\n");
        assert_eq!(collect_all(&lab).0[0].name, "tigon/tg3.bin");
    }

    #[test]
    fn patterns_match_and_dot_dot_does_not() {
        let lab = Lab::new();
        lab.module(
            "kernel/a.ko",
            &[],
            &[("firmware", "a/*.bin"), ("firmware", "../../release")],
        );
        lab.write("kernel/firmware/a/1.bin", "1");
        lab.write("kernel/firmware/a/2.bin.xz", xz(b"2"));
        lab.list("a\n");
        let (files, warnings) = collect_all(&lab);
        assert_eq!(files.len(), 2);
        assert_eq!(files[1].bytes, b"2");
        assert!(warnings[0].to_string().contains("../../release"));
    }

    #[test]
    fn a_packed_file_behind_links_is_found_and_the_operators_own_wins() {
        let lab = Lab::new();
        lab.module("kernel/ice.ko", &[], &[("firmware", "ddp/ice.pkg")]);
        lab.list("ice\n");
        let link = |target: &str, path: &str| std::os::unix::fs::symlink(target, lab.path(path));
        lab.write(
            "kernel/firmware/store/ice-1.3.pkg.zst",
            pack_zstd(b"package", 3).unwrap(),
        );
        link("store", "kernel/firmware/ddp").unwrap();
        link("ice-1.3.pkg.zst", "kernel/firmware/store/ice.pkg.zst").unwrap();
        assert_eq!(collect_all(&lab).0[0].bytes, b"package");
        lab.write("initrd/firmware/ddp/ice.pkg.xz", xz(b"mine"));
        assert_eq!(collect_all(&lab).0[0].bytes, b"mine");
    }

    #[test]
    fn firmware_list_brings_names_and_patterns() {
        let lab = Lab::new();
        lab.module("kernel/a.ko", &[], &[("firmware", "a/1.bin")]);
        lab.list("a\n");
        lab.write("kernel/firmware/a/1.bin", "1");
        lab.write("initrd/firmware/site/x.fw.xz", xz(b"x"));
        lab.write(
            "initrd/firmware.list",
            "# ours\na/*.bin\nsite/x.fw\nnone optional\n",
        );
        let (files, warnings) = collect_all(&lab);
        let found: Vec<String> = files
            .iter()
            .map(|file| format!("{} {}", file.name, file.reason))
            .collect();
        assert_eq!(
            found,
            [
                "a/1.bin listed in firmware.list:2",
                "site/x.fw listed in firmware.list:3"
            ]
        );
        assert_eq!(files[1].bytes, b"x");
        assert!(warnings[0].to_string().starts_with("left out `none`: "));
    }

    #[test]
    fn every_line_of_firmware_list_that_fails_is_told() {
        let lab = Lab::new();
        let lines = "gone.fw\n/lib/firmware/a\nlib/firmware/a\na b\n";
        lab.write("initrd/firmware.list", lines);
        let text = collect_listed(&lab).2.done().unwrap_err().to_string();
        for expected in [
            "firmware.list:1: firmware `gone.fw` is neither in ",
            "firmware.list:2: `/lib/firmware/a` is no firmware name",
            "firmware.list:3: `lib/firmware/a` is no firmware name",
            "firmware.list:4: `a b` is not NAME [required|optional]",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
