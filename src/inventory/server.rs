//! `server:`: the daemon's own ports, TLS, and how much it does at once.

use std::path::PathBuf;
use std::sync::Arc;

use super::faults::Faults;
use super::fields::Fields;
use super::model::{Reading, Server, Tls, Writing};
use super::scalars::{self, Bad};
use super::tree::{At, Scalar, Span};

const DEFAULT_TLS_PORT: u16 = 443;

/// Who may read the page and the API over the network.
const READERS: &[(&str, Reading)] = &[("open", Reading::Open), ("token", Reading::Token)];

/// Who may change the inventory over the network.
const WRITERS: &[(&str, Writing)] = &[("off", Writing::Off), ("token", Writing::Token)];

pub(super) fn read(top: &mut Fields<'_, '_>, faults: &mut Faults) -> Server {
    let default = Server::default();
    let Some(mut server) = top.map("server", faults) else {
        return default;
    };
    let port = || scalars::number("a port", 1..=65535);
    let transfers = scalars::number("a number of transfers", 1..=8192);
    let http = server.get("http", faults, port());
    let nfs = server.get("nfs", faults, port());
    let tftp = server.get("tftp", faults, port());
    let api = server.get("api", faults, port());
    let syslog = server.get("syslog", faults, syslog_port);
    let transfers = server.get("transfers", faults, transfers);
    let read = scalars::one_of(
        "a way to decide who may read",
        "inventory::bad_reading",
        READERS,
    );
    let read = server.get("read", faults, read);
    let write = scalars::one_of(
        "a way to decide who may write",
        "inventory::bad_writing",
        WRITERS,
    );
    let write = server.get("write", faults, write);
    let (tls, tls_port) = read_tls(&mut server, faults).unzip();
    let value = |at: Option<At<u16>>, default| at.map_or(default, |at| at.value);
    let ports = Server {
        http_port: value(http, default.http_port),
        nfs_port: value(nfs, default.nfs_port),
        tftp_port: value(tftp, default.tftp_port),
        syslog_port: syslog.map_or(default.syslog_port, |at| at.value),
        api_port: api.as_ref().map(|at| at.value),
        transfers: transfers.map_or(default.transfers, |at| usize::from(at.value)),
        tls: tls.flatten(),
        read: read.map_or(default.read, |at| at.value),
        write: write.map_or(default.write, |at| at.value),
    };
    let place = server.place();
    let tls_port = tls_port.map(|at| {
        at.unwrap_or(At {
            value: DEFAULT_TLS_PORT,
            span: place,
        })
    });
    let at = |port: Option<At<u16>>, value| port.unwrap_or(At { value, span: place });
    let mut taken = vec![
        ("http", at(http, ports.http_port)),
        ("nfs", at(nfs, ports.nfs_port)),
    ];
    taken.extend(api.map(|api| ("api", api)));
    taken.extend(tls_port.map(|tls| ("tls", tls)));
    report_clashes(&taken, place, faults);
    server.finish(faults);
    ports
}

/// A port, or none.
fn syslog_port(scalar: &Scalar<'_>) -> Result<Option<u16>, Bad> {
    if scalar.text == "off" {
        return scalars::unambiguous(scalar).map(|()| None);
    }
    scalars::number("a port, or \"off\"", 1..=65535)(scalar).map(Some)
}

/// Two services on one TCP port, at the place of the later one, or of the other where that one is a default.
fn report_clashes(taken: &[(&str, At<u16>)], default: Span, faults: &mut Faults) {
    for (index, (name, port)) in taken.iter().enumerate() {
        let earlier = taken[..index]
            .iter()
            .find(|(_, other)| other.value == port.value);
        if let Some((other, at)) = earlier {
            let span = if port.span == default {
                at.span
            } else {
                port.span
            };
            let message = format!("{other} and {name} can't share TCP port {}", port.value);
            faults.error(
                "inventory::port_clash",
                span,
                message,
                "",
                "choose another port",
            );
        }
    }
}

/// The port too, where it is written; a map that lacks something is reported.
fn read_tls(
    server: &mut Fields<'_, '_>,
    faults: &mut Faults,
) -> Option<(Option<Tls>, Option<At<u16>>)> {
    let mut tls = server.map("tls", faults)?;
    let port = tls.get("port", faults, scalars::number("a port", 1..=65535));
    let certificate = tls.get("certificate", faults, scalars::text);
    let key = tls.get("key", faults, scalars::text);
    tls.require("certificate", "certificate: tls/fullchain.pem", faults);
    tls.require("key", "key: tls/key.pem", faults);
    let layer = Arc::from("server");
    let file = |at: At<String>, faults: &Faults| {
        let (value, span) = (PathBuf::from(at.value), at.span);
        faults.sourced(At { value, span }, &layer)
    };
    let files = certificate.zip(key).map(|(certificate, key)| Tls {
        certificate: file(certificate, faults),
        key: file(key, faults),
        port: port.as_ref().map_or(DEFAULT_TLS_PORT, |at| at.value),
    });
    tls.finish(faults);
    Some((files, port))
}
