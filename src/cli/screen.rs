//! What fits on the terminal that somebody looks at.

use std::io::{IsTerminal, stdout};

use terminal_size::{Height, Width, terminal_size};

/// A last column that is narrower is not worth to wrap, characters.
const LEAST: usize = 24;

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

/// As [`table`](super::table::table), with the last column wrapped, or cut, to the width.
pub(super) fn table(rows: &[Row], width: Option<usize>) -> String {
    let columns = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let before: usize = (0..columns.saturating_sub(1))
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.cells.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + 2
        })
        .sum();
    let room = width.map(|width| width.saturating_sub(before));
    let Some(room) = room.filter(|room| *room >= LEAST) else {
        let plain: Vec<_> = rows.iter().map(|row| row.cells.clone()).collect();
        return super::table::table(&plain);
    };
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
    let mut lines = vec![String::new()];
    let mut room = width;
    for word in text.split_inclusive(' ') {
        for piece in pieces(word, width) {
            let length = piece.trim_end().chars().count();
            if length > room {
                lines.push(String::new());
                room = width;
            }
            if let Some(line) = lines.last_mut() {
                line.push_str(&piece);
            }
            room = room.saturating_sub(piece.chars().count());
        }
    }
    lines
        .into_iter()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn pieces(word: &str, width: usize) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    let most = width.max(1);
    match word.trim_end().chars().count() > most {
        true => letters
            .chunks(most)
            .map(|piece| piece.iter().collect())
            .collect(),
        false => vec![word.to_owned()],
    }
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
        // Elsewhere than on a terminal, or where there is no room, a line is a line.
        for width in [None, Some(20)] {
            assert_eq!(table(&rows, width).lines().count(), 3);
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
