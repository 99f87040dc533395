//! The secrets of hosts: a file of its own, for root's eyes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::inventory::model::{Host, Inventory};
use crate::regular;

/// A larger file is not one of keys and passwords, bytes.
const MAX_BYTES: u64 = 16 << 20;

type Values = BTreeMap<String, String>;

/// Secrets by whom they are for. Its `Debug` shows none of them.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    #[serde(default)]
    all: Values,
    #[serde(default)]
    profiles: BTreeMap<String, Values>,
    #[serde(default)]
    hosts: BTreeMap<String, Values>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(secret)")
    }
}

/// The file can't be used. No message holds a word of the file's text.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// It can't be read.
    #[error("cannot read the secrets file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "the secrets file {} has mode {mode:04o}: others than its owner can get at it", path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is somebody else's.
    #[error(
        "the secrets file {} belongs to user {owner}, who is neither root nor the daemon", path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It is not what it should be.
    #[error(
        "the secrets file {} is wrong at line {line}, column {column}: it takes `all`, `profiles` and `hosts`, with names below the latter two, and below these `NAME: \"TEXT\"`", path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// 1-based; 0 if not known.
        line: u64,
        /// 1-based; 0 if not known.
        column: u64,
    },
}

impl SecretsError {
    /// What the operator can do.
    pub fn help(&self) -> String {
        match self {
            Self::Unreadable { .. } => "write its name as it is, from where hosts.yaml lies".into(),
            Self::Open { path, .. } => format!("chmod 0600 {}", path.display()),
            Self::Foreign { path, .. } => format!("chown root {}", path.display()),
            Self::Malformed { .. } => {
                "mend that line; its text is not shown, for it may be a secret".into()
            }
        }
    }
}

impl Secrets {
    /// Reads the file, if nobody but its owner can, and its owner is root or who runs this.
    ///
    /// # Errors
    /// [`SecretsError`].
    pub fn load(path: &Path) -> Result<Self, SecretsError> {
        let unreadable = |source| SecretsError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let mut file = regular::open(path).map_err(unreadable)?;
        // Of the open file, not of whatever has the name a moment later.
        let metadata = file.metadata().map_err(unreadable)?;
        check_owner(path, metadata.uid(), metadata.mode())?;
        if metadata.len() > MAX_BYTES {
            return Err(unreadable(io::Error::other("it has more than 16 MiB")));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unreadable)?;
        let parsed = serde_saphyr::from_str::<Option<Self>>(&text);
        parsed.map(Option::unwrap_or_default).map_err(|error| {
            // The parser's own words show the line.
            let place = error.location();
            SecretsError::Malformed {
                path: path.to_owned(),
                line: place.map_or(0, |place| place.line()),
                column: place.map_or(0, |place| place.column()),
            }
        })
    }

    /// A host's secrets: those for all, then its profile's with its parents', then its own.
    pub fn of(&self, host: &Host) -> BTreeMap<&str, &str> {
        let profiles = host.profile.extends.iter().rev();
        let profiles = profiles.chain([&host.profile.name]);
        let layers = profiles.filter_map(|name| self.profiles.get(name));
        let layers = [&self.all].into_iter().chain(layers);
        let layers = layers.chain(self.hosts.get(&host.name));
        layers
            .flatten()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    /// Names in the file that nothing in the inventory has.
    pub fn strangers(&self, inventory: &Inventory) -> Vec<String> {
        let known = |name: &String| {
            let mut profiles = inventory.all_profiles();
            inventory.profiles.contains_key(name)
                || profiles.any(|profile| profile.name == *name || profile.extends.contains(name))
        };
        let hosts = self.hosts.keys();
        let hosts = hosts.filter(|name| !inventory.hosts.contains_key(*name));
        let profiles = self.profiles.keys().filter(|name| !known(name));
        let hosts = hosts.map(|name| format!("host {name}"));
        hosts
            .chain(profiles.map(|name| format!("profile {name}")))
            .collect()
    }
}

fn check_owner(path: &Path, owner: u32, mode: u32) -> Result<(), SecretsError> {
    let (path, mode) = (path.to_owned(), mode & 0o7777);
    if mode & 0o077 != 0 {
        return Err(SecretsError::Open { path, mode });
    }
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(SecretsError::Foreign { path, owner });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.yaml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for mode in [0o644, 0o640, 0o604, 0o602] {
            let (_dir, path) = file("all: {a: b}\n", mode);
            let error = Secrets::load(&path).unwrap_err();
            assert!(
                error.to_string().contains(&format!("{mode:04o}")),
                "{error}"
            );
            assert!(error.help().starts_with("chmod 0600 "));
        }
        for mode in [0o600, 0o400] {
            let (_dir, path) = file("all: {a: b}\n", mode);
            assert!(Secrets::load(&path).is_ok());
        }
        assert!(check_owner(Path::new("x"), 4711, 0o600).is_err());
    }

    #[test]
    fn no_fault_and_no_debug_shows_a_secret() {
        let (_dir, path) = file("hosts:\n  kvm01: hunter2\n", 0o600);
        let error = Secrets::load(&path).unwrap_err();
        let said = format!("{error} {error:?} {}", error.help());
        assert!(
            said.contains("line 2") && !said.contains("hunter2"),
            "{said}"
        );
        let (_dir, path) = file("all: {a: hunter2}\n", 0o600);
        let secrets = Secrets::load(&path).unwrap();
        assert!(!format!("{secrets:?}").contains("hunter2"));
    }
}
