//! Early microcode: blobs joined into the files that the kernel looks for in an uncompressed
//! first archive (kernel, `Documentation/arch/x86/microcode.rst`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::compose::BuildSpec;
use super::compress;
use super::error::{BuildError, Warning};
use super::faults::Faults;
use super::tree::{Item, Tree, fault};

/// Where the kernel looks, before any file system is there.
pub(crate) const PATH: &str = "kernel/x86/microcode";

/// Whether an image has microcode, and whose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Microcode {
    /// None.
    #[default]
    Off,
    /// That of `microcode/` in the data directory; a warning where there is none.
    Data,
    /// That of a directory which has `intel-ucode/` or `amd-ucode/`, as in `/lib/firmware`.
    Directory(PathBuf),
}

/// Of one maker of processors: its file in the image, its directory in `/lib/firmware`.
struct Maker {
    name: &'static str,
    file: &'static str,
    directory: &'static str,
    /// The processors that a file is for, as an operator names them; `None`: no blob.
    processors: fn(&str) -> Option<&str>,
    /// Intel: `header_version` 1. AMD: the container's magic.
    magic: &'static [u8],
}

const MAKERS: [Maker; 2] = [
    Maker {
        name: "intel",
        file: "GenuineIntel.bin",
        directory: "intel-ucode",
        processors: family_model_stepping,
        magic: &[1, 0, 0, 0],
    },
    Maker {
        name: "amd",
        file: "AuthenticAMD.bin",
        directory: "amd-ucode",
        processors: family,
        magic: b"DMA\0",
    },
];

/// Packs what is asked for, of all processors or of those that are named: `intel`, `amd`,
/// `06-8f-08`, `fam19h`.
pub(crate) fn add(tree: &mut Tree, spec: &BuildSpec, faults: &mut Faults) -> Option<Warning> {
    let processors = &spec.processors;
    let directory = match &spec.microcode {
        Microcode::Off => return None,
        Microcode::Data => data_dir(&spec.kernel_dir).join("microcode"),
        Microcode::Directory(directory) => directory.clone(),
    };
    let mut known = BTreeSet::new();
    for maker in &MAKERS {
        let blobs = faults.keep(blobs(&directory, maker)).unwrap_or_default();
        known.extend(blobs.iter().map(|(processor, _)| processor.clone()));
        known.extend((!blobs.is_empty()).then(|| maker.name.to_owned()));
        let wanted = |processor: &String| {
            let named = |name: &String| *name == maker.name || name == processor;
            processors.is_empty() || processors.iter().any(named)
        };
        let wanted = blobs.into_iter().filter(|(processor, _)| wanted(processor));
        let wanted: Vec<PathBuf> = wanted.map(|(_, path)| path).collect();
        if !wanted.is_empty() {
            faults.keep(add_file(tree, maker, &wanted));
        }
    }
    match &spec.microcode {
        Microcode::Data if known.is_empty() => return Some(Warning::NoMicrocode { directory }),
        _ if known.is_empty() => faults.add(no_microcode(&directory)),
        _ => {
            let unknown = processors.iter().filter(|name| !known.contains(*name));
            unknown.for_each(|name| faults.add(unknown_processor(name, &directory)));
        }
    }
    None
}

/// `kernels/NAME` stands in it.
fn data_dir(kernel_dir: &Path) -> PathBuf {
    let above = kernel_dir.ancestors().nth(2).map(Path::to_owned);
    above.unwrap_or_else(|| kernel_dir.join("../.."))
}

fn no_microcode(directory: &Path) -> BuildError {
    let problem = format!(
        "{} has neither intel-ucode/ nor amd-ucode/ with microcode (Debian: intel-microcode, amd64-microcode)",
        directory.display()
    );
    fault(PATH, problem)
}

fn unknown_processor(processor: &str, directory: &Path) -> BuildError {
    let problem = format!(
        "{} has none for `{processor}`; a processor is named as the files there: 06-8f-08, fam19h; or intel, or amd",
        directory.display()
    );
    fault(PATH, problem)
}

fn add_file(tree: &mut Tree, maker: &Maker, blobs: &[PathBuf]) -> Result<(), BuildError> {
    let mut item = Item::file(0o644, joined(blobs, maker.magic)?);
    let files = if blobs.len() == 1 { "file" } else { "files" };
    item.reason = Some(format!("{} {files} of {}", blobs.len(), maker.directory));
    tree.insert(&format!("{PATH}/{}", maker.file), item)
}

/// Processor and file, by file name.
fn blobs(directory: &Path, maker: &Maker) -> Result<Vec<(String, PathBuf)>, BuildError> {
    let directory = directory.join(maker.directory);
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let read = BuildError::io("read microcode", &directory);
    let entries = fs::read_dir(&directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let paths = entries.map_err(read)?;
    let mut paths: Vec<PathBuf> = paths.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    let blob = |path: PathBuf| {
        let name = path.file_name()?.to_string_lossy();
        let name = name.trim_end_matches(".xz").trim_end_matches(".zst");
        let processor = (maker.processors)(name)?.to_owned();
        path.is_file().then_some((processor, path))
    };
    Ok(paths.into_iter().filter_map(blob).collect())
}

/// One behind the other, as `cat` would: the loader looks for its processor's. Intel has files
/// for several steppings which are the same.
fn joined(blobs: &[PathBuf], magic: &[u8]) -> Result<Vec<u8>, BuildError> {
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    for path in blobs {
        let bytes = fs::read(path).map_err(BuildError::io("read microcode", path))?;
        let bytes = compress::unpack(bytes).map_err(BuildError::io("unpack microcode", path))?;
        if !bytes.starts_with(magic) {
            let problem = format!(
                "{} is damaged or no microcode; take the package's file anew",
                path.display()
            );
            return Err(fault(PATH, problem));
        }
        if seen.insert(bytes.clone()) {
            all.extend(bytes);
        }
    }
    Ok(all)
}

/// `06-55-04`, and `06-3f-02.initramfs`: Debian's name for what is to be loaded early alone.
fn family_model_stepping(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".initramfs").unwrap_or(name);
    let parts: Vec<&str> = name.split('-').collect();
    let hexadecimal = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    (parts.len() == 3 && parts.iter().all(hexadecimal)).then_some(name)
}

/// `microcode_amd_fam19h.bin`, and `microcode_amd.bin` for all that are older.
fn family(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".bin")?;
    Some(name.rsplit('_').next().unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::super::compress::tests::xz;
    use super::super::testing::Lab;
    use super::super::tree::Node;
    use super::*;

    fn packed(
        lab: &Lab,
        microcode: &Microcode,
        of: &[&str],
    ) -> Result<Vec<(String, Vec<u8>)>, BuildError> {
        let (mut tree, mut faults) = (Tree::default(), Faults::default());
        let mut spec = lab.spec();
        spec.kernel_dir = lab.path("data/kernels/x");
        spec.microcode = microcode.clone();
        spec.processors = of.iter().map(|name| (*name).to_owned()).collect();
        let warning = add(&mut tree, &spec, &mut faults);
        faults.done()?;
        let files = tree
            .0
            .into_iter()
            .filter_map(|(path, item)| match item.node {
                Node::File(bytes) => Some((path.strip_prefix(PATH)?.to_owned(), bytes)),
                _ => None,
            });
        let warning = warning.map(|warning| (warning.to_string(), Vec::new()));
        Ok(files.chain(warning).collect())
    }

    fn directory(lab: &Lab) -> Microcode {
        lab.write("fw/intel-ucode/06-55-04", b"\x01\0\0\0bbbb");
        lab.write("fw/intel-ucode/06-55-05", b"\x01\0\0\0bbbb");
        lab.write("fw/intel-ucode/06-3f-02.initramfs", b"\x01\0\0\0aaaa");
        lab.write("fw/intel-ucode/06-0f-02.xz", xz(b"\x01\0\0\0old!"));
        // Debian's are of any length.
        lab.write("fw/amd-ucode/microcode_amd_fam19h.bin", b"DMA\0cccc.");
        lab.write("fw/amd-ucode/microcode_amd_fam19h.bin.asc", "signature");
        Microcode::Directory(lab.path("fw"))
    }

    #[test]
    fn blobs_are_joined_in_the_order_of_their_names_each_once() {
        let lab = Lab::new();
        let found = packed(&lab, &directory(&lab), &[]).unwrap();
        assert_eq!(
            found[0],
            ("/AuthenticAMD.bin".into(), b"DMA\0cccc.".to_vec())
        );
        let intel = b"\x01\0\0\0old!\x01\0\0\0aaaa\x01\0\0\0bbbb".to_vec();
        assert_eq!(found[1], ("/GenuineIntel.bin".into(), intel));
        assert_eq!(packed(&lab, &Microcode::Off, &[]).unwrap(), []);
    }

    #[test]
    fn processors_are_chosen_by_name() {
        let lab = Lab::new();
        let directory = directory(&lab);
        let found = packed(&lab, &directory, &["06-3f-02", "fam19h"]).unwrap();
        assert_eq!(found[0].1, b"DMA\0cccc.");
        assert_eq!(found[1].1, b"\x01\0\0\0aaaa");
        assert_eq!(packed(&lab, &directory, &["amd"]).unwrap().len(), 1);
        let text = packed(&lab, &directory, &["06-55-09", "intel"]).unwrap_err();
        let text = text.to_string();
        assert!(
            text.contains("none for `06-55-09`; a processor is named"),
            "{text}"
        );
    }

    #[test]
    fn the_data_directory_may_have_none_and_a_named_one_may_not() {
        let lab = Lab::new();
        lab.write("data/kernels/x/release", "");
        let found = packed(&lab, &Microcode::Data, &["intel"]).unwrap();
        let place = lab.path("data/microcode");
        let expected = format!("has no microcode in it: {} has neither", place.display());
        assert!(found[0].0.contains(&expected), "{found:?}");
        lab.write("data/microcode/amd-ucode/microcode_amd.bin", b"DMA\0");
        assert_eq!(packed(&lab, &Microcode::Data, &[]).unwrap()[0].1, b"DMA\0");
        let empty = Microcode::Directory(lab.path("initrd"));
        let text = packed(&lab, &empty, &[]).unwrap_err().to_string();
        assert!(
            text.contains("has neither intel-ucode/ nor amd-ucode/"),
            "{text}"
        );
        lab.write("fw/intel-ucode/06-55-04", "<html>");
        let damaged = Microcode::Directory(lab.path("fw"));
        let text = packed(&lab, &damaged, &[]).unwrap_err().to_string();
        assert!(text.contains("06-55-04 is damaged"), "{text}");
    }
}
