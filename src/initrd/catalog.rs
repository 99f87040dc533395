//! A kernel's modules as depmod wrote them down, with directories of out-of-tree modules laid over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::compress;
use super::error::BuildError;
use super::modinfo::{Modinfo, Softdep};
use super::names::{canonical, matches, of_path};

/// Everything that is known of a kernel's modules without opening them.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) release: String,
    pub(crate) modules_dir: PathBuf,
    /// By canonical name.
    pub(crate) modules: BTreeMap<String, ModuleFile>,
    pub(crate) builtin: BTreeSet<String>,
    pub(crate) soft: HashMap<String, Softdep>,
    pub(crate) weak: HashMap<String, Vec<String>>,
    /// Firmware that built-in drivers name.
    pub(crate) builtin_firmware: HashMap<String, Vec<String>>,
    /// Alias and name: of modules, and of what is built in.
    pub(crate) aliases: Vec<(String, String)>,
}

/// Where a module is, and what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModuleFile {
    pub(crate) source: PathBuf,
    /// Below `lib/modules/RELEASE/`, without a compression suffix.
    pub(crate) path: String,
    /// Canonical names; depmod writes the whole closure, an out-of-tree module its direct needs.
    pub(crate) deps: Vec<String>,
    pub(crate) origin: Origin,
}

/// Whose module it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The kernel's own.
    #[default]
    Kernel,
    /// Of a directory of out-of-tree modules.
    OutOfTree,
    /// The same, and the kernel's own of that name stays out.
    Replacement,
}

impl Origin {
    pub(crate) fn is_kernel(&self) -> bool {
        *self == Self::Kernel
    }
}

impl fmt::Display for Origin {
    /// What follows a reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "",
            Self::OutOfTree => ", out of tree",
            Self::Replacement => ", out of tree, in place of the kernel's",
        })
    }
}

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    Modules(Vec<String>),
    Builtin,
    Missing,
}

impl Catalog {
    /// Reads `kernel_dir` (`kernels/NAME` of the data directory).
    pub(crate) fn read(kernel_dir: &Path, extra: &[PathBuf]) -> Result<Self, BuildError> {
        let modules_dir = kernel_dir.join("modules");
        let mut catalog = Self {
            release: read_release(&kernel_dir.join("release"))?,
            modules_dir: modules_dir.clone(),
            ..Self::default()
        };
        catalog.read_dep(&modules_dir.join("modules.dep"))?;
        let lines = |name: &str| read_optional(&modules_dir.join(name));
        catalog.add_builtin(&lines("modules.builtin")?);
        catalog.add_soft(&lines("modules.softdep")?);
        catalog.add_weak(&lines("modules.weakdep")?);
        catalog.add_aliases(&lines("modules.alias")?);
        catalog.add_builtin_modinfo(&lines("modules.builtin.modinfo")?);
        catalog.lay_over(extra)?;
        Ok(catalog)
    }

    fn read_dep(&mut self, path: &Path) -> Result<(), BuildError> {
        let text = fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => BuildError::Kernel {
                path: path.to_owned(),
                problem: "modules.dep is missing; run depmod -b on the module tree (make kernel and the demo's set-up do)".into(),
            },
            _ => BuildError::io("read", path)(source),
        })?;
        for (file, deps) in text.lines().filter_map(|line| line.split_once(':')) {
            let Some(name) = of_path(file) else { continue };
            let module = ModuleFile {
                source: self.modules_dir.join(file),
                path: without_suffix(file),
                deps: deps.split_whitespace().filter_map(of_path).collect(),
                origin: Origin::Kernel,
            };
            self.modules.insert(name, module);
        }
        Ok(())
    }

    fn add_builtin(&mut self, text: &str) {
        self.builtin = text.lines().filter_map(of_path).collect();
    }

    fn add_soft(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some("softdep"), Some(name)) = (words.next(), words.next()) {
                self.soft.entry(canonical(name)).or_default().add(words);
            }
        }
    }

    fn add_weak(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some("weakdep"), Some(name)) = (words.next(), words.next()) {
                let weak = self.weak.entry(canonical(name)).or_default();
                weak.extend(words.map(str::to_owned));
            }
        }
    }

    fn add_aliases(&mut self, text: &str) {
        let aliases = text.lines().filter_map(|line| {
            let (alias, module) = line.strip_prefix("alias ")?.rsplit_once(' ')?;
            Some((canonical(alias), canonical(module)))
        });
        self.aliases.extend(aliases);
    }

    fn add_builtin_modinfo(&mut self, text: &str) {
        for entry in text.split('\0') {
            let Some((key, file)) = entry.split_once('=') else {
                continue;
            };
            if let Some(module) = key.strip_suffix(".alias") {
                self.aliases.push((canonical(file), canonical(module)));
            }
            if let Some(module) = key.strip_suffix(".firmware") {
                let files = self.builtin_firmware.entry(canonical(module)).or_default();
                files.push(file.to_owned());
            }
        }
    }

    /// What `name` stands for: a module, something built in, or an alias of modules.
    pub(crate) fn resolve(&self, name: &str) -> Resolved {
        let name = canonical(name);
        if self.modules.contains_key(&name) {
            return Resolved::Modules(vec![name]);
        }
        if self.builtin.contains(&name) {
            return Resolved::Builtin;
        }
        let known = self
            .aliases
            .iter()
            .filter(|(_, module)| self.modules.contains_key(module));
        let hits = known.filter(|(alias, _)| matches(alias, &name));
        let found: BTreeSet<String> = hits.map(|(_, module)| module.clone()).collect();
        if found.is_empty() {
            return Resolved::Missing;
        }
        Resolved::Modules(found.into_iter().collect())
    }

    /// Everything that `name` needs by symbol, itself not included.
    pub(crate) fn hard_closure(&self, name: &str) -> BTreeSet<&str> {
        let mut closure = BTreeSet::new();
        let mut waiting: Vec<&ModuleFile> = self.modules.get(name).into_iter().collect();
        while let Some(module) = waiting.pop() {
            let deps = module.deps.iter().map(String::as_str);
            let new = deps.filter(|dep| closure.insert(*dep));
            waiting.extend(new.filter_map(|dep| self.modules.get(dep)));
        }
        closure
    }
}

/// Reads a module, unpacks it and checks that it is one for `release`.
pub(crate) fn load(path: &Path, release: &str) -> Result<(Vec<u8>, Modinfo), BuildError> {
    let bad = |problem: String| BuildError::Module {
        path: path.to_owned(),
        problem,
    };
    let packed = fs::read(path).map_err(BuildError::io("read module", path))?;
    let bytes = compress::unpack(packed).map_err(BuildError::io("unpack module", path))?;
    let info = Modinfo::of_module(&bytes).map_err(|problem| bad(problem.to_string()))?;
    match info.built_for() {
        Some(other) if other != release => Err(bad(format!(
            "built for kernel {other}, not for {release}; build it against this kernel's headers"
        ))),
        _ => Ok((bytes, info)),
    }
}

/// A [`BuildError::Io`] from walking a directory.
pub(crate) fn walk_error(operation: &'static str, dir: &Path, error: walkdir::Error) -> BuildError {
    BuildError::Io {
        operation,
        path: error.path().unwrap_or(dir).to_owned(),
        source: error
            .into_io_error()
            .unwrap_or_else(|| std::io::Error::other("symbolic links form a loop")),
    }
}

fn read_release(path: &Path) -> Result<String, BuildError> {
    let text = fs::read_to_string(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => BuildError::Kernel {
            path: path.to_owned(),
            problem: "no such file; a kernel directory holds vmlinuz, release and modules/ (make kernel lays one out)".into(),
        },
        _ => BuildError::io("read kernel release", path)(source),
    })?;
    let release = text.trim();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-~".contains(&byte);
    if release.is_empty() || release.starts_with('.') || !release.bytes().all(fits) {
        return Err(BuildError::Kernel {
            path: path.to_owned(),
            problem: "must hold the one line that uname -r prints".into(),
        });
    }
    Ok(release.to_owned())
}

/// A file that not every kernel has; absent is empty.
pub(crate) fn read_optional(path: &Path) -> Result<String, BuildError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(BuildError::io("read", path)(source)),
    }
}

pub(crate) fn without_suffix(path: &str) -> String {
    match path.rsplit_once(".ko") {
        Some((stem, _)) => format!("{stem}.ko"),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lab;
    use super::*;

    #[test]
    fn resolves_names_builtins_and_aliases() {
        let lab = Lab::new();
        lab.module("kernel/virtio-rng.ko", &[], &[]);
        lab.module("kernel/a_generic.ko", &[], &[]);
        lab.append("modules.builtin", "kernel/net/packet/af_packet.ko");
        lab.append("modules.alias", "alias crypto-a* a_generic");
        lab.append("modules.alias", "alias crypto-b gone");
        let catalog = Catalog::read(&lab.kernel_dir(), &[]).unwrap();
        let one = |name: &str| Resolved::Modules(vec![name.to_owned()]);
        assert_eq!(catalog.resolve("virtio_rng"), one("virtio_rng"));
        assert_eq!(catalog.resolve("virtio-rng"), one("virtio_rng"));
        assert_eq!(catalog.resolve("af-packet"), Resolved::Builtin);
        assert_eq!(catalog.resolve("crypto_a1"), one("a_generic"));
        assert_eq!(catalog.resolve("none"), Resolved::Missing);
        assert_eq!(catalog.resolve("crypto-b"), Resolved::Missing);
    }

    #[test]
    fn missing_modules_dep_says_depmod() {
        let lab = Lab::new();
        std::fs::remove_file(lab.path("kernel/modules/modules.dep")).unwrap();
        let error = Catalog::read(&lab.kernel_dir(), &[]).unwrap_err();
        assert!(error.to_string().contains("run depmod -b"), "{error}");
    }

    #[test]
    fn a_directory_that_is_no_kernel_says_so() {
        let lab = Lab::new();
        let error = Catalog::read(&lab.path("none"), &[]).unwrap_err();
        assert!(
            error.to_string().contains("none/release: no such file"),
            "{error}"
        );
        for release in ["", "a/b", "..", "two lines\nhere"] {
            lab.write("kernel/release", release);
            let error = Catalog::read(&lab.kernel_dir(), &[]).unwrap_err();
            assert!(error.to_string().contains("uname -r"), "{error}");
        }
    }
}
