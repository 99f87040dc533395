//! Did-you-mean, and safe quoting of the operator's words.

/// Names compared with a misspelt one; more would make a hostile file slow.
const MAX_CANDIDATES: usize = 1000;

/// What people write who come from other tools, and our word for it.
const SYNONYMS: &[(&str, &str)] = &[
    ("address", "ip"),
    ("append", "cmdline"),
    ("args", "cmdline"),
    ("gateway", "router"),
    ("gw", "router"),
    ("hwaddr", "mac"),
    ("id", "vlan"),
    ("inherits", "extends"),
    ("initramfs", "initrd"),
    ("ipaddr", "ip"),
    ("ipv4", "ip"),
    ("kargs", "cmdline"),
    ("lease", "lease_time"),
    ("lustre", "image_pool"),
    ("members", "ports"),
    ("nameserver", "dns"),
    ("nameservers", "dns"),
    ("next_server", "server"),
    ("nodes", "hosts"),
    ("parent", "extends"),
    ("pool", "image_pool"),
    ("range", "pool"),
    ("routers", "router"),
    ("slaves", "ports"),
    ("vmlinuz", "kernel"),
    ("overlays", "files"),
    ("xmit_hash_policy", "hash"),
];

/// The candidate that the operator most likely meant.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    nearest_of_all(word, candidates.into_iter().take(MAX_CANDIDATES))
}

/// The same of any number: for one word that somebody typed, and not for all of a file.
pub(crate) fn nearest_of_all<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let plain = normal(word);
    let synonym = SYNONYMS.iter().find(|(theirs, _)| *theirs == plain);
    let distance = |candidate: &'c str| {
        let distance = strsim::osa_distance(&plain, &normal(candidate));
        let meant = synonym.is_some_and(|(_, ours)| *ours == candidate);
        (if meant { 0 } else { distance }, candidate)
    };
    // Long words can't be near anything, and the distance is quadratic in their length.
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    (word.len() <= 64)
        .then(|| candidates.into_iter().map(distance).min())
        .flatten()
        .filter(|(distance, _)| *distance <= allowed)
        .map(|(_, candidate)| candidate)
}

/// Case, the choice of `-` or `_`, and zeros in front of a number are no difference worth counting.
fn normal(word: &str) -> String {
    let mut plain = String::with_capacity(word.len());
    let mut letters = word.chars().peekable();
    while let Some(letter) = letters.next() {
        let in_number = plain.ends_with(|last: char| last.is_ascii_digit());
        let goes_on = letters.peek().is_some_and(char::is_ascii_digit);
        match letter {
            '0' if !in_number && goes_on => {}
            '-' => plain.push('_'),
            letter => plain.extend(letter.to_lowercase()),
        }
    }
    plain
}

/// `did you mean `x`?` if something is near, else the list of what is known.
pub(crate) fn did_you_mean<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str> + Clone,
) -> String {
    match nearest(word, candidates.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => known(candidates),
    }
}

/// `known: `a`, `b``, at most twelve of them.
pub(super) fn known<'c>(candidates: impl IntoIterator<Item = &'c str>) -> String {
    let mut names = candidates.into_iter();
    let shown: Vec<_> = names
        .by_ref()
        .take(12)
        .map(|name| format!("`{name}`"))
        .collect();
    let more = if names.next().is_some() { ", ..." } else { "" };
    if shown.is_empty() {
        String::from("there is none to choose from yet")
    } else {
        format!("known here: {}{more}", shown.join(", "))
    }
}

/// A text of the operator in backquotes, without control characters, cut to 60 characters.
pub(crate) fn quote(text: &str) -> String {
    if text.is_empty() {
        return String::from("an empty text");
    }
    let mut shown: String = text.chars().flat_map(show).take(60).collect();
    if text.chars().nth(60).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

fn show(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control().then(|| character.escape_default());
    let as_is = escaped.is_none().then_some(character);
    escaped.into_iter().flatten().chain(as_is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_too_many_is_found() {
        assert_eq!(nearest("macs", ["mac", "ip"]), Some("mac"));
        assert_eq!(nearest("adress", ["address", "ip"]), Some("address"));
        assert_eq!(nearest("kvm7", ["kvm17", "kvm07"]), Some("kvm07"));
        assert_eq!(nearest("on-failure", ["on_failure"]), Some("on_failure"));
    }

    #[test]
    fn another_tools_word_is_known() {
        assert_eq!(nearest("gateway", ["subnet", "router"]), Some("router"));
    }

    #[test]
    fn a_stranger_is_not_guessed() {
        assert_eq!(nearest("bios", ["mac", "ip", "profile"]), None);
        assert_eq!(nearest(&"x".repeat(10_000), ["mac"]), None);
    }

    #[test]
    fn quoting_hides_control_characters() {
        assert_eq!(quote("a\u{1b}[31m\n"), "`a\\u{1b}[31m\\n`");
        assert_eq!(quote(&"é".repeat(70)).chars().count(), 65);
    }
}
