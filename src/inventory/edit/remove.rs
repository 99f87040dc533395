//! Takes hosts out of the operator's file.
//!
//! One of a range leaves the others with the addresses, racks and units that they have: the range is written as several,
//! each of which begins where its first host is. Whether that is what they say is read back, and not assumed.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::file::{Original, Turn};
use super::pieces::{Kind, Member, Piece};
use super::splice::{self, flow_member, line_end, line_start, next_line};
use super::{EditError, Edited, kept, tried};
use crate::inventory::hostlist::{Counted, mac_plus};
use crate::inventory::load::load_again;
use crate::inventory::model::{Host, Inventory, MacAddr};
use crate::inventory::outline::{Changes, Fate};
use crate::inventory::suggest::did_you_mean;

/// Takes these hosts out of the one file in which they stand, and writes it unless `dry_run`.
///
/// # Errors
/// [`EditError`]: then nothing was written.
pub fn remove(inventory: &Path, names: &[String], dry_run: bool) -> Result<Edited, EditError> {
    let _turn = Turn::take(inventory)?;
    let loaded = load_again(inventory).map_err(|faulty| EditError::Faulty(faulty.found))?;
    let old = loaded.inventory;
    let gone = hosts(&old, names)?;
    let file = one_file(&gone)?;
    let original = Original::read(&file, &loaded.seen)?;
    let too_hard = |why: String| EditError::TooHard {
        file: file.clone(),
        why,
    };
    let text = without(&original.text, &old, &gone).map_err(too_hard)?;
    let edited = tried(inventory, &old, &original, file.clone(), &text)?;
    match is_all(&edited.changes, &gone) {
        true => kept(edited, &original, &text, dry_run),
        false => Err(too_hard("the other hosts would change, too".into())),
    }
}

fn hosts<'i>(inventory: &'i Inventory, names: &[String]) -> Result<Vec<&'i Host>, EditError> {
    let names: BTreeSet<&String> = names.iter().collect();
    let listed = |name: &&String| inventory.hosts.contains_key(*name);
    let missing: Vec<&str> = names
        .iter()
        .filter(|name| !listed(name))
        .map(|name| name.as_str())
        .collect();
    if let Some(first) = missing.first() {
        return Err(EditError::Unknown {
            name: missing.join(", "),
            help: did_you_mean(first, inventory.hosts.keys().map(String::as_str)),
        });
    }
    let hosts = names
        .into_iter()
        .filter_map(|name| inventory.hosts.get(name));
    Ok(hosts.map(AsRef::as_ref).collect())
}

/// An edit replaces one file, or none.
fn one_file(hosts: &[&Host]) -> Result<PathBuf, EditError> {
    let files: BTreeSet<&str> = hosts.iter().map(|host| &*host.origin.file).collect();
    let files: Vec<&str> = files.into_iter().collect();
    match files.as_slice() {
        [] => Err(EditError::Unfit("no host is named".into())),
        [file] => Ok(PathBuf::from(file)),
        several => Err(EditError::Unfit(format!(
            "these hosts stand in {}; remove those of one file at a time",
            several.join(" and ")
        ))),
    }
}

fn is_all(changes: &Changes, gone: &[&Host]) -> bool {
    let removed = |name: &str| gone.iter().any(|host| host.name == name);
    let mut all = changes.changes.iter();
    changes.changes.len() == gone.len()
        && all.all(|one| one.kind == "host" && one.fate == Fate::Removed && removed(&one.name))
}

/// What stands in the way, for a person.
type Hard = String;

/// The text without these hosts.
fn without(text: &str, inventory: &Inventory, gone: &[&Host]) -> Result<String, Hard> {
    let root = Piece::of(text).ok_or("it can't be taken apart")?;
    let hosts = root.member("hosts").map(|member| &member.value);
    let hosts = hosts.ok_or("the hosts are not where they were")?;
    let keys: BTreeSet<&str> = gone.iter().map(|host| &*host.key).collect();
    let mut edits = Vec::new();
    let mut leads = true;
    for (index, member) in hosts.members().iter().enumerate() {
        if !keys.contains(&*member.key) {
            leads = false;
            continue;
        }
        let left = left(inventory, member, gone);
        edits.push(match left.is_empty() {
            true => (whole(text, hosts, index, leads)?, String::new()),
            false => split(text, hosts, member, &left)?,
        });
        leads &= left.is_empty();
    }
    Ok(spliced(text, edits))
}

/// Each stretch of bytes replaced.
fn spliced(text: &str, edits: Vec<(Range<usize>, String)>) -> String {
    let (mut new, mut rest) = (String::new(), 0);
    for (range, words) in edits {
        new += text.get(rest..range.start).unwrap_or_default();
        new += &words;
        rest = rest.max(range.end);
    }
    new + &text[rest..]
}

/// The bytes of a host's entry and of nothing else: its lines, or it with a comma. `leads`: none stays before it.
fn whole(text: &str, hosts: &Piece, index: usize, leads: bool) -> Result<Range<usize>, Hard> {
    let members = hosts.members();
    let member = &members[index];
    if !hosts.is_flow(text) {
        let start = line_start(text, member.key_range.start);
        return Ok(start..next_line(text, member.end()));
    }
    let range = flow_member(members, index, leads);
    let gone = &text[range.clone()];
    match gone.contains('\n') && gone.contains('#') {
        true => Err(format!(
            "a comment beside `{}` may be about another host",
            member.key
        )),
        false => Ok(range),
    }
}

/// Hosts of a range that stay, side by side, and the place of the first.
struct Run<'i> {
    names: Counted,
    index: u32,
    hosts: Vec<&'i Host>,
    /// How many hosts of its switch come before the first.
    below: u32,
}

/// What stays of a range, in runs: each at one rack and one switch where the range has several.
fn left<'i>(inventory: &'i Inventory, member: &Member, gone: &[&Host]) -> Vec<Run<'i>> {
    let Some(names) = Counted::parse(&member.key) else {
        return Vec::new();
    };
    let mut runs: Vec<Run<'i>> = Vec::new();
    let (mut open, mut at_switch) = (false, (None, 0));
    for index in 0..names.count {
        let host = inventory.hosts.get(&names.name(index));
        let switch = host.and_then(|host| host.plug.as_ref());
        let switch = switch.map(|plug| &*plug.switch.value);
        if at_switch.0 != switch {
            at_switch = (switch, index);
        }
        let host = host.filter(|host| gone.iter().all(|gone| gone.name != host.name));
        let Some(host) = host else {
            open = false;
            continue;
        };
        match runs.last_mut() {
            Some(run) if open && run.takes(host) => run.hosts.push(host),
            _ => runs.push(Run {
                names: names.clone(),
                index,
                hosts: vec![host],
                below: index - at_switch.1,
            }),
        }
        open = true;
    }
    runs
}

impl Run<'_> {
    fn takes(&self, host: &Host) -> bool {
        let switch = |host: &Host| host.plug.as_ref().map(|plug| plug.switch.value.clone());
        let last = self.hosts.last();
        last.is_some_and(|last| last.rack == host.rack && switch(last) == switch(host))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.hosts.len()).unwrap_or(u32::MAX)
    }

    /// What stands below a key of the entry from now on; `None`: as it stands.
    fn value(&self, member: &Member) -> Option<Change> {
        let first = self.hosts.first()?;
        let plug = first.plug.as_ref();
        let text = match &*member.key {
            "ip" => Some(first.ip.to_string()),
            "unit" => first.unit.map(|unit| unit.to_string()),
            "rack" => first.rack.clone(),
            "switch" => plug.map(|plug| plug.switch.to_string()),
            "port" => {
                Counted::parse(scalar(member)?).map(|ports| ports.part(self.below, self.count()))
            }
            "mac" => self.mac(scalar(member)?),
            "macs" => return Some(self.each(member, "mac", mac)),
            "serials" => return Some(self.each(member, "serial", serial)),
            _ => return None,
        };
        Some(Change::Value(text?))
    }

    /// That of its first host, if they count up.
    fn mac(&self, base: &str) -> Option<String> {
        let base: MacAddr = base.parse().ok()?;
        match self.hosts.as_slice() {
            [host] => mac(host),
            _ => mac_plus(base, self.index).map(|mac| mac.to_string()),
        }
    }

    /// What each host has for itself: as many of a list, those that are named of a map.
    fn each(&self, member: &Member, one: &str, of: impl Fn(&Host) -> Option<String>) -> Change {
        let quoted = |host: &&Host| Some((host.name.clone(), written(&of(host)?)?));
        let own = self.hosts.iter().filter_map(quoted);
        match &member.value.kind {
            Kind::Mapping(named) => {
                let own: Vec<_> = own
                    .filter(|(name, _)| named.iter().any(|known| known.key == *name))
                    .collect();
                match (own.as_slice(), self.hosts.len()) {
                    ([], _) => Change::Gone,
                    ([(_, value)], 1) => Change::Renamed(one.to_owned(), value.clone()),
                    _ => {
                        let pairs = own.iter().map(|(name, value)| format!("{name}: {value}"));
                        Change::Text(format!("{{{}}}", pairs.collect::<Vec<_>>().join(", ")))
                    }
                }
            }
            _ => {
                let values: Vec<_> = own.map(|(_, value)| value).collect();
                Change::Text(format!("[{}]", values.join(", ")))
            }
        }
    }
}

fn mac(host: &Host) -> Option<String> {
    host.macs.first().map(|mac| mac.to_string())
}

fn serial(host: &Host) -> Option<String> {
    host.serial.as_ref().map(|serial| serial.to_string())
}

/// What becomes of a key.
enum Change {
    /// Its value is this text, in quotes where it needs some.
    Value(String),
    /// Its value is this YAML.
    Text(String),
    /// It is another key, with this YAML.
    Renamed(String, String),
    /// It is taken out.
    Gone,
}

fn scalar(member: &Member) -> Option<&str> {
    match &member.value.kind {
        Kind::Scalar { text, .. } => Some(text),
        _ => None,
    }
}

fn written(value: &str) -> Option<String> {
    splice::written(value).map(|written| written.text)
}

/// The range's entry, once for each run.
fn split(
    text: &str,
    hosts: &Piece,
    member: &Member,
    runs: &[Run<'_>],
) -> Result<(Range<usize>, String), Hard> {
    let flow = hosts.is_flow(text);
    let range = match flow {
        true => member.key_range.start..member.end(),
        false => line_start(text, member.key_range.start)..next_line(text, member.end()),
    };
    let entries = runs.iter().map(|run| entry(text, &range, member, run));
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    if !flow && let Some((_, before)) = entries.split_last_mut() {
        let open = before.iter_mut().filter(|entry| !entry.ends_with('\n'));
        open.for_each(|entry| *entry += line_end(text));
    }
    Ok((range, entries.join(if flow { ", " } else { "" })))
}

/// The text of the range's entry, as one of the runs has it.
fn entry(text: &str, range: &Range<usize>, member: &Member, run: &Run<'_>) -> Result<String, Hard> {
    let key = &text[member.key_range.clone()];
    let name = run.names.part(run.index, run.count());
    let mut edits = vec![(member.key_range.clone(), key.replace(&member.key, &name))];
    for (index, value) in member.value.members().iter().enumerate() {
        edits.extend(match &*value.key {
            "nics" | "addresses" => below(text, value, run)?,
            _ => one(text, &member.value, index, run)?,
        });
    }
    let shift =
        |(at, words): (Range<usize>, String)| (at.start - range.start..at.end - range.start, words);
    let edits = edits.into_iter().map(shift).collect();
    Ok(spliced(&text[range.clone()], edits))
}

type Edits = Vec<(Range<usize>, String)>;

/// What becomes of one key of the entry.
fn one(text: &str, entry: &Piece, index: usize, run: &Run<'_>) -> Result<Edits, Hard> {
    let member = &entry.members()[index];
    let Some(change) = run.value(member) else {
        return Ok(Vec::new());
    };
    let value = member.value.range.clone();
    let hard = || several_lines(member);
    Ok(match change {
        Change::Value(new) => vec![plain(text, member, &new)?],
        Change::Gone if entry.is_flow(text) => {
            let is_gone = |before: &Member| matches!(run.value(before), Some(Change::Gone));
            let leads = entry.members()[..index].iter().all(is_gone);
            let range = flow_member(entry.members(), index, leads);
            vec![(on_one_line(text, range).ok_or_else(hard)?, String::new())]
        }
        Change::Gone => {
            let lines = line_start(text, member.key_range.start)..next_line(text, member.end());
            let inner = member.key_range.start..member.end();
            on_one_line(text, inner).ok_or_else(hard)?;
            vec![(lines, String::new())]
        }
        Change::Text(new) => vec![(on_one_line(text, value).ok_or_else(hard)?, new)],
        Change::Renamed(key, new) => vec![
            (member.key_range.clone(), key),
            (on_one_line(text, value).ok_or_else(hard)?, new),
        ],
    })
}

/// NICs and addresses of a range, which count up by their names.
fn below(text: &str, map: &Member, run: &Run<'_>) -> Result<Edits, Hard> {
    let first = run.hosts.first();
    let value = |member: &Member| {
        let (name, first) = (&*member.key, first?);
        match &*map.key {
            "nics" => first.nics.get(name).map(|mac| mac.to_string()),
            _ => first.addresses.get(name).map(|at| at.to_string()),
        }
    };
    let members = map.value.members().iter();
    let edits = members.filter_map(|member| Some(plain(text, member, &value(member)?)));
    edits.collect()
}

fn plain(text: &str, member: &Member, new: &str) -> Result<(Range<usize>, String), Hard> {
    let range = on_one_line(text, member.value.range.clone());
    let new = written(new);
    range.zip(new).ok_or_else(|| several_lines(member))
}

fn on_one_line(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    (!range.is_empty() && !text[range.clone()].contains('\n')).then_some(range)
}

fn several_lines(member: &Member) -> Hard {
    format!("`{}` stands on several lines", member.key)
}

#[cfg(test)]
mod tests;
