//! The build itself: from a [`BuildSpec`] to an image and its manifest.

use std::fs;
use std::path::{Path, PathBuf};

use super::append::{self, Appended};
use super::busybox;
use super::catalog::Catalog;
use super::closure::{self, Closure};
use super::depmod;
use super::error::{BuildError, Warning};
use super::faults::Faults;
use super::files;
use super::firmware::{self, FirmwareDirs, FirmwareFile};
use super::firmware_list;
use super::hooks;
use super::image::{self, Old, Packing};
use super::list::{ModuleList, lists_of};
use super::manifest::{FileRecord, FirmwareRecord, Manifest, ModuleRecord, SCHEMA, sha256};
use super::microcode::{self, Microcode};
use super::nics::{self, Nics};
use super::out_of_tree;
use super::tree::{Item, Tree, fault};

/// The largest image, microcode not counted.
const MAX_SIZE: u64 = 12 << 20;

/// Where the initrd looks for it.
const EAR: &str = "bin/bridgehead-ear";

/// What to build, from what, and where to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuildSpec {
    /// `kernels/NAME` of the data directory: `release`, `modules/`, perhaps `firmware/`.
    pub kernel_dir: PathBuf,
    /// The `initrd/` source: `modules.list`, `modules.d/*.list`, `firmware.list` with `firmware/`,
    /// `files.list`, `hooks/`, and `tree/`, which goes in as it is.
    pub source_dir: PathBuf,
    /// Further lists, after those of the source; their lines replace earlier ones.
    pub extra_lists: Vec<PathBuf>,
    /// Directories of out-of-tree modules, built for this kernel.
    pub extra_modules: Vec<PathBuf>,
    /// Further trees, laid over `tree/` in order.
    pub extra_trees: Vec<PathBuf>,
    /// A static BusyBox.
    pub busybox: PathBuf,
    /// A static `bridgehead-ear`; `None`: an inventory boot tells nothing of LLDP.
    pub ear: Option<PathBuf>,
    /// The image; its manifest goes beside it as `.manifest`.
    pub out: PathBuf,
    /// zstd level, 1 to 22.
    pub level: i32,
    /// Time of every entry, seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub mtime: u32,
    /// Bytes above which the image's size is a warning, microcode not counted.
    pub budget: u64,
    /// Bytes above which no image is written; `None`: 12 MiB, microcode not counted.
    pub max_size: Option<u64>,
    /// Microcode for the early loader.
    pub microcode: Microcode,
    /// Whose microcode: `intel`, `amd`, `06-8f-08`, `fam19h`; none: everyone's.
    pub processors: Vec<String>,
    /// Archives that follow the image's own, as they are.
    pub appended: Vec<PathBuf>,
    /// NICs that must be driven, else it is a warning, and whose they are.
    pub nics: Nics,
}

impl BuildSpec {
    /// Defaults: `/bin/busybox`, zstd level 19, time 0, a warning above 8 MiB and no more
    /// than 12 MiB, no microcode.
    pub fn new(kernel_dir: &Path, source_dir: &Path, out: &Path) -> Self {
        Self {
            kernel_dir: kernel_dir.to_owned(),
            source_dir: source_dir.to_owned(),
            extra_lists: Vec::new(),
            extra_modules: Vec::new(),
            extra_trees: Vec::new(),
            busybox: PathBuf::from("/bin/busybox"),
            ear: None,
            out: out.to_owned(),
            level: 19,
            mtime: 0,
            budget: 8 << 20,
            max_size: None,
            microcode: Microcode::Off,
            processors: Vec::new(),
            appended: Vec::new(),
            nics: Nics::new(),
        }
    }
}

/// A finished build.
#[derive(Debug)]
#[non_exhaustive]
pub struct Built {
    /// Bytes of the image.
    pub bytes: u64,
    /// SHA-256 of the image, hexadecimal.
    pub sha256: String,
    /// Nothing had changed: image and manifest were left alone.
    pub up_to_date: bool,
    /// What is in it.
    pub manifest: Manifest,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
}

/// Builds an image and its manifest, or finds both up to date.
///
/// The bytes depend on the inputs' contents alone. Files are replaced whole, the
/// image first: a manifest whose `image_sha256` doesn't fit is one of an unfinished build.
///
/// # Errors
/// See [`BuildError`]; nothing is written then.
pub fn build(spec: &BuildSpec) -> Result<Built, BuildError> {
    if !(1..=22).contains(&spec.level) {
        return Err(BuildError::Level(spec.level));
    }
    let catalog = Catalog::read(&spec.kernel_dir, &spec.extra_modules)?;
    let mut parts = gather(spec, &catalog)?;
    let tree = compose(spec, &catalog, &mut parts)?;
    let files: Vec<FileRecord> = tree
        .0
        .iter()
        .map(|(path, item)| FileRecord::of(path, item))
        .collect();
    let packing = Packing {
        level: spec.level,
        mtime: spec.mtime,
    };
    let old = Old::read(&spec.out);
    let image = image::pack(&tree, &files, &parts.appended, packing, old.as_ref())?;
    let microcode = image.microcode();
    let manifest = Manifest {
        schema: SCHEMA,
        tool: image::tool(),
        kernel_release: catalog.release.clone(),
        image_sha256: sha256(&image.bytes),
        image_size: image.bytes.len() as u64,
        unpacked_size: image.members.iter().map(|part| part.unpacked_size).sum(),
        members: image.members,
        modules: module_records(&catalog, &parts.closure),
        builtin: parts.closure.builtin.keys().cloned().collect(),
        firmware: firmware_records(&parts.firmware),
        files,
    };
    check_size(spec, &manifest, microcode)?;
    let up_to_date = old.is_some_and(|old| old.manifest == manifest);
    if !up_to_date {
        write(&spec.out, &image.bytes, &manifest)?;
    }
    Ok(Built {
        bytes: manifest.image_size,
        sha256: manifest.image_sha256.clone(),
        up_to_date,
        warnings: warnings(spec, &catalog, parts.closure, &manifest, microcode),
        manifest,
    })
}

/// What goes in.
struct Parts {
    tree: Tree,
    closure: Closure,
    firmware: Vec<FirmwareFile>,
    appended: Vec<Appended>,
}

/// Reads what the operator writes; every fault in it is told at once. The source trees come
/// first, so that a path of theirs stays theirs.
fn gather(spec: &BuildSpec, catalog: &Catalog) -> Result<Parts, BuildError> {
    let mut faults = Faults::default();
    let list = read_lists(spec, &mut faults);
    let wanted = firmware_list::read(&spec.source_dir, &mut faults);
    let dirs = FirmwareDirs::new(&spec.source_dir, &spec.kernel_dir, &catalog.release);
    let mut closure = closure::resolve(catalog, &list, &dirs, &mut faults);
    let firmware = firmware::collect(&dirs, catalog, &wanted, &mut closure, &mut faults);
    let mut tree = Tree::default();
    faults.keep(add_sources(&mut tree, spec));
    files::add(&mut tree, &spec.source_dir, Path::new("/"), &mut faults);
    let warning = microcode::add(&mut tree, spec, &mut faults);
    closure.warnings.extend(warning);
    let appended = append::read(&spec.appended, &mut faults);
    faults.done()?;
    Ok(Parts {
        tree,
        closure,
        firmware,
        appended,
    })
}

fn add_sources(tree: &mut Tree, spec: &BuildSpec) -> Result<(), BuildError> {
    skeleton(tree)?;
    tree.add_directory(&spec.source_dir.join("tree"))?;
    for dir in &spec.extra_trees {
        tree.add_directory(dir)?;
    }
    hooks::add(tree, &spec.source_dir)?;
    tree.check_init()
}

fn read_lists(spec: &BuildSpec, faults: &mut Faults) -> ModuleList {
    let mut paths = vec![spec.source_dir.join("modules.list")];
    let more = faults.keep(lists_of(&spec.source_dir.join("modules.d")));
    paths.extend(more.unwrap_or_default());
    paths.extend(spec.extra_lists.iter().cloned());
    ModuleList::read(&paths, faults)
}

/// Lays everything out.
fn compose(spec: &BuildSpec, catalog: &Catalog, parts: &mut Parts) -> Result<Tree, BuildError> {
    let mut tree = std::mem::take(&mut parts.tree);
    let (machine, warning) = busybox::add(&mut tree, &spec.busybox)?;
    parts.closure.warnings.extend(warning);
    if let Some(ear) = &spec.ear {
        add_ear(&mut tree, ear)?;
    }
    let modules_dir = format!("lib/modules/{}", catalog.release);
    for (name, text) in depmod::indexes(catalog, &mut parts.closure)? {
        let path = format!("{modules_dir}/{name}");
        tree.insert(&path, Item::file(0o644, text.into_bytes()))?;
    }
    for (name, chosen) in &parts.closure.modules {
        let path = module_path(catalog, name);
        tree.insert(&path, Item::file(0o644, chosen.loaded.bytes.clone()))?;
    }
    for file in &parts.firmware {
        let path = firmware_path(file);
        tree.insert_new(&path, Item::file(0o644, file.bytes.clone()))?;
    }
    let mut faults = Faults::default();
    tree.check_programs(machine, &mut faults);
    faults.done().map(|()| tree)
}

/// What hears LLDP in an inventory boot.
fn add_ear(tree: &mut Tree, ear: &Path) -> Result<(), BuildError> {
    let bytes = fs::read(ear).map_err(BuildError::io("read the ear", ear))?;
    let mut item = Item::file(0o755, bytes);
    item.reason = Some("hears LLDP in an inventory boot".into());
    tree.insert(EAR, item)
}

fn warnings(
    spec: &BuildSpec,
    catalog: &Catalog,
    closure: Closure,
    manifest: &Manifest,
    microcode: u64,
) -> Vec<Warning> {
    let undriven = nics::undriven(catalog, &closure, &spec.nics);
    let chosen = closure.modules.keys().map(|name| &catalog.modules[name]);
    let unused = out_of_tree::unused(&spec.extra_modules, chosen);
    let budget = spec.budget.saturating_add(microcode);
    let large = (manifest.image_size > budget).then(|| Warning::Size {
        bytes: manifest.image_size,
        budget,
        largest: largest(manifest),
    });
    let mut warnings = closure.warnings;
    warnings.extend(undriven.into_iter().chain(unused).chain(large));
    warnings
}

/// What every initrd has. The kernel opens `/dev/console` for init before devtmpfs is
/// mounted; without the node early messages go nowhere.
fn skeleton(tree: &mut Tree) -> Result<(), BuildError> {
    for dir in [
        "bin", "dev", "etc", "lib", "mnt", "proc", "run", "sbin", "sys", "usr/bin", "usr/sbin",
    ] {
        tree.insert(dir, Item::dir(0o755))?;
    }
    tree.insert("root", Item::dir(0o700))?;
    tree.insert("tmp", Item::dir(0o1777))?;
    tree.insert("dev/console", Item::char(0o600, 5, 1))?;
    tree.insert("dev/null", Item::char(0o666, 1, 3))
}

fn module_path(catalog: &Catalog, name: &str) -> String {
    format!(
        "lib/modules/{}/{}",
        catalog.release, catalog.modules[name].path
    )
}

fn firmware_path(file: &FirmwareFile) -> String {
    format!("lib/firmware/{}", file.name)
}

fn module_records(catalog: &Catalog, closure: &Closure) -> Vec<ModuleRecord> {
    let modules = closure.modules.iter();
    modules
        .map(|(name, chosen)| ModuleRecord {
            name: name.clone(),
            path: module_path(catalog, name),
            reason: chosen.reason.clone(),
            origin: catalog.modules[name].origin,
            size: chosen.loaded.bytes.len() as u64,
        })
        .collect()
}

fn firmware_records(files: &[FirmwareFile]) -> Vec<FirmwareRecord> {
    let records = files.iter().map(|file| FirmwareRecord {
        path: firmware_path(file),
        reason: file.reason.clone(),
        size: file.bytes.len() as u64,
    });
    let mut records: Vec<_> = records.collect();
    records.sort_by(|a, b| a.path.cmp(&b.path));
    records
}

fn write(out: &Path, bytes: &[u8], manifest: &Manifest) -> Result<(), BuildError> {
    let path = Manifest::path_for(out);
    if path == out {
        return Err(fault(
            &out.to_string_lossy(),
            "the image can't end in .manifest; name it .img",
        ));
    }
    let json = manifest
        .to_json()
        .map_err(|error| BuildError::io("write manifest", &path)(error.into()))?;
    image::replace(out, bytes).map_err(BuildError::io("write initrd", out))?;
    image::replace(&path, &json).map_err(BuildError::io("write manifest", &path))
}

/// Microcode is what the operator chose to have, so it comes on top.
fn check_size(spec: &BuildSpec, manifest: &Manifest, microcode: u64) -> Result<(), BuildError> {
    let limit = spec.max_size.unwrap_or(MAX_SIZE + microcode);
    if manifest.image_size <= limit {
        return Ok(());
    }
    Err(BuildError::TooLarge {
        bytes: manifest.image_size,
        limit,
        largest: largest(manifest),
    })
}

/// The files that are worth a look, with their unpacked bytes.
fn largest(manifest: &Manifest) -> Vec<String> {
    let mut files: Vec<_> = manifest.files.iter().collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.size));
    let named = files.iter().take(5).map(|file| {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        format!("{name} ({})", file.size)
    });
    named.collect()
}

#[cfg(test)]
mod tests;
