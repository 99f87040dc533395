//! Archives of the operator's, behind the image's own: their files replace those of a like path.

use std::fs;
use std::path::{Path, PathBuf};

use super::compress::Compression;
use super::error::BuildError;
use super::faults::Faults;
use super::listing;

/// An archive, or several in a row, as the file has them.
#[derive(Debug)]
pub(crate) struct Appended {
    /// Its file name.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) compression: Compression,
    pub(crate) unpacked_size: u64,
}

/// Reads and checks them: the kernel would stop at one that it can't unpack.
pub(crate) fn read(paths: &[PathBuf], faults: &mut Faults) -> Vec<Appended> {
    let read = paths.iter().map(|path| read_one(path));
    read.filter_map(|result| faults.keep(result)).collect()
}

fn read_one(path: &Path) -> Result<Appended, BuildError> {
    let bad = |problem: String| BuildError::Append {
        path: path.to_owned(),
        problem,
    };
    let bytes = fs::read(path).map_err(BuildError::io("read archive", path))?;
    let found = listing::read(path, &bytes).map_err(|error| bad(error.full_text()))?;
    let Some(first) = found.members.first() else {
        return Err(bad("it is empty".into()));
    };
    Ok(Appended {
        name: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        compression: first.compression,
        unpacked_size: found.members.iter().map(|part| part.unpacked_size).sum(),
        bytes,
    })
}
