//! `make demo`: two virtual bare servers with real firmware and no disk go from power-on to the
//! shared pool, before your eyes.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod lab;

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::{
    APPLIANCE, Daemon, Firmware, HostStatus, HostView, Lab, LabError, Moosefs, POOL, PoolServer,
    Result, ServerSpec, Stage, VirtualServer, check_interrupt, cross_read, data_dir, repository,
    require,
};

/// From power-on to both *joined*.
const DEADLINE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(LabError::Interrupted) => {
            eprintln!("\ninterrupted; the lab is taken down");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("\nbridgehead demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let began = Instant::now();
    let data = data_dir();
    let logs = repository().join("build/demo");
    let artefacts = [
        ("kernels/debian/vmlinuz", "kernel"),
        ("initrds/default.img", "initrd"),
        ("roots/kvm-host", "root"),
        ("loaders/snponly.efi", "loaders"),
    ];
    require(&data, &artefacts)?;
    let lab = Lab::new("demo")?;
    let pool = start_pool(&lab, &logs)?;
    let inventory = repository().join("hosts.yaml");
    let mut daemon = Daemon::start(&lab, &inventory, &data, &logs.join("daemon.log"))?;
    let mut servers = power_on(&lab, &logs)?;
    introduce(&pool, &servers, &logs);
    let on = Instant::now();
    let hosts = follow(&mut daemon, &mut servers, on)?;
    println!();
    prove(&servers)?;
    durations(&hosts);
    println!(
        "\nBoth joined {:.0} s after power-on; the demo took {:.0} s.\nLogs and serial consoles: {}",
        joined_after(&hosts).as_secs_f64(),
        began.elapsed().as_secs_f64(),
        logs.display()
    );
    Ok(())
}

fn start_pool(lab: &Lab, logs: &Path) -> Result<PoolServer> {
    if env::var_os("LUSTRE_TREE").is_none() {
        println!(
            "Lustre: skipped. With LUSTRE_TREE=DIR, an installed tree of Lustre's modules and \
             tools for this kernel, the pool is Lustre.\n"
        );
    }
    Moosefs::start(lab, &logs.join("moosefs"), logs).map(PoolServer::Moosefs)
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
        "  {APPLIANCE:<18} bridgehead serve --inventory hosts.yaml  log: {}",
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
fn follow(
    daemon: &mut Daemon,
    servers: &mut [VirtualServer],
    on: Instant,
) -> Result<Vec<HostStatus>> {
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
                for stage in host.stages.iter().filter(|stage| !before.contains(stage)) {
                    show(&host.host, stage, on);
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

fn show(host: &str, stage: &Stage, on: Instant) {
    let (start, end) = match stage.stage.as_str() {
        "joined" => ("\x1b[1;32m", "\x1b[0m"),
        _ if stage.is_trouble() => ("\x1b[33m", "\x1b[0m"),
        _ => ("", ""),
    };
    let colour = stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let (start, end) = if colour { (start, end) } else { ("", "") };
    println!(
        "{:>6.1} s  {start}{host}  {:<11}{end} {}",
        on.elapsed().as_secs_f64(),
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

/// How long after power-on the last host joined.
fn joined_after(hosts: &[HostStatus]) -> Duration {
    let ms = hosts.iter().filter_map(|h| h.stage("joined")).map(|s| s.ms);
    Duration::from_millis(ms.max().unwrap_or(0))
}

/// Seconds from each stage's predecessor to it, one column per host.
fn durations(hosts: &[HostStatus]) {
    println!("How long each stage took, in seconds:\n");
    let mut rows: Vec<&str> = Vec::new();
    let mut cells: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for host in hosts {
        let mut before = 0;
        for stage in &host.stages {
            if !rows.contains(&stage.stage.as_str()) {
                rows.push(&stage.stage);
            }
            let took = stage.ms.saturating_sub(before) as f64 / 1000.0;
            *cells.entry((&stage.stage, &host.host)).or_default() += took;
            before = before.max(stage.ms);
        }
    }
    let line = |label: &str, cell: &dyn Fn(&HostStatus) -> String| {
        let cells: String = hosts
            .iter()
            .map(|host| format!("{:>9}", cell(host)))
            .collect();
        println!("  {label:<12}{cells}");
    };
    line("", &|host| host.host.clone());
    for row in rows {
        line(row, &|host| match cells.get(&(row, host.host.as_str())) {
            Some(took) => format!("{took:.1}"),
            None => "-".to_owned(),
        });
    }
    line("together", &|host| {
        let ms = host.stage("joined").map_or(0, |stage| stage.ms);
        format!("{:.1}", Duration::from_millis(ms).as_secs_f64())
    });
}
