//! One boot: power on, wait for the kernel to have stamped every mark, power off.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::lab::{BootOrder, Firmware, Result, ServerSpec, VirtualServer, io_error, kernel, until};
use super::{Bench, Contender};

/// From power-on to the last mark.
const LIMIT: Duration = Duration::from_secs(420);
/// Both show every line of the kernel's log, with its time: that is where the marks are.
const CONSOLE: &str = "console=tty0 console=ttyS0,115200 loglevel=8 printk.time=1";

/// Seconds of the kernel's clock, from its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Marks {
    /// The bridge's port forwards: the kernel says so.
    pub(super) bridge: f64,
    /// The root is mounted: dracut by a hook, Bridgehead by its stage's line.
    pub(super) root: f64,
    /// The root's own systemd has begun: its first line. The same program from the same root.
    pub(super) switch: f64,
}

impl Marks {
    /// All of them, once the last one is there.
    fn read(console: &str) -> Option<Self> {
        let bridge = mark(console, 0.0, is_forwarding)?;
        let root = mark(console, bridge, is_root_mounted)?;
        let switch = mark(console, root, is_systemd)?;
        Some(Self {
            bridge,
            root,
            switch,
        })
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bridge,
            root,
            switch,
        } = self;
        write!(
            f,
            "bridge {bridge:.2} s, root {root:.2} s, switch {switch:.2} s"
        )
    }
}

/// Boots `image` as `contender` on host `number` of the inventory; gives the marks and the kernel command line.
pub(super) fn measure(
    bench: &Bench,
    contender: Contender,
    image: &Path,
    number: usize,
) -> Result<(Marks, String)> {
    let mac = format!("52:54:00:00:00:{number:02x}");
    let address = format!("10.77.0.{}", 10 + number);
    let mut order = match contender {
        Contender::Bridgehead | Contender::BridgeheadDhcp => {
            bench.site.boot_order(&mac, &address)?
        }
        Contender::DracutNarrow | Contender::DracutGeneric => for_dracut(bench)?,
    };
    if contender == Contender::BridgeheadDhcp {
        order.cmdline.push_str(" bridgehead.ip=dhcp");
    }
    order.cmdline = format!("{} {CONSOLE}", order.cmdline);
    order.initrd = image.display().to_string();
    // Short: it is a tap device's, too.
    let short = contender.name().rsplit('-').next().unwrap_or_default();
    let name = format!("{number:02}-{short}");
    let spec = ServerSpec::new(&name, &mac, Firmware::Bios).qemu_args(&["-no-reboot"]);
    let mut server = bench.site.boot_order_on(spec, &order, "")?;
    let marks = wait_for_marks(&mut server)?;
    server.power_off()?;
    Ok((marks, order.cmdline))
}

/// What an operator writes for dracut: see dracut.cmdline(7). `net.ifnames=0`: udev would rename eth0.
fn for_dracut(bench: &Bench) -> Result<BootOrder> {
    let root = bench.data.join("roots/kvm-host");
    let tree = root.canonicalize().map_err(io_error("follow", &root))?;
    // The daemon exports an image by the name of its folder.
    let export = tree.file_name().unwrap_or_default().to_string_lossy();
    let options = "vers=3,nolock,proto=tcp,port=2049,mountport=2049,mountproto=tcp,rsize=1048576";
    Ok(BootOrder {
        kernel: format!("kernels/{}/vmlinuz", kernel()),
        initrd: String::new(),
        cmdline: format!(
            "ro root=nfs:10.77.0.1:/roots/{export}:{options} \
             bridge=br0:eth0 ip=br0:dhcp rd.neednet=1 net.ifnames=0"
        ),
    })
}

fn wait_for_marks(server: &mut VirtualServer) -> Result<Marks> {
    let serial = server.serial().clone();
    let what = format!(
        "the root's systemd on the console of {}",
        server.spec().name()
    );
    let probe = || match Marks::read(&serial.text()) {
        Some(marks) => Ok(Some(marks)),
        None => server.check_alive().map(|()| None),
    };
    until(&what, LIMIT, probe, || serial.tail(40))
}

/// The time of the first line after `since` that `is_it`.
fn mark(console: &str, since: f64, is_it: fn(&str) -> bool) -> Option<f64> {
    let mut lines = console.lines().flat_map(stamped);
    let found = lines.find(|(time, text)| *time >= since && is_it(text));
    found.map(|(time, _)| time)
}

/// `[   12.345678] text`, also where it begins in the middle of what a program wrote to the console.
fn stamped(line: &str) -> Vec<(f64, &str)> {
    let read = |(at, _)| {
        let (stamp, text) = line.get(at + 1..)?.split_once("] ")?;
        // Six decimals are the kernel's; a stage's line has two.
        let decimals = stamp.split_once('.')?.1.len();
        let time = stamp.trim_start().parse().ok()?;
        (decimals == 6).then_some((time, text))
    };
    line.match_indices('[').filter_map(read).collect()
}

/// net/bridge/br_stp.c, br_set_state().
fn is_forwarding(text: &str) -> bool {
    text.starts_with("br0: port 1(") && text.contains("entered forwarding state")
}

fn is_root_mounted(text: &str) -> bool {
    let stage = text.strip_prefix("bridgehead: [");
    let words = stage.and_then(|rest| rest.split_once("] "));
    let mut words = words.map_or("", |(_, words)| words).split_whitespace();
    text.starts_with("bench: root mounted")
        || (words.next(), words.next()) == (Some("root"), Some("ok"))
}

fn is_systemd(text: &str) -> bool {
    text.starts_with("systemd[1]: systemd ") && text.contains("running in system mode")
}
