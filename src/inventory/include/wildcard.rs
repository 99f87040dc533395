//! The files that a wildcard stands for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::{Seen, Texts};
use crate::inventory::faults::Faults;
use crate::inventory::suggest::quote;
use crate::inventory::tree::Span;

/// Editors' hidden files are not meant by `*.yaml`.
const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

impl Texts {
    /// The files that a wildcard stands for, in the order of their names.
    pub(super) fn matching(
        &mut self,
        path: &Path,
        span: Span,
        faults: &mut Faults,
    ) -> Vec<PathBuf> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let pattern = match Pattern::new(&name) {
            Ok(pattern) if !directory.to_string_lossy().contains(['*', '?', '[']) => pattern,
            Ok(_) => {
                let message = "a wildcard stands for files, and not for directories";
                let help = "write it in the last part: hosts.d/*.yaml";
                faults.error("inventory::include", span, message, "", help);
                return Vec::new();
            }
            Err(error) => {
                let message = format!("{} is no wildcard: {error}", quote(&name));
                let help = "write `*` for any text, or the name of a file";
                faults.error("inventory::include", span, message, "", help);
                return Vec::new();
            }
        };
        let found = self.directory(directory).map(|mut names| {
            names.retain(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                pattern.matches_with(&name, MATCH)
            });
            names.sort();
            names
        });
        found.unwrap_or_else(|error| {
            let shown = if directory.as_os_str().is_empty() {
                Path::new(".")
            } else {
                directory
            };
            let message = format!("can't include from {}: {error}", shown.display());
            let help = "make the directory, or write its path as seen from this file";
            faults.error("inventory::include", span, message, "", help);
            Vec::new()
        })
    }

    /// What is in a directory but directories. It is watched: a file may come or go.
    fn directory(&mut self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let empty = directory.as_os_str().is_empty();
        let path = if empty { Path::new(".") } else { directory };
        let metadata = fs::metadata(path)?;
        let names = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| directory.join(entry.file_name())))
            .collect::<io::Result<Vec<_>>>()?;
        self.seen.push(Seen {
            path: path.to_owned(),
            metadata,
        });
        Ok(names.into_iter().filter(|path| !path.is_dir()).collect())
    }
}
