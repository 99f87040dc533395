//! Changes of a YAML text that touch nothing else: each is one stretch of bytes replaced.

use std::ops::Range;

use super::super::scalars::misread;
use super::pieces::{Kind, Meaning, Member, Piece};

/// Why a text can't be changed here; a person can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TooHard(pub(super) String);

/// A stretch of bytes, and what is to stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Splice {
    range: Range<usize>,
    new: String,
}

impl Splice {
    fn new(range: Range<usize>, new: impl Into<String>) -> Self {
        let new = new.into();
        Self { range, new }
    }
}

/// The text with each of them; of several at one place the first comes first.
pub(super) fn together(text: &str, mut splices: Vec<Splice>) -> String {
    splices.sort_by_key(|splice| splice.range.start);
    let (mut new, mut rest) = (String::with_capacity(text.len()), 0);
    for splice in splices {
        // What overlaps changes more than it should, which is found in what the text means then.
        new += text.get(rest..splice.range.start).unwrap_or_default();
        new += &splice.new;
        rest = rest.max(splice.range.end);
    }
    new + &text[rest..]
}

/// One value as it will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) text: String,
    pub(super) meaning: Meaning,
}

/// What the operator gave, as YAML: lists and maps as they are, a text in quotes where it needs
/// some. `None`: it has brackets or quotes, and is no YAML.
pub(super) fn written(value: &str) -> Option<Written> {
    let keeps = |text: &str| {
        let root = Piece::of(&format!("{{k: {text}}}"))?;
        let [member] = root.members() else {
            return None;
        };
        let whole = member.value.range.len() == text.len();
        whole.then(|| member.value.meaning())
    };
    if value.starts_with(['[', '{', '"', '\'']) {
        let text = value.trim_end().to_owned();
        let meaning = keeps(&text)?;
        return Some(Written { text, meaning });
    }
    let text = Meaning::Text(value.to_owned());
    let plain = keeps(value).filter(|meaning| *meaning == text && !wants_quotes(value));
    let quoted = || serde_json::to_string(value).ok();
    Some(Written {
        text: plain.map_or_else(quoted, |_| Some(value.to_owned()))?,
        meaning: text,
    })
}

/// Whether another reader takes it for something else; `true` and the like are meant as such.
fn wants_quotes(value: &str) -> bool {
    value.contains([':', '#', '@']) || misread(value).is_some_and(|what| what != "a boolean")
}

/// Writes a value at a path of keys below a map.
pub(super) fn set(
    text: &str,
    map: &Piece,
    path: &[String],
    value: &Written,
) -> Result<Splice, TooHard> {
    let Some((key, rest)) = path.split_first() else {
        return Err(TooHard("no key is named".into()));
    };
    match map.member(key) {
        Some(member) if rest.is_empty() => replace(text, member, &value.text),
        Some(member) if matches!(member.value.kind, Kind::Mapping(_)) => {
            set(text, &member.value, rest, value)
        }
        Some(member) => match &member.value.kind {
            Kind::Sequence(items) => set_item(key, items, rest, value),
            _ => replace(text, member, &nested(rest, &value.text)),
        },
        None => insert(text, map, &pair(path, &value.text)),
    }
}

/// Writes an item of a list, by its number from 0.
fn set_item(
    key: &str,
    items: &[Piece],
    path: &[String],
    value: &Written,
) -> Result<Splice, TooHard> {
    let [index] = path else {
        return Err(TooHard(format!("`{key}` is a list")));
    };
    let item = index.parse().ok().and_then(|index: usize| items.get(index));
    let plain = item.filter(|item| matches!(item.kind, Kind::Scalar { block: false, .. }));
    match plain {
        Some(item) => Ok(Splice::new(item.range.clone(), &*value.text)),
        None => Err(TooHard(format!(
            "`{key}` is a list without a plain item {index}"
        ))),
    }
}

/// Takes a key out; what is not there is left as it is.
pub(super) fn unset(text: &str, map: &Piece, path: &[String]) -> Result<Splice, TooHard> {
    let Some((key, rest)) = path.split_first() else {
        return Err(TooHard("no key is named".into()));
    };
    let Some(index) = map.members().iter().position(|member| member.key == *key) else {
        return Ok(Splice::new(0..0, ""));
    };
    let member = &map.members()[index];
    if !rest.is_empty() {
        return unset(text, &member.value, rest);
    }
    if map.is_flow(text) {
        let range = flow_member(map.members(), index, false);
        let gone = &text[range.clone()];
        // A comment ends its line, and may be another key's.
        if gone.contains('\n') && gone.contains('#') {
            return Err(several_lines(member));
        }
        return Ok(Splice::new(range, ""));
    }
    if map.members().len() == 1 {
        return Err(TooHard(format!("`{key}` is all that stands there")));
    }
    if text[member.key_range.start..member.end()].contains('\n') {
        return Err(several_lines(member));
    }
    let start = line_start(text, member.key_range.start);
    Ok(Splice::new(start..next_line(text, member.end()), ""))
}

/// The bytes of a member of a map in braces, with one of the commas beside it: the one before, or where it `leads` those
/// that stay, the one behind.
pub(super) fn flow_member(members: &[Member], index: usize, leads: bool) -> Range<usize> {
    let member = &members[index];
    let before = index.checked_sub(1).filter(|_| !leads);
    match (before, members.get(index + 1)) {
        (Some(before), _) => members[before].end()..member.end(),
        (None, Some(next)) => member.key_range.start..next.key_range.start,
        (None, None) => member.key_range.start..member.end(),
    }
}

/// Adds one line, `NAME: {…}`, at the end of a section, which may be missing.
pub(super) fn add(text: &str, root: &Piece, section: &str, line: &str) -> Result<Splice, TooHard> {
    match root.member(section) {
        None if root.is_flow(text) => insert(text, root, &format!("{section}: {{{line}}}")),
        None => {
            let end = line_end(text);
            let gap = if text.ends_with('\n') { "" } else { end };
            let new = format!("{gap}{end}{section}:{end}  {line}{end}");
            Ok(Splice::new(text.len()..text.len(), new))
        }
        Some(member) if member.value.is_null() => {
            let at = next_line(text, member.key_range.end);
            Ok(insert_line(text, at, &format!("  {line}")))
        }
        Some(member) => insert(text, &member.value, line),
    }
}

/// `a: {b: VALUE}` for the path `a.b`.
fn pair(path: &[String], value: &str) -> String {
    match path {
        [] => String::new(),
        [key] => format!("{key}: {value}"),
        [key, rest @ ..] => format!("{key}: {}", nested(rest, value)),
    }
}

fn nested(path: &[String], value: &str) -> String {
    format!("{{{}}}", pair(path, value))
}

fn replace(text: &str, member: &Member, value: &str) -> Result<Splice, TooHard> {
    let range = member.value.range.clone();
    let block = match &member.value.kind {
        Kind::Scalar { block, .. } => *block,
        _ => !member.value.is_flow(text),
    };
    if block || text[range.clone()].contains('\n') {
        return Err(several_lines(member));
    }
    if member.value.is_null() && range.is_empty() {
        return Err(TooHard(format!("`{}` has no value yet", member.key)));
    }
    Ok(Splice::new(range, value))
}

fn several_lines(member: &Member) -> TooHard {
    TooHard(format!(
        "`{}` stands on several lines, and a comment may be among them",
        member.key
    ))
}

/// Adds `KEY: VALUE` to a map, behind its last member.
fn insert(text: &str, map: &Piece, pair: &str) -> Result<Splice, TooHard> {
    let Kind::Mapping(members) = &map.kind else {
        return Err(TooHard("what stands there is no map".into()));
    };
    let flow = map.is_flow(text);
    match members.last() {
        None => {
            let first = map.range.start + 1;
            Ok(Splice::new(first..first, pair))
        }
        Some(last) if flow => {
            let end = last.end();
            Ok(Splice::new(end..end, format!(", {pair}")))
        }
        Some(last) => {
            let first = members.first().unwrap_or(last).key_range.start;
            let indent = &text[line_start(text, first)..first];
            if !indent.chars().all(|c| c == ' ') {
                return Err(TooHard("its keys don't begin their lines".into()));
            }
            let at = next_line(text, last.end());
            Ok(insert_line(text, at, &format!("{indent}{pair}")))
        }
    }
}

/// Puts a line where another begins, or behind the last.
fn insert_line(text: &str, at: usize, line: &str) -> Splice {
    let end = line_end(text);
    let gap = if text[..at].ends_with('\n') { "" } else { end };
    Splice::new(at..at, format!("{gap}{line}{end}"))
}

/// How the file's lines end.
pub(super) fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

pub(super) fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |at| at + 1)
}

/// Behind the line's break; where the place is the beginning of a line after one, there.
pub(super) fn next_line(text: &str, at: usize) -> usize {
    if at > 0 && text[..at].ends_with('\n') {
        return at;
    }
    text[at..].find('\n').map_or(text.len(), |end| at + end + 1)
}
