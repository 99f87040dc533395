//! Directories of out-of-tree modules (a NIC's driver, Lustre's), laid over the kernel's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::catalog::{Catalog, ModuleFile, Origin, load, walk_error, without_suffix};
use super::error::{BuildError, Warning};
use super::faults::Faults;
use super::modinfo::{Modinfo, Softdep};
use super::names::{canonical, of_path};

/// By canonical name: where the module was found.
type Seen = BTreeMap<String, PathBuf>;

impl Catalog {
    /// The newcomer wins over the kernel's own of its name, as with depmod's `updates/`.
    ///
    /// # Errors
    /// Every module that could not be loaded, or that is there twice.
    pub(crate) fn lay_over(&mut self, directories: &[PathBuf]) -> Result<(), BuildError> {
        let (mut faults, mut seen) = (Faults::default(), Seen::new());
        let flags = self.any_vermagic();
        for directory in directories {
            let before = seen.len();
            let added = self.add_directory(directory, flags.as_deref(), &mut seen, &mut faults);
            if faults.keep(added).is_some() && seen.len() == before {
                faults.add(bad(
                    directory,
                    "holds no module (NAME.ko, .ko.gz, .ko.xz, .ko.zst)",
                ));
            }
        }
        faults.done()
    }

    fn add_directory(
        &mut self,
        directory: &Path,
        flags: Option<&str>,
        seen: &mut Seen,
        faults: &mut Faults,
    ) -> Result<(), BuildError> {
        for entry in WalkDir::new(directory).sort_by_file_name() {
            let entry =
                entry.map_err(|error| walk_error("read modules directory", directory, error))?;
            let relative = entry.path().strip_prefix(directory).unwrap_or(entry.path());
            let relative = relative.to_str().filter(|_| !entry.file_type().is_dir());
            let Some((relative, name)) = relative.and_then(|path| Some((path, of_path(path)?)))
            else {
                continue;
            };
            if let Some(other) = seen.insert(name.clone(), entry.path().to_owned()) {
                let problem = format!("{} is a module of that name too; keep one", other.display());
                faults.add(bad(entry.path(), problem));
                continue;
            }
            faults.keep(self.add_module(name, entry.path(), relative, flags));
        }
        Ok(())
    }

    fn add_module(
        &mut self,
        name: String,
        source: &Path,
        relative: &str,
        flags: Option<&str>,
    ) -> Result<(), BuildError> {
        let (_, info) = load(source, &self.release)?;
        check_flags(source, &info, flags)?;
        if self.builtin.contains(&name) {
            let problem = format!(
                "kernel {} has `{name}` built in and loads no second one; leave it out, or take a kernel with it as a module",
                self.release
            );
            return Err(bad(source, problem));
        }
        let mut soft = Softdep::default();
        info.all("softdep")
            .for_each(|line| soft.add(line.split_whitespace()));
        self.soft.insert(name.clone(), soft);
        let weak = info.all("weakdep").flat_map(str::split_whitespace);
        self.weak
            .insert(name.clone(), weak.map(str::to_owned).collect());
        let aliases = info
            .all("alias")
            .map(|alias| (canonical(alias), name.clone()));
        self.aliases.extend(aliases);
        let deps = info.all("depends").flat_map(|list| list.split(','));
        let module = ModuleFile {
            source: source.to_owned(),
            path: format!("updates/{}", without_suffix(relative)),
            deps: deps.filter(|dep| !dep.is_empty()).map(canonical).collect(),
            origin: match self.modules.contains_key(&name) {
                true => Origin::Replacement,
                false => Origin::OutOfTree,
            },
        };
        self.modules.insert(name, module);
        Ok(())
    }

    /// What a module of this kernel says beside the release: `SMP preempt mod_unload modversions`.
    fn any_vermagic(&self) -> Option<String> {
        let module = self.modules.values().next()?;
        let (_, info) = load(&module.source, &self.release).ok()?;
        Some(info.built_with()?.to_owned())
    }
}

/// The kernel compares the whole line (kernel, `kernel/module/version.c`, `same_magic`).
fn check_flags(source: &Path, info: &Modinfo, flags: Option<&str>) -> Result<(), BuildError> {
    match (info.built_with(), flags) {
        (Some(its), Some(kernels)) if its != kernels => {
            let problem = format!(
                "built with `{its}`, and the kernel's own modules with `{kernels}`; build it against this kernel's headers and configuration"
            );
            Err(bad(source, problem))
        }
        _ => Ok(()),
    }
}

fn bad(path: &Path, problem: impl Into<String>) -> BuildError {
    BuildError::Module {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

/// A warning for each directory of which nothing was chosen.
pub(crate) fn unused<'a>(
    directories: &[PathBuf],
    chosen: impl Iterator<Item = &'a ModuleFile> + Clone,
) -> Vec<Warning> {
    let of = |directory: &&PathBuf| {
        let mut chosen = chosen.clone();
        !chosen.any(|module| !module.origin.is_kernel() && module.source.starts_with(directory))
    };
    let unused = directories.iter().filter(of);
    unused
        .map(|directory| Warning::UnusedModules {
            directory: directory.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::compress::tests::xz;
    use super::super::testing::{Lab, RELEASE, module};
    use super::*;

    fn read(lab: &Lab) -> Result<Catalog, BuildError> {
        Catalog::read(&lab.kernel_dir(), &[lab.path("lustre")])
    }

    #[test]
    fn a_module_wins_over_the_kernels_own() {
        let lab = Lab::new();
        lab.module("kernel/net/lnet.ko", &[], &[]);
        let bytes = module(&[
            ("depends", "libcfs,sunrpc"),
            ("softdep", "pre: crc"),
            ("vermagic", "6.1.0-test SMP"),
        ]);
        lab.write("lustre/net/lnet.ko.xz", xz(&bytes));
        lab.write("lustre/libcfs.ko", module(&[]));
        let catalog = read(&lab).unwrap();
        let lnet = &catalog.modules["lnet"];
        assert_eq!(lnet.path, "updates/net/lnet.ko");
        assert_eq!(lnet.deps, ["libcfs", "sunrpc"]);
        assert_eq!(lnet.origin, Origin::Replacement);
        assert_eq!(catalog.modules["libcfs"].origin, Origin::OutOfTree);
        assert_eq!(catalog.soft["lnet"].pre, ["crc"]);
        assert_eq!(load(&lnet.source, RELEASE).unwrap().0, bytes);
    }

    #[test]
    fn dependencies_are_followed_through_both_trees() {
        let lab = Lab::new();
        lab.module("kernel/sunrpc.ko", &["kernel/grace.ko"], &[]);
        lab.module("kernel/grace.ko", &[], &[]);
        lab.module("kernel/other.ko", &[], &[]);
        lab.write("lustre/lustre.ko", module(&[("depends", "obdclass")]));
        lab.write("lustre/obdclass.ko", module(&[("depends", "sunrpc")]));
        lab.write("lustre/unwanted.ko", module(&[]));
        lab.list("lustre\n");
        let closure = lab.close(&read(&lab).unwrap()).unwrap();
        let names: Vec<&str> = closure.modules.keys().map(String::as_str).collect();
        assert_eq!(names, ["grace", "lustre", "obdclass", "sunrpc"]);
        lab.write("lustre/obdclass.ko", module(&[("depends", "gone")]));
        let text = lab.close(&read(&lab).unwrap()).unwrap_err().to_string();
        assert!(text.contains("module `obdclass` needs `gone`"), "{text}");
    }

    #[test]
    fn every_module_that_could_not_be_loaded_is_named() {
        let lab = Lab::new();
        lab.module("kernel/net/igb.ko", &[], &[]);
        lab.append("modules.builtin", "kernel/net/packet/af_packet.ko");
        lab.write("lustre/a.ko", module(&[("vermagic", "5.0.0 SMP")]));
        lab.write("lustre/af_packet.ko", module(&[]));
        lab.write(
            "lustre/b.ko",
            module(&[("vermagic", "6.1.0-test SMP preempt")]),
        );
        lab.write("lustre/c.ko", "rubbish");
        lab.write("lustre/d-e.ko", module(&[]));
        lab.write("lustre/old/d_e.ko.xz", xz(&module(&[])));
        let text = read(&lab).unwrap_err().to_string();
        for expected in [
            "a.ko: built for kernel 5.0.0, not for 6.1.0-test",
            "af_packet.ko: kernel 6.1.0-test has `af_packet` built in",
            "b.ko: built with `SMP preempt`, and the kernel's own modules with `SMP`",
            "c.ko: not an ELF file",
            "old/d_e.ko.xz: ",
            "lustre/d-e.ko is a module of that name too; keep one",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(text.starts_with("5 faults:"), "{text}");
    }

    #[test]
    fn a_directory_without_modules_is_refused() {
        let lab = Lab::new();
        lab.write("lustre/README", "");
        let text = read(&lab).unwrap_err().to_string();
        assert!(
            text.ends_with("holds no module (NAME.ko, .ko.gz, .ko.xz, .ko.zst)"),
            "{text}"
        );
    }
}
