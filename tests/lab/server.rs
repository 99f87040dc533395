//! Virtual bare servers: QEMU with real firmware, one NIC on the lab's switch, no disk.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::disk::Disk;
use super::error::{Result, io_error};
use super::firmware::Firmware;
use super::nic::Nic;
use super::process::{Log, Process};
use super::qga::GuestAgent;
use super::qmp::Qmp;
use super::{Lab, wait};

/// A server as ordered, not yet racked.
#[derive(Debug, Clone)]
pub struct ServerSpec {
    name: String,
    nics: Vec<Nic>,
    firmware: Firmware,
    memory_mib: u32,
    rom: bool,
    extra: Vec<String>,
}

impl ServerSpec {
    /// A server with 1536 MiB and one virtio NIC; `name` is at most 15 bytes, for its tap device.
    pub fn new(name: &str, mac: &str, firmware: Firmware) -> Self {
        Self {
            name: name.to_owned(),
            nics: vec![Nic::new(mac)],
            firmware,
            memory_mib: 1536,
            rom: firmware == Firmware::Bios,
            extra: Vec::new(),
        }
    }

    /// Sets the memory.
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// With (`true`) or without the NIC's option ROM. Under UEFI the ROM replaces EDK2's own driver.
    pub fn rom(mut self, rom: bool) -> Self {
        self.rom = rom;
        self
    }

    /// Boots by UEFI HTTP boot alone: OVMF is told to leave PXE out (`OvmfPkg/RUNTIME_CONFIG.md`).
    pub fn http_boot(self) -> Self {
        self.qemu_args(&[
            "-fw_cfg",
            "name=opt/org.tianocore/IPv4PXESupport,string=no",
            "-fw_cfg",
            "name=opt/org.tianocore/IPv6PXESupport,string=no",
        ])
    }

    /// Replaces the NIC that it boots from.
    pub fn boot_nic(mut self, nic: Nic) -> Self {
        self.nics[0] = nic;
        self
    }

    /// Adds a NIC, in the next PCI slot.
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nics.push(nic);
        self
    }

    /// Adds arguments of QEMU's command line.
    pub fn qemu_args(mut self, args: &[&str]) -> Self {
        self.extra.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// Adds a local disk, which the firmware boots where the network does not.
    pub fn disk(mut self, disk: &Disk) -> Self {
        self.extra.extend(disk.arguments());
        self
    }

    /// Starts this kernel at once, without the network: for servers that are no bare machines.
    pub fn boots_kernel(self, kernel: &Path, initrd: &Path, cmdline: &str) -> Self {
        let (kernel, initrd) = (kernel.display().to_string(), initrd.display().to_string());
        self.rom(false)
            .qemu_args(&["-kernel", &kernel, "-initrd", &initrd, "-append", cmdline])
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of the NIC that it boots from.
    pub fn mac(&self) -> &str {
        &self.nics[0].mac
    }

    /// The switch port of NIC `index`.
    pub fn port(&self, index: usize) -> String {
        match index {
            0 => self.name.clone(),
            _ => format!("{}-{index}", self.name),
        }
    }

    /// Its firmware.
    pub fn firmware(&self) -> Firmware {
        self.firmware
    }

    /// Plugs the server into the lab's switch and powers it on.
    ///
    /// Its serial console goes to `LOGS/NAME.serial`, QEMU's own words to `LOGS/NAME.qemu`.
    pub fn power_on(self, lab: &Lab, logs: &Path) -> Result<VirtualServer> {
        let place = Place::new(&self.name, lab, logs)?;
        let args = self.arguments(lab, &place)?;
        let argv: Vec<&str> = args.iter().map(String::as_str).collect();
        let name = format!("QEMU of {}", self.name);
        let process = Process::spawn(&name, lab.switch().name(), &argv, &place.messages)?;
        let mut server = VirtualServer {
            spec: self,
            process,
            serial: Log::new(&place.serial),
            powered_on: Timestamp::now(),
            place,
        };
        server.wait_for_monitor()?;
        Ok(server)
    }

    fn arguments(&self, lab: &Lab, place: &Place) -> Result<Vec<String>> {
        let mut args = words(self.firmware.machine());
        args.extend(words(
            "-nodefaults -no-user-config -accel tcg,thread=multi -smp 1 -display none -device virtio-rng-pci \
             -boot order=n,menu=off,reboot-timeout=5000",
        ));
        let show = |path: &Path| path.display().to_string();
        let mut pair = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
        pair("-name", self.name.clone());
        pair("-m", format!("{}M", self.memory_mib));
        // A socket to type on; what is said goes to the file, whoever listens.
        let (keys, said) = (show(&place.keys), show(&place.serial));
        pair(
            "-chardev",
            format!("socket,id=serial,path={keys},server=on,wait=off,logfile={said}"),
        );
        pair("-serial", "chardev:serial".to_owned());
        pair(
            "-qmp",
            format!("unix:{},server=on,wait=off", show(&place.qmp)),
        );
        for (index, nic) in self.nics.iter().enumerate() {
            let (id, port) = (netdev(index), self.port(index));
            pair("-netdev", nic.plug(lab, &id, &port, lab.dir())?);
            let (model, mac, boot) = (&nic.model, &nic.mac, self.boot_options(index));
            pair("-device", format!("{model},netdev={id},mac={mac}{boot}"));
        }
        // The guest agent's channel: an instrument to look at the host from the inside.
        pair(
            "-chardev",
            format!(
                "socket,id=agent,path={},server=on,wait=off",
                show(&place.agent)
            ),
        );
        pair("-device", "virtio-serial-pci".to_owned());
        pair(
            "-device",
            "virtserialport,chardev=agent,name=org.qemu.guest_agent.0".to_owned(),
        );
        if let Some((code, variables)) = self.firmware.flash()? {
            fs::copy(variables, &place.variables).map_err(io_error("copy", variables))?;
            let flash =
                |how: &str, file: &Path| format!("if=pflash,format=raw{how},file={}", show(file));
            pair("-drive", flash(",readonly=on", code));
            pair("-drive", flash("", &place.variables));
        }
        args.extend(self.extra.iter().cloned());
        Ok(args)
    }

    /// Whether, and with what ROM, the firmware boots from NIC `index`.
    fn boot_options(&self, index: usize) -> &'static str {
        // A kernel that QEMU starts itself takes the first place in the boot order.
        let direct = self.extra.iter().any(|argument| argument == "-kernel");
        match (index == 0 && !direct, index == 0 && self.rom) {
            (true, true) => ",bootindex=0",
            (true, false) => ",bootindex=0,romfile=",
            (false, true) => "",
            (false, false) => ",romfile=",
        }
    }
}

/// QEMU's name for NIC `index`.
fn netdev(index: usize) -> String {
    format!("nic{index}")
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The files of one server.
#[derive(Debug)]
struct Place {
    serial: PathBuf,
    keys: PathBuf,
    messages: PathBuf,
    qmp: PathBuf,
    agent: PathBuf,
    variables: PathBuf,
    screen: PathBuf,
}

impl Place {
    /// Logs go to `logs`; sockets to the lab's directory, whose path is short (`sun_path`: 108 bytes).
    fn new(name: &str, lab: &Lab, logs: &Path) -> Result<Self> {
        fs::create_dir_all(logs).map_err(io_error("create", logs))?;
        let serial = logs.join(format!("{name}.serial"));
        fs::write(&serial, "").map_err(io_error("empty", &serial))?;
        Ok(Self {
            serial,
            keys: lab.dir().join(format!("{name}.keys")),
            messages: logs.join(format!("{name}.qemu")),
            qmp: lab.dir().join(format!("{name}.qmp")),
            agent: lab.dir().join(format!("{name}.qga")),
            variables: lab.dir().join(format!("{name}.vars")),
            screen: lab.dir().join(format!("{name}.screen")),
        })
    }
}

/// A virtual server under power. Dropping it pulls the plug.
#[derive(Debug)]
pub struct VirtualServer {
    spec: ServerSpec,
    process: Process,
    serial: Log,
    powered_on: Timestamp,
    place: Place,
}

impl VirtualServer {
    /// What it is.
    pub fn spec(&self) -> &ServerSpec {
        &self.spec
    }

    /// Its serial console.
    pub fn serial(&self) -> &Log {
        &self.serial
    }

    /// When it was powered on.
    pub fn powered_on(&self) -> Timestamp {
        self.powered_on
    }

    /// Waits for a line on the serial console; fails at once if QEMU ends.
    pub fn wait_for(&mut self, pattern: &str, timeout: Duration) -> Result<String> {
        let serial = self.serial.clone();
        let what = format!("`{pattern}` on the console of {}", self.spec.name);
        let probe = || match serial.find(pattern) {
            Some(line) => Ok(Some(line)),
            None => self.process.check_alive().map(|()| None),
        };
        wait::until(&what, timeout, probe, || serial.tail(30))
    }

    /// Types a line on the serial console.
    pub fn type_line(&self, text: &str) -> Result<()> {
        self.type_keys(&format!("{text}\r"))
    }

    /// Types on the serial console. QEMU has room for 16 bytes a time (its UART's FIFO), so by the byte.
    pub fn type_keys(&self, text: &str) -> Result<()> {
        self.type_paced(text, Duration::from_millis(20))
    }

    /// A line for SeaBIOS, which looks at its serial port with the clock's tick, and has no room.
    pub fn type_slowly(&self, text: &str) -> Result<()> {
        self.type_paced(&format!("{text}\r"), Duration::from_millis(250))
    }

    fn type_paced(&self, text: &str, pause: Duration) -> Result<()> {
        let keys = &self.place.keys;
        let mut console = UnixStream::connect(keys).map_err(io_error("connect to", keys))?;
        for byte in text.bytes() {
            console
                .write_all(&[byte])
                .map_err(io_error("write to", keys))?;
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Fails with QEMU's last words if it ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.process.check_alive()
    }

    /// Saves the screen as a PNG picture.
    pub fn screenshot(&self, file: &Path) -> Result<()> {
        let arguments = json!({ "filename": file, "format": "png" });
        self.monitor()?.execute("screendump", &arguments)?;
        Ok(())
    }

    /// What the VGA screen and its scrolled lines show, without line ends: cells of a character and its colours from
    /// 0xB8000 on. Under UEFI there is no such screen.
    pub fn screen_text(&self) -> Result<String> {
        let file = &self.place.screen;
        let arguments = json!({ "val": 0xb8000, "size": 0x8000, "filename": file });
        self.monitor()?.execute("pmemsave", &arguments)?;
        let cells = fs::read(file).map_err(io_error("read", file))?;
        Ok(cells
            .iter()
            .step_by(2)
            .map(|&cell| char::from(cell))
            .collect())
    }

    /// Pulls the network cable, or plugs it in again.
    pub fn set_link(&self, up: bool) -> Result<()> {
        self.set_nic_link(0, up)
    }

    /// Pulls the cable of NIC `index`, or plugs it in again.
    pub fn set_nic_link(&self, index: usize, up: bool) -> Result<()> {
        let arguments = json!({ "name": netdev(index), "up": up });
        self.monitor()?.execute("set_link", &arguments)?;
        Ok(())
    }

    /// Presses keys together on the keyboard, by their names in QEMU: `ctrl alt delete`.
    pub fn press(&self, keys: &str) -> Result<()> {
        let key = |name| json!({ "type": "qcode", "data": name });
        let arguments = json!({ "keys": keys.split(' ').map(key).collect::<Vec<_>>() });
        self.monitor()?.execute("send-key", &arguments)?;
        Ok(())
    }

    /// Presses reset.
    pub fn reset(&self) -> Result<()> {
        self.monitor()?.execute("system_reset", &json!({}))?;
        Ok(())
    }

    /// Cuts the power.
    pub fn power_off(mut self) -> Result<()> {
        self.monitor()?.execute("quit", &json!({}))?;
        self.process.wait_exit(Duration::from_secs(10))?;
        Ok(())
    }

    /// The guest agent, once it answers.
    pub fn agent(&self, timeout: Duration) -> Result<GuestAgent> {
        GuestAgent::connect(&self.spec.name, &self.place.agent, timeout)
    }

    fn monitor(&self) -> Result<Qmp> {
        Qmp::connect(&self.spec.name, &self.place.qmp)
    }

    fn wait_for_monitor(&mut self) -> Result<()> {
        let what = format!("QEMU's monitor of {}", self.spec.name);
        let (name, socket) = (&self.spec.name, &self.place.qmp);
        let log = self.process.log().clone();
        let probe = || match Qmp::connect(name, socket) {
            Ok(_) => Ok(Some(())),
            Err(_) => self.process.check_alive().map(|()| None),
        };
        wait::until(&what, Duration::from_secs(30), probe, || log.tail(10))
    }
}
