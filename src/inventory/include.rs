//! `include:`: an inventory of several files. All are read before any of it is understood.
//!
//! The first file says what is said once (`site`, `server`, `unknown`, `secrets`); those that it
//! includes add networks, profiles and hosts, and may include further ones.

mod wildcard;

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::faults::Faults;
use super::load::{MAX_BYTES, too_large};
use super::tree::{self, FileId, Kind, Node, Span};
use crate::diagnostic::{Diagnostic, Label, Sources};
use crate::regular;

/// Files of one inventory. A directory with more of them is probably not one of inventories.
const MAX_FILES: usize = 1000;

/// Includes within includes. Nobody can follow more.
const MAX_DEPTH: usize = 8;

/// A file or directory that the inventory was made from, as it was before it was read.
#[derive(Debug)]
pub struct Seen {
    /// Where it is.
    pub path: PathBuf,
    /// What was known of it then.
    pub metadata: Metadata,
}

/// The text of one file of an inventory, by the name that messages use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileText {
    /// As the operator named it, or the file that includes it.
    pub name: Arc<str>,
    /// All of it.
    pub text: Arc<str>,
}

/// One file's text.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) id: FileId,
    pub(super) name: Arc<str>,
    pub(super) text: String,
    /// It is no text, which is reported: it is kept to be shown alone.
    pub(super) broken: bool,
}

/// Every file of an inventory.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) texts: Vec<Text>,
    pub(super) seen: Vec<Seen>,
    bytes: u64,
    /// Where each file was first included, by its path without links.
    included: HashMap<PathBuf, Option<Span>>,
    secrets: Option<PathBuf>,
    /// A file, by its path without links, whose text is this one and not what is on the disk.
    instead: Option<(PathBuf, String)>,
}

/// A file that is being read: its place among those that include it.
struct Place<'p> {
    /// Its path, without links.
    path: PathBuf,
    directory: &'p Path,
    above: Option<&'p Self>,
}

impl Place<'_> {
    fn ancestors(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |place| place.above)
    }
}

impl Texts {
    /// A text that no file holds; it includes nothing.
    pub(super) fn single(name: &str, text: &str, faults: &mut Faults) -> Self {
        let mut texts = Self::default();
        let id = texts.keep(Arc::from(name), text.to_owned(), false, faults);
        let place = Place {
            path: PathBuf::from(name),
            directory: Path::new(""),
            above: None,
        };
        for (_, span) in texts.includes_of(id, &place) {
            let message = "nothing can be included here: it is no file";
            let help = "write what is included in its place";
            faults.error("inventory::include", span, message, "", help);
        }
        texts
    }

    /// What was read before, in the same order: what its texts include is among them.
    pub(super) fn again(read: Vec<FileText>, faults: &mut Faults) -> Self {
        let mut texts = Self::default();
        for FileText { name, text } in read {
            texts.keep(name, text.to_string(), false, faults);
        }
        texts
    }

    /// Reads a file and all that it includes; what can't be read is reported.
    pub(super) fn read(
        path: &Path,
        open: fn(&Path) -> io::Result<File>,
        instead: Option<(PathBuf, String)>,
        faults: &mut Faults,
    ) -> Self {
        let mut texts = Self {
            instead,
            ..Self::default()
        };
        let name: Arc<str> = Arc::from(path.display().to_string());
        match open(path).and_then(|file| texts.bytes_of(path, file)) {
            Ok(bytes) => texts.file(path, name, bytes, None, None, faults),
            Err(error) => {
                let message = format!("can't read {name}: {}", words(path, &error));
                let help =
                    "put a file there that may be read, or name another with --inventory FILE";
                let fault = Diagnostic::error("inventory::unreadable", message);
                faults.push(fault.with_help(help));
            }
        }
        texts
    }

    /// The texts, for whoever shows faults, and as they were read.
    pub(super) fn into_sources(self) -> (Sources, Vec<FileText>, Vec<Seen>) {
        let mut sources = Sources::default();
        let mut texts = Vec::with_capacity(self.texts.len());
        for Text { name, text, .. } in self.texts {
            texts.push(FileText {
                name: name.clone(),
                text: Arc::from(text.as_str()),
            });
            sources.insert(name, text);
        }
        (sources, texts, self.seen)
    }

    /// One byte more than allowed is enough to know that it is too large.
    fn bytes_of(&mut self, path: &Path, file: File) -> io::Result<Vec<u8>> {
        let metadata = file.metadata()?;
        self.seen.push(Seen {
            path: path.to_owned(),
            metadata,
        });
        if let Some((edited, text)) = &self.instead
            && path.canonicalize().is_ok_and(|path| path == *edited)
        {
            return Ok(text.clone().into_bytes());
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn keep(&mut self, name: Arc<str>, text: String, broken: bool, faults: &mut Faults) -> FileId {
        let id = faults.add_file(name.clone());
        self.texts.push(Text {
            id,
            name,
            text,
            broken,
        });
        id
    }

    /// Takes one file in, then what it includes.
    fn file(
        &mut self,
        path: &Path,
        name: Arc<str>,
        bytes: Vec<u8>,
        span: Option<Span>,
        above: Option<&Place<'_>>,
        faults: &mut Faults,
    ) {
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_BYTES {
            faults.push(too_large());
            return;
        }
        let text = String::from_utf8(bytes);
        let broken = text.is_err();
        let text = text.unwrap_or_else(|error| {
            faults.push(not_utf8(&name, &error));
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        });
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        self.included.insert(real.clone(), span);
        let id = self.keep(name, text, broken, faults);
        let place = Place {
            path: real,
            directory: path.parent().unwrap_or(Path::new("")),
            above,
        };
        for (pattern, span) in self.includes_of(id, &place) {
            self.include(&pattern, span, &place, faults);
        }
    }

    /// What a text includes. Faults wait for the reading of the whole.
    fn includes_of(&mut self, id: FileId, place: &Place<'_>) -> Vec<(String, Span)> {
        let Some(text) = self.texts.last().map(|text| text.text.as_str()) else {
            return Vec::new();
        };
        if !text.contains("include") {
            return Vec::new();
        }
        let Some(root) = tree::parse(id, text, &mut Faults::default()) else {
            return Vec::new();
        };
        if place.above.is_none() {
            let secrets = scalars_of(&root, "secrets").next();
            let path = secrets.map(|(secrets, _)| place.directory.join(secrets));
            self.secrets = path.and_then(|path| path.canonicalize().ok());
        }
        scalars_of(&root, "include").collect()
    }

    fn include(&mut self, pattern: &str, span: Span, place: &Place<'_>, faults: &mut Faults) {
        if place.ancestors().count() > MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} files include each other here");
            let help = "include them from the first file";
            faults.error("inventory::include", span, message, "", help);
            return;
        }
        let path = place.directory.join(pattern);
        let paths = match pattern.contains(['*', '?', '[']) {
            true => self.matching(&path, span, faults),
            false => vec![path],
        };
        for path in paths {
            if self.may_include(&path, span, place, faults) {
                self.read_included(&path, span, place, faults);
            }
        }
    }

    fn read_included(&mut self, path: &Path, span: Span, place: &Place<'_>, faults: &mut Faults) {
        match regular::open(path).and_then(|file| self.bytes_of(path, file)) {
            Ok(bytes) => {
                let name = Arc::from(path.display().to_string());
                self.file(path, name, bytes, Some(span), Some(place), faults);
            }
            Err(error) => {
                let message = format!("can't include {}: {}", path.display(), words(path, &error));
                let help = "write its path as seen from the file that includes it; \
                            only a wildcard (`hosts.d/*.yaml`) may find nothing";
                faults.error("inventory::include", span, message, "", help);
            }
        }
    }

    /// Refuses circles, files that are included twice, and the file of the secrets.
    fn may_include(&self, path: &Path, span: Span, place: &Place<'_>, faults: &mut Faults) -> bool {
        // One that is not there is reported by whoever reads it.
        let Ok(real) = path.canonicalize() else {
            return true;
        };
        let shown = path.display();
        let fault = |message| {
            Diagnostic::error("inventory::include", message).with_label(faults.primary(span, ""))
        };
        let fault = if self.secrets.as_ref() == Some(&real) {
            fault(format!("{shown} is the file of the secrets"))
                .with_help("keep it out of the wildcard: put included files into a directory")
        } else if place.ancestors().any(|place| place.path == real) {
            fault(format!(
                "files include each other in a circle: {shown} again"
            ))
            .with_help("remove this include, or put included files into a directory")
        } else if let Some(first) = self.included.get(&real) {
            let first = first.map(|first| faults.context(first, "first here"));
            let mut fault = fault(format!("{shown} is included twice"));
            fault.labels.extend(first);
            fault.with_help("keep one of the two")
        } else if self.texts.len() >= MAX_FILES {
            fault(format!("more than {MAX_FILES} files are included"))
                .with_help("is this the right directory?")
        } else {
            return true;
        };
        faults.push(fault);
        false
    }
}

/// Why a file can't be read. Of a link whose end is gone the system says that the link is not there.
fn words(path: &Path, error: &io::Error) -> String {
    let link = fs::read_link(path).ok();
    match link.filter(|_| error.kind() == io::ErrorKind::NotFound) {
        Some(to) => format!("it is a link to {}, which is not there", to.display()),
        None => error.to_string(),
    }
}

/// What a shell gives a command to read (`check --inventory <(git show HEAD:hosts.yaml)`) may be a pipe: it is open.
pub(super) fn open_handed_over(path: &Path) -> io::Result<File> {
    let of = |directory| path.parent() == Some(Path::new(directory));
    if of("/dev/fd") || of("/proc/self/fd") || path == Path::new("/dev/stdin") {
        return File::open(path);
    }
    regular::open(path)
}

/// The values of a key of the first level, each with its place; what is no text is left out.
fn scalars_of(root: &Node<'_>, key: &str) -> impl Iterator<Item = (String, Span)> {
    let entries = match &root.kind {
        Kind::Mapping(entries) => entries.as_slice(),
        _ => &[],
    };
    let entry = entries
        .iter()
        .find(|entry| entry.key.text == key && !entry.duplicate);
    let nodes = entry.map_or(&[][..], |entry| match &entry.node.kind {
        Kind::Sequence(items) => items,
        _ => std::slice::from_ref(&entry.node),
    });
    nodes.iter().filter_map(|node| match &node.kind {
        Kind::Scalar(scalar) if !scalar.is_null() => Some((scalar.text.to_string(), node.span)),
        _ => None,
    })
}

fn not_utf8(file: &Arc<str>, error: &std::string::FromUtf8Error) -> Diagnostic {
    let (valid, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
    // Lines end as everywhere in the file: YAML knows the lone CR too.
    let before = String::from_utf8_lossy(valid);
    let before = before.replace("\r\n", "\n").replace('\r', "\n");
    let last_line = before.rsplit('\n').next().unwrap_or_default();
    let label = Label {
        file: file.clone(),
        line: before.matches('\n').count() + 1,
        column: last_line.chars().count() + 1,
        length: 1,
        text: String::from("the first byte that is not"),
        primary: true,
    };
    Diagnostic::error("inventory::not_utf8", format!("{file} is not UTF-8 text"))
        .with_label(label)
        .with_help("save the file as UTF-8")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_link_to_nothing_is_said_to_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts.yaml");
        std::os::unix::fs::symlink("away.yaml", &path).unwrap();
        let found = super::super::load::load(&path).unwrap_err().to_string();
        assert!(
            found.contains("it is a link to away.yaml, which is not there"),
            "{found}"
        );
    }

    #[test]
    fn a_pipe_is_a_fault_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("hosts.yaml"), "include: \"more*.yaml\"\n").unwrap();
        for (pipe, said) in [
            ("more.yaml", "can't include "),
            ("first.yaml", "can't read "),
        ] {
            mkfifo(&at(pipe), Mode::S_IRUSR).unwrap();
            let first = if pipe == "more.yaml" {
                "hosts.yaml"
            } else {
                pipe
            };
            let found = super::super::load::load(&at(first))
                .unwrap_err()
                .to_string();
            let words = format!("{said}{}: it is no regular file", at(pipe).display());
            assert!(found.contains(&words), "{found}");
        }
    }

    #[test]
    fn a_pipe_that_is_handed_over_is_read_as_the_first_file_and_once() {
        let text = "networks:\n  lab:\n    subnet: 10.77.0.0/24\n";
        let handed_over = |text: &str| {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            reader
        };
        let load = super::super::load::load;
        for directory in ["/dev/fd", "/proc/self/fd"] {
            let pipe = handed_over(text);
            let path = PathBuf::from(format!("{directory}/{}", pipe.as_raw_fd()));
            // Who reads it again waits, for as long as somebody has it open to write.
            let again = super::super::load::load_again(&path).unwrap_err();
            let edited = super::super::load::load_edited(&path, &path, text).unwrap_err();
            for found in [again.found, edited] {
                let found = found.to_string();
                assert!(found.contains("it is no regular file"), "{found}");
            }
            let including = handed_over(&format!("include: {}\n", path.display()));
            let first = PathBuf::from(format!("/dev/fd/{}", including.as_raw_fd()));
            let found = load(&first).unwrap_err().to_string();
            let words = format!("can't include {}: it is no regular file", path.display());
            assert!(found.contains(&words), "{found}");
            assert!(load(&path).unwrap().inventory.networks.contains_key("lab"));
        }
    }
}
