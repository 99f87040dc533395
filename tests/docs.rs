//! The documentation is true: its inventories load, its commands parse, its links lead somewhere, and help and manual
//! pages are there for every verb.
//!
//! What a fenced block of YAML is stands behind its `yaml`: nothing for a whole inventory; `fragment` for a part of
//! one, laid over `hosts.yaml` of the source tree; another file's name for that file.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its tests do")]

use std::fs;
use std::path::{Path, PathBuf};

use bridgehead::cli::{Exit, command};
use bridgehead::inventory::{parse, schema::SCHEMA};
use clap::Command;
use clap::error::ErrorKind;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) struct Page {
    path: PathBuf,
    text: String,
}

/// What stands for `$6$…`, which nobody should copy.
const HASH: &str = "$6$documentation$Gho2ih7Z3jMFPIAGjKVF/nJEyhpON2ntr5dCkN3.B5HZ6Zl/e4hEmfiwGJx7P1dcJxB.riDTf/CvUGDCUNW621";

/// A fenced block: the words behind its fence, and what stands in it.
pub(crate) struct Block {
    pub(crate) place: String,
    pub(crate) info: Vec<String>,
    pub(crate) text: String,
}

pub(crate) fn pages() -> Vec<Page> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let mut paths: Vec<_> = docs.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "md"));
    for further in ["README.md", "initrd/README.md", "kernel-configs/README.md"] {
        paths.push(root().join(further));
    }
    paths.sort();
    assert!(paths.len() > 8);
    let page = |path: PathBuf| Page {
        text: fs::read_to_string(&path).unwrap(),
        path,
    };
    paths.into_iter().map(page).collect()
}

impl Page {
    pub(crate) fn name(&self) -> String {
        let path = self.path.strip_prefix(root()).unwrap();
        path.display().to_string()
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        // In a list a block is indented.
        let mut indent = "";
        for (index, line) in self.text.lines().enumerate() {
            let Some(info) = line.trim_start().strip_prefix("```") else {
                if let Some(block) = &mut open {
                    block.text += line.strip_prefix(indent).unwrap_or(line);
                    block.text += "\n";
                }
                continue;
            };
            indent = &line[..line.len() - info.len() - 3];
            match open.take() {
                Some(mut block) => {
                    block.text = block.text.replace("$6$…", HASH);
                    blocks.push(block);
                }
                None => {
                    open = Some(Block {
                        place: format!("{}:{}", self.name(), index + 1),
                        info: info.split_whitespace().map(String::from).collect(),
                        text: String::new(),
                    });
                }
            }
        }
        assert!(open.is_none(), "{}: a block without an end", self.name());
        blocks
    }

    /// The text without its blocks.
    fn prose(&self) -> String {
        self.text.split("```").step_by(2).collect()
    }

    /// What stands in backticks outside of blocks.
    pub(crate) fn spans(&self) -> Vec<String> {
        let prose = self.prose();
        let spans = prose
            .lines()
            .flat_map(|line| line.split('`').skip(1).step_by(2));
        spans.map(String::from).collect()
    }

    /// The names that links to its headings have.
    fn anchors(&self) -> Vec<String> {
        let prose = self.prose();
        let headings = prose.lines().filter_map(|line| line.strip_prefix('#'));
        let anchor = |heading: &str| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            });
            kept.collect()
        };
        headings.map(anchor).collect()
    }
}

/// Lays what a part says over what is there.
fn lay(over: Value, base: &mut Value) {
    match (over, base) {
        (Value::Object(over), Value::Object(base)) => {
            for (key, value) in over {
                lay(value, base.entry(key).or_insert(Value::Null));
            }
        }
        (over, base) => *base = over,
    }
}

/// Flow style. A text is plain where it may be, for quotes make it another thing in `options`; a MAC may not be.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members = members.iter();
            let members = members
                .map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), flow(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

fn is_plain(text: &str) -> bool {
    let number = text.starts_with(|c: char| c.is_ascii_digit()) && text.contains(':');
    !number
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".:/-".contains(c))
}

/// What the schema has against a part of an inventory; that something else is not there is no fault of it.
fn slips(part: &Value) -> Vec<String> {
    let mut schema: Value = serde_json::from_str(SCHEMA).unwrap();
    for kind in ["network", "host"] {
        let definition = schema["definitions"][kind].as_object_mut().unwrap();
        definition.remove("required");
        definition.remove("oneOf");
    }
    let validator = jsonschema::draft7::new(&schema).unwrap();
    let faults = validator.iter_errors(part);
    faults
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect()
}

fn is_an_inventory(block: &Block, text: &str) {
    if let Err(faults) = parse("hosts.yaml", text) {
        panic!("{}:\n{faults}", block.place);
    }
}

#[test]
fn every_inventory_in_the_documentation_loads() {
    let (mut whole, mut parts) = (0, 0);
    for block in pages().iter().flat_map(Page::blocks) {
        let Some(("yaml", kind)) = block.info.split_first().map(|(a, b)| (a.as_str(), b)) else {
            continue;
        };
        let place = &block.place;
        let value: Value =
            serde_saphyr::from_str(&block.text).unwrap_or_else(|error| panic!("{place}: {error}"));
        match kind {
            [] => {
                whole += 1;
                is_an_inventory(&block, &block.text);
            }
            [kind] if kind == "fragment" => {
                parts += 1;
                assert_eq!(slips(&value), [] as [String; 0], "{place}");
                // Files that it names are not here.
                if value.get("include").is_none() {
                    let example = include_str!("../hosts.yaml");
                    let mut all: Value = serde_saphyr::from_str(example).unwrap();
                    lay(value, &mut all);
                    is_an_inventory(&block, &flow(&all));
                }
            }
            [file] => assert!(file.ends_with(".yaml"), "{place}: what is {file}?"),
            _ => panic!("{place}: one word behind yaml"),
        }
    }
    assert!(whole > 2 && parts > 6, "{whole} whole, {parts} parts");
}

/// Every key of the schema, wherever it may stand.
fn keys(schema: &Value, into: &mut Vec<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                into.extend(properties.keys().cloned());
            }
            members.values().for_each(|value| keys(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| keys(value, into)),
        _ => {}
    }
}

#[test]
fn every_key_of_the_inventory_has_its_line() {
    let page = include_str!("../docs/inventory.md");
    let mut wanted = Vec::new();
    keys(&serde_json::from_str(SCHEMA).unwrap(), &mut wanted);
    assert!(wanted.len() > 60);
    wanted.retain(|key| {
        let told = |line: &str| {
            let cell = line.strip_prefix("| ")?.split(" | ").next()?;
            Some(cell.contains(&format!("`{key}`")))
        };
        !page.lines().any(|line| told(line) == Some(true))
    });
    assert_eq!(wanted, [] as [String; 0], "keys without a line of a table");
}

/// The example has every key, most of them in comments.
#[test]
fn every_key_of_the_inventory_is_in_the_example() {
    let example = include_str!("../hosts.yaml");
    let mut wanted = Vec::new();
    keys(&serde_json::from_str(SCHEMA).unwrap(), &mut wanted);
    let word = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'));
    let told = |key: &String| {
        let places = example.match_indices(key.as_str());
        places.into_iter().any(|(at, _)| {
            let (before, after) = (&example[..at], &example[at + key.len()..]);
            before.ends_with(word) && after.starts_with([':', '`'])
        })
    };
    wanted.retain(|key| !told(key));
    assert_eq!(wanted, [] as [String; 0]);
}

/// Backticked `key: value` in what a program says to people; comments are for nobody else, and a value that is filled
/// in is known to the program alone.
fn said_keys(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let spans = lines.flat_map(|line| line.split('`').skip(1).step_by(2));
    let plain = spans.map(|span| span.replace("{{", "{").replace("}}", "}"));
    let is_yaml = |span: &String| {
        let key = span.split_once(": ").map(|(key, _)| key);
        let word = |c: char| c.is_ascii_lowercase() || c == '_';
        key.is_some_and(|key| !key.is_empty() && key.chars().all(word))
            && !span.replace(' ', "").contains("}}")
    };
    plain.filter(is_yaml).collect()
}

/// A hint that names a key that is none costs whoever follows it a refused edit.
#[test]
fn every_key_that_a_hint_names_is_one() {
    let mut seen = 0;
    for file in [
        "policy/stall.rs",
        "policy/hint.rs",
        "policy/verdict.rs",
        "policy/enrol/words.rs",
        "site/why.rs",
        "site/trouble.rs",
        "site/report.rs",
        "site/links.rs",
        "site/approval.rs",
        "daemon/port_holder.rs",
    ] {
        let source = fs::read_to_string(root().join("src").join(file)).unwrap();
        for span in said_keys(&source) {
            seen += 1;
            let part = format!("{{{}}}", span.replace('…', "1"));
            let part: Value = serde_saphyr::from_str(&part.replace("\\\"", "\""))
                .unwrap_or_else(|error| panic!("{file}: `{span}`: {error}"));
            // It says what, and not where: a network, a profile or a host may have it.
            let sections = ["networks", "profiles", "hosts"];
            let within = sections.map(|section| serde_json::json!({section: {"one": part}}));
            let met = serde_json::json!({"unknown": part});
            let mut places = within.iter().chain([&part, &met]);
            let known = places.any(|part| slips(part).is_empty());
            assert!(known, "{file}: `{span}` is refused: {:?}", slips(&part));
        }
    }
    assert!(seen > 8, "{seen}");
}

/// The words of a command line up to what the shell does with it.
pub(crate) fn words(line: &str) -> Option<Vec<String>> {
    let line = line.trim().trim_start_matches("$ ");
    let line = line.trim_start_matches("sudo ");
    let line = line.trim_start_matches("target/release/");
    if !line.starts_with("bridgehead ") {
        return None;
    }
    let words = shlex::split(line).unwrap_or_else(|| panic!("no end of a quotation: {line}"));
    let shell = |word: &String| ["|", ">", "&&", ";", "||"].contains(&word.as_str());
    Some(words.into_iter().take_while(|word| !shell(word)).collect())
}

/// What the command line's definition has against it.
pub(crate) fn refused(words: &[String]) -> Option<clap::Error> {
    let error = command().try_get_matches_from(words).err()?;
    let help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    (!help).then_some(error)
}

#[test]
fn every_command_in_the_documentation_is_one() {
    let mut seen = 0;
    for page in pages() {
        for block in page.blocks() {
            for words in block.text.lines().filter_map(words) {
                seen += 1;
                if let Some(error) = refused(&words) {
                    panic!("{}: {words:?}: {error}", block.place);
                }
            }
        }
        // In a sentence a verb may stand without what it is done to.
        for words in page.spans().iter().filter_map(|span| words(span)) {
            seen += 1;
            let Some(error) = refused(&words) else {
                continue;
            };
            let named = matches!(
                error.kind(),
                ErrorKind::MissingRequiredArgument
                    | ErrorKind::MissingSubcommand
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            );
            assert!(named, "{}: {words:?}: {error}", page.name());
        }
    }
    assert!(seen > 50, "{seen}");
}

/// Every verb for people with its path: `bridgehead hosts add`.
pub(crate) fn verbs(command: &Command, path: &str, into: &mut Vec<(String, Command)>) {
    let path = format!("{path}{}", command.get_name());
    into.push((path.clone(), command.clone()));
    let verbs_of_it = command.get_subcommands();
    let for_people = |verb: &&Command| verb.get_name() != "help" && !verb.is_hide_set();
    for verb in verbs_of_it.filter(for_people) {
        verbs(verb, &format!("{path} "), into);
    }
}

#[test]
fn the_help_of_every_verb_has_an_example_that_is_one() {
    let mut all = Vec::new();
    verbs(&command(), "", &mut all);
    assert!(all.len() > 12);
    for (path, mut verb) in all {
        let help = verb.render_long_help().to_string();
        let (_, examples) = help
            .split_once("\nExample")
            .unwrap_or_else(|| panic!("{path} --help has no example:\n{help}"));
        let examples: Vec<_> = examples.lines().filter_map(words).collect();
        let command_line = |words: &Vec<String>| words.join(" ").starts_with(&path);
        assert!(examples.iter().any(command_line), "{path}: {examples:?}");
        for words in examples {
            if let Some(error) = refused(&words) {
                panic!("{path} --help: {words:?}: {error}");
            }
        }
    }
}

#[test]
fn every_verb_has_a_manual_page_and_completions() {
    let directory = tempfile::tempdir().unwrap();
    bridgehead::cli::write_manual(directory.path()).unwrap();
    let mut completions = Vec::new();
    let bash = clap_complete::Shell::Bash;
    clap_complete::generate(bash, &mut command(), "bridgehead", &mut completions);
    let completions = String::from_utf8(completions).unwrap();
    let mut all = Vec::new();
    verbs(&command(), "", &mut all);
    for (path, verb) in all {
        let name = format!("{}.1", path.replace(' ', "-"));
        let page = fs::read_to_string(directory.path().join(&name))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(".SH SYNOPSIS"), "{name}: {page}");
        for section in ["EXAMPLES", "EXIT STATUS"] {
            assert!(page.contains(section), "{name}: {page}");
        }
        assert!(
            !page.contains("EXTRA") && !page.contains(".SH EXAMPLES\n.nf\n.fi"),
            "{name}: {page}"
        );
        let above = path
            .rsplit_once(' ')
            .map(|(above, _)| above.replace(' ', "\\-"));
        let sees = above.is_none_or(|above| page.contains(&format!("{above}(1)")));
        assert!(sees, "{name}: {page}");
        let has_files = verb
            .get_arguments()
            .any(|one| one.get_id() == "inventory" || one.get_id() == "state");
        assert_eq!(page.contains(".SH FILES"), has_files, "{name}: {page}");
        assert!(completions.contains(verb.get_name()), "{path}");
    }
}

#[test]
fn exit_codes_are_told_alike_everywhere() {
    let code = |exit: &Exit| format!("{} {}", *exit as u8, exit.words());
    let codes: Vec<_> = Exit::ALL.iter().map(code).collect();
    let line = format!("Exit codes: {}.", codes.join(", "));
    let help = command().render_help().to_string();
    assert!(help.contains(&line), "{line}: {help}");
    let readme = fs::read_to_string("README.md").unwrap();
    assert!(readme.contains(&line), "{line}");
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let pages = pages();
    let mut seen = 0;
    for page in &pages {
        let prose = page.prose();
        let links = prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.path.clone(),
                file => page.path.parent().unwrap().join(file),
            };
            let place = format!("{}: {link}", page.name());
            let target =
                fs::canonicalize(&target).unwrap_or_else(|error| panic!("{place}: {error}"));
            if !anchor.is_empty() {
                let other = pages.iter().find(|page| page.path == target);
                let anchors = other.unwrap_or_else(|| panic!("{place}")).anchors();
                assert!(anchors.iter().any(|known| known == anchor), "{place}");
            }
        }
    }
    assert!(seen > 20, "{seen}");
}
