//! dnsmasq for DHCP and TFTP, nginx for HTTP: set up for a storm as their manuals advise.

use std::fmt::Write as _;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bridgehead::wire::tftp::{Mode, Options, Packet, Request};

use super::lab::{Result, io_error};
use super::rig::{INTERFACE, SERVER, Server, Wire};
use super::sim::{self, Site, answers_http};

/// Both processes.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) dnsmasq: Server,
    pub(super) nginx: Server,
}

impl Peers {
    /// Starts them on what our daemon serves, in `dir`.
    pub(super) fn start(wire: &Wire, site: &Site, hosts: u16, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let config = dnsmasq(site, hosts, dir)?;
        let option = format!("--conf-file={}", config.display());
        let argv = ["dnsmasq", "--keep-in-foreground", &option];
        let dnsmasq = Server::start(wire, &argv, &dir.join("dnsmasq.log"), answers_tftp)?;
        let config = nginx(site, dir)?.display().to_string();
        let prefix = dir.display().to_string();
        let argv = ["nginx", "-p", &prefix, "-c", &config];
        let nginx = Server::start(wire, &argv, &dir.join("nginx.log"), answers_http)?;
        Ok(Self { dnsmasq, nginx })
    }
}

/// Reservations as ours; no pings; room for every transfer and lease. Its lease file is on the same disk as our journal.
fn dnsmasq(site: &Site, hosts: u16, dir: &Path) -> Result<PathBuf> {
    let leases = dir.join("leases");
    let _ = fs::remove_file(&leases);
    let mut text = format!(
        "port=0\ninterface={INTERFACE}\nbind-interfaces\nuser=root\nlog-facility=/dev/null\n\
         dhcp-leasefile={}\ndhcp-lease-max=20000\nno-ping\ndhcp-authoritative\n\
         dhcp-range=10.77.128.0,static,255.255.0.0,10m\ndhcp-option=option:router,{SERVER}\n\
         enable-tftp\ntftp-root={}\ntftp-max=20000\n\
         dhcp-match=set:ipxe,175\ndhcp-match=set:uefi,option:client-arch,7\n\
         dhcp-boot=tag:ipxe,http://{SERVER}/script.ipxe\n\
         dhcp-boot=tag:!ipxe,tag:uefi,snponly.efi\ndhcp-boot=tag:!ipxe,tag:!uefi,undionly.kpxe\n",
        leases.display(),
        site.data.join("loaders").display(),
    );
    for number in 0..hosts {
        let mac = sim::mac(number)
            .map(|octet| format!("{octet:02x}"))
            .join(":");
        let (address, name) = (sim::address(number), sim::name(number));
        // A String takes everything that is written to it.
        let _ = writeln!(text, "dhcp-host={mac},{address},{name}");
    }
    write(dir.join("dnsmasq.conf"), &text)
}

/// sendfile, no log, a worker for each core.
fn nginx(site: &Site, dir: &Path) -> Result<PathBuf> {
    let root = dir.join("www");
    fs::create_dir_all(&root).map_err(io_error("create", &root))?;
    for (name, of) in [
        ("vmlinuz", "kernels/debian/vmlinuz"),
        ("initrd.img", "initrds/default.img"),
    ] {
        let to = root.join(name);
        fs::copy(site.data.join(of), &to).map_err(io_error("copy", &to))?;
    }
    let script = format!(
        "#!ipxe\nkernel http://{SERVER}/vmlinuz initrd=initrd.img\ninitrd --name initrd.img http://{SERVER}/initrd.img\nboot\n"
    );
    write(root.join("script.ipxe"), &script)?;
    let text = format!(
        "user root;\ndaemon off;\nworker_processes auto;\nworker_rlimit_nofile 16384;\npid nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 8192; multi_accept on; }}\n\
         http {{ sendfile on; tcp_nopush on; access_log off; open_file_cache max=16; keepalive_timeout 120;\n\
         \tclient_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;\n\
         \tserver {{ listen {SERVER}:80 backlog=4096; root {}; default_type application/octet-stream; }} }}\n",
        root.display()
    );
    write(dir.join("nginx.conf"), &text)
}

fn write(path: PathBuf, text: &str) -> Result<PathBuf> {
    fs::write(&path, text).map_err(io_error("write", &path))?;
    Ok(path)
}

/// Whether a loader is to be had.
fn answers_tftp() -> bool {
    let request = Packet::Read(Request {
        name: "undionly.kpxe",
        mode: Mode::Octet,
        options: Options::default(),
    });
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        socket.send_to(&request.to_bytes(), (SERVER, 69))?;
        let mut answer = [0; 600];
        let length = socket.recv(&mut answer)?;
        std::io::Result::Ok(matches!(
            Packet::parse(&answer[..length]),
            Ok(Packet::Data { .. })
        ))
    };
    ask().unwrap_or(false)
}
