//! `firmware.list`: firmware that no module of the image names.
//!
//! ```text
//! # comment
//! NAME [required|optional]
//! ```
//! NAME is a path below `/lib/firmware` and may be a pattern.

use std::path::Path;

use super::catalog::read_optional;
use super::error::{BuildError, ListPos};
use super::faults::Faults;
use super::list::{fault, lines};

/// A line that asks for firmware.
#[derive(Debug)]
pub(crate) struct WantedFirmware {
    pub(crate) name: String,
    pub(crate) at: ListPos,
    pub(crate) required: bool,
}

/// Reads `firmware.list` of `source_dir`; without one nothing more is wanted.
pub(crate) fn read(source_dir: &Path, faults: &mut Faults) -> Vec<WantedFirmware> {
    let path = source_dir.join("firmware.list");
    let text = faults.keep(read_optional(&path)).unwrap_or_default();
    let wanted = lines(&path, &text).filter_map(|(at, words)| faults.keep(parse(at, &words)));
    wanted.collect()
}

fn parse(at: ListPos, words: &[&str]) -> Result<WantedFirmware, BuildError> {
    let (name, required) = match words {
        [name] | [name, "required"] => (*name, true),
        [name, "optional"] => (*name, false),
        _ => {
            let problem = format!("`{}` is not NAME [required|optional]", words.join(" "));
            return Err(fault(at, problem));
        }
    };
    if name.starts_with("lib/firmware/") || name.split('/').any(|part| matches!(part, "" | "..")) {
        let problem = format!(
            "`{name}` is no firmware name: the path below /lib/firmware, as `tigon/tg3.bin`"
        );
        return Err(fault(at, problem));
    }
    let name = name.to_owned();
    Ok(WantedFirmware { name, at, required })
}
