//! `modules.dep` and its companions for the modules that are in the image.
//!
//! BusyBox's modprobe reads `modules.dep`, `modules.alias`, `modules.symbols` and
//! `modules.builtin` as text, loads a line's dependencies from right to left, gives up at the
//! first that fails, and knows nothing of `modules.softdep`. So soft dependencies stand
//! among the dependencies here, except where that could do harm.

use std::collections::BTreeSet;

use super::catalog::{Catalog, Resolved, read_optional};
use super::closure::Closure;
use super::error::{BuildError, Warning};
use super::names::canonical;

/// Content of the files for `lib/modules/RELEASE/`, by name.
pub(crate) type Indexes = Vec<(&'static str, String)>;

/// Writes the indexes; also warns of soft dependencies that no order can express.
pub(crate) fn indexes(catalog: &Catalog, closure: &mut Closure) -> Result<Indexes, BuildError> {
    let mut order = LoadOrder {
        catalog,
        closure,
        unordered: BTreeSet::new(),
    };
    let dep = order.modules_dep();
    let unordered = std::mem::take(&mut order.unordered);
    closure.warnings.extend(
        unordered
            .into_iter()
            .map(|(module, wants)| Warning::LoadOrder { module, wants }),
    );
    let symbols = read_optional(&catalog.modules_dir.join("modules.symbols"))?;
    let builtin = read_optional(&catalog.modules_dir.join("modules.builtin"))?;
    Ok(vec![
        ("modules.alias", modules_alias(closure)),
        ("modules.builtin", builtin),
        ("modules.dep", dep),
        ("modules.softdep", modules_softdep(catalog, closure)),
        ("modules.symbols", modules_symbols(&symbols, closure)),
    ])
}

struct LoadOrder<'a> {
    catalog: &'a Catalog,
    closure: &'a Closure,
    /// Module and the soft dependency that needs the module itself.
    unordered: BTreeSet<(String, String)>,
}

impl<'a> LoadOrder<'a> {
    fn modules_dep(&mut self) -> String {
        let mut text = String::from(
            "# Written by bridgehead. BusyBox modprobe has no softdep: soft dependencies stand among\n\
             # the dependencies, except modules for some CPUs only (one that refuses to load would\n\
             # stop the rest; their cpu: aliases load them). The last one on a line is loaded first.\n",
        );
        let mut lines: Vec<(&str, String)> = Vec::new();
        for name in self.closure.modules.keys() {
            let mut order = Vec::new();
            self.visit(name, &mut Vec::new(), &mut order);
            order.pop();
            let paths = order.iter().rev().map(|dep| self.path(dep));
            let deps: String = paths.map(|path| format!(" {path}")).collect();
            lines.push((self.path(name), deps));
        }
        lines.sort();
        for (path, deps) in lines {
            text += &format!("{path}:{deps}\n");
        }
        text
    }

    fn path(&self, name: &str) -> &'a str {
        &self.catalog.modules[name].path
    }

    /// Appends what `name` needs and then `name`; `above` are the modules that wait for it.
    fn visit(&mut self, name: &'a str, above: &mut Vec<&'a str>, order: &mut Vec<&'a str>) {
        if order.contains(&name) || above.contains(&name) {
            return;
        }
        above.push(name);
        for dep in self.hard(name) {
            self.visit(dep, above, order);
        }
        for dep in self.soft(name) {
            let mut needs = self.catalog.hard_closure(dep);
            needs.insert(dep);
            if above.iter().any(|module| needs.contains(module)) {
                self.unordered.insert((name.to_owned(), dep.to_owned()));
            } else {
                self.visit(dep, above, order);
            }
        }
        above.pop();
        order.push(name);
    }

    fn hard(&self, name: &str) -> Vec<&'a str> {
        let deps = self.catalog.modules[name].deps.iter();
        deps.filter_map(|dep| self.chosen(dep)).collect()
    }

    /// Soft dependencies that load on every machine.
    fn soft(&self, name: &str) -> Vec<&'a str> {
        let Some(soft) = self.catalog.soft.get(name) else {
            return Vec::new();
        };
        let targets = soft.pre.iter().chain(&soft.post);
        let modules = targets.flat_map(|target| match self.catalog.resolve(target) {
            Resolved::Modules(names) => names,
            Resolved::Builtin | Resolved::Missing => Vec::new(),
        });
        let modules = modules.filter_map(|name| self.chosen(&name));
        modules
            .filter(|name| !self.closure.modules[*name].loaded.info.wants_cpu_feature())
            .collect()
    }

    fn chosen(&self, name: &str) -> Option<&'a str> {
        let (key, _) = self.closure.modules.get_key_value(name)?;
        Some(key.as_str())
    }
}

/// Made from the modules themselves, so that it holds theirs and no others.
fn modules_alias(closure: &Closure) -> String {
    let lines: BTreeSet<String> = closure
        .modules
        .iter()
        .flat_map(|(name, chosen)| {
            let aliases = chosen.loaded.info.all("alias");
            aliases.map(move |alias| format!("alias {alias} {name}\n"))
        })
        .collect();
    lines.into_iter().collect()
}

fn modules_softdep(catalog: &Catalog, closure: &Closure) -> String {
    let mut text = String::new();
    for name in closure.modules.keys() {
        let Some(soft) = catalog.soft.get(name) else {
            continue;
        };
        for (when, names) in [("pre", &soft.pre), ("post", &soft.post)] {
            if !names.is_empty() {
                text += &format!("softdep {name} {when}: {}\n", names.join(" "));
            }
        }
    }
    text
}

/// Lines are `alias symbol:NAME MODULE`.
fn modules_symbols(all: &str, closure: &Closure) -> String {
    let lines: BTreeSet<&str> = all
        .lines()
        .filter(|line| {
            let module = line.rsplit_once(' ').map(|(_, module)| canonical(module));
            line.starts_with("alias symbol:")
                && module.is_some_and(|module| closure.modules.contains_key(&module))
        })
        .collect();
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lab;
    use super::*;

    fn made(lab: &Lab) -> (Indexes, Vec<Warning>) {
        let catalog = Catalog::read(&lab.kernel_dir(), &[]).unwrap();
        let mut closure = lab.close(&catalog).unwrap();
        let indexes = indexes(&catalog, &mut closure).unwrap();
        (indexes, closure.warnings)
    }

    fn text<'a>(indexes: &'a Indexes, name: &str) -> &'a str {
        let (_, text) = indexes.iter().find(|(file, _)| *file == name).unwrap();
        text
    }

    fn dep_lines(indexes: &Indexes) -> Vec<&str> {
        let lines = text(indexes, "modules.dep").lines();
        lines.filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn softdeps_become_dependencies_in_load_order() {
        let lab = Lab::new();
        lab.module("kernel/r8169.ko.xz", &["kernel/libphy.ko"], &[]);
        lab.write(
            "kernel/modules/kernel/r8169.ko.xz",
            super::super::compress::tests::xz(&super::super::testing::module(&[])),
        );
        lab.module("kernel/libphy.ko", &[], &[]);
        lab.module("kernel/realtek.ko", &["kernel/libphy.ko"], &[]);
        lab.append("modules.softdep", "softdep r8169 pre: realtek");
        lab.list("r8169\n");
        let (indexes, warnings) = made(&lab);
        assert_eq!(
            dep_lines(&indexes),
            [
                "kernel/libphy.ko:",
                "kernel/r8169.ko: kernel/realtek.ko kernel/libphy.ko",
                "kernel/realtek.ko: kernel/libphy.ko",
            ]
        );
        assert_eq!(
            text(&indexes, "modules.softdep"),
            "softdep r8169 pre: realtek\n"
        );
        assert!(warnings.is_empty());
    }

    #[test]
    fn a_softdep_that_a_cpu_may_refuse_is_no_dependency() {
        let lab = Lab::new();
        lab.module("kernel/libcrc32c.ko", &[], &[]);
        lab.module("kernel/generic.ko", &[], &[("alias", "crc32c")]);
        lab.module(
            "kernel/intel.ko",
            &[],
            &[
                ("alias", "crc32c"),
                ("alias", "cpu:type:x86,feature:*0094*"),
            ],
        );
        lab.append("modules.alias", "alias crc32c generic");
        lab.append("modules.alias", "alias crc32c intel");
        lab.append("modules.alias", "alias pci:other not_chosen");
        lab.append("modules.symbols", "alias symbol:crc32c libcrc32c");
        lab.append("modules.symbols", "alias symbol:other other");
        lab.append("modules.softdep", "softdep libcrc32c pre: crc32c");
        lab.list("libcrc32c\n");
        let (indexes, _) = made(&lab);
        assert_eq!(
            dep_lines(&indexes),
            [
                "kernel/generic.ko:",
                "kernel/intel.ko:",
                "kernel/libcrc32c.ko: kernel/generic.ko"
            ]
        );
        assert_eq!(
            text(&indexes, "modules.alias"),
            "alias cpu:type:x86,feature:*0094* intel\nalias crc32c generic\nalias crc32c intel\n"
        );
        assert_eq!(
            text(&indexes, "modules.symbols"),
            "alias symbol:crc32c libcrc32c\n"
        );
    }

    #[test]
    fn a_post_softdep_that_needs_the_module_is_warned_of() {
        let lab = Lab::new();
        lab.module("kernel/vfio.ko", &[], &[]);
        lab.module("kernel/vfio_iommu.ko", &["kernel/vfio.ko"], &[]);
        lab.append("modules.softdep", "softdep vfio post: vfio_iommu");
        lab.list("vfio\n");
        let (indexes, warnings) = made(&lab);
        assert_eq!(dep_lines(&indexes)[0], "kernel/vfio.ko:");
        let expected = Warning::LoadOrder {
            module: "vfio".into(),
            wants: "vfio_iommu".into(),
        };
        assert_eq!(warnings, [expected]);
    }

    #[test]
    fn direct_needs_of_out_of_tree_modules_are_followed() {
        let lab = Lab::new();
        lab.module("kernel/a.ko", &["kernel/b.ko"], &[]);
        lab.module("kernel/b.ko", &["kernel/c.ko"], &[]);
        lab.module("kernel/c.ko", &[], &[]);
        lab.list("a\n");
        assert_eq!(
            dep_lines(&made(&lab).0)[0],
            "kernel/a.ko: kernel/b.ko kernel/c.ko"
        );
    }
}
