//! DHCP clients as people run them, each told to change nothing and to say what it was given.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::lab::{LabError, Namespace, Result, io_error};

/// Which program asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// BusyBox.
    Udhcpc,
    /// ISC.
    Dhclient,
    /// Roy Marples'.
    Dhcpcd,
}

/// What a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) address: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
    /// What it says of the network, by the client's own names.
    pub(crate) told: BTreeMap<String, String>,
}

/// Gets a lease on `eth0` of `client`, as a client that starts with nothing.
///
/// `client_id` is sent as option 61 in place of the program's own choice; hexadecimal.
pub(crate) fn lease(
    program: Program,
    client: &Namespace,
    dir: &Path,
    client_id: Option<&str>,
) -> Result<Given> {
    let place = Place::new(dir, client.name())?;
    let done = match program {
        Program::Udhcpc => client.output(&udhcpc(&place, client_id))?,
        Program::Dhclient => client.output(&dhclient(&place, client_id)?)?,
        Program::Dhcpcd => {
            let argv = dhcpcd(&place, client_id)?;
            client.output(&argv.iter().map(String::as_str).collect::<Vec<_>>())?
        }
    };
    // dhcpcd configures the interface itself.
    client.ip(&["addr", "flush", "dev", "eth0"])?;
    given(&place.answer).ok_or_else(|| LabError::Command {
        command: format!("{program:?}"),
        outcome: format!(
            "no lease: {}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        ),
    })
}

/// Files of one run.
struct Place {
    /// Run by the client with the lease in its environment.
    script: String,
    /// Written by the script.
    answer: PathBuf,
    config: PathBuf,
    leases: String,
    pid: String,
}

impl Place {
    fn new(dir: &Path, name: &str) -> Result<Self> {
        let file = |kind: &str| dir.join(format!("{name}.{kind}"));
        let (script, answer) = (file("sh"), file("answer"));
        for stale in [&answer, &file("leases"), &file("pid")] {
            let _ = fs::remove_file(stale);
        }
        let text = format!(
            "#!/bin/sh\n\
             address=${{ip:-$new_ip_address}}\n\
             server=${{serverid:-$new_dhcp_server_identifier}}\n\
             [ -z \"$address\" ] || {{ echo \"$address $server\"; env; }} >{}\n",
            answer.display()
        );
        fs::write(&script, text)
            .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
            .map_err(io_error("write", &script))?;
        Ok(Self {
            script: script.display().to_string(),
            answer,
            config: file("conf"),
            leases: file("leases").display().to_string(),
            pid: file("pid").display().to_string(),
        })
    }

    fn configure(&self, text: &str) -> Result<String> {
        fs::write(&self.config, text).map_err(io_error("write", &self.config))?;
        Ok(self.config.display().to_string())
    }
}

fn given(answer: &Path) -> Option<Given> {
    let text = fs::read_to_string(answer).ok()?;
    let (first, rest) = text.split_once('\n')?;
    let (address, server) = first.split_once(' ')?;
    let told = rest.lines().filter_map(|line| line.split_once('='));
    Some(Given {
        address: address.parse().ok()?,
        server: server.parse().ok()?,
        told: told
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect(),
    })
}

/// `-f -q -n`: in the foreground, end with the lease or without one.
fn udhcpc<'a>(place: &'a Place, client_id: Option<&'a str>) -> Vec<&'a str> {
    let mut argv = vec![
        "udhcpc",
        "-i",
        "eth0",
        "-f",
        "-q",
        "-n",
        "-t",
        "8",
        "-T",
        "1",
        "-s",
        &place.script,
    ];
    for wanted in ["search", "staticroutes", "ntpsrv", "mtu"] {
        argv.extend(["-O", wanted]);
    }
    if let Some(id) = client_id {
        argv.extend(["-C", "-x", id]);
    }
    argv
}

fn dhclient<'a>(place: &'a Place, client_id: Option<&str>) -> Result<Vec<&'a str>> {
    let octets = |id: &str| {
        let digits = id.trim_start_matches("0x3d:").as_bytes();
        let pairs = digits
            .chunks(2)
            .map(|pair| String::from_utf8_lossy(pair).into_owned());
        pairs.collect::<Vec<_>>().join(":")
    };
    let id = client_id.map_or(String::new(), |id| {
        format!("send dhcp-client-identifier {};\n", octets(id))
    });
    // As Debian's configuration names 121.
    let routes = "option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;";
    place.configure(&format!(
        "{routes}\ntimeout 20;\nretry 1;\ninitial-interval 1;\n{id}"
    ))?;
    let config = place.config.to_str().unwrap_or_default();
    // Without -d it goes into the background once it has the lease; -1: one try.
    Ok(vec![
        "timeout",
        "40",
        "dhclient",
        "-4",
        "-1",
        "-v",
        "-cf",
        config,
        "-lf",
        &place.leases,
        "-pf",
        &place.pid,
        "-sf",
        &place.script,
        "eth0",
    ])
}

fn dhcpcd(place: &Place, client_id: Option<&str>) -> Result<Vec<String>> {
    let id = client_id.map_or("clientid\n".to_owned(), |id| format!("clientid {id}\n"));
    place.configure(&format!(
        "ipv4only\nnoarp\nnohook resolv.conf\n\
         option domain_search, classless_static_routes, ntp_servers, interface_mtu\n{id}"
    ))?;
    let config = place.config.display();
    let script = &place.script;
    // Its state would outlive the test and turn the next one's DISCOVER into a REQUEST. The mount
    // stays inside: `ip netns exec` gives each command mounts of its own.
    let command = format!(
        "mkdir -p /run/dhcpcd && mount -t tmpfs state /run/dhcpcd && \
         mount -t tmpfs state /var/lib/dhcpcd && exec timeout 40 dhcpcd --oneshot --nobackground \
         --timeout 30 --config {config} --script {script} eth0"
    );
    Ok(vec!["sh".to_owned(), "-c".to_owned(), command])
}
