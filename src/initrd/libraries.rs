//! What a dynamic program needs to start: its interpreter and its libraries, found as
//! ld.so(8) finds them here, and put where it will look for them in the image.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::elf::{Dynamic, Elf};

/// An ELF file, here and in the image.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// On this machine.
    pub(crate) source: PathBuf,
    /// In the image, with a leading `/`.
    pub(crate) path: String,
    /// Who needs it; of the program itself, nobody.
    pub(crate) needed_by: String,
}

/// A directory that libraries are looked for in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    here: PathBuf,
    in_image: String,
}

/// The machine that the files are taken from.
#[derive(Debug)]
pub(crate) struct Libraries {
    root: PathBuf,
    /// Of `/etc/ld.so.conf`, then those that ld.so knows by itself.
    usual: Vec<Place>,
}

/// An object whose libraries are still to be found.
struct Waiting {
    object: Object,
    /// `DT_RPATH`s of those that need it.
    inherited: Vec<Place>,
}

impl Libraries {
    /// Of the machine whose files stand below `root`.
    pub(crate) fn of(root: &Path) -> Self {
        let fixed = [
            "/lib/x86_64-linux-gnu",
            "/usr/lib/x86_64-linux-gnu",
            "/lib/aarch64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
            "/lib64",
            "/usr/lib64",
            "/lib",
            "/usr/lib",
        ];
        let fixed = fixed.map(str::to_owned).into_iter();
        let fixed: Vec<String> = fixed.filter(|dir| below(root, dir).is_dir()).collect();
        // The image has no cache of ld.so: what ldconfig found elsewhere goes where it looks.
        let configured = configured(root).into_iter().map(|dir| Place {
            here: below(root, &dir),
            in_image: match fixed.first() {
                Some(first) if !fixed.contains(&dir) => first.clone(),
                _ => dir,
            },
        });
        let usual = configured.chain(fixed.iter().map(|dir| Place {
            here: below(root, dir),
            in_image: dir.clone(),
        }));
        Self {
            root: root.to_owned(),
            usual: usual.collect(),
        }
    }

    /// All that `program` needs, itself not included. Nothing, for what is no dynamic ELF.
    ///
    /// # Errors
    /// A sentence for each that is not there.
    pub(crate) fn needed_by(&self, program: Object) -> Result<Vec<Object>, Vec<String>> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        // ld.so loads one library of a name, whoever asks for it.
        let mut names = BTreeSet::new();
        let mut waiting = vec![Waiting {
            object: program,
            inherited: Vec::new(),
        }];
        while let Some(Waiting { object, inherited }) = waiting.pop() {
            let needs = match self.needs(&object, &inherited) {
                Ok(needs) => needs,
                Err(problem) => {
                    missing.push(format!("{}: {problem}", object.source.display()));
                    continue;
                }
            };
            for (name, at) in needs.found {
                if names.insert(name) {
                    found.push(at.clone());
                    waiting.push(Waiting {
                        object: at,
                        inherited: needs.rpath.clone(),
                    });
                }
            }
            let new = needs.missing.into_iter();
            missing.extend(new.filter_map(|(name, text)| names.insert(name).then_some(text)));
        }
        match missing.is_empty() {
            true => Ok(found),
            false => Err(missing),
        }
    }

    fn needs(&self, object: &Object, inherited: &[Place]) -> Result<Needs, String> {
        let mut needs = Needs::default();
        let bytes = fs::read(&object.source).map_err(|error| error.to_string())?;
        let Ok(elf) = Elf::new(&bytes) else {
            return Ok(needs);
        };
        if let Some(path) = elf.interpreter().map_err(|error| error.to_string())? {
            self.add_interpreter(object, path, &mut needs);
        }
        let dynamic = elf.dynamic().map_err(|error| error.to_string())?;
        let places = self.places(object, &dynamic, inherited, &mut needs);
        for name in &dynamic.needed {
            match self.find(name, &places, elf.machine()) {
                Some((source, path)) => needs.found.push((
                    (*name).to_owned(),
                    Object {
                        source,
                        path,
                        needed_by: file_name(&object.path),
                    },
                )),
                None => needs
                    .missing
                    .push(((*name).to_owned(), absent(object, name, &places))),
            }
        }
        Ok(needs)
    }

    fn add_interpreter(&self, object: &Object, path: &str, needs: &mut Needs) {
        let name = file_name(path);
        let source = below(&self.root, path);
        if !source.is_file() {
            let text = format!(
                "{} needs {path} to start, which is not there",
                object.source.display()
            );
            return needs.missing.push((name, text));
        }
        let interpreter = Object {
            source,
            path: normal(path),
            needed_by: file_name(&object.path),
        };
        needs.found.push((name, interpreter));
    }

    /// `DT_RUNPATH`, or without one the `DT_RPATH`s up to the program; then the usual ones.
    fn places(
        &self,
        object: &Object,
        dynamic: &Dynamic<'_>,
        inherited: &[Place],
        needs: &mut Needs,
    ) -> Vec<Place> {
        let mut places = match (dynamic.runpath, dynamic.rpath) {
            (Some(runpath), _) => self.expand(object, runpath),
            (None, rpath) => {
                needs.rpath = self.expand(object, rpath.unwrap_or_default());
                needs.rpath.extend_from_slice(inherited);
                needs.rpath.clone()
            }
        };
        places.extend_from_slice(&self.usual);
        places
    }

    /// The directories of a search path; `$ORIGIN` is the object's own.
    fn expand(&self, object: &Object, search_path: &str) -> Vec<Place> {
        let folder_here = object.source.parent().unwrap_or(Path::new("/"));
        let (folder_in_image, _) = object.path.rsplit_once('/').unwrap_or_default();
        let entries = search_path.split(':').filter(|entry| !entry.is_empty());
        let place = |entry: &str| {
            let from_origin = ["$ORIGIN", "${ORIGIN}"]
                .iter()
                .find_map(|word| entry.strip_prefix(word));
            match from_origin {
                Some(rest) => Place {
                    here: folder_here.join(rest.trim_start_matches('/')),
                    in_image: normal(&format!("{folder_in_image}{rest}")),
                },
                None => Place {
                    here: below(&self.root, entry),
                    in_image: normal(entry),
                },
            }
        };
        entries.map(place).collect()
    }

    /// The first file of that name for that architecture, here and in the image.
    fn find(&self, name: &str, places: &[Place], machine: u16) -> Option<(PathBuf, String)> {
        if name.starts_with('/') {
            return Some((below(&self.root, name), normal(name)))
                .filter(|(here, _)| here.is_file());
        }
        let fits = |path: &Path| {
            let bytes = fs::read(path).unwrap_or_default();
            Elf::new(&bytes).is_ok_and(|elf| elf.machine() == machine)
        };
        let place = places.iter().find(|place| fits(&place.here.join(name)))?;
        Some((place.here.join(name), format!("{}/{name}", place.in_image)))
    }
}

/// What one object asks for, by name.
#[derive(Default)]
struct Needs {
    found: Vec<(String, Object)>,
    missing: Vec<(String, String)>,
    /// What those that it needs inherit.
    rpath: Vec<Place>,
}

fn absent(object: &Object, name: &str, places: &[Place]) -> String {
    let mut dirs: Vec<String> = places
        .iter()
        .map(|place| place.here.display().to_string())
        .collect();
    dirs.dedup();
    format!(
        "{} needs the library {name}, which is in none of {}",
        object.source.display(),
        dirs.join(", ")
    )
}

/// Directories of `/etc/ld.so.conf` and of the files that it includes by `/etc/ld.so.conf.d/*.conf`.
fn configured(root: &Path) -> Vec<String> {
    let mut files = vec![below(root, "/etc/ld.so.conf")];
    let entries = fs::read_dir(below(root, "/etc/ld.so.conf.d")).into_iter();
    let mut more: Vec<PathBuf> = entries
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    more.retain(|path| path.extension().is_some_and(|end| end == "conf"));
    more.sort();
    files.extend(more);
    let texts = files
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    let lines: Vec<String> = texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let dirs = lines
        .iter()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    dirs.filter(|dir| dir.starts_with('/'))
        .map(normal)
        .collect()
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// Without `.`, `..` and doubled `/`.
fn normal(path: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Lab, dynamic};
    use super::*;

    const NEEDED: u64 = 1;
    const RPATH: u64 = 15;
    const RUNPATH: u64 = 29;
    const INTERP: u64 = 0;

    fn needed(lab: &Lab, source: &str, path: &str) -> Result<Vec<String>, Vec<String>> {
        let program = Object {
            source: lab.path(source),
            path: path.into(),
            needed_by: String::new(),
        };
        let found = Libraries::of(lab.as_ref()).needed_by(program)?;
        let line = |object: &Object| {
            assert!(object.source.is_file());
            format!("{} for {}", object.path, object.needed_by)
        };
        let mut lines: Vec<String> = found.iter().map(line).collect();
        lines.sort();
        Ok(lines)
    }

    #[test]
    fn libraries_of_libraries_come_along_and_links_are_followed() {
        let lab = Lab::new();
        let program = dynamic(&[(INTERP, "/lib64/ld.so.2"), (NEEDED, "liba.so.1")]);
        lab.write("usr/bin/tool", program);
        lab.write("usr/lib64/ld-2.36.so", dynamic(&[]));
        lab.write(
            "usr/lib/x86_64-linux-gnu/liba.so.1.2",
            dynamic(&[(NEEDED, "libb.so")]),
        );
        lab.write(
            "usr/local/lib/libb.so",
            dynamic(&[(NEEDED, "liba.so.1"), (NEEDED, "ld.so.2")]),
        );
        lab.write("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n");
        lab.write("etc/ld.so.conf.d/libc.conf", "# ours\n/usr/local/lib\n");
        let link = |target: &str, path: &str| std::os::unix::fs::symlink(target, lab.path(path));
        link("usr/lib64", "lib64").unwrap();
        link("ld-2.36.so", "usr/lib64/ld.so.2").unwrap();
        link("liba.so.1.2", "usr/lib/x86_64-linux-gnu/liba.so.1").unwrap();
        assert_eq!(
            needed(&lab, "usr/bin/tool", "/bin/tool").unwrap(),
            [
                "/lib64/ld.so.2 for tool",
                "/usr/lib/x86_64-linux-gnu/liba.so.1 for tool",
                "/usr/lib/x86_64-linux-gnu/libb.so for liba.so.1",
            ]
        );
    }

    #[test]
    fn origin_is_where_the_object_stands_here_and_there() {
        let lab = Lab::new();
        let program = dynamic(&[(NEEDED, "liba.so"), (RUNPATH, "/none:$ORIGIN/../lib")]);
        lab.write("opt/x/bin/tool", program);
        lab.write(
            "opt/x/lib/liba.so",
            dynamic(&[(NEEDED, "libb.so"), (RUNPATH, "${ORIGIN}/more")]),
        );
        lab.write("opt/x/lib/more/libb.so", dynamic(&[]));
        assert_eq!(
            needed(&lab, "opt/x/bin/tool", "/usr/local/bin/tool").unwrap(),
            [
                "/usr/local/lib/liba.so for tool",
                "/usr/local/lib/more/libb.so for liba.so"
            ]
        );
    }

    #[test]
    fn rpath_is_inherited_and_runpath_is_not() {
        for (tag, found) in [(RPATH, true), (RUNPATH, false)] {
            let lab = Lab::new();
            lab.write(
                "bin/tool",
                dynamic(&[(NEEDED, "liba.so"), (tag, "/opt/lib")]),
            );
            lab.write("opt/lib/liba.so", dynamic(&[(NEEDED, "libb.so")]));
            lab.write("opt/lib/libb.so", dynamic(&[]));
            assert_eq!(needed(&lab, "bin/tool", "/bin/tool").is_ok(), found);
        }
    }

    #[test]
    fn every_missing_one_is_named_with_who_needs_it_and_where_it_was_looked_for() {
        let lab = Lab::new();
        let entries = [
            (INTERP, "/lib/ld.so"),
            (NEEDED, "liba.so"),
            (NEEDED, "libb.so"),
            (RPATH, "/opt"),
        ];
        lab.write("bin/tool", dynamic(&entries));
        // Of another architecture: ld.so goes on looking too.
        let mut foreign = dynamic(&[]);
        foreign[18] = 183;
        lab.write("opt/liba.so", foreign);
        let missing = needed(&lab, "bin/tool", "/bin/tool").unwrap_err();
        let tool = lab.path("bin/tool");
        let opt = lab.path("opt");
        assert_eq!(
            missing,
            [
                format!(
                    "{} needs /lib/ld.so to start, which is not there",
                    tool.display()
                ),
                format!(
                    "{} needs the library liba.so, which is in none of {}",
                    tool.display(),
                    opt.display()
                ),
                format!(
                    "{} needs the library libb.so, which is in none of {}",
                    tool.display(),
                    opt.display()
                ),
            ]
        );
    }

    #[test]
    fn what_is_static_or_no_elf_needs_nothing() {
        let lab = Lab::new();
        lab.write("bin/tool", super::super::testing::executable(None));
        lab.write("bin/script", "#!/bin/sh\n");
        for path in ["bin/tool", "bin/script"] {
            assert_eq!(needed(&lab, path, "/bin/x").unwrap(), [""; 0]);
        }
    }
}
