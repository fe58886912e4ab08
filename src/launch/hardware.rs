//! What launches depend on of the device they are for.

use super::abi;

/// Kernels that pool attention in one launch, which reads keys once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnePass {
    /// Those of any device: `kernels/attention_pool.cu`.
    Portable,
    /// By what compute capability 9.0 alone has, wgmma and the tensor memory accelerator: `kernels/sm90/attention_pool.cu`,
    /// of f16 and bf16.
    Sm90,
}

/// Of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware {
    /// Shared memory that a block may ask for, in bytes: 227 KiB on sm_90 and sm_100, 163 KiB on sm_80, 99 KiB on sm_86,
    /// sm_89 and sm_120.
    pub shared_bytes: usize,
    /// Blocks that take turns at a list of work are this many, or a few times as many. No result depends on it.
    pub multiprocessors: usize,
    /// By which kernels attention is pooled in one pass; in two where there are none.
    pub one_pass: Option<OnePass>,
}

impl Hardware {
    /// What a block may ask for at launch, in bytes.
    pub(crate) fn dynamic_shared_bytes(&self) -> usize {
        self.shared_bytes.saturating_sub(abi::MIVC_STATIC_SHARED_BYTES as usize)
    }

    /// The same, of the kernels of an image that ask for more than any may have.
    pub(crate) fn dynamic_shared_bytes_of(&self, image: &str) -> Option<usize> {
        match image {
            "scores" | "attention_pool" => Some(self.dynamic_shared_bytes()),
            "attention_pool_sm90" => self.shared_bytes.checked_sub(abi::MIVC_POOL_SM90_STATIC_BYTES as usize),
            "weighted_sum_exact" => Some(abi::MIVC_EXACT_SHARED_BYTES as usize),
            _ => None,
        }
    }

    /// An A100, for tests.
    #[doc(hidden)]
    pub const A100: Hardware = Hardware { shared_bytes: 163 << 10, multiprocessors: 108, one_pass: None };
    /// An H200, for tests.
    #[doc(hidden)]
    pub const H200: Hardware = Hardware { shared_bytes: 227 << 10, multiprocessors: 132, one_pass: None };
}
