//! Texts from the wire, as far as people are shown them.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_all_languages_are_shown_and_what_would_deceive_is_not() {
        let said = "a\u{1b}[2J\u{9b}é\u{202e}עב\u{2066}\u{feff}\u{200b}\0中";
        let shown: String = said.chars().filter(|c| is_shown(*c)).collect();
        assert_eq!(shown, "a[2Jéעב中");
    }
}
