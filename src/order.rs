//! What the order of a bag's instances may change.

/// What the order of a bag's instances may change in its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// The rounding: sums are taken in f32, in the order of the instances.
    #[default]
    Rounding,
    /// No bit: sums are taken in integers. See [`mod@crate::exact`] for how, how exactly, and what it does not promise.
    Exact,
}
