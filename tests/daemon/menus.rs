//! A host with a menu: what it is sent, what its choice changes, and how it is shown.

use crate::fake::{self, INVENTORY};
use crate::lab::{APPLIANCE, Lab, Namespace, Site};
use crate::ok;

const MAC: &str = "52:54:00:00:00:01";
const HASH: &str = "$6$salt$hash";

fn inventory() -> String {
    let menu = format!(
        "    menu:
      title: Row ${{uuid}} \"3\"
      timeout: 15
      entries:
        kvm: {{label: \"KVM host\"}}
        rescue: {{label: \"Rescue && more\", rescue: {{password: \"{HASH}\"}}, cmdline: [quiet]}}
        disk: {{label: \"Local disk\", local: true}}
        bare: {{label: \"A kernel alone\", kernel: debian, initrd: none, cmdline: [nosmt]}}
    initrd: default
"
    );
    let inventory = INVENTORY.replace("    initrd: default\n", &menu);
    // Installed on its own disk for now.
    inventory.replace(
        "10.77.0.12, profile: kvm-host",
        "10.77.0.12, profile: kvm-host, menu: {default: disk, timeout: 0}",
    )
}

struct Host {
    namespace: Namespace,
}

impl Host {
    fn new(site: &Site, name: &str, mac: &str, address: &str) -> Self {
        let namespace = ok(site.lab.client(name, mac));
        ok(namespace.ip(&["addr", "add", address, "dev", "eth0"]));
        Self { namespace }
    }

    /// What curl prints: the body, then the status.
    fn get(&self, url: &str, token: &str) -> String {
        let header = format!("X-Bridgehead-Token: {token}");
        let argv = [
            "curl",
            "-s",
            "-m",
            "20",
            "-H",
            &header,
            "-w",
            "\n%{http_code}",
            url,
        ];
        let done = ok(self.namespace.output(&argv));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    fn script(&self, mac: &str, entry: &str) -> String {
        let place = if entry.is_empty() {
            String::new()
        } else {
            format!("menu/{entry}/")
        };
        self.get(
            &format!("http://{APPLIANCE}/boot/{mac}/{place}script.ipxe"),
            "",
        )
    }

    fn config(&self, script: &str) -> String {
        let mut words = script.split_whitespace();
        let token = words.find_map(|word| word.strip_prefix("bridgehead.token="));
        let token = token.unwrap_or_else(|| panic!("no token in {script}"));
        self.get(&format!("http://{APPLIANCE}/v1/boot/kvm01/config"), token)
    }
}

fn site(name: &str) -> Option<Site> {
    let lab = Lab::for_test(name)?;
    let data = ok(fake::data_dir(lab.dir()));
    let logs = lab.dir().join("logs");
    Some(ok(Site::start(lab, &inventory(), &data, &logs)))
}

/// Stage, state and note.
fn stands(site: &Site, name: &str) -> (String, String, String) {
    let status = ok(site.daemon.status());
    let host = status
        .host(name)
        .unwrap_or_else(|| panic!("{name} is not listed"));
    let word = |word: &Option<String>| word.clone().unwrap_or_default();
    (word(&host.stage), word(&host.state), word(&host.note))
}

#[test]
fn what_is_chosen_is_known_and_is_what_boots() {
    let Some(site) = site("menu") else {
        return;
    };
    let host = Host::new(&site, "kvm01", MAC, "10.77.0.11/24");
    let menu = host.script(MAC, "");
    assert!(
        menu.contains("item --key 2 rescue 2  Rescue ${unset}&& more\n"),
        "{menu}"
    );
    assert!(menu.contains("menu Row $ {uuid} \"3\" ||"), "{menu}");
    assert_eq!(stands(&site, "kvm01").0, "menu");

    let rescue = host.script(MAC, "rescue");
    assert!(rescue.contains(" quiet ||"), "{rescue}");
    let (stage, state, note) = stands(&site, "kvm01");
    assert_eq!(
        (stage.as_str(), state.as_str()),
        ("script", "running"),
        "{note}"
    );
    assert!(
        note.starts_with("chose rescue in the menu: iPXE script sent"),
        "{note}"
    );
    let config = host.config(&rescue);
    assert!(
        config.contains(&format!("rescue_password={HASH}\n")),
        "{config}"
    );

    let default = host.script(MAC, "kvm");
    assert!(!default.contains(" quiet"), "{default}");
    assert!(
        stands(&site, "kvm01")
            .2
            .starts_with("took kvm, the menu's default: ")
    );
    let config = host.config(&default);
    assert!(
        config.ends_with("\n200") && !config.contains("rescue_password"),
        "{config}"
    );

    let bare = host.script(MAC, "bare");
    assert!(
        bare.contains("/kernels/debian/vmlinuz nosmt ||") && !bare.contains("\ninitrd "),
        "{bare}"
    );
    let local = host.script(MAC, "disk");
    assert!(local.contains("sanboot"), "{local}");
    let (stage, state, note) = stands(&site, "kvm01");
    assert_eq!(
        (stage.as_str(), state.as_str()),
        ("local-disk", "away"),
        "{note}"
    );

    let missing = host.script(MAC, "nothing");
    assert!(
        missing.contains("the menu of kvm01 has no entry `nothing`") && missing.ends_with("404"),
        "{missing}"
    );
}

#[test]
fn pxelinux_and_grub_get_each_entry_by_tftp() {
    let Some(site) = site("menutftp") else {
        return;
    };
    let host = Host::new(&site, "kvm01", MAC, "10.77.0.11/24");
    let fetch = |name: &str| host.get(&format!("tftp://{APPLIANCE}/{name}"), "");
    let menu = fetch("pxelinux.cfg/01-52-54-00-00-00-01");
    assert!(
        menu.contains("  CONFIG pxelinux.cfg/01-52-54-00-00-00-01/rescue\n"),
        "{menu}"
    );
    let rescue = fetch("pxelinux.cfg/01-52-54-00-00-00-01/rescue");
    assert!(
        rescue.contains("bridgehead.token=") && rescue.contains(" quiet\n"),
        "{rescue}"
    );
    assert!(
        stands(&site, "kvm01")
            .2
            .contains("chose rescue in the menu: PXELINUX config sent")
    );
    // PXELINUX's and GRUB's first questions, by a UUID that nobody here has heard of; then by address.
    let first = "pxelinux.cfg/b8945908-d6a6-41a9-611d-74a6ab80b83d";
    for name in [first, "pxelinux.cfg/0A4D000B"] {
        assert_eq!(fetch(name), menu, "{name}");
    }
    let refused = fetch("pxelinux.cfg/0A4D000C");
    assert!(!refused.contains("MENU"), "another's address: {refused}");
    let menu = fetch("grub/grub.cfg");
    assert!(
        menu.contains("configfile (tftp,10.77.0.1)/grub/menu/disk.cfg\n"),
        "{menu}"
    );
    for id in [
        "b8945908-d6a6-41a9-611d-74a6ab80b83d",
        "01-52-54-00-00-00-01",
        "0A4D000B",
    ] {
        assert_eq!(fetch(&format!("grub/grub.cfg-{id}")), menu, "{id}");
    }
    let local = fetch("grub/menu/disk.cfg");
    assert!(local.contains("chainloader"), "{local}");
    assert_eq!(stands(&site, "kvm01").0, "local-disk");
}

#[test]
fn a_time_out_of_zero_boots_the_default_without_a_menu() {
    let Some(site) = site("menuzero") else {
        return;
    };
    let host = Host::new(&site, "kvm02", "52:54:00:00:00:02", "10.77.0.12/24");
    let script = host.script("52:54:00:00:00:02", "");
    assert!(
        script.contains("sanboot") && !script.contains("choose"),
        "{script}"
    );
    let (stage, state, note) = stands(&site, "kvm02");
    assert_eq!(
        (stage.as_str(), state.as_str()),
        ("local-disk", "away"),
        "{note}"
    );
    assert!(
        note.starts_with("took disk, the menu's default, its local disk"),
        "{note}"
    );
}
