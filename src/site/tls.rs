//! The certificate and key that HTTPS is served with, checked before they are used.

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
}

impl Tls {
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

/// What HTTPS is served with; `None` where it is not asked for, or a fault is told.
pub(super) fn load(paths: &Paths, inventory: &Inventory, found: &mut Diagnostics) -> Option<Tls> {
    let tls = inventory.server.tls.as_ref()?;
    let certificate = beside(&paths.inventory, &tls.certificate);
    let key = beside(&paths.inventory, &tls.key);
    let chain = read_chain(&certificate);
    let loaded = chain.and_then(|chain| {
        let validity = validity(&chain);
        configure(chain, read_key(&key)?).map(|config| (config, validity))
    });
    match loaded {
        Ok((config, validity)) => {
            let (begins, ends) = validity.unzip();
            let config = Arc::new(config);
            let loaded = Tls {
                config,
                ends,
                begins,
                certificate,
            };
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

fn text(path: &Path, file: File) -> Result<Vec<u8>, TlsError> {
    let mut text = Vec::new();
    let read = file.take(MAX_BYTES).read_to_end(&mut text);
    read.map_err(|source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(text)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = text(path, open(path)?.0)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
        let path = path.to_owned();
        let what = "certificate";
        TlsError::Empty { path, what }
    })
}

/// Its group may read it: distributions give keys to a group of servers (`ssl-cert`).
fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let (file, mode) = open(path)?;
    if mode & 0o027 != 0 {
        let path = path.to_owned();
        return Err(TlsError::Open { path, mode });
    }
    PrivateKeyDer::from_pem_slice(&text(path, file)?).map_err(|_| {
        let path = path.to_owned();
        let what = "private key";
        TlsError::Empty { path, what }
    })
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
