//! Where in a file an edit takes place, and the text with it.

use std::path::{Path, PathBuf};

use super::pieces::{Meaning, Piece};
use super::splice::{self, Splice, TooHard, Written};
use super::{Assignment, EditError, Verb, written};
use crate::inventory::model::Inventory;
use crate::inventory::suggest::did_you_mean;

/// Where an edit takes place.
pub(super) struct Target {
    pub(super) file: PathBuf,
    /// The key below `hosts:`.
    pub(super) key: String,
}

/// Where the values go, and what they are called there.
pub(super) fn target(
    old: &Inventory,
    first: &Path,
    verb: Verb,
    name: &str,
    values: Vec<Assignment>,
) -> Result<(Target, Vec<Assignment>), EditError> {
    let key = name.to_owned();
    let by_key = || old.hosts.values().find(|host| *host.key == *name);
    let known = old.hosts.get(name).or_else(by_key);
    match (verb, known) {
        (Verb::Add, None) => {
            let file = first.to_owned();
            Ok((Target { file, key }, values))
        }
        (Verb::Add, Some(host)) => Err(EditError::Exists {
            name: key,
            origin: host.origin.clone(),
        }),
        (Verb::Set, Some(host)) if *host.key == *name => {
            let file = PathBuf::from(&*host.origin.file);
            Ok((Target { file, key }, values))
        }
        (Verb::Set, Some(host)) => {
            let in_range = || EditError::InRange {
                name: key,
                range: host.key.to_string(),
                origin: host.origin.clone(),
            };
            let file = PathBuf::from(&*host.origin.file);
            let key = host.key.to_string();
            let values = values.into_iter().map(|value| value.of_one(host, old));
            let values = values.collect::<Option<_>>().ok_or_else(in_range)?;
            Ok((Target { file, key }, values))
        }
        (Verb::Set, None) => Err(EditError::Unknown {
            name: key,
            help: did_you_mean(name, old.hosts.keys().map(String::as_str)),
        }),
    }
}

impl Target {
    /// The new text, which means the old one with the values and nothing else.
    pub(super) fn apply(
        &self,
        text: &str,
        verb: Verb,
        values: &[Assignment],
    ) -> Result<String, EditError> {
        let mut wanted = self.root(text)?.meaning();
        let mut new = text.to_owned();
        let path = |rest: &[String]| {
            let path = ["hosts".to_owned(), self.key.clone()];
            [&path[..], rest].concat()
        };
        if verb == Verb::Add {
            let (line, meaning) = self.line(values)?;
            wanted = wanted.with(&path(&[]), Some(&meaning));
            let root = self.root(&new)?;
            new = self.spliced(&new, splice::add(&new, &root, "hosts", &line))?;
        } else {
            for value in values {
                let written = value.value.as_deref().map(written).transpose()?;
                let meaning = written.as_ref().map(|written| &written.meaning);
                wanted = wanted.with(&path(&value.path), meaning);
                new = self.assign(&new, &value.path, written.as_ref())?;
            }
        }
        match self.root(&new) {
            Ok(root) if root.meaning() == wanted => Ok(new),
            _ => Err(self.too_hard("the edit would change something else, too")),
        }
    }

    fn assign(
        &self,
        text: &str,
        path: &[String],
        value: Option<&Written>,
    ) -> Result<String, EditError> {
        let root = self.root(text)?;
        let hosts = root.member("hosts").map(|member| &member.value);
        let host = hosts.and_then(|hosts| hosts.member(&self.key));
        let Some(host) = host.map(|member| &member.value) else {
            return Err(self.too_hard("the host is not where it was"));
        };
        let edited = match value {
            Some(value) => splice::set(text, host, path, value),
            None => splice::unset(text, host, path),
        };
        self.spliced(text, edited)
    }

    /// `kvm07: {mac: …, ip: …}`, and what it means.
    fn line(&self, values: &[Assignment]) -> Result<(String, Meaning), EditError> {
        let mut text = format!("{}: {{}}", self.key);
        let mut meaning = Meaning::Map(Vec::new());
        for Assignment { path, value } in values {
            let Some(value) = value else { continue };
            let value = written(value)?;
            let root = self.root(&text)?;
            let map = root.member(&self.key).map(|member| &member.value);
            let map = map.ok_or_else(|| self.too_hard("the name is no key"))?;
            text = self.spliced(&text, splice::set(&text, map, path, &value))?;
            meaning = meaning.with(path, Some(&value.meaning));
        }
        Ok((text, meaning))
    }

    fn spliced(&self, text: &str, new: Result<Splice, TooHard>) -> Result<String, EditError> {
        let new = new.map_err(|why| self.too_hard(why.0))?;
        Ok(splice::together(text, vec![new]))
    }

    pub(super) fn root(&self, text: &str) -> Result<Piece, EditError> {
        Piece::of(text).ok_or_else(|| self.too_hard("it can't be taken apart"))
    }

    pub(super) fn too_hard(&self, why: impl Into<String>) -> EditError {
        EditError::TooHard {
            file: self.file.clone(),
            why: why.into(),
        }
    }
}
