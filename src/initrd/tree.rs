//! The image's files before they are packed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use walkdir::{DirEntry, WalkDir};

use super::catalog::walk_error;
use super::cpio::{Entry, S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG};
use super::elf::Elf;
use super::error::BuildError;
use super::faults::Faults;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Dir,
    File(Vec<u8>),
    Symlink(String),
    Char(u32, u32),
}

/// A node with its permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) permissions: u32,
    pub(crate) node: Node,
    /// Why it is in, where that is more than its being in the source tree.
    pub(crate) reason: Option<String>,
    /// Of `files.list`, or needed by what is: from the machine that builds.
    pub(crate) listed: bool,
}

/// Paths without leading `/`. Sorted by bytes, so a directory stands before what it holds.
#[derive(Debug, Default)]
pub(crate) struct Tree(pub(crate) BTreeMap<String, Item>);

impl Item {
    fn new(permissions: u32, node: Node) -> Self {
        Self {
            permissions,
            node,
            reason: None,
            listed: false,
        }
    }

    pub(crate) fn file(permissions: u32, bytes: Vec<u8>) -> Self {
        Self::new(permissions, Node::File(bytes))
    }

    pub(crate) fn dir(permissions: u32) -> Self {
        Self::new(permissions, Node::Dir)
    }

    pub(crate) fn symlink(target: String) -> Self {
        Self::new(0o777, Node::Symlink(target))
    }

    pub(crate) fn char(permissions: u32, major: u32, minor: u32) -> Self {
        Self::new(permissions, Node::Char(major, minor))
    }

    /// The entry of an archive.
    pub(crate) fn entry<'a>(&'a self, name: &'a str) -> Entry<'a> {
        let (kind, rdev, data): (_, _, &[u8]) = match &self.node {
            Node::Dir => (S_IFDIR, (0, 0), &[]),
            Node::File(bytes) => (S_IFREG, (0, 0), bytes),
            Node::Symlink(target) => (S_IFLNK, (0, 0), target.as_bytes()),
            Node::Char(major, minor) => (S_IFCHR, (*major, *minor), &[]),
        };
        let mode = kind | self.permissions;
        Entry {
            name,
            mode,
            rdev,
            data,
        }
    }
}

impl Tree {
    /// Puts an item in place; its parents are made, and it replaces what stood there.
    pub(crate) fn insert(&mut self, path: &str, item: Item) -> Result<(), BuildError> {
        let parents = path.match_indices('/').map(|(end, _)| &path[..end]);
        for parent in parents {
            let parent_item = self.0.entry(parent.to_owned());
            if parent_item.or_insert_with(|| Item::dir(0o755)).node != Node::Dir {
                return Err(fault(
                    path,
                    format!("`{parent}` above it is not a directory"),
                ));
            }
        }
        let is_dir = item.node == Node::Dir;
        if !is_dir && self.0.get(path).is_some_and(|old| old.node == Node::Dir) {
            return Err(fault(path, "a directory of that name is in the image"));
        }
        self.0.insert(path.to_owned(), item);
        Ok(())
    }

    /// Like [`Tree::insert`], but what stands there already stays.
    pub(crate) fn insert_new(&mut self, path: &str, item: Item) -> Result<(), BuildError> {
        if self.0.contains_key(path) {
            return Ok(());
        }
        self.insert(path, item)
    }

    /// Adds everything under `dir` at its relative path. Owners become root and permissions
    /// 0755 (directories, and files that their owner may run) or 0644: a build must not
    /// depend on the umask of the checkout, and nothing in an initrd is setuid.
    pub(crate) fn add_directory(&mut self, dir: &Path) -> Result<(), BuildError> {
        for entry in WalkDir::new(dir).min_depth(1).sort_by_file_name() {
            let entry = entry.map_err(|error| walk_error("read source tree", dir, error))?;
            let relative = entry.path().strip_prefix(dir).unwrap_or(entry.path());
            let Some(path) = relative.to_str() else {
                let path = relative.to_string_lossy();
                return Err(fault(&path, "the name is not UTF-8; rename it"));
            };
            let item = item_of(&entry, path)?;
            if item.node != Node::Dir || !self.0.contains_key(path) {
                self.insert(path, item)?;
            }
        }
        Ok(())
    }

    /// Checks that programs can run: the architecture is BusyBox's, and the interpreter of a
    /// dynamic one or of a script is in the image.
    pub(crate) fn check_programs(&self, machine: u16, faults: &mut Faults) {
        let files = self.0.iter().filter_map(|(path, item)| match &item.node {
            Node::File(bytes) => Some((path, item, bytes)),
            _ => None,
        });
        for (path, item, bytes) in files {
            let runs = item.permissions & 0o100 != 0 && (item.listed || runs_here(path));
            let interpreter = match Elf::new(bytes) {
                Ok(elf) => elf.interpreter().unwrap_or_default(),
                Err(_) if runs => script_interpreter(bytes),
                Err(_) => None,
            };
            let problem = check_machine(bytes, machine)
                .and_then(|()| self.check_interpreter(interpreter.unwrap_or("/")));
            let whose = item.reason.as_ref().map(|reason| format!("({reason}) "));
            if let Err(problem) = problem {
                faults.add(fault(path, whose.unwrap_or_default() + &problem));
            }
        }
    }

    fn check_interpreter(&self, interpreter: &str) -> Result<(), String> {
        let inside = interpreter.trim_start_matches('/');
        if inside.is_empty() || self.0.contains_key(inside) {
            return Ok(());
        }
        Err(format!(
            "needs {interpreter} to run, which is not in the image; link it statically, name the shell as /bin/sh, or have files.list bring it"
        ))
    }

    /// Checks that `/init` is there, is a file and may be run: the kernel starts nothing else.
    pub(crate) fn check_init(&self) -> Result<(), BuildError> {
        match self.0.get("init") {
            None => Err(fault(
                "init",
                "is missing; the source tree must hold tree/init",
            )),
            Some(Item {
                permissions: 0o755,
                node: Node::File(_),
                ..
            }) => Ok(()),
            Some(_) => Err(fault(
                "init",
                "must be an executable file (chmod 755 tree/init)",
            )),
        }
    }
}

fn check_machine(bytes: &[u8], machine: u16) -> Result<(), String> {
    match Elf::new(bytes) {
        Ok(elf) if elf.machine() != machine => Err(format!(
            "built for ELF machine {}, busybox for {machine}; all must be of one architecture",
            elf.machine()
        )),
        _ => Ok(()),
    }
}

/// Elsewhere a script may be meant for the real root, which has other shells.
fn runs_here(path: &str) -> bool {
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    matches!(dir, "" | "bin" | "sbin" | "usr/bin" | "usr/sbin")
        || dir.starts_with(super::hooks::PATH)
}

/// The program that the kernel starts for a `#!` script.
fn script_interpreter(bytes: &[u8]) -> Option<&str> {
    let line = bytes
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    std::str::from_utf8(line).ok()?.split_whitespace().next()
}

fn item_of(entry: &DirEntry, path: &str) -> Result<Item, BuildError> {
    let kind = entry.file_type();
    if kind.is_dir() {
        return Ok(Item::dir(0o755));
    }
    if kind.is_symlink() {
        let target = fs::read_link(entry.path())
            .map_err(BuildError::io("read symbolic link", entry.path()))?;
        return match target.to_str() {
            Some(target) => Ok(Item::symlink(target.to_owned())),
            None => Err(fault(path, "its target is not UTF-8")),
        };
    }
    if !kind.is_file() {
        let problem =
            "is a device, socket or FIFO; only files, directories and symlinks are packed";
        return Err(fault(path, problem));
    }
    file_item(entry.path())
}

/// A file with 0755 where its owner may run it, else 0644.
pub(crate) fn file_item(source: &Path) -> Result<Item, BuildError> {
    let bytes = fs::read(source).map_err(BuildError::io("read", source))?;
    let metadata = fs::metadata(source).map_err(BuildError::io("stat", source))?;
    let runs = metadata.permissions().mode() & 0o100 != 0;
    Ok(Item::file(if runs { 0o755 } else { 0o644 }, bytes))
}

/// A [`BuildError::Tree`].
pub(crate) fn fault(path: &str, problem: impl Into<String>) -> BuildError {
    BuildError::Tree {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Lab, executable};
    use super::*;

    #[test]
    fn permissions_do_not_depend_on_the_checkout() {
        let lab = Lab::new();
        lab.write("t/bin/tool", "x");
        lab.write("t/etc/conf", "x");
        lab.chmod("t/bin/tool", 0o4700);
        lab.chmod("t/etc/conf", 0o600);
        lab.chmod("t/etc", 0o700);
        std::os::unix::fs::symlink("tool", lab.path("t/bin/link")).unwrap();
        let mut tree = Tree::default();
        tree.add_directory(&lab.path("t")).unwrap();
        let modes: Vec<_> = tree
            .0
            .iter()
            .map(|(path, item)| (path.as_str(), item.permissions))
            .collect();
        assert_eq!(
            modes,
            [
                ("bin", 0o755),
                ("bin/link", 0o777),
                ("bin/tool", 0o755),
                ("etc", 0o755),
                ("etc/conf", 0o644)
            ]
        );
    }

    #[test]
    fn a_file_above_a_path_is_refused() {
        let mut tree = Tree::default();
        tree.insert("bin", Item::symlink("usr/bin".into())).unwrap();
        let error = tree
            .insert("bin/sh", Item::file(0o755, vec![]))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "initrd path `bin/sh`: `bin` above it is not a directory"
        );
    }

    #[test]
    fn init_must_run() {
        let mut tree = Tree::default();
        assert!(
            tree.check_init()
                .unwrap_err()
                .to_string()
                .contains("missing")
        );
        tree.insert("init", Item::file(0o644, vec![])).unwrap();
        assert!(
            tree.check_init()
                .unwrap_err()
                .to_string()
                .contains("chmod 755")
        );
        tree.insert("init", Item::file(0o755, vec![])).unwrap();
        tree.check_init().unwrap();
    }

    fn programs(tree: &Tree, machine: u16) -> Result<(), BuildError> {
        let mut faults = Faults::default();
        tree.check_programs(machine, &mut faults);
        faults.done()
    }

    #[test]
    fn programs_must_be_able_to_start() {
        let mut tree = Tree::default();
        let dynamic = executable(Some("/lib/ld.so"));
        tree.insert("bin/x", Item::file(0o755, dynamic)).unwrap();
        let text = programs(&tree, 62).unwrap_err().to_string();
        assert!(text.contains("needs /lib/ld.so to run"), "{text}");
        let text = programs(&tree, 183).unwrap_err().to_string();
        assert!(text.contains("ELF machine 62"), "{text}");
        tree.insert("lib/ld.so", Item::file(0o755, executable(None)))
            .unwrap();
        programs(&tree, 62).unwrap();
        let script = b"#! /bin/bash -e\n".to_vec();
        tree.insert("bin/y", Item::file(0o644, script.clone()))
            .unwrap();
        programs(&tree, 62).unwrap();
        tree.insert("bin/y", Item::file(0o755, script)).unwrap();
        let for_the_root = Item::file(0o755, b"#!/bin/bash\n".to_vec());
        tree.insert("lib/root/z", for_the_root).unwrap();
        let text = programs(&tree, 62).unwrap_err().to_string();
        assert!(text.contains("`bin/y`: needs /bin/bash to run"), "{text}");
    }
}
