//! Spans of time in words, as `status` and the page write them.

/// `4s`, `2m05s`, `3h10m`, `3d02h`.
pub(crate) fn span(seconds: i64) -> String {
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
    fn spans_are_short() {
        let texts: Vec<_> = [4, 125, 11_400, 266_400].into_iter().map(span).collect();
        assert_eq!(texts, ["4s", "2m05s", "3h10m", "3d02h"]);
    }
}
