//! The trees of several files to one, as if all stood in the first.

use super::faults::Faults;
use super::tree::{Entry, Kind, Node, mark_duplicates};

/// What included files may add to.
const SECTIONS: [&str; 3] = ["networks", "profiles", "hosts"];
/// What is said once, and where everybody looks for it.
const FIRST_ONLY: [&str; 4] = ["site", "server", "unknown", "secrets"];

/// Lays the trees of included files into the first one.
pub(super) fn merge<'i>(
    mut first: Node<'i>,
    included: Vec<Node<'i>>,
    faults: &mut Faults,
) -> Node<'i> {
    if included.is_empty() {
        return first;
    }
    // What it is instead is reported by whoever reads it.
    let Kind::Mapping(entries) = &mut first.kind else {
        return first;
    };
    for root in included {
        match root.kind {
            Kind::Mapping(added) => added
                .into_iter()
                .filter(|entry| !entry.duplicate)
                .for_each(|entry| add(entries, entry, faults)),
            Kind::Refused => {}
            Kind::Scalar(scalar) if scalar.is_null() => {}
            _ => wrong_type("an included file", &root, faults),
        }
    }
    for entry in entries.iter_mut() {
        if let (true, Kind::Mapping(entries)) = (is_section(entry), &mut entry.node.kind) {
            mark_duplicates(entries, faults);
        }
    }
    first
}

fn is_section(entry: &Entry<'_>) -> bool {
    SECTIONS.contains(&&*entry.key.text)
}

fn add<'i>(entries: &mut Vec<Entry<'i>>, added: Entry<'i>, faults: &mut Faults) {
    if added.key.text == "include" {
        return;
    }
    if FIRST_ONLY.contains(&&*added.key.text) {
        let message = format!("`{}` stands in an included file", added.key.text);
        let help = "move it to the first file: it is said once";
        faults.error("inventory::include", added.key_span, message, "", help);
        return;
    }
    let known = |entry: &&mut Entry<'i>| entry.key.text == added.key.text && !entry.duplicate;
    let Some(known) = entries
        .iter_mut()
        .find(known)
        .filter(|_| is_section(&added))
    else {
        // A section that is new, or a stranger that is reported with all others.
        entries.push(added);
        return;
    };
    if added.node.is_null() {
        return;
    }
    if known.node.is_null() {
        known.node = added.node;
        return;
    }
    match (&mut known.node.kind, added.node.kind) {
        (Kind::Mapping(entries), Kind::Mapping(added)) => entries.extend(added),
        (Kind::Mapping(_), kind) => {
            let node = Node { kind, ..added.node };
            wrong_type(&format!("`{}`", added.key.text), &node, faults);
        }
        // The first file's is no map, and that is reported.
        _ => {}
    }
}

fn wrong_type(what: &str, node: &Node<'_>, faults: &mut Faults) {
    let message = format!("{what} must be a map of `key: value`");
    let help = "write lines of `key: value` below it";
    faults.error("inventory::wrong_type", node.span, message, "", help);
}
