//! A rescue boot: the initrd alone, with the network up and a login on every console.

use std::fmt;

use super::faults::Faults;
use super::fields::Fields;
use super::model::Sourced;
use super::scalars::Bad;
use super::suggest::quote;
use super::tree::Scalar;

/// Longer than any hash that crypt(5) makes.
const MAX_HASH: usize = 200;

/// A password as crypt(5) hashes it. Its `Debug` tells nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// The hash, for the host whose password it is.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Takes `rescue: {password: HASH}` out of a profile's or a host's map.
pub(super) fn read(
    fields: &mut Fields<'_, '_>,
    faults: &mut Faults,
) -> Option<Sourced<PasswordHash>> {
    let mut rescue = fields.map("rescue", faults)?;
    let layer = rescue.layer().clone();
    if !rescue.has("password") {
        rescue.require("password", "\"$6$…\" (made by: openssl passwd -6)", faults);
    }
    let hash = rescue.get("password", faults, password_hash);
    rescue.finish(faults);
    hash.map(|at| faults.sourced(at, &layer))
}

/// SHA-512, SHA-256 or MD5 crypt: what BusyBox's login can check (crypt(5); yescrypt is not among them).
fn password_hash(scalar: &Scalar<'_>) -> Result<PasswordHash, Bad> {
    let text: &str = &scalar.text;
    let plain = |c: char| c.is_ascii_alphanumeric() || "./$=".contains(c);
    let known = ["$6$", "$5$", "$1$"]
        .iter()
        .any(|kind| text.starts_with(kind));
    let parts = text.split('$').filter(|part| !part.is_empty()).count();
    if known && parts >= 3 && text.len() <= MAX_HASH && text.chars().all(plain) {
        return Ok(PasswordHash(text.to_owned()));
    }
    // A hash, or worse a password, is not repeated on a screen.
    let shown = quote(
        text.get(..3)
            .filter(|kind| kind.starts_with('$'))
            .unwrap_or("it"),
    );
    let message = format!("{shown} is no password hash that the initrd's login can check");
    let help = "make one with `openssl passwd -6`, and write it in quotes: \"$6$salt$hash\"";
    Err(Bad::new("inventory::bad_password", message, help))
}
