//! `wgmma`: products of matrices in shared memory, made beside the threads of four warps.
//!
//! Each warp makes its own 16 of the 64 rows, and a wait is over once all four have. It is made where it is issued;
//! from then until the wait that covers it its registers are nobody's, and what it reads in shared memory counts as
//! being read. Moves of a register take that along, since a compiler renames registers between products.

use super::cluster::{At, Cluster, Outcome};
use super::location::Location;
use super::matrix_descriptor::{Descriptor, UNIT};
use super::products::Columns;
use super::tensor::Factor;
use super::under_way::{Role, Touched};
use super::warp::Warp;
use crate::check::{Owner, Ticket};
use crate::error::{Fault, FaultKind};
use crate::memory::{Misuse, SHARED, Value};
use crate::registers::{LANES, Mask, Reg, Registers};

/// `wgmma.mma_async`: D = A·B + D, of 64 rows.
#[derive(Debug)]
pub struct MultiplyAsync {
    pub factor: Factor,
    /// Columns of B.
    pub n: usize,
    pub d: Vec<Reg<u32>>,
    pub a: MatrixA,
    /// A matrix descriptor.
    pub b: Reg<u64>,
    /// Whether D is added to, and whether that is negated.
    pub adds: (Reg<bool>, bool),
    pub negates: bool,
    pub transposed_b: bool,
}

#[derive(Debug)]
pub enum MatrixA {
    Registers(Vec<Reg<u32>>),
    Shared { descriptor: Reg<u64>, transposed: bool },
}

impl MatrixA {
    fn registers(&self) -> &[Reg<u32>] {
        match self {
            MatrixA::Registers(registers) => registers,
            MatrixA::Shared { .. } => &[],
        }
    }
}

/// What a warp has multiplied so far: the warps of a warpgroup must have done the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trace {
    products: u32,
    /// Of instructions and descriptors.
    hash: u64,
    last: u32,
}

/// Warps that multiply together.
const WARPGROUP: usize = 4;
/// Rows that a warp makes.
const ROWS: usize = 16;

impl Factor {
    /// Columns of A in one instruction.
    pub fn depth(self) -> usize {
        if self == Factor::Tf32 { 8 } else { 16 }
    }

    /// Elements of 16 bytes.
    fn per_unit(self) -> usize {
        self.depth() / 2
    }

    fn of_unit(self, unit: Value, i: usize) -> f64 {
        if self == Factor::Tf32 { self.element(unit[i], 0) } else { self.element(unit[i / 2], i % 2) }
    }
}

impl Cluster<'_> {
    /// Before an instruction that is no product: its registers must not be those of products under way.
    pub(super) fn touch(&self, warp: &mut Warp, at: At, mask: Mask, touched: &Touched) -> Outcome {
        if let Some((product, what)) = warp.products.disturbed(touched) {
            let detail = format!("{what} of a matrix product that has not been waited for");
            return Err(self.unfinished(at, mask.trailing_zeros() as usize, product.pc, detail));
        }
        warp.products.touch(touched);
        Ok(())
    }

    fn unfinished(&self, at: At, lane: usize, pc: u32, detail: String) -> Box<Fault> {
        let mut fault = self.fault(FaultKind::UnfinishedMultiply, at, lane, detail);
        fault.earlier = Some(self.site(pc, self.number, at.thread(lane)));
        fault
    }

    pub(super) fn fence_products(&self, warp: &mut Warp) {
        warp.products.fence();
    }

    pub(super) fn commit_products(&self, warp: &mut Warp) {
        warp.products.commit();
    }

    /// Whether all warps of the warpgroup have come to the products that a wait is for: they are made together.
    pub(super) fn are_issued(&self, warp: &Warp, at: At, groups: u32) -> bool {
        let last = warp.products.last_of(groups);
        last == 0 || self.traces[self.warpgroup(at.warp)].iter().all(|trace| trace.products >= last)
    }

    /// The warps that multiply with this one.
    fn warpgroup(&self, warp: usize) -> std::ops::Range<usize> {
        let in_block = warp % self.grid.warps();
        let first = warp - in_block % WARPGROUP;
        first..first + WARPGROUP.min(self.grid.warps() - in_block / WARPGROUP * WARPGROUP)
    }

    pub(super) fn wait_for_products(&mut self, warp: &mut Warp, at: At, groups: u32) {
        let over = warp.products.wait(groups);
        // Work of one warpgroup is over in its order.
        if let Some((races, ticket)) = self.races.as_mut().zip(over.last().copied()) {
            (0..LANES).for_each(|lane| races.learn_ticket(at.thread(lane), ticket));
        }
    }

    /// A warp must not exit before its products are made.
    pub(super) fn leave_products(&self, warp: &Warp, at: At, lane: usize) -> Outcome {
        match warp.products.first_open() {
            None => Ok(()),
            Some(pc) => {
                Err(self.unfinished(at, lane, pc, "exits before a matrix product has been waited for".to_owned()))
            }
        }
    }

    /// The warps of a block exit: those of a warpgroup must have made the same products.
    pub(super) fn compare_warpgroups(&self, at: At, lane: usize, rank: usize) -> Outcome {
        for group in self.traces[self.warps_of(rank)].chunks(WARPGROUP) {
            let Some(other) = group.iter().find(|trace| **trace != group[0]) else { continue };
            let detail = "the four warps of a warpgroup have not made the same matrix products".to_owned();
            let mut fault = self.undefined(at, lane, detail);
            let last = if other.products > 0 { other.last } else { group[0].last };
            fault.earlier = Some(self.site(last, self.number, at.thread(lane)));
            return Err(fault);
        }
        Ok(())
    }

    pub(super) fn multiply_async(&mut self, warp: &mut Warp, at: At, multiply: &MultiplyAsync) -> Outcome {
        let in_block = at.warp % self.grid.warps();
        if in_block / WARPGROUP * WARPGROUP + WARPGROUP > self.grid.warps() {
            let detail = "a matrix product by fewer warps than the four of a warpgroup".to_owned();
            return Err(self.undefined(at, 0, detail));
        }
        self.expect_registers(warp, at, multiply)?;
        let thread = at.thread(0);
        let (owner, number) = (Owner::Multiply(self.warpgroup(at.warp).start), self.traces[at.warp].products + 1);
        let ticket = self.races.as_mut().map(|races| races.take_part(owner, thread, number));
        let (factor, k) = (multiply.factor, multiply.factor.depth());
        let b = self.descriptor(at, &warp.registers, multiply.b)?;
        let a_rows = match &multiply.a {
            MatrixA::Registers(registers) => rows_of_registers(factor, registers, &warp.registers),
            MatrixA::Shared { descriptor, transposed } => {
                let descriptor = self.descriptor(at, &warp.registers, *descriptor)?;
                let first = in_block % WARPGROUP * ROWS;
                let a = self.read_matrix(at, &descriptor, *transposed, factor, first..first + ROWS, ticket)?;
                (0..ROWS).map(|row| (0..k).map(|i| a(row, i)).collect()).collect()
            }
        };
        let columns = self.read_matrix(at, &b, multiply.transposed_b, factor, 0..multiply.n, ticket)?;
        let columns = Columns::new(k, multiply.n, |row, column| columns(column, row));
        let (adds, negated) = multiply.adds;
        let adds = (adds.mask(&warp.registers) & 1 != 0) != negated;
        accumulate(multiply, adds, &a_rows, &columns, &mut warp.registers);
        self.trace(at, multiply, &warp.registers);
        let accumulators = multiply.d.iter().map(|register| register.index());
        let factors = multiply.a.registers().iter().map(|register| register.index());
        warp.products.start((at.pc, number), ticket, accumulators, factors);
        self.changed = true;
        Ok(())
    }

    fn trace(&mut self, at: At, multiply: &MultiplyAsync, registers: &Registers) {
        let trace = &mut self.traces[at.warp];
        let a = match &multiply.a {
            MatrixA::Shared { descriptor, .. } => descriptor.read(registers)[0],
            MatrixA::Registers(_) => 0,
        };
        trace.products += 1;
        trace.last = at.pc;
        for bits in [at.pc as u64, a, multiply.b.read(registers)[0]] {
            trace.hash = (trace.hash ^ bits).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    /// The registers must be seen by the matrix units, and not be in use by others.
    fn expect_registers(&self, warp: &Warp, at: At, multiply: &MultiplyAsync) -> Outcome {
        let products = &warp.products;
        let factors = multiply.a.registers();
        if multiply.d.iter().chain(factors).any(|register| !products.is_fenced(register.index())) {
            let detail = "registers were written, or none fenced at all, since the last wgmma.fence".to_owned();
            return Err(self.fault(FaultKind::MissingFence, at, 0, detail));
        }
        let of = |register: &Reg<u32>| products.of(register.index());
        let accumulated = factors.iter().filter_map(of).find(|product| product.role == Role::Accumulator);
        let overwritten = multiply.d.iter().filter_map(of).find(|product| product.role == Role::Factor);
        // Products of one shape may follow each other in the same accumulators.
        let shape = |pc: u32| match self.accumulators_at(pc) {
            Some(registers) => registers == multiply.d.len(),
            None => true,
        };
        let of_other_shape = multiply.d.iter().filter_map(of).find(|product| !shape(product.pc));
        match accumulated.or(overwritten).or(of_other_shape) {
            None => Ok(()),
            Some(product) => {
                let detail = "uses a register of a matrix product that has not been waited for".to_owned();
                Err(self.unfinished(at, 0, product.pc, detail))
            }
        }
    }

    fn descriptor(&self, at: At, registers: &Registers, descriptor: Reg<u64>) -> Outcome<Descriptor> {
        let bits = descriptor.read(registers);
        if let Some(lane) = (0..LANES).find(|&lane| bits[lane] != bits[0]) {
            let detail = "the lanes of a warp name different matrices".to_owned();
            return Err(self.undefined(at, lane, detail));
        }
        Descriptor::new(bits[0]).map_err(|why| self.undefined(at, 0, why))
    }

    /// Some rows of A, or columns of B, as a function of their number and of K.
    fn read_matrix(
        &mut self,
        at: At,
        matrix: &Descriptor,
        transposed: bool,
        factor: Factor,
        rows: std::ops::Range<usize>,
        ticket: Option<Ticket>,
    ) -> Outcome<impl Fn(usize, usize) -> f64 + use<>> {
        let per_unit = factor.per_unit();
        let places: Vec<usize> = if transposed {
            let units = rows.start / per_unit..rows.end / per_unit;
            units.flat_map(|unit| (0..factor.depth()).map(move |k| matrix.along_rows(unit, k))).collect()
        } else {
            rows.flat_map(|row| (0..2).map(move |unit| matrix.along_k(row, unit))).collect()
        };
        let rank = self.rank(at.warp);
        for &offset in &places {
            let shared = &self.blocks[rank].shared;
            let checked = shared.check_range(offset as u64, UNIT, UNIT);
            let is_written = checked.is_err() || self.races.is_none() || shared.is_written(offset, UNIT);
            let checked = if is_written { checked } else { Err(Misuse::Uninitialised) };
            checked.map_err(|misuse| self.misuse(misuse, at, 0, SHARED + offset as u64, UNIT))?;
            self.engine_reads(at, 0, Location::Shared { rank, offset }, UNIT, ticket)?;
        }
        let shared = &self.blocks[rank].shared;
        let units: Vec<Value> = places.iter().map(|&offset| shared.load(offset, UNIT)).collect();
        Ok(move |row: usize, k: usize| match transposed {
            true => factor.of_unit(units[row / per_unit * factor.depth() + k], row % per_unit),
            false => factor.of_unit(units[row * 2 + k / per_unit], k % per_unit),
        })
    }

    /// Registers of the accumulator of the product at an instruction.
    fn accumulators_at(&self, pc: u32) -> Option<usize> {
        let super::Operation::Collective { action, .. } = &self.grid.kernel.instructions[pc as usize].operation else {
            return None;
        };
        match &**action {
            super::Collective::MultiplyAsync(multiply) => Some(multiply.d.len()),
            _ => None,
        }
    }
}

/// The 16 rows of A that the lanes of a warp hold.
fn rows_of_registers(factor: Factor, a: &[Reg<u32>], registers: &Registers) -> Vec<Vec<f64>> {
    let packed = factor.depth() / 8;
    let mut rows = vec![vec![0.0; factor.depth()]; ROWS];
    for (i, register) in a.iter().enumerate() {
        for (lane, word) in register.read(registers).into_iter().enumerate() {
            for element in 0..packed {
                let column = i / 2 * 4 * packed + lane % 4 * packed + element;
                rows[lane / 4 + i % 2 * 8][column] = factor.element(word, element);
            }
        }
    }
    rows
}

/// Adds to the accumulators, or replaces them. Lane `4 r + c` holds of rows r and r + 8 the columns 2 c and 2 c + 1 of
/// each eight.
fn accumulate(multiply: &MultiplyAsync, adds: bool, rows: &[Vec<f64>], columns: &Columns, registers: &mut Registers) {
    let place = |row: usize, column: usize| {
        let register = column / 8 * 4 + row / 8 * 2 + column % 2;
        (multiply.d[register].index(), row % 8 * 4 + column % 8 / 2)
    };
    let sign = if multiply.negates { -1.0 } else { 1.0 };
    let mut sums = vec![0_f32; multiply.n];
    for (i, row) in rows.iter().enumerate() {
        let row: Vec<f64> = row.iter().map(|x| x * sign).collect();
        for (column, sum) in sums.iter_mut().enumerate() {
            let (register, lane) = place(i, column);
            *sum = if adds { f32::from_bits(registers.words[register][lane]) } else { 0.0 };
        }
        columns.add_products(&row, &mut sums);
        for (column, sum) in sums.iter().enumerate() {
            let (register, lane) = place(i, column);
            registers.words[register][lane] = sum.to_bits();
        }
    }
}
