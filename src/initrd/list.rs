//! `modules.list` and `modules.d/*.list`: the modules that the operator wants in the initrd.
//!
//! ```text
//! # comment
//! NAME [required|optional] [firmware=required|optional|none]
//! NAME -> OTHER [OTHER?]...
//! ```
//! The second form is for modules that the kernel requests at run time, which
//! `modules.dep` does not know: whenever NAME is in, for whatever reason, OTHER
//! goes in too; with `?` only where the kernel has it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::{BuildError, ListPos};
use super::faults::Faults;
use super::names::canonical;

/// What happens when firmware that a module names is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirmwarePolicy {
    /// Firmware of this module is not packed.
    None,
    /// Missing files are a warning.
    Optional,
    /// Missing files are as bad as a missing module.
    Required,
}

/// A line that asks for a module.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) at: ListPos,
    pub(crate) required: bool,
    pub(crate) firmware: FirmwarePolicy,
}

/// One target of a `NAME -> OTHER` line.
#[derive(Debug, Clone)]
pub(crate) struct Also {
    pub(crate) name: String,
    pub(crate) required: bool,
    pub(crate) at: ListPos,
}

/// All lists, merged; a later list's line replaces an earlier list's.
#[derive(Debug, Default)]
pub(crate) struct ModuleList {
    pub(crate) wanted: Vec<Wanted>,
    /// By canonical name of the trigger.
    pub(crate) also: HashMap<String, Vec<Also>>,
}

impl ModuleList {
    /// Reads the lists in order.
    pub(crate) fn read(paths: &[impl AsRef<Path>], faults: &mut Faults) -> Self {
        let mut list = Self::default();
        for path in paths {
            let path = path.as_ref();
            let read = fs::read_to_string(path).map_err(BuildError::io("read modules list", path));
            if let Some(text) = faults.keep(read) {
                list.merge(path, &text, faults);
            }
        }
        list
    }

    /// Adds one list's lines.
    pub(crate) fn merge(&mut self, path: &Path, text: &str, faults: &mut Faults) {
        let mut seen = HashMap::new();
        for (at, words) in lines(path, text) {
            let added = match words.as_slice() {
                [name, "->", others @ ..] => self.add_rule(at, name, others),
                [name, options @ ..] => parse_wanted(at, name, options)
                    .and_then(|wanted| self.add_wanted(wanted, &mut seen)),
                [] => Ok(()),
            };
            faults.keep(added);
        }
    }

    fn add_rule(&mut self, at: ListPos, name: &str, others: &[&str]) -> Result<(), BuildError> {
        check_name(&at, name)?;
        if others.is_empty() {
            return Err(fault(at, format!("`{name} ->` names no module")));
        }
        let rule = self.also.entry(canonical(name)).or_default();
        for other in others {
            let (name, required) = match other.strip_suffix('?') {
                Some(name) => (name, false),
                None => (*other, true),
            };
            check_name(&at, name)?;
            rule.push(Also {
                name: name.to_owned(),
                required,
                at: at.clone(),
            });
        }
        Ok(())
    }

    fn add_wanted(
        &mut self,
        wanted: Wanted,
        seen: &mut HashMap<String, usize>,
    ) -> Result<(), BuildError> {
        let name = canonical(&wanted.name);
        if let Some(first) = seen.insert(name.clone(), wanted.at.line) {
            let problem = format!(
                "module `{}` stands on line {first} already; keep one",
                wanted.name
            );
            return Err(fault(wanted.at, problem));
        }
        self.wanted.retain(|old| canonical(&old.name) != name);
        self.wanted.push(wanted);
        Ok(())
    }
}

/// The words of each line of a list that has any, without its comment.
pub(crate) fn lines<'a>(
    path: &Path,
    text: &'a str,
) -> impl Iterator<Item = (ListPos, Vec<&'a str>)> {
    let file: Arc<Path> = path.into();
    let lines = text.lines().enumerate().map(move |(index, line)| {
        let line = line.split('#').next().unwrap_or_default();
        let at = ListPos {
            file: Arc::clone(&file),
            line: index + 1,
        };
        (at, line.split_whitespace().collect())
    });
    lines.filter(|(_, words): &(_, Vec<_>)| !words.is_empty())
}

/// `*.list` of a directory by name; it need not be there.
pub(crate) fn lists_of(dir: &Path) -> Result<Vec<PathBuf>, BuildError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(BuildError::io("read lists of", dir))?;
    let mut lists: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    lists.retain(|path| path.extension().is_some_and(|end| end == "list"));
    lists.sort();
    Ok(lists)
}

fn parse_wanted(at: ListPos, name: &str, options: &[&str]) -> Result<Wanted, BuildError> {
    check_name(&at, name)?;
    let mut wanted = Wanted {
        name: name.to_owned(),
        at,
        required: true,
        firmware: FirmwarePolicy::Optional,
    };
    for option in options {
        match *option {
            "required" => wanted.required = true,
            "optional" => wanted.required = false,
            "firmware=required" => wanted.firmware = FirmwarePolicy::Required,
            "firmware=optional" => wanted.firmware = FirmwarePolicy::Optional,
            "firmware=none" => wanted.firmware = FirmwarePolicy::None,
            other => {
                let problem = format!(
                    "`{other}` is no option; known: required, optional, firmware=required, firmware=optional, firmware=none (one module per line)"
                );
                return Err(fault(wanted.at, problem));
            }
        }
    }
    Ok(wanted)
}

fn check_name(at: &ListPos, name: &str) -> Result<(), BuildError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:+,".contains(&byte);
    if name.bytes().all(fits) && !name.contains(".ko") {
        return Ok(());
    }
    let problem = format!("`{name}` is not a module name: the name alone, as lsmod shows it");
    Err(fault(at.clone(), problem))
}

/// A [`BuildError::List`].
pub(crate) fn fault(at: ListPos, problem: impl Into<String>) -> BuildError {
    BuildError::List {
        at,
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ModuleList, BuildError> {
        let (mut list, mut faults) = (ModuleList::default(), Faults::default());
        list.merge(Path::new("modules.list"), text, &mut faults);
        faults.done().map(|()| list)
    }

    #[test]
    fn reads_lines_options_and_rules() {
        let list = parse(
            "# NICs\n\nigb\nbnx2x optional firmware=required # 10G\nlnet -> ksocklnd ko2iblnd?\n",
        )
        .unwrap();
        let [igb, bnx2x] = list.wanted.as_slice() else {
            panic!("two modules: {:?}", list.wanted);
        };
        assert!(igb.required && igb.firmware == FirmwarePolicy::Optional);
        assert!(!bnx2x.required && bnx2x.firmware == FirmwarePolicy::Required);
        assert_eq!(bnx2x.at.to_string(), "modules.list:4");
        let also: Vec<_> = list.also["lnet"]
            .iter()
            .map(|also| (also.name.as_str(), also.required))
            .collect();
        assert_eq!(also, [("ksocklnd", true), ("ko2iblnd", false)]);
    }

    #[test]
    fn a_later_list_replaces_a_line() {
        let mut list = parse("igb\nigc\n").unwrap();
        let mut faults = Faults::default();
        list.merge(Path::new("site.list"), "igb optional\n", &mut faults);
        faults.done().unwrap();
        assert_eq!(list.wanted.len(), 2);
        assert!(!list.wanted[1].required);
    }

    #[test]
    fn faults_name_the_line_and_the_cure() {
        for (text, expected) in [
            ("igb igc", "modules.list:1: `igc` is no option"),
            (
                "virtio-net\nvirtio_net",
                "modules.list:2: module `virtio_net` stands on line 1 already",
            ),
            ("lnet ->", "modules.list:1: `lnet ->` names no module"),
            ("igb.ko", "modules.list:1: `igb.ko` is not a module name"),
            ("../x", "modules.list:1: `../x` is not a module name"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn every_fault_is_told() {
        let text = parse("a.ko\nigb igc\nigc\n").unwrap_err().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "2 faults:");
        assert!(lines[1].starts_with("  modules.list:1: `a.ko`"), "{text}");
        assert!(lines[2].starts_with("  modules.list:2: `igc`"), "{text}");
    }
}
