//! What is measured, and how often: `BENCH_CONTENDERS`, `BENCH_CASES` and `BENCH_RUNS`.

use std::env;

use crate::lab::{LabError, Result, check_interrupt};

/// Those of `all` that the variable names, names with spaces between; without it all. In the order of `all`, and of a
/// name that stands twice only one.
///
/// # Errors
/// A name that is none of `all`.
pub fn chosen<T: Copy, N: ToString>(
    variable: &str,
    all: &[T],
    name: impl Fn(T) -> N,
) -> Result<Vec<T>> {
    let name = |one: &T| name(*one).to_string();
    let wanted = env::var(variable).unwrap_or_default();
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    let known: Vec<String> = all.iter().map(name).collect();
    if let Some(unknown) = wanted.iter().find(|one| !known.iter().any(|k| k == *one)) {
        return Err(LabError::Missing {
            what: format!("`{unknown}` of {variable}"),
            help: format!("take some of: {}", known.join(" ")),
        });
    }
    let is_wanted = |one: &T| wanted.is_empty() || wanted.contains(&name(one).as_str());
    Ok(all.iter().copied().filter(is_wanted).collect())
}

/// `BENCH_RUNS`, or `default`; at least 1 and at most `most`.
pub fn runs(default: usize, most: usize) -> usize {
    let wanted = env::var("BENCH_RUNS").ok();
    let wanted = wanted.and_then(|runs| runs.parse().ok());
    wanted.unwrap_or(default).clamp(1, most)
}

/// The contenders in the order of `round` (from 1): every second round goes backwards.
pub fn order<T: Copy>(round: usize, contenders: &[T]) -> Vec<T> {
    let mut order = contenders.to_vec();
    if round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// Calls `measure` for every contender in each of `runs` rounds, in [`order`].
///
/// # Errors
/// The first of `measure`, or an interrupt.
pub fn rounds<T: Copy>(
    runs: usize,
    contenders: &[T],
    mut measure: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    for round in 1..=runs {
        for contender in order(round, contenders) {
            check_interrupt()?;
            measure(round, contender)?;
        }
    }
    Ok(())
}
