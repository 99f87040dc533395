//! T15: a stage that can't be done, as an operator sees it at the console and at the daemon; and an initrd that stands
//! still.

use std::fs;
use std::path::{Path, PathBuf};

use super::image::{append, program};
use super::lab::{
    Firmware, LabError, Result, ServerSpec, Site, VirtualServer, io_error, kernel,
    require_boot_files, run, until, with_kernel,
};
use super::{AGENT, INVENTORY, SWITCH, data_dir, said, scenario, site};

const MAC: &str = "52:54:00:00:00:01";
const ADDRESS: &str = "10.77.0.11";

fn kvm01() -> ServerSpec {
    ServerSpec::new("kvm01", MAC, Firmware::Bios)
}

#[test]
#[ignore = "make test-boot"]
fn t15_a_failure_is_told_on_both_consoles_and_held_longer_each_time() {
    scenario("t15", |lab, logs| {
        let data = data_with_an_empty_root(&logs)?;
        let inventory = failing("shell");
        let site = Site::start(lab, &inventory, &data, &logs)?;
        let mut server = kvm01().power_on(&site.lab, &logs)?;
        let first = failure(&mut server, 1)?;
        let hold = held(&first, " s, any key for a shell");
        assert!((60..90).contains(&hold), "{first}");
        assert!(server.screen_text()?.contains(first.trim()), "{first}");
        check_told(&site, "-> reboot, unless a key asks for a shell")?;

        // A key asks for a shell; when it is left the host reboots at once.
        server.type_line("")?;
        server.wait_for("a shell on ttyS0; leave it to go on", AGENT)?;
        // What was typed is echoed, so the answer is another text.
        server.type_line("echo shell$((40 + 2))")?;
        server.wait_for("shell42", AGENT)?;
        site.edit(&failing("reboot"))?;
        server.type_line("exit")?;

        let second = failure(&mut server, 2)?;
        let hold = held(&second, " s");
        assert!((120..180).contains(&hold), "{second}");
        check_told(&site, "-> reboot")
    });
}

/// kvm01's root is a folder without a system.
fn failing(on_failure: &str) -> String {
    let profile = format!(
        "profiles:\n  broken: {{extends: base, root: {{nfs: /roots/empty}}, on_failure: {on_failure}}}\n"
    );
    let inventory = with_kernel(INVENTORY).replace("profiles:\n", &profile);
    inventory.replace(
        "ip: 10.77.0.11, profile: kvm-host",
        "ip: 10.77.0.11, profile: broken",
    )
}

/// A data directory with what a boot needs and a root that holds nothing.
fn data_with_an_empty_root(logs: &Path) -> Result<PathBuf> {
    let (from, to) = (data_dir(), logs.join("data"));
    require_boot_files(&from)?;
    let empty = to.join("roots/empty/etc");
    fs::create_dir_all(&empty).map_err(io_error("create", &empty))?;
    let copy = "rm -rf \"$2/kernels\" \"$2/initrds\" \"$2/loaders\" && mkdir -p \"$2/kernels/$3\" && \
                cp -a \"$1/kernels/$3/vmlinuz\" \"$1/kernels/$3/release\" \"$2/kernels/$3/\" && \
                cp -a \"$1/initrds\" \"$1/loaders\" \"$2/\" && ln -sfn \"$(readlink -f \"$1/roots/kvm-host\")\" \"$2/roots/kvm-host\"";
    let show = |path: &Path| path.display().to_string();
    run(&["sh", "-c", copy, "sh", &show(&from), &show(&to), &kernel()])?;
    Ok(to)
}

/// The failure's line of boot `number`.
fn failure(server: &mut VirtualServer, number: usize) -> Result<String> {
    let serial = server.serial().clone();
    let probe = || {
        let text = serial.text();
        let line = text
            .lines()
            .filter(|line| line.contains(" FAIL "))
            .nth(number - 1);
        // The line's end is there too.
        Ok(line.filter(|line| line.contains(" -> ")).map(str::to_owned))
    };
    let line = until("the failure", SWITCH, probe, || serial.tail(30))?;
    let cause = " root        FAIL  10.77.0.1:/roots/empty is not a root: it has no /sbin/init (port eth0 carrier=1 rx=";
    assert!(line.contains(cause), "{line}");
    Ok(line)
}

/// N of `-> reboot in N…`, where the line ends with `end`.
fn held(line: &str, end: &str) -> u32 {
    let seconds = line
        .split_once(" -> reboot in ")
        .and_then(|(_, rest)| rest.strip_suffix(end));
    seconds
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or_else(|| panic!("{line}"))
}

/// The daemon has the event with the next action, and the kernel's last lines.
fn check_told(site: &Site, next: &str) -> Result<()> {
    let log = said(site, "kvm01")?;
    let event = log.lines().find(|line| line.contains(" fail "));
    let event = event.unwrap_or_else(|| panic!("no failure in\n{log}"));
    assert!(
        event.contains("/roots/empty is not a root: it has no /sbin/init (port eth0 carrier=1 rx="),
        "{event}"
    );
    assert!(event.ends_with(next), "{event}");
    let kernel = log
        .split_once("Last kernel lines that it sent after a failure:")
        .map(|(_, lines)| lines);
    let kernel = kernel.unwrap_or_else(|| panic!("no kernel lines in\n{log}"));
    assert!(
        kernel.contains("bridgehead: [") && kernel.contains(" identity    ok "),
        "{kernel}"
    );
    Ok(())
}

/// A kernel that is none: iPXE says so by HTTP, and goes on to its next try.
#[test]
fn t15_what_stops_ipxe_is_in_its_own_words() {
    scenario("t15-refused", |lab, logs| {
        let data = data_with_an_empty_root(&logs)?;
        let image = data.join(format!("kernels/{}/vmlinuz", kernel()));
        fs::remove_file(&image).map_err(io_error("remove", &image))?;
        // Less than conventional memory a BIOS iPXE takes for a boot program, and runs it.
        let text = "<html>This is the page of a proxy, and no kernel.</html>\n".repeat(40_000);
        fs::write(&image, text).map_err(io_error("write", &image))?;
        let site = Site::start(lab, &with_kernel(INVENTORY), &data, &logs)?;
        let mut server = kvm01().power_on(&site.lab, &logs)?;
        let why = || {
            let output = site.daemon.verb("why", &["kvm01"])?;
            Ok::<_, LabError>(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let words = "iPXE could not load the kernel: the file is not for this firmware";
        // The second word of it is from the second try: the first did not stop the script.
        let probe = || {
            server.check_alive()?;
            let told = said(&site, "kvm01")?.matches(words).count();
            Ok((told > 1 && why()?.contains(words)).then_some(()))
        };
        until("iPXE's words", SWITCH, probe, || why().unwrap_or_default())?;
        let why = why()?;
        assert!(why.contains("https://ipxe.org/2e"), "{why}");
        assert!(
            why.contains("1. `bridgehead explain HOST` shows which loader"),
            "{why}"
        );
        Ok(())
    });
}

#[test]
#[ignore = "make test-boot"]
fn t15_a_frozen_initrd_is_reset_by_the_watchdog() {
    scenario("t15-frozen", |lab, logs| {
        let site = site(lab, &logs)?;
        let mut order = site.boot_order(MAC, ADDRESS)?;
        order.cmdline.push_str(" bridgehead.watchdog=20");
        let initrd = frozen(&site.data.join(&order.initrd), site.lab.dir())?;
        let mut server = site.boot_image_on(kvm01(), &order, &initrd)?;
        let armed = "watchdog armed (iTCO_wdt): resets the machine 20 s";
        server.wait_for(armed, SWITCH)?;
        server.wait_for("link        info  frozen", SWITCH)?;
        let serial = server.serial().clone();
        let probe = || {
            server.check_alive()?;
            Ok((serial.text().matches(" early       ok ").count() > 1).then_some(()))
        };
        until("the reset", SWITCH, probe, || serial.tail(20))
    });
}

/// The initrd with another stage `link`, which stops every process but itself once the watchdog is armed.
fn frozen(initrd: &Path, dir: &Path) -> Result<PathBuf> {
    let (tree, image) = (dir.join("frozen.tree"), dir.join("frozen.img"));
    let stage = "deadline 45\nawait 40 test -e /proc/$(get keeper)/fd/9\nsay info frozen\nkill -STOP -1\nwhile :; do sleep 3600; done\n";
    program(&tree, "lib/bridgehead/stages/40-link", stage)?;
    append(initrd, &tree, &image)?;
    Ok(image)
}
