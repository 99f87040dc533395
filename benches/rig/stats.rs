//! Medians and ranges: a mean would let one disturbed round speak for all.

/// The middle value, or the middle of the two; not a number without values.
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match (
        sorted.len() % 2,
        sorted.get(middle),
        sorted.get(middle.wrapping_sub(1)),
    ) {
        (0, Some(upper), Some(lower)) => f64::midpoint(*lower, *upper),
        (_, Some(value), _) => *value,
        _ => f64::NAN,
    }
}

/// The smallest value that `part` (0 to 1) of all are not above: `percentile(&times, 0.99)`.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let sorted = sorted(values);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    let value = sorted.get(rank.saturating_sub(1)).or(sorted.last());
    value.copied().unwrap_or(f64::NAN)
}

/// `12.3 (11.9-13.0)`, or `-` where nothing was measured.
pub fn spread(values: &[f64], decimals: usize) -> String {
    let values: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    if values.is_empty() {
        return "-".to_owned();
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let middle = median(&values);
    if format!("{least:.decimals$}") == format!("{most:.decimals$}") {
        return format!("{middle:.decimals$}");
    }
    format!("{middle:.decimals$} ({least:.decimals$}-{most:.decimals$})")
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}
