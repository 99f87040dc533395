//! What was sent, by protocol: the rooms count, and this shows it as one metric.

use super::{Counter, Each, HttpMetrics, Label, NfsMetrics, Registry, TftpMetrics};

/// A protocol that sends files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// Boot files, as they were handed to connections.
    Http,
    /// Replies.
    Nfs,
    /// Files, as far as clients acknowledged them, of transfers that ended.
    Tftp,
}

impl Label for Protocol {
    const NAME: &'static str = "protocol";
    const ALL: &'static [Self] = &[Self::Http, Self::Nfs, Self::Tftp];

    fn value(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Nfs => "nfs",
            Self::Tftp => "tftp",
        }
    }
}

pub(super) fn register(
    registry: &mut Registry,
    http: &HttpMetrics,
    nfs: &NfsMetrics,
    tftp: &TftpMetrics,
) {
    let sent: Each<Protocol, Counter> = Each::by(|protocol| match protocol {
        Protocol::Http => http.sent_bytes.clone(),
        Protocol::Nfs => nfs.sent.clone(),
        Protocol::Tftp => tftp.bytes.clone(),
    });
    let help =
        "Bytes of boot files by HTTP, of replies by NFS, and acknowledged by clients of TFTP";
    registry.register("sent_bytes", help, sent);
}
