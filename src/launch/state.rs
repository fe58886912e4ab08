//! Merging states, as [`PoolState::merge`](crate::PoolState::merge) does.

use super::abi::{self, MivcStateMerge};
use super::{Launch, MAX_GRID_X, Parameters, Step, are_aligned, vector_elements};
use crate::element::Dtype;
use crate::error::{Error, Result};

/// Where a call finds its arguments: device addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// f32 `[B, K]`, read and written: the greatest score m.
    pub max: u64,
    /// f32 `[B, K]`, read and written: l, the sum of exp(s − m).
    pub sum: u64,
    /// f32 `[B, K, D]`, read and written.
    pub pooled: u64,
    /// f32 `[B, K]`: m of the other state.
    pub other_max: u64,
    /// f32 `[B, K]`: l of the other state.
    pub other_sum: u64,
    /// f32 `[B, K, D]`: what the other state has pooled.
    pub other_pooled: u64,
}

/// The merge of states of certain embeddings.
#[derive(Debug, Clone, Copy)]
pub struct Merge {
    dim: usize,
}

impl Merge {
    /// Of embeddings of `dim` features.
    ///
    /// # Errors
    /// [`Error::Argument`] where `dim` is 0.
    pub fn plan(dim: usize) -> Result<Self> {
        if dim == 0 {
            return Err(Error::argument("dim", "at least 1", dim));
        }
        Ok(Merge { dim })
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// What a call on so many rows, bags times heads, does; nothing where there is none.
    ///
    /// # Errors
    /// [`Error::Argument`] where there are more rows than a launch can have.
    pub fn steps(&self, rows: usize, addresses: Addresses) -> Result<Option<[Step; 1]>> {
        if rows > MAX_GRID_X {
            return Err(Error::argument("max", format!("[B, K] of at most {MAX_GRID_X} elements"), rows));
        }
        if rows == 0 {
            return Ok(None);
        }
        let Addresses { max, sum, pooled, other_max, other_sum, other_pooled } = addresses;
        let is_vector = self.dim.is_multiple_of(vector_elements(Dtype::F32)) && are_aligned(&[pooled, other_pooled]);
        let dim = self.dim as i64;
        let parameters = MivcStateMerge { max, sum, pooled, other_max, other_sum, other_pooled, dim };
        Ok(Some([Step::Launch(Launch {
            image: "state",
            kernel: if is_vector { "mivc_state_merge_vector" } else { "mivc_state_merge" },
            grid: [rows as u32, 1, 1],
            block: [abi::MIVC_THREADS, 1, 1],
            shared_bytes: 0,
            tensor_maps: None,
            parameters: Parameters::StateMerge(parameters),
        })]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: Addresses = Addresses {
        max: 0x1004,
        sum: 0x2004,
        pooled: 0x3000,
        other_max: 0x4004,
        other_sum: 0x5004,
        other_pooled: 0x6000,
    };

    fn launch(dim: usize, rows: usize, addresses: Addresses) -> Launch {
        let steps = Merge::plan(dim).unwrap().steps(rows, addresses).unwrap();
        let Some([Step::Launch(launch)]) = steps else { panic!("{steps:?}") };
        launch
    }

    #[test]
    fn a_block_takes_a_bag_and_head() {
        let launch = launch(8, 100_000, ADDRESSES);
        assert_eq!((launch.image, launch.grid, launch.block), ("state", [100_000, 1, 1], [128, 1, 1]));
        let Parameters::StateMerge(parameters) = launch.parameters else { panic!() };
        assert_eq!((parameters.pooled, parameters.other_pooled, parameters.dim), (0x3000, 0x6000, 8));
    }

    #[test]
    fn vectors_where_every_row_of_either_side_is_aligned() {
        let kernel = |dim, addresses| launch(dim, 2, addresses).kernel;
        assert_eq!(kernel(8, ADDRESSES), "mivc_state_merge_vector");
        for dim in [1, 6, 7] {
            assert_eq!(kernel(dim, ADDRESSES), "mivc_state_merge");
        }
        assert_eq!(kernel(8, Addresses { pooled: 0x3008, ..ADDRESSES }), "mivc_state_merge");
        assert_eq!(kernel(8, Addresses { other_pooled: 0x6004, ..ADDRESSES }), "mivc_state_merge");
    }

    #[test]
    fn sizes_that_no_launch_can_have() {
        assert!(Merge::plan(0).unwrap_err().to_string().starts_with("dim: "));
        let plan = Merge::plan(4).unwrap();
        assert!(plan.steps(0, ADDRESSES).unwrap().is_none());
        assert!(plan.steps(MAX_GRID_X, ADDRESSES).is_ok());
        let error = plan.steps(MAX_GRID_X + 1, ADDRESSES).unwrap_err();
        assert!(error.to_string().starts_with("max: "), "{error}");
    }
}
