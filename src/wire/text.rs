//! Texts from the wire, as far as people are shown them.

use std::iter::Peekable;
use std::str::Chars;

/// Whether a character of somebody's words may stand in a line that people read. Control characters are commands to a
/// terminal; others turn the line's direction round or can't be seen (Unicode UAX #9), so that what is shown would not
/// be what was said.
pub fn is_shown(c: char) -> bool {
    let hidden = matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    );
    !c.is_control() && !hidden
}

/// A string for a terminal that has no end is one up to here, characters: what follows is not hidden with it.
const MAX_COMMAND: usize = 256;

/// The characters of a text that people read in one line: escape sequences go whole, and not their first character
/// alone; tabs and line ends become blanks; what is not shown goes.
pub fn one_line(text: &str) -> impl Iterator<Item = char> {
    let mut characters = text.chars().peekable();
    std::iter::from_fn(move || {
        loop {
            match characters.next()? {
                '\u{1b}' => skip_escaped(&mut characters),
                '\u{9b}' => skip_control(&mut characters),
                '\u{9d}' => skip_string(&mut characters),
                '\t' | '\n' => return Some(' '),
                c if is_shown(c) => return Some(c),
                _ => {}
            }
        }
    })
}

/// Without what a terminal would take for commands, and not longer than `most` characters.
pub fn clean(text: &str, most: usize) -> String {
    one_line(text).take(most).collect()
}

/// What follows an ESC and belongs to it.
fn skip_escaped(characters: &mut Peekable<Chars<'_>>) {
    let Some(c) = characters.next_if(|c| matches!(c, '[' | ']' | 'P' | '^' | '_' | ' '..='/'))
    else {
        return;
    };
    match c {
        '[' => skip_control(characters),
        // Which character set, and the like: ECMA-35 §13.2.1.
        ' '..='/' => {
            while characters.next_if(|c| (' '..='/').contains(c)).is_some() {}
            characters.next_if(|c| ('0'..='~').contains(c));
        }
        _ => skip_string(characters),
    }
}

/// Control sequences, as colours (ECMA-48 §5.4): parameters, then one letter.
fn skip_control(characters: &mut Peekable<Chars<'_>>) {
    while characters.next_if(|c| (' '..='?').contains(c)).is_some() {}
    characters.next_if(|c| ('@'..='~').contains(c));
}

/// Control strings, as a window's title (ECMA-48 §5.6): up to ST, which is ESC and `\`, or to BEL, as xterm has it.
fn skip_string(characters: &mut Peekable<Chars<'_>>) {
    for _ in 0..MAX_COMMAND {
        match characters.next() {
            None | Some('\u{7}' | '\u{9c}') => return,
            Some('\u{1b}') => {
                characters.next_if_eq(&'\\');
                return;
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_to_a_terminal_go_whole() {
        for (said, shown) in [
            ("\u{1b}[1;31mred\u{1b}[0m alert", "red alert"),
            ("\u{1b}]0;a title\u{7}text", "text"),
            (
                "\u{1b}]8;;http://evil\u{1b}\\link\u{1b}]8;;\u{1b}\\ end",
                "link end",
            ),
            ("\u{9d}52;c;AAAA\u{9c}clip", "clip"),
            ("\u{1b}Pq#0\u{1b}\\sixel", "sixel"),
            ("\u{1b}(B\u{1b}[mplain", "plain"),
            ("a\u{9b}2Jb\tc\nd\u{1b}", "ab c d"),
            ("\u{1b}]", ""),
            ("\u{1b}[", ""),
        ] {
            assert_eq!(clean(said, 100), shown, "{said:?}");
        }
        // What has no end hides so much and no more.
        let long = format!("\u{1b}]0;{}", "x".repeat(10_000));
        assert_eq!(clean(&long, 20_000).len(), 10_000 + 2 - MAX_COMMAND);
        assert_eq!(clean("abc", 2), "ab");
    }

    #[test]
    fn letters_of_all_languages_are_shown_and_what_would_deceive_is_not() {
        let said = "a\u{1b}[2J\u{9b}é\u{202e}עב\u{2066}\u{feff}\u{200b}\0中";
        let shown: String = said.chars().filter(|c| is_shown(*c)).collect();
        assert_eq!(shown, "a[2Jéעב中");
    }
}
