//! Plain tables and spans of time.

/// Columns as wide as they need to be, two spaces apart; the last is not padded.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = widths[column]));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// `4s`, `2m05s`, `3h10m`, `3d02h`.
pub(super) fn span(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["HOST".into(), "STAGE".into()],
            vec!["a".into(), "pool".into()],
        ];
        assert_eq!(table(&rows), "HOST  STAGE\na     pool\n");
    }

    #[test]
    fn spans_are_short() {
        let texts: Vec<_> = [4, 125, 11_400, 266_400].into_iter().map(span).collect();
        assert_eq!(texts, ["4s", "2m05s", "3h10m", "3d02h"]);
    }
}
