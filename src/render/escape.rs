//! Text for people in the syntax of each loader: shown as it is, and never run.

use super::ConfigKind;

/// What `text` becomes in a config of this kind. PXELINUX and iPXE take it to the end of the line; in
/// GRUB's it must stand between double quotes.
pub(super) fn shown(kind: ConfigKind, text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match kind {
        ConfigKind::Ipxe => for_ipxe(&line),
        ConfigKind::Pxelinux => for_pxelinux(&line),
        ConfigKind::Grub => for_grub(&line),
    }
}

/// iPXE expands `${…}` and has no way to quote it, so a blank parts the two. Words that would end the
/// command or begin a comment get an unset variable before them: iPXE looks for those before it
/// expands. Nothing at the front may look like an option.
fn for_ipxe(line: &str) -> String {
    let line = line.replace("${", "$ {");
    ipxe_words(&line).trim_start_matches(['-', ' ']).to_owned()
}

fn ipxe_words(line: &str) -> String {
    let harmless = |word: &str| match word {
        "||" | "&&" | ";" => format!("${{unset}}{word}"),
        _ if word.starts_with('#') => format!("${{unset}}{word}"),
        _ => word.to_owned(),
    };
    let words: Vec<String> = line.split_whitespace().map(harmless).collect();
    words.join(" ")
}

/// A kernel command line, its words joined by single blanks, as it stands after the kernel's name. That there
/// is no `${` in it is seen to where it is read: a blank within would make another argument of it.
pub(super) fn arguments(kind: ConfigKind, cmdline: &str) -> String {
    match kind {
        ConfigKind::Ipxe => ipxe_words(cmdline),
        ConfigKind::Pxelinux | ConfigKind::Grub => cmdline.to_owned(),
    }
}

/// A caret marks the key of a menu's entry; there is no way to show one.
fn for_pxelinux(line: &str) -> String {
    line.replace('^', "").trim().to_owned()
}

/// Within double quotes GRUB expands `$` and ends at `"`; a backslash takes that from each.
fn for_grub(line: &str) -> String {
    let mut quoted = String::with_capacity(line.len());
    for c in line.chars() {
        if matches!(c, '\\' | '"' | '$') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

/// Each word in single quotes, so that GRUB's shell expands nothing in it.
pub(super) fn grub_words(cmdline: &str) -> String {
    let quoted = cmdline
        .split(' ')
        .map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// iPXE's `system()`: words by blanks, commands by `||`, `&&` and `;`, a comment from a word with `#`,
    /// then each word expanded. `None`: something is expanded that is not our own empty variable.
    fn as_ipxe_reads(line: &str) -> Option<Vec<String>> {
        let ends = |word: &&str| !matches!(*word, "||" | "&&" | ";") && !word.starts_with('#');
        let words = line.split_ascii_whitespace().take_while(ends);
        words
            .map(|word| {
                let word = word.replace("${unset}", "");
                (!word.contains("${")).then_some(word)
            })
            .collect()
    }

    /// What stands between GRUB's double quotes; `None` if they end early or something is expanded.
    fn as_grub_reads(text: &str) -> Option<String> {
        let mut read = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => read.push(chars.next().filter(|c| "\\\"$".contains(*c))?),
                '"' | '$' | '\n' => return None,
                c => read.push(c),
            }
        }
        Some(read)
    }

    fn labels() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("${uuid}"),
            Just("$"),
            Just("{"),
            Just("}"),
            Just("||"),
            Just("&&"),
            Just(";"),
            Just("#x"),
            Just(" "),
            Just("\n"),
            Just("\r\nexit"),
            Just("\""),
            Just("'"),
            Just("\\"),
            Just("^"),
            Just("--key"),
            Just("`"),
            Just("$("),
            Just("}\nmenuentry"),
            Just("${unset}"),
            Just("é"),
            Just("KVM host"),
            Just("\0"),
        ];
        let parts = proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat());
        prop_oneof![parts, any::<String>()]
    }

    proptest! {
        #[test]
        fn ipxe_hands_the_kernel_its_whole_command_line(
            words in proptest::collection::vec(prop_oneof![
                Just("||".to_owned()), Just("&&".into()), Just(";".into()), Just("#".into()),
                Just("dyndbg=\"file".into()), Just("+p\"".into()), Just("--x".into()), Just("$".into()),
                "[!-~]{1,12}".prop_filter("refused in hosts.yaml", |word| !word.contains("${")),
            ], 0..12),
        ) {
            let cmdline = words.join(" ");
            let line = format!("kernel http://x/vmlinuz initrd=i {}", arguments(ConfigKind::Ipxe, &cmdline));
            let read = as_ipxe_reads(&format!("{line} || goto again"));
            let read = read.map(|words| words[3..].join(" ")).unwrap_or_else(|| panic!("{line:?} expands"));
            prop_assert_eq!(read, cmdline);
        }

        #[test]
        fn no_label_is_run_by_a_loader(label in labels()) {
            let line: String = label.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let plain = line.split_whitespace().collect::<Vec<_>>().join(" ");

            let ipxe = shown(ConfigKind::Ipxe, &label);
            prop_assert!(!ipxe.contains('\n') && !ipxe.starts_with('-'));
            let read = as_ipxe_reads(&format!("item disk {ipxe}"));
            let read = read.map(|words| words[2..].join(" ")).unwrap_or_else(|| panic!("{ipxe:?} expands"));
            // All of it is shown, up to a blank in `${`, and dashes at the front.
            let squeezed = |text: &str| {
                let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
                text.trim_start_matches('-').to_owned()
            };
            prop_assert_eq!(squeezed(&read), squeezed(&plain));

            let grub = shown(ConfigKind::Grub, &label);
            prop_assert_eq!(as_grub_reads(&grub), Some(line));

            let pxelinux = shown(ConfigKind::Pxelinux, &label);
            prop_assert!(!pxelinux.contains(['\n', '\r', '^']) && pxelinux.trim() == pxelinux);
            prop_assert_eq!(squeezed(&pxelinux), squeezed(&plain.replace('^', "")));
        }
    }
}
