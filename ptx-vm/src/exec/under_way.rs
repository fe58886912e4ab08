//! Matrix products that have not been waited for, and whose registers are nobody's until then.

use crate::check::Ticket;

/// The registers of one instruction, for those of products under way: words by their number.
#[derive(Debug, Default)]
pub struct Touched {
    pub writes: Vec<u32>,
    pub reads: Vec<u32>,
    /// Whether it only moves one register to another.
    pub is_move: bool,
}

/// What a register is to a product under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Accumulator,
    /// Of A, which other products may read.
    Factor,
}

#[derive(Debug, Clone, Copy)]
pub struct UnderWay {
    pub role: Role,
    /// Of products.
    group: u32,
    /// Of the product.
    pub pc: u32,
}

/// A product that has not been waited for.
#[derive(Debug)]
struct Open {
    group: u32,
    /// Among the products of its warp, from 1.
    number: u32,
    pc: u32,
    ticket: Option<Ticket>,
}

/// The products of a warp that have not been waited for.
#[derive(Debug, Default)]
pub struct Products {
    /// Of each word register.
    under_way: Vec<Option<UnderWay>>,
    /// Whether a word register was written by anything else since the last `wgmma.fence`.
    written: Vec<bool>,
    has_fenced: bool,
    /// Groups that are closed, and those waited for.
    committed: u32,
    waited: u32,
    open: Vec<Open>,
}

impl Products {
    pub fn new(words: usize) -> Self {
        Products { under_way: vec![None; words], written: vec![false; words], ..Products::default() }
    }

    /// Whether the matrix units see what is in a register.
    pub fn is_fenced(&self, word: usize) -> bool {
        self.has_fenced && !self.written[word]
    }

    /// The product under way that a register belongs to.
    pub fn of(&self, word: usize) -> Option<UnderWay> {
        self.under_way[word]
    }

    /// The first product that has not been waited for.
    pub fn first_open(&self) -> Option<u32> {
        self.open.first().map(|open| open.pc)
    }

    /// A product begins, in the group that is open.
    pub fn start(
        &mut self,
        (pc, number): (u32, u32),
        ticket: Option<Ticket>,
        accumulators: impl Iterator<Item = usize>,
        factors: impl Iterator<Item = usize>,
    ) {
        let group = self.committed;
        self.open.push(Open { group, number, pc, ticket });
        for word in factors {
            self.under_way[word] = Some(UnderWay { role: Role::Factor, group, pc });
        }
        for word in accumulators {
            self.under_way[word] = Some(UnderWay { role: Role::Accumulator, group, pc });
        }
    }

    pub fn commit(&mut self) {
        self.committed += 1;
    }

    /// Everything written so far is seen by the products that follow.
    pub fn fence(&mut self) {
        self.has_fenced = true;
        self.written.fill(false);
    }

    /// The number of the last product that such a wait is for; 0 where it is for none.
    pub fn last_of(&self, groups: u32) -> u32 {
        let waited = self.committed.saturating_sub(groups);
        self.open.iter().filter(|open| open.group < waited).map(|open| open.number).max().unwrap_or(0)
    }

    /// All but the last `groups` groups are over: the work that was waited for.
    pub fn wait(&mut self, groups: u32) -> Vec<Ticket> {
        let waited = self.committed.saturating_sub(groups);
        if waited <= self.waited {
            return Vec::new();
        }
        self.waited = waited;
        for register in &mut self.under_way {
            if register.is_some_and(|product| product.group < waited) {
                *register = None;
            }
        }
        let over = self.open.extract_if(.., |open| open.group < waited);
        over.filter_map(|open| open.ticket).collect()
    }

    /// The product under way that an instruction disturbs, and how.
    pub fn disturbed(&self, touched: &Touched) -> Option<(UnderWay, &'static str)> {
        if self.open.is_empty() {
            return None;
        }
        let of = |word: &u32| self.under_way[*word as usize];
        let read = touched.reads.iter().find_map(of);
        let written = touched.writes.iter().find_map(of);
        let read = read.filter(|_| !touched.is_move).map(|product| (product, "reads a register"));
        let renames = touched.is_move && touched.reads.iter().any(|word| of(word).is_some());
        read.or(written.filter(|_| !renames).map(|product| (product, "writes a register")))
    }

    pub fn touch(&mut self, touched: &Touched) {
        if let (true, [from], [to]) = (touched.is_move, &touched.reads[..], &touched.writes[..]) {
            let (from, to) = (*from as usize, *to as usize);
            self.written[to] = self.written[from];
            self.under_way[to] = self.under_way[from].filter(|product| product.role == Role::Accumulator);
            return;
        }
        for &word in &touched.writes {
            self.written[word as usize] = true;
        }
    }
}
