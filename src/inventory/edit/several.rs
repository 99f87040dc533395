//! Several hosts changed by one edit: one reading, one writing, and one reload of whoever serves the file.
//!
//! What fits is written, and the rest is left out with a reason each: of a rack that is switched on together one
//! machine's fault must not keep the others from their names.

use std::collections::HashMap;
use std::path::Path;

use super::file::{Original, Turn};
use super::pieces::{Kind, Meaning, Piece};
use super::splice::{self, Splice};
use super::{Assignment, EditError, Edited, Target, Verb, kept, target, written};
use crate::inventory::load::{Loaded, load_again, load_edited};
use crate::inventory::model::Inventory;
use crate::inventory::outline::Changes;

/// New texts that one edit tries, each of which is read as an inventory: enough to find one host of some hundred that
/// does not fit, and few enough that others who edit may wait for it.
const TRIES: usize = 16;

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
    let _turn = Turn::take(inventory)?;
    let loaded = load_again(inventory).map_err(|faulty| EditError::Faulty(faulty.found))?;
    let wanted = wanted(&loaded.inventory);
    let (parts, mut left_out) = parts(inventory, &loaded.inventory, wanted);
    let file = parts.first().map(|part| part.target.file.clone());
    let file = file.unwrap_or_else(|| inventory.to_owned());
    let original = Original::read(&file, &loaded.seen)?;
    let old = loaded.inventory.outline();
    let (text, new) = most(inventory, &original, &parts, loaded, &mut left_out);
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

/// The text with as many of them as fit, and the inventory that it says.
fn most(
    inventory: &Path,
    original: &Original,
    parts: &[Part],
    old: Loaded,
    left_out: &mut LeftOut,
) -> (String, Loaded) {
    let (mut text, mut loaded) = (original.text.clone(), old);
    let (fit, mut tries) = (writable(&text, parts, left_out), 0);
    let mut open = vec![&fit[..]];
    while let Some(some) = open.pop().filter(|some| !some.is_empty()) {
        tries += 1;
        let tried = match tries <= TRIES {
            true => tried(inventory, original, &text, some),
            false => Err(EditError::Unfit(
                "others of the same edit do not fit; that is tried again".to_owned(),
            )),
        };
        match (tried, some) {
            (Ok(new), _) => (text, loaded) = new,
            (Err(why), [one]) => left_out.push((one.place, why)),
            // Whose fault is it?
            (Err(_), several) => {
                let (first, second) = several.split_at(several.len() / 2);
                open.extend([second, first]);
            }
        }
    }
    (text, loaded)
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
