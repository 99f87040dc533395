//! Hosts as an operator names them on a command line: `kvm07`, `kvm[01-16]`, `kvm[01-04,09]`, `kvm01,kvm07`.

use std::collections::HashSet;

use super::hostlist::Counted;
use super::suggest::quote;

/// No host's name is longer (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;
/// Hosts named at once, beyond any fleet served.
const MOST: usize = 20_000;

/// The names that these words stand for, each once, in their order. Whether there are such hosts is another question.
///
/// # Errors
/// What of them is no list of hosts, and how one is written.
pub(crate) fn named(words: &[String]) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for word in words {
        for item in split(word) {
            add(item, &mut names).ok_or_else(|| unreadable(word))?;
            if names.len() > MOST {
                return Err(format!(
                    "more than {MOST} hosts are named: name fewer at once"
                ));
            }
        }
    }
    let mut known = HashSet::new();
    names.retain(|name: &String| known.insert(name.clone()));
    Ok(names)
}

fn unreadable(word: &str) -> String {
    let word = quote(word);
    format!(
        "{word} is not a list of hosts: write kvm[01-16], kvm[01-04,09] or kvm01,kvm07, the lower number first"
    )
}

/// At commas outside brackets.
fn split(word: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    word.split(move |c| {
        inside = c == '[' || (inside && c != ']');
        c == ',' && !inside
    })
}

/// None if it is not to be read. What has no brackets may be a MAC: it is asked for as it is.
fn add(item: &str, names: &mut Vec<String>) -> Option<()> {
    let Some((prefix, rest)) = item.split_once('[') else {
        names.push(item.to_owned());
        return (!item.contains(']')).then_some(());
    };
    let (ranges, suffix) = rest.split_once(']')?;
    if prefix.len() + suffix.len() > LONGEST {
        return None;
    }
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let counted = Counted::parse(&format!("{prefix}[{first}-{last}]{suffix}"))?;
        names.extend((0..counted.count).map(|index| counted.name(index)));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Vec<String>, String> {
        named(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn lists_are_names_each_once_in_their_order() {
        assert_eq!(of(&["kvm[09-11]"]).unwrap(), ["kvm09", "kvm10", "kvm11"]);
        assert_eq!(
            of(&["b,a[1-2,7]-x", "b", "a1-x"]).unwrap(),
            ["b", "a1-x", "a2-x", "a7-x"]
        );
        // A MAC, a name in capitals, and what is nobody's name: others say what they are.
        assert_eq!(
            of(&["52:54:00:00:00:01", "KVM07", ""]).unwrap(),
            ["52:54:00:00:00:01", "KVM07", ""]
        );
        assert!(of(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_list_is_refused_and_so_is_a_fleet_of_fleets() {
        for word in [
            "kvm[16-01]",
            "kvm[]",
            "kvm[01-16",
            "kvm01-16]",
            "kvm[a-b]",
            "kvm[01-03,]",
            "kvm[1-2][1-2]",
            "kvm[0-4096]",
            "kvm[01-100]",
        ] {
            let said = of(&[word]).unwrap_err();
            assert!(said.contains("is not a list of hosts"), "{word}: {said}");
        }
        assert!(of(&[&format!("{}[0-4095]", "k".repeat(300))]).is_err());
        let many: Vec<_> = (0..6).map(|rack| format!("r{rack}n[0-4095]")).collect();
        let said = named(&many).unwrap_err();
        assert!(said.starts_with("more than 20000 hosts"), "{said}");
    }
}
