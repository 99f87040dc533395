//! The tokens that let a host speak for its boot attempt.
//!
//! They are derived from one secret key and the attempt's id, so nothing needs to be
//! stored per host and they hold over a restart of the daemon.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::TimelineError;
use crate::policy::event::AttemptId;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// On the kernel command line: fetches the configuration, until the host has used
    /// its report token.
    Boot,
    /// In the configuration: reports everything after.
    Report,
}

impl TokenKind {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Boot => b"boot\0",
            Self::Report => b"report\0",
        }
    }
}

/// The secret key, `token.key` in the state directory, mode 0600.
pub struct Tokens {
    key: [u8; 64],
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(secret)")
    }
}

impl Tokens {
    /// Reads the key, or makes it the first time.
    ///
    /// # Errors
    /// [`TimelineError`] if the file can't be read, written, or is not a key.
    pub fn open(state: &Path) -> Result<Self, TimelineError> {
        let path = state.join("token.key");
        let failed = |operation| {
            let path = path.clone();
            move |source| TimelineError {
                operation,
                path,
                source,
            }
        };
        match fs::read(&path) {
            Ok(bytes) => {
                let key = bytes.try_into().map_err(|_| {
                    io::Error::other("it does not hold 64 bytes; remove it to make a new one")
                });
                Ok(Self {
                    key: key.map_err(failed("use the token key"))?,
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key: [u8; 64] = rand::random();
                let beside = path.with_extension("new");
                let create = || {
                    let mut file = OpenOptions::new()
                        .write(true)
                        .create(true)
                        .truncate(true)
                        .mode(0o600)
                        .open(&beside)?;
                    file.write_all(&key)?;
                    file.sync_all()?;
                    fs::rename(&beside, &path)
                };
                create().map_err(failed("write the token key"))?;
                Ok(Self { key })
            }
            Err(error) => Err(failed("read the token key")(error)),
        }
    }

    fn mac(&self, kind: TokenKind, attempt: &AttemptId) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.key.into());
        mac.update(kind.label());
        mac.update(attempt.0.as_bytes());
        mac
    }

    /// The token, 32 hexadecimal digits.
    pub fn token(&self, kind: TokenKind, attempt: &AttemptId) -> String {
        let bytes = self.mac(kind, attempt).finalize().into_bytes();
        bytes[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Which of the attempt's tokens this is; compared in constant time.
    pub fn kind(&self, token: &str, attempt: &AttemptId) -> Option<TokenKind> {
        let bytes = decode(token)?;
        [TokenKind::Boot, TokenKind::Report]
            .into_iter()
            .find(|kind| {
                self.mac(*kind, attempt)
                    .verify_truncated_left(&bytes)
                    .is_ok()
            })
    }
}

fn decode(token: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if token.len() != 32 || !token.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&token[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens_hold_over_a_restart_and_the_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let attempt = AttemptId("a".into());
        let token = Tokens::open(dir.path())
            .unwrap()
            .token(TokenKind::Boot, &attempt);
        let again = Tokens::open(dir.path()).unwrap();
        assert_eq!(again.kind(&token, &attempt), Some(TokenKind::Boot));
        assert_eq!(again.kind(&token, &AttemptId("b".into())), None);
        for bad in ["", "00", "é", &"g".repeat(32)] {
            assert_eq!(again.kind(bad, &attempt), None);
        }
        let mode = fs::metadata(dir.path().join("token.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
