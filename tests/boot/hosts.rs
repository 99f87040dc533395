//! T12 and T9: two hosts of one image, side by side: what is each one's own, and a storage network beside the bridge.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::image::program;
use super::lab::{
    Firmware, GuestAgent, Lab, Namespace, Nic, Result, ServerSpec, io_error, repository, run,
};
use super::{AGENT, scenario, site_of};

/// From power-on to a root that stands, where two share the machine.
const ONLINE: Duration = Duration::from_secs(900);
const HOSTS: [&str; 2] = ["kvm01", "kvm02"];
const ADMIN: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBLwVGKWJ1rVrmyhrsJuWmfGXMkH7oCNkwDqLQMa1lzL admin@example.org";

/// The second host's images are on Lustre, so that LNet has a network of its own.
const INVENTORY: &str = r#"
site: lab
secrets: secrets.yaml
networks:
  boot: {subnet: 10.77.0.0/24, router: 10.77.0.1, dns: [10.77.0.1], dhcp: server}
profiles:
  base:
    kernel: debian
    initrd: default
    cmdline: [console=tty0, "console=ttyS0,115200"]
    bridge: {name: br0, mtu: 1500}
    interfaces: {storage: {nic: storage, mtu: 9000}}
    root: {nfs: "/roots/kvm-host", overlay: 512M}
    files: [base, sysctl, ssh-host-keys, admin-keys]
  on-lustre:
    extends: base
    files: [own]
    image_pool: {lustre: "10.88.0.5@tcp:/images", network: storage, mount: /var/lib/libvirt/images}
hosts:
  kvm01: {mac: "52:54:00:00:00:01", ip: 10.77.0.11, profile: base, nics: {storage: "52:54:00:00:01:01"}, addresses: {storage: 10.88.0.11/24}}
  kvm02: {mac: "52:54:00:00:00:02", ip: 10.77.0.12, profile: on-lustre, nics: {storage: "52:54:00:00:01:02"}, addresses: {storage: 10.88.0.12/24}}
"#;

#[test]
#[ignore = "make test-boot"]
fn t12_t09_two_hosts_of_one_image_each_with_its_own_files_and_a_storage_network() {
    scenario("t12", |lab, logs| {
        let public = lay_files(lab.dir())?;
        let storage = storage_server(&lab)?;
        let mut site = site_of(lab, &logs, INVENTORY)?;
        let mut servers = Vec::new();
        for (number, host) in (1..).zip(HOSTS) {
            let spec = ServerSpec::new(host, &format!("52:54:00:00:00:0{number}"), Firmware::Bios)
                .nic(Nic::new(&format!("52:54:00:00:01:0{number}")));
            let port = spec.port(1);
            servers.push(site.boot_directly(spec, &format!("10.77.0.1{number}"), "")?);
            site.lab
                .switch()
                .ip(&["link", "set", &port, "mtu", "9000"])?;
        }
        let mut identities = Vec::new();
        for (number, server) in (1..).zip(&mut servers) {
            site.wait_stage(server, "online", ONLINE)?;
            let mut agent = server.agent(AGENT)?;
            check_files(&mut agent, &public[number - 1])?;
            check_storage(&mut agent, number)?;
            identities.push(identity(&mut agent)?);
        }
        let [first, second] = identities.as_slice() else {
            panic!("{identities:?}")
        };
        for (one, other) in first.lines().zip(second.lines()) {
            assert!(!one.trim().is_empty() && one != other, "{first}\n{second}");
        }
        assert_eq!(first.lines().count(), 6, "{first}");
        check_second_host(&mut servers[1].agent(AGENT)?)?;
        drop(storage);
        Ok(())
    });
}

/// The trees, one of the second host's own, and the secrets with a host key for each. Gives the public halves.
fn lay_files(dir: &Path) -> Result<Vec<String>> {
    let show = |path: &Path| path.display().to_string();
    run(&[
        "cp",
        "-r",
        &show(&repository().join("templates")),
        &show(dir),
    ])?;
    let own = dir.join("templates/files/own");
    program(
        &own,
        "etc/rack-note",
        "{{ machine }} in {{ site }}, {{ address }}/{{ prefix }}\n",
    )?;
    program(
        &own,
        "_files.yaml",
        "etc/rack-note: {mode: \"0640\", owner: 7, group: 4}\n",
    )?;
    let (mut hosts, mut public) = (serde_json::Map::new(), Vec::new());
    for host in HOSTS {
        let key = dir.join(format!("{host}.key"));
        run(&[
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            host,
            "-f",
            &show(&key),
        ])?;
        let read = |file: &Path| fs::read_to_string(file).map_err(io_error("read", file));
        hosts.insert(
            host.to_owned(),
            json!({ "ssh_host_ed25519_key": read(&key)? }),
        );
        public.push(read(&key.with_extension("key.pub"))?);
    }
    // JSON is YAML.
    let secrets = dir.join("secrets.yaml");
    let text = json!({ "all": { "admin_keys": ADMIN }, "hosts": hosts }).to_string();
    fs::write(&secrets, text).map_err(io_error("write", &secrets))?;
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600))
        .map_err(io_error("chmod", &secrets))?;
    Ok(public)
}

/// 10.88.0.1 on a network whose frames are large, on the same switch.
fn storage_server(lab: &Lab) -> Result<Namespace> {
    let server = lab.client("storage", "52:54:00:00:00:88")?;
    for (namespace, device) in [(&server, "eth0"), (lab.switch(), "c-storage")] {
        namespace.ip(&["link", "set", device, "mtu", "9000"])?;
    }
    server.ip(&["addr", "add", "10.88.0.1/24", "dev", "eth0"])?;
    Ok(server)
}

/// What must differ between hosts of one image, a line each.
fn identity(agent: &mut GuestAgent) -> Result<String> {
    agent.ask(
        "hostname && cat /etc/machine-id /sys/module/nfs/parameters/nfs4_unique_id && \
         sha256sum </etc/ssh/ssh_host_ed25519_key && tail -n 1 /etc/hosts && cat /sys/class/net/br0/address",
    )
}

/// Owner, mode and content as the trees say, and in use: by sysctl, sshd and hostname.
fn check_files(agent: &mut GuestAgent, public: &str) -> Result<()> {
    let modes = agent.ask(
        "stat -c '%a %u:%g %n' /etc/hostname /etc/sysctl.d/50-kvm-host.conf /etc/ssh/ssh_host_ed25519_key \
         /root/.ssh /root/.ssh/authorized_keys",
    )?;
    let wanted = "644 0:0 /etc/hostname\n644 0:0 /etc/sysctl.d/50-kvm-host.conf\n600 0:0 /etc/ssh/ssh_host_ed25519_key\n\
                  700 0:0 /root/.ssh\n600 0:0 /root/.ssh/authorized_keys";
    assert_eq!(modes, wanted);
    assert_eq!(agent.ask("hostname")?, agent.ask("cat /etc/hostname")?);
    assert_eq!(agent.ask("cat /root/.ssh/authorized_keys")?, ADMIN);
    assert_eq!(
        agent.ask("sysctl -n vm.swappiness net.ipv4.conf.all.rp_filter")?,
        "1\n2"
    );
    let scan = "for i in $(seq 60); do ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null | grep . && break; sleep 1; done";
    let served = agent.ask(scan)?;
    let key = public.split(' ').nth(1).unwrap_or_default();
    assert!(served.contains(key), "{served} {public}");
    Ok(())
}

/// Its own address, large frames and no default route; still by the name that the initrd gave it.
fn check_storage(agent: &mut GuestAgent, number: usize) -> Result<()> {
    let look = "cat /sys/class/net/storage/mtu && ip -o -4 addr show storage | tr -s ' ' | cut -d ' ' -f 2-4 && ip route show default";
    let wanted = format!("9000\nstorage inet 10.88.0.1{number}/24\ndefault via 10.77.0.1 dev br0");
    assert_eq!(agent.ask(look)?.trim_end(), wanted);
    agent.ask("ping -q -c 2 -w 20 -M do -s 8972 10.88.0.1")?;
    Ok(())
}

/// The tree of its profile alone; and LNet is told to stay on the storage network.
fn check_second_host(agent: &mut GuestAgent) -> Result<()> {
    let note = agent.ask("stat -c '%a %u:%g' /etc/rack-note && cat /etc/rack-note")?;
    assert_eq!(note, "640 7:4\nkvm02 in lab, 10.77.0.12/24");
    let options = "/run/modprobe.d/bridgehead-lnet.conf";
    let wait =
        format!("for i in $(seq 60); do [ -e {options} ] && break; sleep 1; done; cat {options}");
    assert_eq!(agent.ask(&wait)?, "options lnet networks=\"tcp(storage)\"");
    assert_eq!(
        agent.ask("cat /run/bridgehead/config/lnet_networks")?,
        "tcp(storage)"
    );
    check_lnet(agent)
}

/// With Lustre in the root (`make root LUSTRE_TREE=DIR`) LNet itself says where it lives.
fn check_lnet(agent: &mut GuestAgent) -> Result<()> {
    if agent.ask("command -v lctl || :")?.is_empty() {
        eprintln!("no Lustre in this root: LNet is told where to live, and was not asked");
        return Ok(());
    }
    let up = "lctl list_nids 2>/dev/null | grep -q @";
    let nids = agent.ask(&format!(
        "for i in $(seq 40); do {up} && break; sleep 1; done; lctl list_nids"
    ))?;
    assert_eq!(nids, "10.88.0.12@tcp");
    Ok(())
}
