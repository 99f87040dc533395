//! The documentation's commands run, and print what it shows: those that need no daemon and no root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its tests do")]

use std::fs;
use std::path::Path;
use std::process::Command;

use bridgehead::cli::command;

use crate::docs::{Block, Page, pages, refused, verbs, words};
use crate::fake::data_dir;

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
