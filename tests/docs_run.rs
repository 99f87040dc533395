//! The documentation's commands run, and print what it shows. Those that ask a daemon need root for its network.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its tests do")]

use std::fs;
use std::path::Path;
use std::process::Command;

use bridgehead::cli::command;

use crate::docs::{Block, Page, pages, refused, verbs, words};
use crate::fake::data_dir;
use crate::lab::{Lab, Namespace, Site, bridgehead, output};

/// Hosts that the examples name, beside those of the source tree's `hosts.yaml`.
fn inventory(words: &[String]) -> String {
    let text = include_str!("../hosts.yaml");
    let mac = |number: u32| {
        format!(
            "mac: \"52:54:00:00:01:{number:02}\", ip: 10.77.0.{}",
            10 + number
        )
    };
    let rest = "profile: kvm-host, kernel: debian";
    let range = words.iter().any(|word| word == "kvm[04-15]");
    let hosts: String = match words[2].as_str() {
        "add" => String::new(),
        _ if range => format!("  kvm[04-15]: {{{}, {rest}}}\n", mac(4)),
        _ => (3..=16)
            .map(|number| format!("  kvm{number:02}: {{{}, {rest}}}\n", mac(number)))
            .collect(),
    };
    text.replace("\nhosts:\n", &format!("\nhosts:\n{hosts}"))
}

/// Whether it needs nothing that a test of the command line does not have.
fn runs_alone(words: &[String]) -> bool {
    let says = |start: &str| words.iter().any(|word| word.starts_with(start));
    let verb = words.get(1).map_or("", String::as_str);
    match verb {
        "check" => !says("--live") && !words.iter().any(|word| word == "--diff"),
        "hosts" | "explain" | "schema" | "completions" | "man" => !says("--state"),
        _ => false,
    }
}

/// Runs it in this directory; what it prints.
fn run(place: &str, words: &[String], directory: &Path) -> String {
    let mut argv = words[1..].to_vec();
    let data = directory.join("data").display().to_string();
    if let Some(at) = argv.iter().position(|word| word == "--data") {
        argv[at + 1].clone_from(&data);
    } else if ["check", "explain"].contains(&argv[0].as_str()) {
        argv.extend(["--data".to_owned(), data]);
    }
    if argv[0] == "man" {
        argv[1] = directory.join("man").display().to_string();
        fs::create_dir_all(&argv[1]).unwrap();
    }
    let mut program = Command::new(env!("CARGO_BIN_EXE_bridgehead"));
    let done = program.args(&argv).current_dir(directory).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{place}: {words:?}: {}\n{said}{why}",
        done.status
    );
    said
}

/// Every command of the documentation and of the help, with its place.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for page in pages() {
        let of_block = |block: Block| {
            let lines: Vec<_> = block.text.lines().filter_map(words).collect();
            lines
                .into_iter()
                .map(move |words| (block.place.clone(), words))
        };
        all.extend(page.blocks().into_iter().flat_map(of_block));
        let spans = page.spans();
        let spans = spans.iter().filter_map(|span| words(span));
        all.extend(spans.map(|words| (page.name(), words)));
    }
    let mut of_help = Vec::new();
    verbs(&command(), "", &mut of_help);
    for (path, mut verb) in of_help {
        let help = verb.render_long_help().to_string();
        let lines = help.lines().filter_map(words);
        all.extend(lines.map(|words| (format!("{path} --help"), words)));
    }
    // In a sentence a verb may stand without what it is done to, or with a `…`.
    all.retain(|(_, words)| {
        words.len() > 1 && refused(words).is_none() && !words.iter().any(|word| word.contains('…'))
    });
    all
}

#[test]
fn the_documentations_commands_run() {
    let mut seen = 0;
    for (place, words) in commands().iter().filter(|(_, words)| runs_alone(words)) {
        seen += 1;
        let directory = tempfile::tempdir().unwrap();
        data_dir(directory.path()).unwrap();
        let mut padded = words.clone();
        padded.resize(words.len().max(3), String::new());
        let text = inventory(&padded);
        for name in ["hosts.yaml", "old.yaml", "new.yaml"] {
            fs::write(directory.path().join(name), &text).unwrap();
        }
        run(place, words, directory.path());
    }
    assert!(seen > 25, "{seen}");
}

/// What a block shows under its commands.
fn shown(block: &Block) -> Vec<(Vec<String>, String)> {
    let commands = block.text.split("$ ").skip(1);
    let split = |part: &str| {
        let (line, output) = part.split_once('\n')?;
        Some((words(line)?, output.to_owned()))
    };
    let shown = commands.filter_map(split);
    shown
        .filter(|(words, output)| runs_alone(words) && !output.is_empty())
        .collect()
}

/// With the last whole inventory that the page shows before it.
fn outputs_of(page: &Page) -> usize {
    let (mut inventory, mut seen) = (String::new(), 0);
    for block in page.blocks() {
        if block.info == ["yaml"] {
            inventory.clone_from(&block.text);
        }
        for (words, output) in shown(&block) {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("hosts.yaml"), &inventory).unwrap();
            let printed = run(&block.place, &words, directory.path());
            assert_eq!(printed, output, "{}: {words:?}", block.place);
            seen += 1;
        }
    }
    seen
}

#[test]
fn outputs_in_the_documentation_are_what_is_printed() {
    let seen: usize = pages().iter().map(outputs_of).sum();
    assert!(seen > 0);
}

const RACKED: &str = "52:54:00:00:01:07";
const BARE: &str = "3c:ec:ef:00:00:07";

/// Hosts that the examples ask about; those that `discover approve` is to make are listed where they are asked about.
fn fleet(approves: bool) -> String {
    let host = |number: u32| {
        format!(
            "  kvm{number:02}: {{mac: \"52:54:00:00:01:{number:02}\", ip: 10.77.0.{}, profile: kvm-host, rack: r1, unit: {number}}}\n",
            10 + number
        )
    };
    let hosts: String = (1..=16)
        .filter(|n| !approves || *n != 7)
        .map(host)
        .collect();
    let awaited = "  kvm31: {ip: 10.77.0.41, profile: kvm-host}\n";
    crate::fake::INVENTORY
        .lines()
        .filter(|line| !line.starts_with("  kvm0"))
        .map(|line| match line {
            "hosts:" => format!("hosts:\n{hosts}{awaited}"),
            line => format!("{line}\n"),
        })
        .collect()
}

fn booted(lab: &Lab, name: &str, mac: &str) -> Namespace {
    let client = lab.client(name, mac).unwrap();
    let asks = "busybox udhcpc -i eth0 -f -q -n -t 5 -s /bin/true -x 0x5d:0007 -V PXEClient:Arch:00007:UNDI:003016";
    client.run(&asks.split(' ').collect::<Vec<_>>()).unwrap();
    client
}

/// As a person would who gives up after a moment; how it ended, and what it said.
fn asks(site: &Site, words: &[String]) -> (Option<i32>, String) {
    let mut argv: Vec<String> = ["timeout", "3", bridgehead()].map(String::from).to_vec();
    argv.extend_from_slice(&words[1..]);
    let has = |word: &str| words.iter().any(|known| known == word);
    let value_of = |argv: &mut Vec<String>, option: &str, value: String| match argv
        .iter()
        .position(|word| word == option)
    {
        Some(at) => argv[at + 1] = value,
        None => argv.extend([option.to_owned(), value]),
    };
    let state = site.lab.dir().join("state").display().to_string();
    value_of(&mut argv, "--state", state);
    if has("--wait") {
        value_of(&mut argv, "--timeout", "1s".into());
    }
    if has("approve") {
        argv.push("--dry-run".into());
    }
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let done = output(&argv).unwrap();
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn the_documentations_questions_are_answered_by_a_daemon() {
    let mut seen = 0;
    for approves in [true, false] {
        let Some(lab) = Lab::for_test("docs") else {
            return;
        };
        let data = data_dir(lab.dir()).unwrap();
        let logs = lab.dir().join("logs");
        let site = Site::start(lab, &fleet(approves), &data, &logs).unwrap();
        let mut clients = vec![booted(&site.lab, "bare", BARE)];
        if !approves {
            clients.push(booted(&site.lab, "racked", RACKED));
        }
        let concrete = |words: &[String]| {
            words
                .iter()
                .all(|word| !["HOST", "MAC", "NAME"].contains(&word.as_str()))
        };
        let mut asked = commands();
        asked.retain(|(_, words)| {
            let verb = words[1].as_str();
            ["status", "log", "why", "discover"].contains(&verb)
                && words.iter().any(|word| word == "approve") == approves
                && concrete(words)
        });
        asked.sort_by(|a, b| a.1.cmp(&b.1));
        asked.dedup_by(|a, b| a.1 == b.1);
        for (place, words) in asked {
            seen += 1;
            let (code, said) = asks(&site, &words);
            let has = |word: &str| words.iter().any(|known| known == word);
            let wanted = match () {
                // Nobody is going to join.
                () if has("--wait") => 5,
                () if has("--watch") || has("--follow") => 124,
                () => 0,
            };
            assert_eq!(code, Some(wanted), "{place}: {words:?}\n{said}");
            assert!(!said.trim().is_empty(), "{place}: {words:?}");
        }
    }
    assert!(seen > 12, "{seen}");
}
