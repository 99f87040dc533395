//! Which modules go in, and why: `modules.dep` ∪ softdep ∪ weakdep ∪ the list's `->` rules.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, Resolved, load};
use super::error::{BuildError, ListPos, MissingModule, Warning};
use super::faults::Faults;
use super::firmware::FirmwareDirs;
use super::list::{FirmwarePolicy, ModuleList, Wanted};
use super::modinfo::Modinfo;
use super::names::{canonical, nearest};

/// Why a module is in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// A line of a modules list names it.
    Listed {
        /// File name of the list.
        list: String,
        /// 1-based line.
        line: usize,
    },
    /// Another module needs its symbols (`modules.dep`).
    Dependency {
        /// The module that needs it.
        of: String,
    },
    /// Another module wants it loaded before or after itself (`modules.softdep`).
    Soft {
        /// The module that wants it.
        of: String,
    },
    /// Another module may ask for it (`modules.weakdep`).
    Weak {
        /// The module that may ask.
        of: String,
    },
    /// A `->` line says that another module requests it at run time.
    Also {
        /// The module on the left of the arrow.
        of: String,
        /// File name of the list.
        list: String,
        /// 1-based line.
        line: usize,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed { list, line } => write!(f, "listed in {list}:{line}"),
            Self::Dependency { of } => write!(f, "{of} needs it"),
            Self::Soft { of } => write!(f, "soft dependency of {of}"),
            Self::Weak { of } => write!(f, "weak dependency of {of}"),
            Self::Also { of, list, line } => write!(f, "{of} requests it ({list}:{line})"),
        }
    }
}

/// An unpacked module.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) info: Modinfo,
}

/// A module that goes in.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) reason: Reason,
    pub(crate) firmware: FirmwarePolicy,
    pub(crate) loaded: Rc<Loaded>,
}

/// What goes in, by canonical name.
#[derive(Debug, Default)]
pub(crate) struct Closure {
    pub(crate) modules: BTreeMap<String, Chosen>,
    /// Listed drivers that are built in: only their firmware goes in.
    pub(crate) builtin: BTreeMap<String, FirmwarePolicy>,
    pub(crate) warnings: Vec<Warning>,
}

/// Resolves every line of the list; a required one that can't be had whole is a fault.
pub(crate) fn resolve(
    catalog: &Catalog,
    list: &ModuleList,
    firmware: &FirmwareDirs,
    faults: &mut Faults,
) -> Closure {
    let mut resolver = Resolver {
        catalog,
        list,
        firmware,
        cache: HashMap::new(),
        closure: Closure::default(),
    };
    for wanted in &list.wanted {
        match resolver.line(wanted) {
            Err(error) if wanted.required => faults.add(error),
            Err(error) => resolver.left_out(&wanted.name, &error),
            Ok(()) => {}
        }
    }
    resolver.closure
}

/// A need of a module.
struct Need<'a> {
    name: &'a str,
    reason: Reason,
    /// May be absent as a whole.
    soft: bool,
    /// The rule that names it, for an error's position.
    at: Option<&'a ListPos>,
}

/// What one line adds: built aside, so that a line that fails leaves nothing behind.
type Trial = BTreeMap<String, (Reason, Rc<Loaded>)>;

struct Resolver<'a> {
    catalog: &'a Catalog,
    list: &'a ModuleList,
    firmware: &'a FirmwareDirs,
    cache: HashMap<String, Rc<Loaded>>,
    closure: Closure,
}

impl<'a> Resolver<'a> {
    fn line(&mut self, wanted: &'a Wanted) -> Result<(), BuildError> {
        let mut trial = Trial::new();
        let reason = Reason::Listed {
            list: wanted.at.list(),
            line: wanted.at.line,
        };
        let mut builtin = None;
        match self.catalog.resolve(&wanted.name) {
            Resolved::Missing => return Err(self.missing(&wanted.at, &wanted.name)),
            Resolved::Builtin => builtin = Some(canonical(&wanted.name)),
            Resolved::Modules(names) => {
                for name in names {
                    self.gather(&name, reason.clone(), &wanted.at, &mut trial)?;
                }
            }
        }
        if let Some(name) = &builtin {
            self.needs_of(name, &wanted.at, &mut trial)?;
        }
        self.check_firmware(wanted, &trial, builtin.as_deref())?;
        self.accept(trial, wanted.firmware, builtin);
        Ok(())
    }

    /// Adds `name` and all it needs. `trial` guards against cycles.
    fn gather(
        &mut self,
        name: &str,
        reason: Reason,
        at: &ListPos,
        trial: &mut Trial,
    ) -> Result<(), BuildError> {
        if trial.contains_key(name) {
            return Ok(());
        }
        let loaded = self.load(name)?;
        trial.insert(name.to_owned(), (reason, loaded));
        self.needs_of(name, at, trial)
    }

    fn needs_of(&mut self, name: &str, at: &ListPos, trial: &mut Trial) -> Result<(), BuildError> {
        for need in self.needs(name) {
            if !need.soft {
                self.take(name, &need, at, trial)?;
                continue;
            }
            let before = trial.clone();
            if let Err(error) = self.take(name, &need, at, trial) {
                *trial = before;
                self.left_out(need.name, &error);
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        module: &str,
        need: &Need<'a>,
        at: &ListPos,
        trial: &mut Trial,
    ) -> Result<(), BuildError> {
        match self.catalog.resolve(need.name) {
            Resolved::Builtin => Ok(()),
            Resolved::Missing if need.soft => Ok(()),
            Resolved::Missing => match need.at {
                Some(rule) => Err(self.missing(rule, need.name)),
                None => Err(self.missing_dependency(at, module, need.name)),
            },
            Resolved::Modules(names) => names
                .iter()
                .try_for_each(|name| self.gather(name, need.reason.clone(), at, trial)),
        }
    }

    /// Needs in the order: symbols first, then softdep, weakdep, rules.
    fn needs(&self, module: &str) -> Vec<Need<'a>> {
        let catalog = self.catalog;
        let of = || module.to_owned();
        let file = catalog.modules.get(module);
        let hard = file.into_iter().flat_map(|file| &file.deps);
        let hard = hard.map(|name| need(name, Reason::Dependency { of: of() }, false));
        let soft = catalog.soft.get(module).into_iter();
        let soft = soft.flat_map(|soft| soft.pre.iter().chain(&soft.post));
        let soft = soft.map(|name| need(name, Reason::Soft { of: of() }, true));
        let weak = catalog.weak.get(module).into_iter().flatten();
        let weak = weak.map(|name| need(name, Reason::Weak { of: of() }, true));
        let also = self.list.also.get(module).into_iter().flatten();
        let also = also.map(|also| Need {
            name: &also.name,
            reason: Reason::Also {
                of: of(),
                list: also.at.list(),
                line: also.at.line,
            },
            soft: !also.required,
            at: Some(&also.at),
        });
        hard.chain(soft).chain(weak).chain(also).collect()
    }

    fn load(&mut self, name: &str) -> Result<Rc<Loaded>, BuildError> {
        if let Some(loaded) = self.cache.get(name) {
            return Ok(Rc::clone(loaded));
        }
        let file = &self.catalog.modules[name];
        let (bytes, info) = load(&file.source, &self.catalog.release)?;
        let loaded = Rc::new(Loaded { bytes, info });
        self.cache.insert(name.to_owned(), Rc::clone(&loaded));
        Ok(loaded)
    }

    fn check_firmware(
        &self,
        wanted: &Wanted,
        trial: &Trial,
        builtin: Option<&str>,
    ) -> Result<(), BuildError> {
        if wanted.firmware != FirmwarePolicy::Required {
            return Ok(());
        }
        let of_builtin = builtin.and_then(|name| self.catalog.builtin_firmware.get_key_value(name));
        let modules = trial
            .iter()
            .map(|(name, (_, loaded))| (name, loaded.info.firmware()))
            .chain(of_builtin.map(|(name, files)| (name, files.clone())));
        for (name, files) in modules {
            if let Some(missing) = self.firmware.missing(name, &files) {
                let (at, missing) = (wanted.at.clone(), Box::new(missing));
                return Err(BuildError::MissingFirmware { at, missing });
            }
        }
        Ok(())
    }

    fn accept(&mut self, trial: Trial, firmware: FirmwarePolicy, builtin: Option<String>) {
        if let Some(name) = builtin {
            let policy = self.closure.builtin.entry(name).or_insert(firmware);
            *policy = firmware.max(*policy);
        }
        for (name, (reason, loaded)) in trial {
            let new = Chosen {
                reason: reason.clone(),
                firmware,
                loaded,
            };
            let chosen = self.closure.modules.entry(name).or_insert(new);
            chosen.firmware = firmware.max(chosen.firmware);
            if matches!(reason, Reason::Listed { .. }) {
                chosen.reason = reason;
            }
        }
    }

    fn left_out(&mut self, module: &str, error: &BuildError) {
        let warning = Warning::LeftOut {
            module: module.to_owned(),
            because: error.full_text(),
        };
        if !self.closure.warnings.contains(&warning) {
            self.closure.warnings.push(warning);
        }
    }

    fn missing(&self, at: &ListPos, name: &str) -> BuildError {
        let modules = self.catalog.modules.keys().chain(&self.catalog.builtin);
        BuildError::MissingModule(Box::new(MissingModule {
            at: at.clone(),
            name: name.to_owned(),
            release: self.catalog.release.clone(),
            modules_dir: self.catalog.modules_dir.clone(),
            nearest: nearest(name, modules.map(String::as_str)),
        }))
    }

    fn missing_dependency(&self, at: &ListPos, module: &str, needs: &str) -> BuildError {
        BuildError::MissingDependency {
            at: at.clone(),
            module: module.to_owned(),
            needs: needs.to_owned(),
            release: self.catalog.release.clone(),
        }
    }
}

fn need(name: &str, reason: Reason, soft: bool) -> Need<'_> {
    Need {
        name,
        reason,
        soft,
        at: None,
    }
}

#[cfg(test)]
#[path = "closure_tests.rs"]
mod tests;
