//! What fits on the terminal that somebody looks at.

use std::borrow::Cow;
use std::io::{IsTerminal, stdout};

use terminal_size::{Height, Width, terminal_size};
use textwrap::{Options, WordSplitter};

/// A last column that is narrower is not worth to wrap, characters.
const LEAST: usize = 24;
/// How far what does not fit beside the rest stands in, characters.
const BELOW: usize = 4;

/// A row of a table; of one that is not shown `whole`, the last cell is cut to one line.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) whole: bool,
}

/// Columns and lines of the terminal; `None` where the output goes elsewhere.
pub(super) fn size() -> Option<(usize, usize)> {
    let (Width(width), Height(height)) = stdout().is_terminal().then(terminal_size)??;
    Some((width.into(), height.into()))
}

/// Columns and lines of a terminal whose cursor can be moved.
pub(super) fn redrawn() -> Option<(usize, usize)> {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    size().filter(|_| !dumb)
}

/// Columns of the terminal.
pub(super) fn width() -> Option<usize> {
    size().map(|(width, _)| width).filter(|width| *width > 0)
}

/// A table of rows that are all shown whole.
pub(super) fn rows(cells: &[Vec<String>], width: Option<usize>) -> String {
    let whole = |cells: &Vec<String>| Row {
        cells: cells.clone(),
        whole: true,
    };
    table(&cells.iter().map(whole).collect::<Vec<_>>(), width)
}

/// As [`table`](super::table::table) where that fits; else with the last column wrapped, or cut, to the width, or where
/// there is no room for it, below the others.
pub(super) fn table(rows: &[Row], width: Option<usize>) -> String {
    let plain: Vec<_> = rows.iter().map(|row| row.cells.clone()).collect();
    let natural = super::table::table(&plain);
    let fits = |width: &usize| natural.lines().all(|line| length(line) <= *width);
    let Some(width) = width.filter(|width| *width > 0 && !fits(width)) else {
        return natural;
    };
    let columns = plain.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| {
        let cells = plain.iter().filter_map(|cells| cells.get(column));
        cells.map(|cell| length(cell)).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns.saturating_sub(1)).map(widest).collect();
    let before: usize = widths.iter().map(|width| width + 2).sum();
    match width.checked_sub(before).filter(|room| *room >= LEAST) {
        Some(room) => beside(rows, columns, room),
        None => rows
            .iter()
            .map(|row| stacked(row, &widths, width))
            .collect(),
    }
}

/// The last column in so many characters.
fn beside(rows: &[Row], columns: usize, room: usize) -> String {
    let mut lines = Vec::new();
    for row in rows {
        let mut cells = row.cells.clone();
        let last = cells.pop().unwrap_or_default();
        let mut wrapped = match row.whole {
            true => wrap(&last, room),
            false => vec![cut(&last, room)],
        };
        let first = wrapped.remove(0);
        cells.push(first);
        lines.push(cells);
        let below = wrapped.into_iter();
        lines.extend(below.map(|line| [vec![String::new(); columns - 1], vec![line]].concat()));
    }
    super::table::table(&lines)
}

/// A row whose last column is below the others, if it does not fit beside them.
fn stacked(row: &Row, widths: &[usize], width: usize) -> String {
    let Some((last, before)) = row.cells.split_last() else {
        return "\n".to_owned();
    };
    // A value as long as the line would push all others away.
    let pad = |(cell, widest): (&String, &usize)| {
        let width = (*widest).min(width / 3);
        format!("{cell:<width$}  ")
    };
    let fixed: String = before.iter().zip(widths).map(pad).collect();
    let line = format!("{fixed}{last}");
    if length(line.trim_end()) <= width {
        return line.trim_end().to_owned() + "\n";
    }
    if !row.whole {
        return cut(line.trim_end(), width) + "\n";
    }
    let fixed = fixed.trim_end();
    // What belongs to the row above has nothing before it.
    let first = (!fixed.is_empty()).then(|| hanging(fixed, width, BELOW));
    let below = hanging(&format!("{:BELOW$}{last}", ""), width, BELOW);
    first.into_iter().chain([below]).collect()
}

/// Text whose long lines are wrapped to the width, each below its own beginning.
pub(super) fn prose(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else {
        return text.to_owned();
    };
    let line = |line: &str| hanging(line, width, indent(line));
    text.lines().map(line).collect()
}

/// Where a line's words begin: after blanks and the number of a list.
fn indent(line: &str) -> usize {
    let words = line.trim_start();
    let blanks = line.len() - words.len();
    let number = words.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
    match words[number..].starts_with(". ") && number > 0 {
        true => blanks + number + 2,
        false => blanks,
    }
}

/// A line, wrapped with all but the first of its lines indented.
pub(super) fn hanging(line: &str, width: usize, indent: usize) -> String {
    if length(line) <= width {
        return format!("{line}\n");
    }
    // On a terminal of a few columns there is no room for order.
    let indent = if indent * 2 < width { indent } else { 0 };
    let below = " ".repeat(indent);
    let lines = textwrap::wrap(line, plain(width).subsequent_indent(&below));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// A page that fits: long lines are wrapped, and what is below the last line is counted.
pub(super) fn page(text: &str, (width, height): (usize, usize)) -> String {
    let mut lines: Vec<String> = text.lines().flat_map(|line| wrap(line, width)).collect();
    // The cursor stands on a line of its own.
    let room = height.saturating_sub(1).max(1);
    if lines.len() > room {
        let more = lines.len() - room + 1;
        lines.truncate(room - 1);
        lines.push(cut(&format!("… and {more} more lines"), width));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Lines of at most `width` characters, at least one; longer words are broken.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let lines = textwrap::wrap(text, plain(width));
    lines.into_iter().map(Cow::into_owned).collect()
}

/// Names and addresses are not broken at their hyphens.
fn plain(width: usize) -> Options<'static> {
    Options::new(width.max(1)).word_splitter(WordSplitter::NoHyphenation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; 2], whole: bool) -> Row {
        Row {
            cells: cells.map(String::from).to_vec(),
            whole,
        }
    }

    #[test]
    fn what_matters_is_wrapped_and_the_rest_is_cut() {
        let note = "address offered, and the client did not take it";
        let rows = [
            row(["HOST", "NOTE"], false),
            row(["kvm01", note], true),
            row(["kvm02", note], false),
        ];
        insta::assert_snapshot!(table(&rows, Some(36)), @r"
        HOST   NOTE
        kvm01  address offered, and the
               client did not take it
        kvm02  address offered, and the cli…
        ");
        // Elsewhere than on a terminal a line is a line.
        assert_eq!(table(&rows, None).lines().count(), 3);
        // Where there is no room beside, it is below.
        insta::assert_snapshot!(table(&rows, Some(24)), @r"
        HOST   NOTE
        kvm01
            address offered, and
            the client did not
            take it
        kvm02  address offered,…
        ");
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_and_no_word_is_lost() {
        let cells = |row: [&str; 4]| row.map(String::from).to_vec();
        let path = "/etc/bridgehead/hosts.yaml:123";
        let rows = [
            cells(["cmdline", "console=tty0", "profile base", path]),
            cells([
                "",
                "  not quiet nosmt mitigations=auto,nosmt loglevel=3",
                "profile base",
                path,
            ]),
            cells(["ip", "10.77.0.11", "host kvm01", path]),
        ];
        let words = |text: &str| text.split_whitespace().collect::<String>();
        let whole = words(&super::rows(&rows, None));
        for width in 1..130 {
            let text = super::rows(&rows, Some(width));
            assert!(
                text.lines().all(|line| length(line) <= width),
                "{width}:\n{text}"
            );
            assert_eq!(words(&text), whole, "{width}:\n{text}");
        }
        insta::assert_snapshot!(super::rows(&rows, Some(60)), @r"
        cmdline  console=tty0          profile base
            /etc/bridgehead/hosts.yaml:123
                   not quiet nosmt mitigations=auto,nosmt loglevel=3
            profile base
            /etc/bridgehead/hosts.yaml:123
        ip       10.77.0.11            host kvm01
            /etc/bridgehead/hosts.yaml:123
        ");
    }

    #[test]
    fn words_stand_below_the_words_of_their_line() {
        let text = "Try next\n  1. look at the cable and the switch port\n  12. nothing\n";
        insta::assert_snapshot!(prose(text, Some(24)), @r"
        Try next
          1. look at the cable
             and the switch port
          12. nothing
        ");
        assert_eq!(prose(text, None), text);
        for width in 1..60 {
            let text = prose(text, Some(width));
            assert!(
                text.lines().all(|line| length(line) <= width),
                "{width}:\n{text}"
            );
        }
    }

    #[test]
    fn a_page_is_no_larger_than_the_screen() {
        let text = "HOST  NOTE\n".to_owned() + &"kvm01  on its way to somewhere\n".repeat(2000);
        for size in [(80, 24), (20, 5), (1, 1), (0, 0)] {
            let page = page(&text, size);
            assert!(page.lines().count() <= size.1.max(1), "{size:?}");
            assert!(
                page.lines()
                    .all(|line| line.chars().count() <= size.0.max(1)),
                "{size:?}"
            );
        }
        assert!(page(&text, (80, 24)).ends_with("… and 1979 more lines\n"));
        assert_eq!(page("a\nb\n", (80, 24)), "a\nb\n");
        // A MAC or a path has no place to break.
        assert_eq!(wrap("ab abcdefgh c", 4), ["ab", "abcd", "efgh", "c"]);
    }
}
