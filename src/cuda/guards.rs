//! Why the operations over views are sound.
//!
//! What a kernel reads and writes must stay where it is until the kernel has run, which is long after the borrow of
//! a view has ended. cudarc keeps this promise with events: a slice has one of its last read and one of its last
//! write, a stream waits for them before it touches the slice, and freeing it waits for both. cudarc does so for
//! slices that it sees among a kernel's arguments. The kernels of this crate take addresses within a struct, which
//! hides them, so [`Guards`] does it instead:
//!
//! 1. Before the first launch, [`read`](Guards::read) and [`write`](Guards::write) make the stream wait for whatever
//!    other streams still do to the buffer. Every buffer passes through one of them, scratch memory included: there
//!    is no other way to its address.
//! 2. [`launch`](Guards::launch) takes the guards by value. They are dropped, and the events recorded, behind the
//!    last launch, and behind a failed one too, as launches before it may have been queued.
//! 3. A wait that failed is kept in the context, which is asked after each. Another thread that asks at the very same
//!    moment may get the error instead; but a wait fails where the context can no longer run anything, or where a
//!    stream captures, whose capture is then void.
//!
//! A slice has an event of its last read alone, as everywhere in cudarc: of two streams that read it, a later write or
//! its end waits for the one that was queued last. `mod.rs` asks the caller to join such streams first.
//! Packed parameters are read by calls on any number of streams at once, and a slice has an event of its last read
//! alone. So the last handle of them waits for the whole device before it frees them (`pack.rs`).
//!
//! Aliasing is the borrow checker's: a mutable view is unique. The waits and records speak only of streams that
//! the view's own [`CudaContext`](cudarc::driver::CudaContext) has counted. Two of them on one device share a
//! driver's context, but each counts its own streams and would leave the other's without events. So everything must
//! be of the very context that the kernels were loaded in, not of one that compares equal.

use cudarc::driver::{CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop};

use super::Kernels;
use super::executor::execute;
use crate::error::{CudaError, Error, Result};
use crate::launch::{SCRATCH_ALIGN, Step};

/// The buffers of one call.
pub(super) struct Guards<'a> {
    kernels: &'a Kernels,
    stream: &'a CudaStream,
    held: Vec<SyncOnDrop<'a>>,
}

impl<'a> Guards<'a> {
    /// None yet.
    pub(super) fn new(kernels: &'a Kernels, stream: &'a CudaStream) -> Result<Self> {
        kernels.expect_context("stream", stream.context())?;
        let guards = Guards { kernels, stream, held: Vec::new() };
        // While an error is kept, cudarc waits for nothing.
        guards.expect_no_error()?;
        Ok(guards)
    }

    /// The address of what the call reads.
    pub(super) fn read<T>(&mut self, argument: &'static str, view: &'a CudaView<'_, T>) -> Result<u64> {
        self.kernels.expect_context(argument, view.stream().context())?;
        let (address, guard) = view.device_ptr(self.stream);
        self.held.push(guard);
        self.expect_no_error()?;
        expect_aligned(argument, address, align_of::<T>())
    }

    /// The address of what the call writes.
    pub(super) fn write<T>(&mut self, argument: &'static str, view: &'a mut CudaViewMut<'_, T>) -> Result<u64> {
        self.kernels.expect_context(argument, view.stream().context())?;
        let (address, guard) = view.device_ptr_mut(self.stream);
        self.held.push(guard);
        self.expect_no_error()?;
        expect_aligned(argument, address, align_of::<T>())
    }

    /// As [`read`](Self::read), or 0 where the argument is left out.
    pub(super) fn read_some<T>(&mut self, argument: &'static str, view: &'a Option<CudaView<'_, T>>) -> Result<u64> {
        view.as_ref().map_or(Ok(0), |view| self.read(argument, view))
    }

    /// As [`write`](Self::write), or 0 where the argument is left out.
    pub(super) fn write_some<T>(
        &mut self,
        argument: &'static str,
        view: &'a mut Option<CudaViewMut<'_, T>>,
    ) -> Result<u64> {
        view.as_mut().map_or(Ok(0), |view| self.write(argument, view))
    }

    /// The address of the scratch memory.
    pub(super) fn scratch(&mut self, view: &'a mut CudaViewMut<'_, u8>) -> Result<u64> {
        expect_aligned("scratch", self.write("scratch", view)?, SCRATCH_ALIGN)
    }

    /// Gives the error that cudarc kept while it could not return it.
    fn expect_no_error(&self) -> Result<()> {
        Ok(self.kernels.context().check_err().map_err(CudaError::from)?)
    }

    /// Queues the steps, and lets go of the buffers behind them.
    ///
    /// # Safety
    /// The steps stay within the views that their addresses were taken of, and write to those alone that were given
    /// to [`write`](Self::write).
    pub(super) unsafe fn launch(self, steps: &[Step]) -> Result<()> {
        // SAFETY: the stream is of the kernels' context. The guards order the steps behind whatever has been queued
        // for the buffers, and what will be, their end included, behind the steps. The rest the caller promises.
        unsafe { execute(self.kernels, self.stream.cu_stream(), steps) }?;
        Ok(())
    }
}

/// The address, where it is a multiple of `align`.
fn expect_aligned(argument: &'static str, address: u64, align: usize) -> Result<u64> {
    if address.is_multiple_of(align as u64) {
        return Ok(address);
    }
    Err(Error::argument(argument, format!("an address that is a multiple of {align}"), format!("{address:#x}")))
}
