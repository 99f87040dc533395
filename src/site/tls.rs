//! The certificate and key that HTTPS is served with, checked before they are used.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use super::Paths;
use super::host_files::beside;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::inventory::artefacts::label;
use crate::inventory::model::{Inventory, Sourced};
use crate::regular;

/// A certificate or key is never larger, bytes.
const MAX_BYTES: u64 = 1 << 20;
/// A certificate that ends sooner is warned of.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// What to do then.
const RENEW: &str = "renew it and put it in its place: it is taken up at once";

/// What HTTPS is served with.
#[derive(Debug)]
pub struct Tls {
    /// For the next connection.
    pub config: Arc<ServerConfig>,
    /// When the server's own certificate ends; `None` if it can't be read off it.
    pub ends: Option<Timestamp>,
    begins: Option<Timestamp>,
    certificate: PathBuf,
    /// What it was made of.
    pub(super) pem: Pem,
}

/// Certificate and key as they were read. Its `Debug` shows neither.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Pem {
    certificate: String,
    key: String,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(secret)")
    }
}

impl Pem {
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let (file, _) = open(certificate)?;
        let certificate = text(certificate, file)?;
        // Its group may read it: distributions give keys to a group of servers (`ssl-cert`).
        let (file, mode) = open(key)?;
        if mode & 0o027 != 0 {
            let path = key.to_owned();
            return Err(TlsError::Open { path, mode });
        }
        let key = text(key, file)?;
        Ok(Self { certificate, key })
    }
}

impl Tls {
    /// The paths are for messages.
    fn of(pem: Pem, certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(pem.certificate.as_bytes());
        let chain: Result<Vec<_>, _> = chain.collect();
        let empty = |path, what| TlsError::Empty { path, what };
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| empty(certificate.clone(), "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes())
            .map_err(|_| empty(key, "private key"))?;
        let (begins, ends) = validity(&chain).unzip();
        Ok(Self {
            config: Arc::new(configure(chain, key)?),
            ends,
            begins,
            certificate,
            pem,
        })
    }

    /// That the certificate has ended, or ends soon, or is not valid yet, and what to do.
    pub fn warning(&self, now: Timestamp) -> Option<String> {
        let path = self.certificate.display();
        if let Some(begins) = self.begins.filter(|begins| now < *begins) {
            return Some(format!(
                "the TLS certificate {path} is not valid before {begins}, and by the clock of this machine it is {now:.0}: set the clock, or wait until then"
            ));
        }
        let end = self.ends.filter(|end| *end < now + SOON)?;
        let verb = if end < now { "ended" } else { "ends" };
        Some(format!(
            "the TLS certificate {path} {verb} on {end}: {RENEW}"
        ))
    }
}

/// HTTPS can't be served so.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the TLS key {} has mode {mode:04o}: others than its owner and group can get at it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{} holds no {what} in PEM", path.display())]
    Empty { path: PathBuf, what: &'static str },
    #[error("the certificate and key of `tls` can't be used: {0}")]
    Unusable(rustls::Error),
}

impl TlsError {
    fn help(&self) -> String {
        match self {
            Self::Unreadable { .. } => "write its name as it is, from where hosts.yaml lies".into(),
            Self::Open { path, .. } => format!("chmod 0600 {}", path.display()),
            Self::Empty { .. } => {
                "give the files that openssl or your CA made: -----BEGIN CERTIFICATE----- first the \
                 server's, then those between it and the CA; -----BEGIN PRIVATE KEY----- without a password"
                    .into()
            }
            Self::Unusable(_) => "take a key and a certificate that belong together".into(),
        }
    }
}

/// The files that HTTPS depends on.
pub(super) fn files(paths: &Paths, inventory: &Inventory) -> Vec<PathBuf> {
    let tls = inventory.server.tls.iter();
    tls.flat_map(|tls| [&tls.certificate, &tls.key])
        .map(|file| beside(&paths.inventory, file))
        .collect()
}

/// What HTTPS is served with, of its files or as it was `kept`; `None` where it is not asked for, or a fault is told.
pub(super) fn load(
    paths: &Paths,
    inventory: &Inventory,
    kept: Option<Pem>,
    found: &mut Diagnostics,
) -> Option<Tls> {
    let tls = inventory.server.tls.as_ref()?;
    let certificate = beside(&paths.inventory, &tls.certificate);
    let key = beside(&paths.inventory, &tls.key);
    let pem = kept.map_or_else(|| Pem::read(&certificate, &key), Ok);
    match pem.and_then(|pem| Tls::of(pem, certificate, key)) {
        Ok(loaded) => {
            if let Some(message) = loaded.warning(Timestamp::now()) {
                let told = Diagnostic::warning("tls::expires", message);
                tell(told, &tls.certificate, found);
            }
            Some(loaded)
        }
        Err(fault) => {
            let told = Diagnostic::error("tls::unusable", fault.to_string());
            tell(told.with_help(fault.help()), &tls.certificate, found);
            None
        }
    }
}

fn tell(mut told: Diagnostic, file: &Sourced<PathBuf>, found: &mut Diagnostics) {
    let place = file.origin.as_ref();
    told.labels
        .extend(place.map(|origin| label(origin, found.sources(), "")));
    found.push(told);
}

fn open(path: &Path) -> Result<(File, u32), TlsError> {
    let unreadable = |source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = regular::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    Ok((file, metadata.mode() & 0o7777))
}

/// PEM is ASCII; what stands around it is nobody's.
fn text(path: &Path, file: File) -> Result<String, TlsError> {
    let mut text = Vec::new();
    let read = file.take(MAX_BYTES).read_to_end(&mut text);
    read.map_err(|source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn configure(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?;
    let config = config.with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// When the server's own certificate begins and ends; `None` if it can't be read off it.
fn validity(chain: &[CertificateDer<'_>]) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    let validity = certificate.validity();
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    at(validity.not_before).zip(at(validity.not_after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_was_young_when_it_was_loaded_is_warned_of_later() {
        let ends: Timestamp = "2030-06-01T00:00:00Z".parse().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["10.77.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = configure(vec![made.cert.der().clone()], key).unwrap();
        let tls = Tls {
            config: Arc::new(config),
            ends: Some(ends),
            begins: Some(ends - SignedDuration::from_hours(365 * 24)),
            certificate: "tls.pem".into(),
            pem: Pem::default(),
        };
        let days = |days: i64| SignedDuration::from_hours(days * 24);
        assert_eq!(tls.warning(ends - days(31)), None);
        let said = tls.warning(ends - days(29)).unwrap();
        assert_eq!(
            said,
            format!("the TLS certificate tls.pem ends on 2030-06-01T00:00:00Z: {RENEW}")
        );
        assert!(tls.warning(ends + days(1)).unwrap().contains(" ended on "));
        let early = tls.warning(ends - days(366)).unwrap();
        assert!(early.contains("is not valid before 2029-06-01T00:00:00Z, and by the clock of this machine it is 2029-05-31T00:00:00Z:"), "{early}");
    }
}
