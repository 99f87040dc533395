//! `files.list`: files of the machine that builds, with the libraries that they need.
//!
//! ```text
//! # comment
//! SOURCE [DEST] [MODE]
//! ```
//! SOURCE is absolute, or below the list's folder; DEST is absolute, and may be left out
//! where SOURCE is absolute; one that ends in `/` is the folder. MODE is octal.

use std::fs;
use std::path::{Path, PathBuf};

use super::catalog::read_optional;
use super::error::{BuildError, ListPos};
use super::faults::Faults;
use super::libraries::{Libraries, Object};
use super::list::{fault, lines};
use super::tree::{Tree, file_item};

/// A line.
#[derive(Debug)]
struct Wanted {
    source: PathBuf,
    /// With a leading `/`.
    path: String,
    mode: Option<u32>,
    at: ListPos,
}

/// Packs what `files.list` of `source_dir` names; absolute sources stand below `root`.
pub(crate) fn add(tree: &mut Tree, source_dir: &Path, root: &Path, faults: &mut Faults) {
    let list = source_dir.join("files.list");
    let text = faults.keep(read_optional(&list)).unwrap_or_default();
    let libraries = Libraries::of(root);
    for (at, words) in lines(&list, &text) {
        if let Some(wanted) = faults.keep(parse(at, &words, source_dir, root)) {
            let added =
                add_file(tree, &wanted).map(|()| add_needs(tree, wanted, &libraries, faults));
            faults.keep(added);
        }
    }
}

fn add_file(tree: &mut Tree, wanted: &Wanted) -> Result<(), BuildError> {
    let at = || wanted.at.clone();
    let (source, inside) = (&wanted.source, wanted.path.trim_start_matches('/'));
    let metadata = fs::metadata(source).map_err(|error| {
        let problem = format!(
            "{}: {error}; install it here, or correct the path",
            source.display()
        );
        fault(at(), problem)
    })?;
    if !metadata.is_file() {
        let problem = format!(
            "{} is no file; name its files one by one, or lay it over with --tree",
            source.display()
        );
        return Err(fault(at(), problem));
    }
    if let Some(other) = tree.0.get(inside) {
        let whose = other.reason.as_deref().unwrap_or("of tree/");
        return Err(fault(
            at(),
            format!("/{inside} is in the image already, {whose}; keep one"),
        ));
    }
    let mut item = file_item(source)?;
    item.permissions = wanted.mode.unwrap_or(item.permissions);
    item.reason = Some(format!("listed in {}:{}", wanted.at.list(), wanted.at.line));
    item.listed = true;
    tree.insert(inside, item)
}

fn add_needs(tree: &mut Tree, wanted: Wanted, libraries: &Libraries, faults: &mut Faults) {
    // A program's $ORIGIN is where the file itself is, not a link to it.
    let program = Object {
        source: fs::canonicalize(&wanted.source).unwrap_or(wanted.source),
        path: wanted.path,
        needed_by: String::new(),
    };
    match libraries.needed_by(program) {
        Err(missing) => missing.into_iter().for_each(|problem| {
            let problem = format!("{problem}; install it here, or take a static program");
            faults.add(fault(wanted.at.clone(), problem));
        }),
        Ok(objects) => {
            for object in objects {
                let added = add_object(tree, &object);
                faults.keep(added);
            }
        }
    }
}

/// What stands at its path already is the same library, or one that the operator put there.
fn add_object(tree: &mut Tree, object: &Object) -> Result<(), BuildError> {
    let mut item = file_item(&object.source)?;
    item.reason = Some(format!("{} needs it", object.needed_by));
    item.listed = true;
    tree.insert_new(object.path.trim_start_matches('/'), item)
}

fn parse(
    at: ListPos,
    words: &[&str],
    source_dir: &Path,
    root: &Path,
) -> Result<Wanted, BuildError> {
    let (source, dest, mode) = match *words {
        [source] => (source, None, None),
        [source, dest, mode] => (source, Some(dest), Some(mode)),
        [source, second] if second.starts_with('/') => (source, Some(second), None),
        [source, second] => (source, None, Some(second)),
        _ => return Err(fault(at, "a line is SOURCE [DEST] [MODE]")),
    };
    let Some(dest) = dest.or(source.starts_with('/').then_some(source)) else {
        let problem = format!("`{source}` needs a DEST: where it goes, as `/etc/{source}`");
        return Err(fault(at, problem));
    };
    let path = match dest.strip_suffix('/') {
        Some(folder) => format!("{folder}/{}", source.rsplit('/').next().unwrap_or_default()),
        None => dest.to_owned(),
    };
    let inside = path.strip_prefix('/').unwrap_or_default();
    if inside
        .split('/')
        .any(|part| matches!(part, "" | "." | ".."))
    {
        let problem = format!("`{dest}` is no DEST: an absolute path without `..`");
        return Err(fault(at, problem));
    }
    let mode = match mode.map(parse_mode) {
        Some(None) => {
            let problem = format!(
                "`{}` is no MODE: octal, 0000 to 0777, as 0755",
                mode.unwrap_or_default()
            );
            return Err(fault(at, problem));
        }
        mode => mode.flatten(),
    };
    let source = match source.strip_prefix('/') {
        Some(absolute) => root.join(absolute),
        None => source_dir.join(source),
    };
    Ok(Wanted {
        source,
        path,
        mode,
        at,
    })
}

/// Nothing in an initrd is setuid.
fn parse_mode(text: &str) -> Option<u32> {
    let mode = u32::from_str_radix(text, 8).ok()?;
    (text.len() >= 3 && mode <= 0o777).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Lab, dynamic};
    use super::*;

    fn added(lab: &Lab, text: &str) -> Result<Vec<String>, BuildError> {
        lab.write("initrd/files.list", text);
        let (mut tree, mut faults) = (Tree::default(), Faults::default());
        tree.add_directory(&lab.path("initrd/tree")).unwrap();
        add(&mut tree, &lab.path("initrd"), lab.as_ref(), &mut faults);
        faults.done()?;
        let listed = tree.0.iter().filter(|(_, item)| item.listed);
        let lines = listed.map(|(path, item)| {
            let reason = item.reason.clone().unwrap_or_default();
            format!("{:o} {path}: {reason}", item.permissions)
        });
        Ok(lines.collect())
    }

    #[test]
    fn files_go_in_with_mode_libraries_and_reasons() {
        let lab = Lab::new();
        lab.write("usr/sbin/tool-1.0", dynamic(&[(1, "liba.so")]));
        lab.chmod("usr/sbin/tool-1.0", 0o4755);
        std::os::unix::fs::symlink("tool-1.0", lab.path("usr/sbin/tool")).unwrap();
        lab.write("usr/lib/liba.so", dynamic(&[]));
        lab.write("initrd/site.conf", "x");
        lab.write("etc/key", "x");
        let text =
            "# ours\n/usr/sbin/tool\nsite.conf /etc/\n/etc/key 0600 # secret\n/etc/key /k/ey 400\n";
        assert_eq!(
            added(&lab, text).unwrap(),
            [
                "600 etc/key: listed in files.list:4",
                "644 etc/site.conf: listed in files.list:3",
                "400 k/ey: listed in files.list:5",
                "644 usr/lib/liba.so: tool needs it",
                "755 usr/sbin/tool: listed in files.list:2",
            ]
        );
    }

    #[test]
    fn no_list_is_fine() {
        assert_eq!(added(&Lab::new(), "").unwrap(), [""; 0]);
    }

    #[test]
    fn every_line_that_fails_is_told() {
        let lab = Lab::new();
        lab.write("bin/tool", dynamic(&[(1, "liba.so"), (1, "libb.so")]));
        lab.write("etc/a", "x");
        let text = "/bin/tool\n/etc/gone\n/etc\nrelative\n/etc/a b\n/etc/a /b/../c\n/etc/a 4755\n/etc/a /init\n/etc/a\n/etc/a\n";
        let text = added(&lab, text).unwrap_err().to_string();
        for expected in [
            "files.list:1: ",
            "bin/tool needs the library liba.so",
            "bin/tool needs the library libb.so",
            "files.list:2: ",
            "install it here, or correct the path",
            "/etc is no file; name its files",
            "files.list:4: `relative` needs a DEST",
            "files.list:5: `b` is no MODE",
            "files.list:6: `/b/../c` is no DEST",
            "files.list:7: `4755` is no MODE",
            "files.list:8: /init is in the image already, of tree/; keep one",
            "files.list:10: /etc/a is in the image already, listed in files.list:9; keep one",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(text.starts_with("10 faults:"), "{text}");
    }
}
