//! What can go wrong in a build, and what is only worth saying.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::inventory::PciId;

/// A line of one of the operator's lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPos {
    /// The list as it was named to the builder.
    pub file: Arc<Path>,
    /// 1-based line.
    pub line: usize,
}

impl ListPos {
    /// `modules.list`, `modules.d/site.list`: without the way there, because a manifest must not
    /// depend on where the builder was run.
    pub(crate) fn list(&self) -> String {
        let folder = self.file.parent().and_then(Path::file_name);
        let folder = folder.filter(|name| name.as_encoded_bytes().ends_with(b".d"));
        let name = self.file.file_name().unwrap_or(self.file.as_os_str());
        let path = folder.map_or_else(PathBuf::new, PathBuf::from).join(name);
        path.to_string_lossy().into_owned()
    }
}

impl fmt::Display for ListPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// No initrd was written; the old one, if there was one, is untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A file or directory could not be read, run or written.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was being done: `read modules list`.
        operation: &'static str,
        /// The object.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel directory isn't one.
    #[error("kernel {}: {problem}", path.display())]
    Kernel {
        /// The kernel directory, or the file in it.
        path: PathBuf,
        /// What is wrong and what mends it.
        problem: String,
    },
    /// A line of a list makes no sense, or what it names can't be had.
    #[error("{at}: {problem}")]
    List {
        /// The line.
        at: ListPos,
        /// What is wrong and what mends it.
        problem: String,
    },
    /// A required module is not among the kernel's.
    #[error("{0}")]
    MissingModule(Box<MissingModule>),
    /// A module needs a module that isn't there.
    #[error(
        "{at}: module `{module}` needs `{needs}`, which kernel {release} does not have; run depmod -b again, give the directory of out-of-tree modules that has it with --modules, or mark the line `optional`"
    )]
    MissingDependency {
        /// The list line that asks for it.
        at: ListPos,
        /// Who needs it.
        module: String,
        /// What is needed.
        needs: String,
        /// The kernel.
        release: String,
    },
    /// Firmware that a line calls `required` is not in the kernel's firmware directory.
    #[error("{at}: {missing}")]
    MissingFirmware {
        /// The list line that asks for it.
        at: ListPos,
        /// Module, files, package.
        missing: Box<MissingFirmware>,
    },
    /// A module's file is damaged or made for another kernel.
    #[error("module {}: {problem}", path.display())]
    Module {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An archive that is to be appended can't be.
    #[error(
        "append {}: {problem}; it must be a newc archive (cpio -o -H newc), plain or packed by gzip, xz or zstd",
        path.display()
    )]
    Append {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// More than one of these.
    #[error("{}", lines(.0))]
    Several(Vec<Self>),
    /// The image is larger than it may be.
    #[error(
        "the image has {bytes} bytes and may have {limit}; the largest files: {}; remove what no host needs, or raise --max-size (make initrd MAX_SIZE=…)",
        largest.join(", ")
    )]
    TooLarge {
        /// Bytes of the image.
        bytes: u64,
        /// The limit.
        limit: u64,
        /// The largest files, as `name (bytes)`.
        largest: Vec<String>,
    },
    /// BusyBox can't serve in an initrd.
    #[error("busybox {}: {problem}; install a static one (Debian: busybox-static)", path.display())]
    Busybox {
        /// The binary.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// zstd has no such level.
    #[error("zstd level {0} does not exist; take 1 to 22 (19 is the default)")]
    Level(i32),
    /// A path can't go into the image, or a path that must be there isn't.
    #[error("initrd path `{path}`: {problem}")]
    Tree {
        /// The path inside the image, without a leading `/`.
        path: String,
        /// What is wrong and what mends it.
        problem: String,
    },
}

/// An error with its causes, on one line.
pub(crate) fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// `3 faults:` and a line for each, with its causes.
fn lines(errors: &[BuildError]) -> String {
    let mut text = format!("{} faults:", errors.len());
    for error in errors {
        text += &format!("\n  {}", error.full_text());
    }
    text
}

impl BuildError {
    /// The error with its causes, on one line.
    pub(crate) fn full_text(&self) -> String {
        full_text(self)
    }

    /// An [`BuildError::Io`] maker for `map_err`.
    pub(crate) fn io<'a>(
        operation: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}

/// A required module that the kernel has neither as a file nor built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingModule {
    /// The list line.
    pub at: ListPos,
    /// The name as written.
    pub name: String,
    /// The kernel's release, `uname -r`.
    pub release: String,
    /// Where its modules were looked for.
    pub modules_dir: PathBuf,
    /// Names that exist, most alike first; may be empty.
    pub nearest: Vec<String>,
}

impl fmt::Display for MissingModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: required module `{}` is not in kernel {} ({})",
            self.at,
            self.name,
            self.release,
            self.modules_dir.display()
        )?;
        if !self.nearest.is_empty() {
            write!(f, "; nearest names: {}", self.nearest.join(", "))?;
        }
        f.write_str(
            "; correct the name, enable the driver in the kernel, or mark the line `optional`",
        )
    }
}

/// Firmware files that a module names and nobody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingFirmware {
    /// The module.
    pub module: String,
    /// The files, as the module names them (below `/lib/firmware`).
    pub files: Vec<String>,
    /// The kernel's firmware, where they were looked for.
    pub directory: PathBuf,
    /// The operator's own, where they were looked for too.
    pub own: PathBuf,
    /// Debian's package that usually holds them.
    pub package: &'static str,
}

impl fmt::Display for MissingFirmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let shown = self.files.iter().take(SHOWN).map(String::as_str);
        write!(
            f,
            "module `{}` names firmware that is not in {}: {}",
            self.module,
            self.directory.display(),
            shown.collect::<Vec<_>>().join(", ")
        )?;
        if let Some(more) = self.files.len().checked_sub(SHOWN + 1) {
            write!(f, " and {} more", more + 1)?;
        }
        write!(
            f,
            "; package {} usually holds it: put the file below {}",
            self.package,
            self.own.display()
        )
    }
}

/// The initrd was built, but the operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// An optional line, or an optional need of a module, was left out.
    LeftOut {
        /// What was left out.
        module: String,
        /// The error that a required line would have been.
        because: String,
    },
    /// Optional firmware is missing: the driver is in, and may not work.
    Firmware(MissingFirmware),
    /// Microcode was asked for, and the data directory has none.
    NoMicrocode {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// No module of a directory of out-of-tree modules is in the image.
    UnusedModules {
        /// The directory.
        directory: PathBuf,
    },
    /// A soft dependency whose order BusyBox's modprobe can't be told.
    LoadOrder {
        /// The module with the soft dependency.
        module: String,
        /// What should be loaded around it.
        wants: String,
    },
    /// A NIC that hosts are known to have, and nothing in the image drives.
    UndrivenNic {
        /// The NIC.
        id: PciId,
        /// Who has it.
        hosts: Vec<String>,
        /// The kernel's modules that would drive it; may be empty.
        drivers: Vec<String>,
        /// The kernel.
        release: String,
    },
    /// BusyBox could not be asked for its applets.
    Applets {
        /// Why.
        because: String,
    },
    /// The image is larger than the budget.
    Size {
        /// Bytes of the image.
        bytes: u64,
        /// The budget.
        budget: u64,
        /// The largest files, as `name (bytes)`.
        largest: Vec<String>,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftOut { module, because } => write!(f, "left out `{module}`: {because}"),
            Self::Firmware(missing) => missing.fmt(f),
            Self::NoMicrocode { directory } => write!(
                f,
                "the image has no microcode in it: {} has neither intel-ucode/ nor amd-ucode/",
                directory.display()
            ),
            Self::UnusedModules { directory } => write!(
                f,
                "no module of {} is in the image; name those that a boot needs in a list, such as initrd/modules.d/site.list",
                directory.display()
            ),
            Self::LoadOrder { module, wants } => write!(
                f,
                "`{wants}` belongs to `{module}` but must be loaded after it by hand: BusyBox modprobe knows no softdep"
            ),
            Self::UndrivenNic {
                id,
                hosts,
                drivers,
                release,
            } => undriven(f, *id, hosts, drivers, release),
            Self::Applets { because } => write!(
                f,
                "busybox did not list its applets ({because}); the links are made from a fixed list"
            ),
            Self::Size {
                bytes,
                budget,
                largest,
            } => write!(
                f,
                "the image has {bytes} bytes, over the budget of {budget}; the largest files: {}",
                largest.join(", ")
            ),
        }
    }
}

fn undriven(
    f: &mut fmt::Formatter<'_>,
    id: PciId,
    hosts: &[String],
    drivers: &[String],
    release: &str,
) -> fmt::Result {
    const SHOWN: usize = 3;
    let shown = hosts.iter().take(SHOWN).map(String::as_str);
    let shown = shown.collect::<Vec<_>>().join(", ");
    write!(f, "no module in the image drives the NIC {id} of {shown}")?;
    if let Some(more) = hosts.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        write!(f, " and {more} more")?;
    }
    match drivers.join("` or `").as_str() {
        "" => write!(
            f,
            ", and kernel {release} has none that would; take a kernel with its driver, or give an out-of-tree one with --modules"
        ),
        names => write!(
            f,
            "; the kernel's `{names}` would: add a line `{}` to a modules list",
            drivers[0]
        ),
    }
}
