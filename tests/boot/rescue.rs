//! A rescue boot: the initrd alone, with a login on the console.

use std::time::Duration;

use super::lab::{Firmware, ServerSpec};
use super::{SWITCH, scenario, site_of};

const MAC: &str = "52:54:00:00:00:01";
pub(super) const PASSWORD: &str = "towing-line";
/// `openssl passwd -6 -salt bridgehead towing-line`
pub(super) const HASH: &str = "$6$bridgehead$2WN0ArTXKqyDECWe3mqMvZyJSlJoILtyF.u/riCNr4KBbUWDvY7VLMg6rlBQ1PtwxVDJGjINJOQKrpmu6AUma0";
const PROMPT: Duration = Duration::from_secs(60);

#[test]
#[ignore = "make test-boot"]
fn t15_a_rescue_boot_gives_a_login_to_who_knows_the_password() {
    scenario("rescue", |lab, logs| {
        let rescue =
            format!("profiles:\n  rescue: {{extends: base, rescue: {{password: \"{HASH}\"}}}}\n");
        let inventory = super::INVENTORY.replace("profiles:\n", &rescue);
        let inventory = inventory.replace(
            "ip: 10.77.0.11, profile: kvm-host",
            "ip: 10.77.0.11, profile: rescue",
        );
        let mut site = site_of(lab, &logs, &inventory)?;
        let spec = ServerSpec::new("kvm01", MAC, Firmware::Bios).memory_mib(256);
        let mut server = site.boot_directly(spec, "10.77.0.11", "")?;
        site.wait_stage(&mut server, "rescue", SWITCH)?;
        server.wait_for("login:", PROMPT)?;
        server.type_line("root")?;
        server.wait_for("Password:", PROMPT)?;
        server.type_line("not this one")?;
        server.wait_for("Login incorrect", PROMPT)?;
        server.type_line("root")?;
        server.type_line(PASSWORD)?;
        server.wait_for("Bridgehead rescue", PROMPT)?;
        // What was typed is echoed, so the answer is another text.
        server.type_line("ip -o -4 addr show br0 | grep -o 10.77.0.11/24 | tr . :")?;
        server.wait_for("10:77:0:11/24", PROMPT)?;
        server.type_line("grep -c nfs /proc/mounts | sed s/^/mounts=/")?;
        server.wait_for("mounts=0", PROMPT)?;
        // A hardware watchdog is petted for as long as the operator looks.
        server.type_line("sed s/^/alive=/ /run/bridgehead/alive")?;
        server.wait_for("alive=for-ever", PROMPT)?;
        Ok(())
    });
}
