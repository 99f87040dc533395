//! Several hosts changed by one edit: one reading, one writing, and one reload of whoever serves the file.
//!
//! What fits is written, and the rest is left out with a reason each: of a rack that is switched on together one
//! machine's fault must not keep the others from their names.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::file::{Original, Turn};
use super::pieces::{Kind, Meaning, Piece};
use super::splice::{self, Splice};
use super::target::{Target, target};
use super::{Assignment, EditError, Edited, Verb, kept, written};
use crate::diagnostic::{Diagnostics, Severity};
use crate::inventory::load::{Loaded, load_again, load_edited};
use crate::inventory::model::Inventory;
use crate::inventory::outline::Changes;

/// No further text is tried so long after an edit was asked for: each is read as an inventory, which takes half a second
/// of ten thousand hosts. With the ten seconds that it may wait for another writer that is less than the daemon waits.
const TRIES_WITHIN: Duration = Duration::from_secs(6);

/// An edit of several hosts that was made, or would be.
#[derive(Debug)]
pub struct Several {
    /// What it does.
    pub edited: Edited,
    /// Those that were left out, by their places in what was wanted.
    pub left_out: Vec<(usize, EditError)>,
}

/// One of them.
struct Part {
    /// In what was wanted.
    place: usize,
    target: Target,
    values: Vec<Assignment>,
}

/// Sets the values of several hosts of one file, by their names, in one edit, and writes it unless `dry_run`. Whom
/// `wanted` gives no values, or whose values do not fit, is left out.
///
/// # Errors
/// [`EditError`]: then nothing was written.
pub fn edit_several(
    inventory: &Path,
    wanted: impl FnOnce(&Inventory) -> Vec<(String, Result<Vec<Assignment>, EditError>)>,
    dry_run: bool,
) -> Result<Several, EditError> {
    edit_until(inventory, wanted, dry_run, Instant::now() + TRIES_WITHIN)
}

pub(super) fn edit_until(
    inventory: &Path,
    wanted: impl FnOnce(&Inventory) -> Vec<(String, Result<Vec<Assignment>, EditError>)>,
    dry_run: bool,
    until: Instant,
) -> Result<Several, EditError> {
    let _turn = Turn::take(inventory)?;
    let loaded = load_again(inventory).map_err(|faulty| EditError::Faulty(faulty.found))?;
    let wanted = wanted(&loaded.inventory);
    let (parts, mut left_out) = parts(inventory, &loaded.inventory, wanted);
    let file = parts.first().map(|part| part.target.file.clone());
    let file = file.unwrap_or_else(|| inventory.to_owned());
    let original = Original::read(&file, &loaded.seen)?;
    let old = loaded.inventory.outline();
    let (text, new) = most(inventory, &original, &parts, loaded, until, &mut left_out);
    let rewritten = text != original.text;
    let changes = match rewritten {
        true => old.changes(&new.inventory.outline()),
        false => Changes::default(),
    };
    let edited = Edited {
        file,
        changes,
        rewritten,
        caution: None,
        warnings: new.warnings,
        sources: new.sources,
    };
    let edited = kept(edited, &original, &text, dry_run)?;
    Ok(Several { edited, left_out })
}

type LeftOut = Vec<(usize, EditError)>;

/// Where each takes place; in one file, for no two are replaced together.
fn parts(
    inventory: &Path,
    old: &Inventory,
    wanted: Vec<(String, Result<Vec<Assignment>, EditError>)>,
) -> (Vec<Part>, LeftOut) {
    let (mut parts, mut left_out) = (Vec::<Part>::new(), Vec::new());
    for (place, (host, values)) in wanted.into_iter().enumerate() {
        let found = values.and_then(|values| target(old, inventory, Verb::Set, &host, values));
        match (found, parts.first()) {
            (Err(why), _) => left_out.push((place, why)),
            (Ok((target, _)), Some(first)) if target.file != first.target.file => {
                let (here, there) = (first.target.file.display(), target.file.display());
                let why =
                    format!("{host} stands in {there}, and the others of this edit in {here}");
                left_out.push((place, EditError::Unfit(why)));
            }
            (Ok((target, values)), _) => parts.push(Part {
                place,
                target,
                values,
            }),
        }
    }
    (parts, left_out)
}

/// The text with as many of them as fit, and the inventory that it says. All at once, then without those that its faults
/// point at; where those point at nobody, the larger pieces first, as one that does not fit spoils only its own.
fn most(
    inventory: &Path,
    original: &Original,
    parts: &[Part],
    old: Loaded,
    until: Instant,
    left_out: &mut LeftOut,
) -> (String, Loaded) {
    let (mut text, mut loaded) = (original.text.clone(), old);
    let mut open = vec![writable(&text, parts, left_out)];
    let mut late = false;
    while let Some(some) = take_largest(&mut open) {
        if late {
            left_out.extend(some.iter().map(|part| (part.place, EditError::Late)));
            continue;
        }
        match tried(inventory, original, &text, &some) {
            Ok(new) => (text, loaded) = new,
            Err(why) => open.extend(without_faulty(some, why, left_out)),
        }
        late = Instant::now() >= until;
    }
    (text, loaded)
}

fn take_largest<'p>(open: &mut Vec<Vec<&'p Part>>) -> Option<Vec<&'p Part>> {
    open.retain(|some| !some.is_empty());
    let largest = (0..open.len()).max_by_key(|at| open[*at].len())?;
    Some(open.swap_remove(largest))
}

/// Of some that do not fit together, what is to be tried next.
fn without_faulty<'p>(
    some: Vec<&'p Part>,
    why: EditError,
    left_out: &mut LeftOut,
) -> Vec<Vec<&'p Part>> {
    let mut faults = match &why {
        EditError::Refused(found) => faults_at(found, &some),
        _ => HashMap::new(),
    };
    match &some[..] {
        [one] => {
            left_out.push((one.place, faults.remove(&one.place).unwrap_or(why)));
            Vec::new()
        }
        // Whose fault is it?
        several if faults.is_empty() => {
            let (first, second) = several.split_at(several.len() / 2);
            vec![first.to_vec(), second.to_vec()]
        }
        _ => {
            let mut rest = some;
            rest.retain(|part| !faults.contains_key(&part.place));
            left_out.extend(faults);
            vec![rest]
        }
    }
}

/// Those whose new value stands where a fault points, by their places, with that fault.
fn faults_at(found: &Diagnostics, parts: &[&Part]) -> HashMap<usize, EditError> {
    let values = |part: &&Part| {
        let values = part.values.iter().filter_map(|one| one.value.as_deref());
        let place = part.place;
        values
            .map(move |value| (unquoted(value).to_owned(), place))
            .collect::<Vec<_>>()
    };
    let places: HashMap<String, usize> = parts.iter().flat_map(values).collect();
    let mut faults = HashMap::new();
    for fault in found
        .iter()
        .filter(|fault| fault.severity == Severity::Error)
    {
        let texts = fault
            .labels
            .iter()
            .filter_map(|label| found.sources().at(label));
        for place in texts.filter_map(|text| places.get(unquoted(text))) {
            let words = || EditError::Unfit(fault.message.clone());
            faults.entry(*place).or_insert_with(words);
        }
    }
    faults
}

fn unquoted(text: &str) -> &str {
    text.trim_matches(['"', '\''])
}

/// Those whose place in the text can be written; each of the others has a reason of its own.
fn writable<'p>(text: &str, parts: &'p [Part], left_out: &mut LeftOut) -> Vec<&'p Part> {
    let root = Piece::of(text);
    let mut fits = Vec::new();
    for part in parts {
        let alone = match &root {
            Some(root) => changes(text, root, &[part]).map(|_| ()),
            None => Err(part.target.too_hard("it can't be taken apart")),
        };
        match alone {
            Ok(()) => fits.push(part),
            Err(why) => left_out.push((part.place, why)),
        }
    }
    fits
}

fn tried(
    inventory: &Path,
    original: &Original,
    text: &str,
    parts: &[&Part],
) -> Result<(String, Loaded), EditError> {
    let target = &parts[0].target;
    let root = target.root(text)?;
    let (splices, meanings): (Vec<_>, Vec<_>) = changes(text, &root, parts)?.into_iter().unzip();
    let wanted = meanings.into_iter();
    let wanted = wanted.fold(root.meaning(), |all, (path, new)| {
        all.with(&path, new.as_ref())
    });
    let text = splice::together(text, splices);
    if target.root(&text)?.meaning() != wanted {
        return Err(target.too_hard("the edit would change something else, too"));
    }
    let loaded = load_edited(inventory, &original.path, &text).map_err(EditError::Refused)?;
    Ok((text, loaded))
}

/// What is to be replaced, and what that means: at a path of keys another value, or none.
type Change = (Splice, (Vec<String>, Option<Meaning>));

fn changes(text: &str, root: &Piece, parts: &[&Part]) -> Result<Vec<Change>, EditError> {
    let hosts = root.member("hosts").map(|member| &member.value);
    let mut changes = Vec::new();
    for (target, values) in by_key(parts) {
        let host = hosts.and_then(|hosts| hosts.member(&target.key));
        let host = host.map(|member| &member.value);
        let host = host.ok_or_else(|| target.too_hard("the host is not where it was"))?;
        for Assignment { path, value } in joined(host, values)? {
            let written = value.as_deref().map(written).transpose()?;
            let splice = match &written {
                Some(written) => splice::set(text, host, &path, written),
                None => splice::unset(text, host, &path),
            };
            let splice = splice.map_err(|why| target.too_hard(why.0))?;
            let at = [&["hosts".to_owned(), target.key.clone()][..], &path].concat();
            changes.push((splice, (at, written.map(|written| written.meaning))));
        }
    }
    Ok(changes)
}

/// The values of hosts that one range has in common, together.
fn by_key<'p>(parts: &[&'p Part]) -> Vec<(&'p Target, Vec<&'p Assignment>)> {
    let mut keys: HashMap<&str, usize> = HashMap::new();
    let mut found: Vec<(&Target, Vec<&Assignment>)> = Vec::new();
    for part in parts {
        let at = *keys.entry(&part.target.key).or_insert(found.len());
        if at == found.len() {
            found.push((&part.target, Vec::new()));
        }
        found[at].1.extend(&part.values);
    }
    found
}

/// What goes below a key that is not there yet, in one piece: `macs.kvm01=…` and `macs.kvm02=…`.
fn joined(host: &Piece, values: Vec<&Assignment>) -> Result<Vec<Assignment>, EditError> {
    let lacks = |key: &str| match host.member(key).map(|member| &member.value.kind) {
        Some(Kind::Mapping(members)) => members.is_empty(),
        Some(Kind::Sequence(_)) => false,
        Some(Kind::Scalar { .. }) | None => true,
    };
    let mut joined: Vec<Assignment> = Vec::new();
    for value in values {
        let ([key, item], Some(new)) = (&value.path[..], &value.value) else {
            joined.push(value.clone());
            continue;
        };
        if !lacks(key) {
            joined.push(value.clone());
            continue;
        }
        let pair = format!("{item}: {}}}", written(new)?.text);
        let mut before = joined.iter_mut().filter(|one| one.path == [key.clone()]);
        match before.find_map(|one| one.value.as_mut()) {
            Some(map) => {
                map.pop();
                *map += &format!(", {pair}");
            }
            None => joined.push(Assignment {
                path: vec![key.clone()],
                value: Some(format!("{{{pair}")),
            }),
        }
    }
    Ok(joined)
}

#[cfg(test)]
mod tests;
