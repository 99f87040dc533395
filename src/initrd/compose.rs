//! The build itself: from a [`BuildSpec`] to an image and its manifest.

use std::path::{Path, PathBuf};

use super::busybox;
use super::catalog::Catalog;
use super::closure::{self, Closure};
use super::depmod;
use super::error::{BuildError, Warning};
use super::faults::Faults;
use super::firmware::{self, FirmwareDirs, FirmwareFile};
use super::firmware_list;
use super::hooks;
use super::image::{self, Old, Packing};
use super::list::{ModuleList, lists_of};
use super::manifest::{FileRecord, FirmwareRecord, Manifest, ModuleRecord, SCHEMA, sha256};
use super::nics::{self, Nics};
use super::out_of_tree;
use super::tree::{Item, Tree, fault};

/// What to build, from what, and where to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuildSpec {
    /// `kernels/NAME` of the data directory: `release`, `modules/`, perhaps `firmware/`.
    pub kernel_dir: PathBuf,
    /// The `initrd/` source: `modules.list`, `modules.d/*.list`, `firmware.list` with `firmware/`,
    /// `hooks/`, and `tree/`, which goes in as it is.
    pub source_dir: PathBuf,
    /// Further lists, after those of the source; their lines replace earlier ones.
    pub extra_lists: Vec<PathBuf>,
    /// Directories of out-of-tree modules, built for this kernel.
    pub extra_modules: Vec<PathBuf>,
    /// Further trees, laid over `tree/` in order.
    pub extra_trees: Vec<PathBuf>,
    /// A static BusyBox.
    pub busybox: PathBuf,
    /// The image; its manifest goes beside it as `.manifest`.
    pub out: PathBuf,
    /// zstd level, 1 to 22.
    pub level: i32,
    /// Time of every entry, seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub mtime: u32,
    /// Bytes above which the image's size is a warning.
    pub budget: u64,
    /// Bytes above which no image is written.
    pub max_size: u64,
    /// NICs that must be driven, else it is a warning, and whose they are.
    pub nics: Nics,
}

impl BuildSpec {
    /// Defaults: `/bin/busybox`, zstd level 19, time 0, a warning above 8 MiB and no more
    /// than 12 MiB.
    pub fn new(kernel_dir: &Path, source_dir: &Path, out: &Path) -> Self {
        Self {
            kernel_dir: kernel_dir.to_owned(),
            source_dir: source_dir.to_owned(),
            extra_lists: Vec::new(),
            extra_modules: Vec::new(),
            extra_trees: Vec::new(),
            busybox: PathBuf::from("/bin/busybox"),
            out: out.to_owned(),
            level: 19,
            mtime: 0,
            budget: 8 << 20,
            max_size: 12 << 20,
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
    let mut faults = Faults::default();
    let list = read_lists(spec, &mut faults);
    let wanted = firmware_list::read(&spec.source_dir, &mut faults);
    let dirs = FirmwareDirs::new(&spec.source_dir, &spec.kernel_dir, &catalog.release);
    let mut closure = closure::resolve(&catalog, &list, &dirs, &mut faults);
    let firmware = firmware::collect(&dirs, &catalog, &wanted, &mut closure, &mut faults);
    faults.done()?;
    let tree = compose(spec, &catalog, &mut closure, &firmware)?;
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
    let image = image::pack(&tree, &files, packing, old.as_ref())?;
    let manifest = Manifest {
        schema: SCHEMA,
        tool: image::tool(),
        kernel_release: catalog.release.clone(),
        image_sha256: sha256(&image.bytes),
        image_size: image.bytes.len() as u64,
        unpacked_size: image.members.iter().map(|part| part.unpacked_size).sum(),
        members: image.members,
        modules: module_records(&catalog, &closure),
        builtin: closure.builtin.keys().cloned().collect(),
        firmware: firmware_records(&firmware),
        files,
    };
    let up_to_date = old.is_some_and(|old| old.manifest == manifest);
    if manifest.image_size > spec.max_size {
        return Err(BuildError::TooLarge {
            bytes: manifest.image_size,
            limit: spec.max_size,
            largest: largest(&manifest),
        });
    }
    if !up_to_date {
        write(&spec.out, &image.bytes, &manifest)?;
    }
    let undriven = nics::undriven(&catalog, &closure, &spec.nics);
    closure.warnings.extend(undriven);
    let chosen = closure.modules.keys().map(|name| &catalog.modules[name]);
    let unused = out_of_tree::unused(&spec.extra_modules, chosen);
    closure.warnings.extend(unused);
    closure.warnings.extend(too_large(spec.budget, &manifest));
    Ok(Built {
        bytes: manifest.image_size,
        sha256: manifest.image_sha256.clone(),
        up_to_date,
        manifest,
        warnings: closure.warnings,
    })
}

fn read_lists(spec: &BuildSpec, faults: &mut Faults) -> ModuleList {
    let mut paths = vec![spec.source_dir.join("modules.list")];
    let more = faults.keep(lists_of(&spec.source_dir.join("modules.d")));
    paths.extend(more.unwrap_or_default());
    paths.extend(spec.extra_lists.iter().cloned());
    ModuleList::read(&paths, faults)
}

/// Lays everything out: the source trees first, so that a path of theirs stays theirs.
fn compose(
    spec: &BuildSpec,
    catalog: &Catalog,
    closure: &mut Closure,
    firmware: &[FirmwareFile],
) -> Result<Tree, BuildError> {
    let mut tree = Tree::default();
    skeleton(&mut tree)?;
    tree.add_directory(&spec.source_dir.join("tree"))?;
    for dir in &spec.extra_trees {
        tree.add_directory(dir)?;
    }
    hooks::add(&mut tree, &spec.source_dir)?;
    tree.check_init()?;
    let (machine, warning) = busybox::add(&mut tree, &spec.busybox)?;
    closure.warnings.extend(warning);
    let modules_dir = format!("lib/modules/{}", catalog.release);
    for (name, text) in depmod::indexes(catalog, closure)? {
        let path = format!("{modules_dir}/{name}");
        tree.insert(&path, Item::file(0o644, text.into_bytes()))?;
    }
    for (name, chosen) in &closure.modules {
        let path = module_path(catalog, name);
        tree.insert(&path, Item::file(0o644, chosen.loaded.bytes.clone()))?;
    }
    for file in firmware {
        let path = firmware_path(file);
        tree.insert_new(&path, Item::file(0o644, file.bytes.clone()))?;
    }
    tree.check_programs(machine)?;
    Ok(tree)
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

fn too_large(budget: u64, manifest: &Manifest) -> Option<Warning> {
    if manifest.image_size <= budget {
        return None;
    }
    Some(Warning::Size {
        bytes: manifest.image_size,
        budget,
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
#[path = "compose_tests.rs"]
mod tests;
