//! Metrics with one label or two, whose values are all known when the program is written.

use std::fmt;
use std::marker::PhantomData;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// An enum that is a label: its name, and the word for each of its values.
pub trait Label: Copy + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The label's name, snake_case.
    const NAME: &'static str;
    /// Every value.
    const ALL: &'static [Self];

    /// The word for it.
    fn value(self) -> &'static str;
}

/// A metric for each value of a label, all there from the start.
pub struct Each<L, M> {
    metrics: Box<[M]>,
    label: PhantomData<L>,
}

impl<L: Label, M> Each<L, M> {
    /// Makes the metrics, for kinds that have no default.
    pub fn new(mut make: impl FnMut() -> M) -> Self {
        Self {
            metrics: L::ALL.iter().map(|_| make()).collect(),
            label: PhantomData,
        }
    }

    /// Takes each metric from somewhere that counts already.
    pub fn by(make: impl FnMut(L) -> M) -> Self {
        Self {
            metrics: L::ALL.iter().copied().map(make).collect(),
            label: PhantomData,
        }
    }

    /// The one for `value`.
    ///
    /// # Panics
    /// If [`Label::ALL`] does not hold every value.
    pub fn of(&self, value: L) -> &M {
        let index = L::ALL.iter().position(|known| *known == value);
        match index {
            Some(index) => &self.metrics[index],
            None => unreachable!("Label::ALL lacks {value:?}"),
        }
    }

    /// Each value with its metric.
    pub fn iter(&self) -> impl Iterator<Item = (L, &M)> {
        L::ALL.iter().copied().zip(&self.metrics)
    }
}

impl<L: Label, M: Default> Default for Each<L, M> {
    fn default() -> Self {
        Self::new(M::default)
    }
}

// Clones count together, as those of a Counter do.
impl<L, M: Clone> Clone for Each<L, M> {
    fn clone(&self) -> Self {
        Self {
            metrics: self.metrics.clone(),
            label: PhantomData,
        }
    }
}

impl<L: Label, M: fmt::Debug> fmt::Debug for Each<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<L: Label, M: EncodeMetric + TypedMetric> EncodeMetric for Each<L, M> {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        for (label, metric) in self.iter() {
            let labels = [(L::NAME, label.value())];
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// A metric for each pair of values of two labels, all there from the start.
pub struct EachPair<A, B, M>(Each<A, Each<B, M>>);

impl<A: Label, B: Label, M> EachPair<A, B, M> {
    /// The one for both values.
    pub fn of(&self, first: A, second: B) -> &M {
        self.0.of(first).of(second)
    }
}

impl<A: Label, B: Label, M: Default> Default for EachPair<A, B, M> {
    fn default() -> Self {
        Self(Each::default())
    }
}

impl<A, B, M: Clone> Clone for EachPair<A, B, M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Label, B: Label, M: fmt::Debug> fmt::Debug for EachPair<A, B, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<A: Label, B: Label, M: EncodeMetric + TypedMetric> EncodeMetric for EachPair<A, B, M> {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        for (first, metrics) in self.0.iter() {
            for (second, metric) in metrics.iter() {
                let labels = [(A::NAME, first.value()), (B::NAME, second.value())];
                metric.encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
