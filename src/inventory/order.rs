//! In which order to build what stands on each other.

use std::collections::BTreeSet;

/// The order, and one circle if there is one; what is in a circle is in no order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) order: Vec<usize>,
    /// Each stands on the next, the last on the first.
    pub(super) circle: Vec<usize>,
}

/// Orders things by what they stand on: `below[i]` must come before `i`. Among those that could
/// come next the first comes first, so that the operator's order is kept where it can be.
pub(super) fn order(below: &[Vec<usize>]) -> Order {
    let mut waiting: Vec<usize> = below.iter().map(Vec::len).collect();
    let mut above: Vec<Vec<usize>> = vec![Vec::new(); below.len()];
    for (index, on) in below.iter().enumerate() {
        on.iter().for_each(|on| above[*on].push(index));
    }
    let free = |index: &usize| below[*index].is_empty();
    let mut ready: BTreeSet<usize> = (0..below.len()).filter(free).collect();
    let mut order = Vec::new();
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for next in &above[index] {
            waiting[*next] -= 1;
            if waiting[*next] == 0 {
                ready.insert(*next);
            }
        }
    }
    let circle = circle(below, &waiting);
    Order { order, circle }
}

/// From any that still waits, the way down over those that wait ends in a circle.
fn circle(below: &[Vec<usize>], waiting: &[usize]) -> Vec<usize> {
    let Some(mut at) = waiting.iter().position(|count| *count > 0) else {
        return Vec::new();
    };
    let mut path = Vec::new();
    while !path.contains(&at) {
        path.push(at);
        match below[at].iter().find(|on| waiting[**on] > 0) {
            Some(next) => at = *next,
            None => return Vec::new(),
        }
    }
    path.into_iter().skip_while(|index| *index != at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_comes_first_and_the_rest_as_written() {
        let found = order(&[vec![3], vec![], vec![1, 3], vec![4], vec![]]);
        assert_eq!(found.order, [1, 4, 3, 0, 2]);
        assert!(found.circle.is_empty());
    }

    #[test]
    fn a_circle_is_shown_without_the_way_to_it() {
        let found = order(&[vec![1], vec![2], vec![3], vec![1], vec![]]);
        assert_eq!(found.order, [4]);
        assert_eq!(found.circle, [1, 2, 3]);
        assert_eq!(order(&[vec![0]]).circle, [0]);
    }
}
