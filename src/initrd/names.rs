//! Module names and the patterns of `modules.alias`.

/// The kernel's name for a module: `-` and `_` are the same (kernel,
/// `scripts/Makefile.lib`, `KBUILD_MODNAME`).
pub(crate) fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Canonical name of a module's file: `kernel/drivers/char/virtio-rng.ko.xz` is `virtio_rng`.
pub(crate) fn of_path(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (stem, suffix) = file.split_once(".ko")?;
    matches!(suffix, "" | ".gz" | ".xz" | ".zst").then(|| canonical(stem))
}

/// Whether a file name is a module's, compressed or not.
pub(crate) fn is_module_file(path: &str) -> bool {
    of_path(path).is_some()
}

/// `fnmatch` as kmod and BusyBox use it on aliases: `*`, `?`, `[a-z]`; no
/// escapes, no special `/`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last `*` has swallowed one byte more.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
        } else if let Some(next) = match_one(pattern, p, text[t]) {
            (p, t) = (next, t + 1);
        } else if let Some((after, swallowed)) = retry {
            (p, t) = (after, swallowed + 1);
            retry = Some((after, swallowed + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Matches one byte at `p`; the pattern's next index if it fits.
fn match_one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => match_class(pattern, p + 1, byte),
        literal => (literal == byte).then_some(p + 1),
    }
}

fn match_class(pattern: &[u8], start: usize, byte: u8) -> Option<usize> {
    let length = pattern.get(start..)?.iter().position(|b| *b == b']')?;
    let class = &pattern[start..start + length];
    let hit = match class {
        [b'!' | b'^', rest @ ..] => !in_class(rest, byte),
        rest => in_class(rest, byte),
    };
    hit.then_some(start + length + 1)
}

fn in_class(mut class: &[u8], byte: u8) -> bool {
    loop {
        class = match class {
            [] => return false,
            [low, b'-', high, rest @ ..] => {
                if (*low..=*high).contains(&byte) {
                    return true;
                }
                rest
            }
            [one, rest @ ..] => {
                if *one == byte {
                    return true;
                }
                rest
            }
        };
    }
}

/// The names in `candidates` most like `name`, best first, at most three.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<String> {
    const ALIKE: f64 = 0.84;
    let name = canonical(name);
    let mut scored: Vec<(f64, &str)> = candidates
        .map(|other| (strsim::jaro_winkler(&name, other), other))
        .filter(|(score, _)| *score >= ALIKE)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored
        .into_iter()
        .take(3)
        .map(|(_, other)| other.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_paths() {
        for (path, name) in [
            ("kernel/drivers/char/virtio-rng.ko", Some("virtio_rng")),
            ("igb.ko.zst", Some("igb")),
            ("igb.ko.xz", Some("igb")),
            ("igb.ko.gz", Some("igb")),
            ("igb.ko.debug", None),
            ("modules.dep", None),
        ] {
            assert_eq!(of_path(path).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, text, fits) in [
            ("crc32c", "crc32c", true),
            (
                "pci:v00008086d00001533sv*sd*bc*sc*i*",
                "pci:v00008086d00001533sv0sd0bc02sc00i00",
                true,
            ),
            (
                "pci:v00008086d00001533sv*",
                "pci:v00008086d00001534sv0",
                false,
            ),
            (
                "cpu:type:x86,ven*fam*mod*:feature:*0094*",
                "cpu:type:x86,ven0000fam0006mod0055:feature:,0000,0094,",
                true,
            ),
            ("dmi*:[bs]vn[A-C]x", "dmiz:svnBx", true),
            ("dmi*:[!bs]vn", "dmi:svn", false),
            ("mdio:00??", "mdio:0011", true),
            ("a*", "a", true),
            ("*", "", true),
            ("[", "[", false),
            ("*a*b*c*d", "aaaaabbbbbcccccx", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn nearest_names_are_ranked() {
        let known = ["igb", "igbvf", "igc", "ixgbe", "bridge"];
        let found = nearest("igbb", known.into_iter());
        assert_eq!(found.first().map(String::as_str), Some("igb"));
        assert!(nearest("zzz", known.into_iter()).is_empty());
    }
}
