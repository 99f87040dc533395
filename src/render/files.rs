//! Trees of files that hosts get into their root: `templates/files/TREE/`.
//!
//! A file that is text is a template; all else is copied. `_files.yaml` at the top of a tree
//! says what owner and mode is to be where the default does not fit.

mod content;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tera::Context;
use walkdir::{DirEntry, WalkDir};

use crate::regular;
use content::{Content, SELF, template};

/// What a tree says of its files, at its top.
pub const SHEET: &str = "_files.yaml";
/// More in one tree is a mistake: this is for configuration, and is kept in memory; bytes.
const MAX_TREE: u64 = 16 << 20;
/// Files and directories in one tree.
const MAX_ENTRIES: usize = 4096;
/// The initrd mounts over these; what is laid there would not be seen.
const MOUNTED_OVER: [&str; 4] = ["dev", "proc", "run", "sys"];

/// A tree can't be laid into a host.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// It can't be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Something in it is not for a host's root.
    #[error("{} can't be laid into a host: {why}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why not, and what to do.
        why: String,
    },
    /// A template does not parse.
    #[error("the template {} does not parse: {report}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What the engine says, with the line.
        report: String,
    },
}

/// One tree, parsed, by path below the host's `/`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tree {
    /// Its files, and the directories that `_files.yaml` names.
    pub files: BTreeMap<String, TreeFile>,
}

/// One file or directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TreeFile {
    content: Content,
    /// Permission bits; `None`: the default.
    pub mode: Option<u32>,
    /// User id.
    pub owner: u32,
    /// Group id.
    pub group: u32,
    /// Seconds since the epoch, the template's own.
    pub modified: u64,
}

impl TreeFile {
    /// What a host gets: `None` for a directory.
    ///
    /// # Errors
    /// What the engine says.
    pub fn render(&self, context: &Context) -> Result<Option<Vec<u8>>, String> {
        match &self.content {
            Content::Directory => Ok(None),
            Content::Copied(bytes) => Ok(Some(bytes.clone())),
            Content::Template { tera, .. } => tera
                .render(SELF, context)
                .map(|text| Some(text.into_bytes()))
                .map_err(|error| error.to_string()),
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory)
    }

    /// Whether its template asks for secrets.
    pub fn uses_secrets(&self) -> bool {
        matches!(self.content, Content::Template { secret: true, .. })
    }

    /// Its mode: what asks for secrets is for its owner alone, unless told.
    pub fn permissions(&self) -> u32 {
        let default = match &self.content {
            Content::Directory => 0o755,
            _ if self.uses_secrets() => 0o600,
            _ => 0o644,
        };
        self.mode.unwrap_or(default)
    }
}

/// One line of `_files.yaml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    mode: Option<String>,
    owner: Option<String>,
    group: Option<String>,
    render: Option<bool>,
}

impl Tree {
    /// Reads the tree `name` below `files`, the directory of all trees.
    ///
    /// # Errors
    /// Everything in it that can't be laid into a host.
    pub fn load(files: &Path, name: &str) -> Result<Self, Vec<TreeError>> {
        let mut loading = Loading {
            root: files.join(name),
            tree: Self::default(),
            lines: BTreeMap::new(),
            faults: Vec::new(),
            bytes: 0,
        };
        loading.read_sheet();
        loading.walk();
        loading.strangers();
        if loading.faults.is_empty() {
            Ok(loading.tree)
        } else {
            Err(loading.faults)
        }
    }
}

struct Loading {
    root: PathBuf,
    tree: Tree,
    /// What `_files.yaml` says and no file has claimed yet.
    lines: BTreeMap<String, Line>,
    faults: Vec<TreeError>,
    bytes: u64,
}

impl Loading {
    fn refuse(&mut self, path: &Path, why: impl Into<String>) {
        let (path, why) = (path.to_owned(), why.into());
        self.faults.push(TreeError::Refused { path, why });
    }

    fn read_sheet(&mut self) {
        let path = self.root.join(SHEET);
        let text = match regular::text(&path, MAX_TREE) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(source) => return self.faults.push(TreeError::Unreadable { path, source }),
        };
        match serde_saphyr::from_str::<Option<BTreeMap<String, Line>>>(&text) {
            Ok(lines) => {
                let lines = lines.unwrap_or_default().into_iter();
                self.lines = lines.map(|(name, line)| (trim(&name), line)).collect();
            }
            Err(error) => self.refuse(
                &path,
                format!("{error}; write lines of `PATH: {{mode: \"0600\", owner: 0, group: 0, render: false}}`"),
            ),
        }
    }

    fn walk(&mut self) {
        let root = self.root.clone();
        if root.is_symlink() {
            return self.refuse(&root, "it is a symbolic link; put the tree itself there");
        }
        let walk = WalkDir::new(&self.root)
            .follow_root_links(false)
            .min_depth(1);
        for (count, entry) in walk.sort_by_file_name().into_iter().enumerate() {
            match entry {
                _ if count >= MAX_ENTRIES => {
                    return self.refuse(&root, format!("it has more than {MAX_ENTRIES} files"));
                }
                Ok(entry) => self.entry(&entry),
                Err(error) => {
                    let path = error.path().unwrap_or(&self.root).to_owned();
                    let source = error.into();
                    self.faults.push(TreeError::Unreadable { path, source });
                }
            }
        }
    }

    fn entry(&mut self, entry: &DirEntry) {
        let path = entry.path();
        let below = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
        let Some(name) = below.filter(|name| !name.chars().any(char::is_control)) else {
            return self.refuse(path, "its name is not plain UTF-8 text; rename it");
        };
        if name == SHEET {
            return;
        }
        let first = name.split('/').next().unwrap_or(name);
        let kind = entry.file_type();
        if MOUNTED_OVER.contains(&first) {
            let why = format!("/{first} is mounted over in the root; use /etc/tmpfiles.d instead");
            self.refuse(path, why);
        } else if kind.is_symlink() {
            self.refuse(path, "it is a symbolic link; put the file itself there");
        } else if kind.is_file() {
            self.file(path, name);
        } else if !kind.is_dir() {
            self.refuse(path, "it is neither a file nor a directory; remove it");
        } else if let Some(line) = self.lines.remove(name) {
            self.directory(name, &line);
        }
    }

    fn file(&mut self, path: &Path, name: &str) {
        let (bytes, modified) = match read(path, MAX_TREE - self.bytes) {
            Ok(read) => read,
            Err(source) => {
                let path = path.to_owned();
                return self.faults.push(TreeError::Unreadable { path, source });
            }
        };
        self.bytes += bytes.len() as u64;
        let line = self.lines.remove(name).unwrap_or_default();
        let content = match text(&bytes).filter(|_| line.render.unwrap_or(true)) {
            None => Content::Copied(bytes),
            Some(text) => match template(text) {
                Ok(content) => content,
                Err(report) => {
                    let path = path.to_owned();
                    return self.faults.push(TreeError::Broken { path, report });
                }
            },
        };
        self.keep(name, content, &line, modified);
    }

    fn directory(&mut self, name: &str, line: &Line) {
        self.keep(name, Content::Directory, line, 0);
    }

    /// What no file has claimed is a slip, unless the file was refused.
    fn strangers(&mut self) {
        if !self.faults.is_empty() {
            return;
        }
        let sheet = self.root.join(SHEET);
        for name in std::mem::take(&mut self.lines).into_keys() {
            let why =
                format!("it names {name}, and there is no such file or directory in the tree");
            self.refuse(&sheet, why);
        }
    }

    fn keep(&mut self, name: &str, content: Content, line: &Line, modified: u64) {
        let mode = line.mode.as_deref().map(mode).transpose();
        let owner = line.owner.as_deref().map_or(Ok(0), id);
        let group = line.group.as_deref().map_or(Ok(0), id);
        match (mode, owner, group) {
            (Ok(mode), Ok(owner), Ok(group)) => {
                let file = TreeFile {
                    content,
                    mode,
                    owner,
                    group,
                    modified,
                };
                self.tree.files.insert(name.to_owned(), file);
            }
            (mode, owner, group) => {
                let sheet = self.root.join(SHEET);
                for why in [mode.err(), owner.err(), group.err()].into_iter().flatten() {
                    self.refuse(&sheet, format!("{name}: {why}"));
                }
            }
        }
    }
}

/// `/etc/ssh/` as `etc/ssh`.
fn trim(name: &str) -> String {
    name.trim_matches('/').to_owned()
}

fn read(path: &Path, room: u64) -> io::Result<(Vec<u8>, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.len() > room {
        return Err(io::Error::other(format!(
            "the tree has more than {} MiB, and this is for configuration",
            MAX_TREE >> 20
        )));
    }
    let modified = std::os::unix::fs::MetadataExt::mtime(&metadata);
    Ok((
        regular::bytes(path, room)?,
        u64::try_from(modified).unwrap_or(0),
    ))
}

/// `None` for what is binary.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

/// Octal, as `chmod` takes it.
fn mode(text: &str) -> Result<u32, String> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mode.ok_or_else(|| format!("the mode `{text}` is not octal such as \"0640\""))
}

/// A number, for the names of a root are known in that root alone.
fn id(text: &str) -> Result<u32, String> {
    match text {
        "root" => Ok(0),
        _ => text.parse().map_err(|_| {
            format!("the owner or group `{text}` is neither `root` nor a number as in the root's /etc/passwd")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join("t").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        dir
    }

    fn faults(dir: &tempfile::TempDir) -> Vec<String> {
        let faults = Tree::load(dir.path(), "t").unwrap_err();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn owner_and_mode_come_from_the_sheet_or_from_what_the_file_asks_for() {
        let sheet = "/etc/b: {mode: 0640, owner: 64055, group: root}\netc/d/: {mode: \"0700\"}\netc/raw: {render: false}\n";
        let dir = tree(&[
            (SHEET, sheet.as_bytes()),
            ("etc/a", b"{{ machine }}"),
            ("etc/b", b"b"),
            (
                "etc/c",
                b"{% if secrets.x is defined %}{{ secrets.x }}{% endif %}",
            ),
            ("etc/d/e", b"e"),
            ("etc/raw", b"{{ left alone }}"),
            ("etc/binary", b"{{ \0"),
        ]);
        let tree = Tree::load(dir.path(), "t").unwrap();
        let modes: Vec<_> = tree
            .files
            .iter()
            .map(|(name, file)| format!("{name} {:o} {}", file.permissions(), file.owner))
            .collect();
        assert_eq!(
            modes,
            [
                "etc/a 644 0",
                "etc/b 640 64055",
                "etc/binary 644 0",
                "etc/c 600 0",
                "etc/d 700 0",
                "etc/d/e 644 0",
                "etc/raw 644 0"
            ]
        );
        assert!(tree.files["etc/c"].uses_secrets() && !tree.files["etc/a"].uses_secrets());
        assert!(tree.files["etc/d"].is_directory());
        let none = Context::new();
        assert_eq!(
            tree.files["etc/raw"].render(&none),
            Ok(Some(b"{{ left alone }}".to_vec()))
        );
        assert!(tree.files["etc/a"].render(&none).is_err());
    }

    #[test]
    fn what_is_no_plain_file_of_a_root_is_refused_with_words() {
        let dir = tree(&[("run/x", b""), ("etc/bad", b"{% if %}")]);
        std::os::unix::fs::symlink("/etc/shadow", dir.path().join("t/etc/link")).unwrap();
        let said = faults(&dir).join("\n");
        for word in [
            "/run is mounted over",
            "symbolic link",
            "etc/bad does not parse",
        ] {
            assert!(said.contains(word), "{word} is not in: {said}");
        }
    }

    #[test]
    fn a_template_can_not_include_another_file() {
        let dir = tree(&[("a", b"x"), ("b", b"{% include \"a\" %}")]);
        assert!(faults(&dir)[0].contains("/t/b does not parse"));
    }

    #[test]
    fn slips_in_the_sheet_are_told() {
        for (sheet, word) in [
            ("etc/x: {mode: \"0600\"}", "no such file"),
            ("a: {mode: rw}", "not octal"),
            ("a: {owner: libvirt}", "neither `root` nor a number"),
            ("a: {mod: \"0600\"}", "mod"),
            ("../a: {mode: \"0600\"}", "no such file"),
        ] {
            let dir = tree(&[(SHEET, sheet.as_bytes()), ("a", b"x")]);
            let said = faults(&dir).join("\n");
            assert!(said.contains(word), "{word} is not in: {said}");
        }
    }
}
