//! `make demo`: two virtual bare servers with real firmware and no disk go from power-on to the
//! shared pool, before your eyes.
#![allow(clippy::print_stdout)]

mod lab;

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::{
    APPLIANCE, Daemon, Firmware, HostStatus, HostView, Lab, LabError, Lustre, Moosefs, POOL,
    PoolServer, Result, ServerSpec, Stage, VirtualServer, check_interrupt, cross_read, data_dir,
    end_program, io_error, repository, require_boot_files, with_kernel,
};

/// From power-on to both *joined*.
const DEADLINE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let logs = repository().join("build/demo");
    let end = demo(&logs);
    end_program("bridgehead demo", &logs, end)
}

fn demo(logs: &Path) -> Result<()> {
    let began = Instant::now();
    let data = data_dir();
    require_boot_files(&data)?;
    let lab = Lab::new("demo")?;
    let (pool, inventory) = start_pool(&lab, &data, logs)?;
    let mut daemon = Daemon::start(&lab, &inventory, &data, &logs.join("daemon.log"))?;
    let mut servers = power_on(&lab, logs)?;
    introduce(&pool, &servers, logs);
    let hosts = follow(&mut daemon, &mut servers)?;
    println!();
    prove(&servers)?;
    let boots: Vec<Boot> = servers.iter().zip(&hosts).map(Boot::new).collect();
    durations(&boots);
    println!(
        "\nBoth joined within {:.0} s of power-on. The demo took {:.0} s in all.\n\
         Logs and serial consoles: {}",
        boots.iter().map(Boot::total).fold(0.0, f64::max),
        began.elapsed().as_secs_f64(),
        logs.display()
    );
    Ok(())
}

/// MooseFS, or with `LUSTRE_TREE` Lustre; and the inventory that names it.
fn start_pool(lab: &Lab, data: &Path, logs: &Path) -> Result<(PoolServer, PathBuf)> {
    if let Some(tree) = env::var_os("LUSTRE_TREE") {
        println!("Starting a Lustre server; it takes half a minute.");
        let pool = Lustre::start(lab, Path::new(&tree), data, logs)?;
        return Ok((PoolServer::Lustre(pool), inventory(logs, with_lustre)?));
    }
    println!(
        "The image pool is MooseFS. Lustre is skipped: LUSTRE_TREE=DIR, an installed tree of\n\
         Lustre's modules and tools for this kernel, makes it the pool.\n"
    );
    let pool = Moosefs::start(lab, &logs.join("moosefs"), logs)?;
    Ok((PoolServer::Moosefs(pool), inventory(logs, str::to_owned)?))
}

/// hosts.yaml, or a copy where this demo's kernel or pool is another.
fn inventory(logs: &Path, with_pool: impl Fn(&str) -> String) -> Result<PathBuf> {
    let example = repository().join("hosts.yaml");
    let text = fs::read_to_string(&example).map_err(io_error("read", &example))?;
    let wanted = with_pool(&with_kernel(&text));
    if wanted == text {
        return Ok(example);
    }
    let copy = logs.join("hosts.yaml");
    fs::write(&copy, wanted).map_err(io_error("write", &copy))?;
    Ok(copy)
}

/// One line changed: Lustre in place of MooseFS.
fn with_lustre(inventory: &str) -> String {
    let is_moosefs = |line: &&str| line.trim_start().starts_with("moosefs:");
    let Some(line) = inventory.lines().find(is_moosefs) else {
        return inventory.to_owned();
    };
    let indent = &line[..line.len() - line.trim_start().len()];
    inventory.replace(line, &format!("{indent}lustre: \"{}\"", Lustre::source()))
}

/// The two servers of hosts.yaml, one of each firmware.
fn power_on(lab: &Lab, logs: &Path) -> Result<Vec<VirtualServer>> {
    [
        ServerSpec::new("kvm01", "52:54:00:00:00:01", Firmware::Bios),
        ServerSpec::new("kvm02", "52:54:00:00:00:02", Firmware::UefiX64),
    ]
    .into_iter()
    .map(|spec| spec.power_on(lab, logs))
    .collect()
}

fn introduce(pool: &PoolServer, servers: &[VirtualServer], logs: &Path) {
    let shown = |path: PathBuf| {
        let short = path.strip_prefix(repository()).map(Path::to_owned);
        short.unwrap_or(path).display().to_string()
    };
    println!("Two bare servers without a disk, on a network with:");
    println!(
        "  {APPLIANCE:<18} bridgehead serve  log: {}",
        shown(logs.join("daemon.log"))
    );
    println!("  {POOL:<18} {}", pool.describe());
    for server in servers {
        let spec = server.spec();
        println!(
            "  {:<18} {}, {}  console: {}",
            spec.mac(),
            spec.name(),
            spec.firmware().describe(),
            shown(server.serial().path().to_owned())
        );
    }
    println!("\nPower on.  (seconds since power-on, host, stage, what the daemon knows)\n");
}

/// Prints each stage of each host as it comes, until all have joined.
fn follow(daemon: &mut Daemon, servers: &mut [VirtualServer]) -> Result<Vec<HostStatus>> {
    let on = Instant::now();
    let mut shown: HashMap<String, Vec<Stage>> = HashMap::new();
    loop {
        check_interrupt()?;
        daemon.check_alive()?;
        let status = daemon.status()?;
        let mut hosts = Vec::new();
        for server in &mut *servers {
            server.check_alive()?;
            if let Some(host) = status.host(server.spec().name()) {
                let before = shown.entry(host.host.clone()).or_default();
                for stage in host
                    .stages
                    .iter()
                    .filter(|stage| !before.iter().any(|known| known.tells_the_same(stage)))
                {
                    show(&host.host, stage, server);
                }
                before.clone_from(&host.stages);
                hosts.push(host.clone());
            }
        }
        let joined = |host: &HostStatus| host.stage("joined").is_some();
        if hosts.len() == servers.len() && hosts.iter().all(joined) {
            return Ok(hosts);
        }
        if on.elapsed() > DEADLINE {
            return Err(late(&hosts, servers, daemon));
        }
        std::thread::sleep(POLL);
    }
}

fn show(host: &str, stage: &Stage, server: &VirtualServer) {
    let (start, end) = match stage.stage.as_str() {
        "joined" => ("\x1b[1;32m", "\x1b[0m"),
        _ if stage.is_trouble() => ("\x1b[33m", "\x1b[0m"),
        _ => ("", ""),
    };
    let colour = stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let (start, end) = if colour { (start, end) } else { ("", "") };
    println!(
        "{:>6.1} s  {start}{host}  {:<11}{end} {}",
        stage.seconds_since(server.powered_on()),
        stage.stage,
        stage.message.as_deref().unwrap_or_default()
    );
}

/// What an operator needs who sees the deadline pass.
fn late(hosts: &[HostStatus], servers: &[VirtualServer], daemon: &Daemon) -> LabError {
    let mut context = String::new();
    for server in servers {
        let name = server.spec().name();
        let Some(host) = hosts
            .iter()
            .find(|h| h.host == name && h.stage("joined").is_none())
        else {
            continue;
        };
        let stage = host.stage.as_deref().unwrap_or("nothing seen");
        let state = host.state.as_deref().unwrap_or_default();
        context.push_str(&format!("\n{name} got as far as: {stage} {state}\n"));
        context.push_str(
            &host
                .note
                .as_deref()
                .map_or(String::new(), |n| format!("{n}\n")),
        );
        context.push_str(&server.serial().tail(20));
    }
    context.push('\n');
    context.push_str(&daemon.log().tail(10));
    LabError::Timeout {
        what: "both hosts to join".to_owned(),
        after: DEADLINE,
        context,
    }
}

/// Looks at each host from the inside, then lets a file cross the pool both ways.
fn prove(servers: &[VirtualServer]) -> Result<()> {
    let mut agents = servers
        .iter()
        .map(|server| server.agent(Duration::from_secs(60)))
        .collect::<Result<Vec<_>>>()?;
    println!("As each host sees itself (asked on the host, by the guest agent):\n");
    for agent in &mut agents {
        let view = HostView::of(agent)?;
        println!("{}", view.hostname);
        for (part, text) in view.parts() {
            for (number, line) in text.lines().enumerate() {
                println!("  {:<7} {line}", if number == 0 { part } else { "" });
            }
        }
        println!();
    }
    println!("A file that one host writes into the pool is read on the other:\n");
    let [one, two] = agents.as_mut_slice() else {
        return Ok(());
    };
    println!("  kvm02 reads: {}", cross_read(one, two)?);
    println!("  kvm01 reads: {}\n", cross_read(two, one)?);
    Ok(())
}

/// A boot, cut into stages.
struct Boot {
    host: String,
    /// Stage, and seconds from power-on to the end of it, in order.
    ends: Vec<(String, f64)>,
}

impl Boot {
    fn new((server, host): (&VirtualServer, &HostStatus)) -> Self {
        let mut ends: Vec<(String, f64)> = Vec::new();
        for stage in host.stages.iter().filter(|stage| stage.is_passed()) {
            let end = stage.seconds_since(server.powered_on());
            // Some come twice: firmware and iPXE each ask for an address. The first one counts.
            if !ends.iter().any(|(name, _)| *name == stage.stage) {
                ends.push((stage.stage.clone(), end));
            }
        }
        ends.sort_by(|(_, one), (_, two)| one.total_cmp(two));
        let host = host.host.clone();
        Self { host, ends }
    }

    fn total(&self) -> f64 {
        self.ends.last().map_or(0.0, |(_, end)| *end)
    }

    /// Seconds from the end of the stage before to the end of this one.
    fn took(&self, stage: &str) -> Option<f64> {
        let at = self.ends.iter().position(|(name, _)| name == stage)?;
        let before = at.checked_sub(1).map_or(0.0, |before| self.ends[before].1);
        Some(self.ends[at].1 - before)
    }
}

fn durations(boots: &[Boot]) {
    println!("How long each stage took, in seconds (the first one includes the firmware):\n");
    let line = |label: &str, cell: &dyn Fn(&Boot) -> String| {
        let cells: String = boots
            .iter()
            .map(|boot| format!("{:>9}", cell(boot)))
            .collect();
        println!("  {label:<12}{cells}");
    };
    line("", &|boot| boot.host.clone());
    // The longest boot first: it has the rows that others lack, in their places.
    let mut longest: Vec<&Boot> = boots.iter().collect();
    longest.sort_by_key(|boot| std::cmp::Reverse(boot.ends.len()));
    let mut stages: Vec<&str> = Vec::new();
    for (stage, _) in longest.into_iter().flat_map(|boot| &boot.ends) {
        if !stages.contains(&stage.as_str()) {
            stages.push(stage);
        }
    }
    for stage in stages {
        let cell = |boot: &Boot| {
            boot.took(stage)
                .map_or("-".to_owned(), |s| format!("{s:.1}"))
        };
        line(stage, &cell);
    }
    line("in all", &|boot| format!("{:.1}", boot.total()));
}
