//! Spans of time and sizes in words, as `status` and the page write them.

use std::time::Duration;

/// `4s`, `2m05s`, `3h10m`, `3d02h`.
pub(crate) fn span(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `300 B`, `293 KiB`, `11.8 MiB`.
fn size(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match bytes {
        ..KIB => format!("{bytes} B"),
        KIB..MIB => format!("{} KiB", bytes.div_ceil(KIB)),
        _ => {
            let tenths = bytes.saturating_mul(10).div_ceil(MIB);
            format!("{}.{} MiB", tenths / 10, tenths % 10)
        }
    }
}

/// A transfer that is whole: `11.8 MiB in 0.3 s, 39.3 MiB/s`.
pub(crate) fn transfer(bytes: u64, took: Duration) -> String {
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let whole = format!("{} in {}.{} s", size(bytes), ms / 1000, ms / 100 % 10);
    // Of less time the rate says nothing.
    match ms {
        ..100 => whole,
        _ => format!("{whole}, {}/s", size(bytes.saturating_mul(1000) / ms)),
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

    #[test]
    fn transfers_are_told_in_sizes_that_people_read() {
        let told = |bytes, ms| transfer(bytes, Duration::from_millis(ms));
        assert_eq!(told(300, 4), "300 B in 0.0 s");
        assert_eq!(told(300_003, 99), "293 KiB in 0.0 s");
        assert_eq!(told(12_345_678, 300), "11.8 MiB in 0.3 s, 39.3 MiB/s");
        assert_eq!(told(u64::MAX, u64::MAX).split(' ').next_back(), Some("B/s"));
    }
}
