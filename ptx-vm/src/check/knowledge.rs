//! How far each block of a launch is known to have come.
//!
//! A ticket that thousands of blocks draw hands on what all of them knew. So that neither time nor memory
//! grows with the square of the blocks, this is a persistent radix tree: copies share their parts, and a join
//! looks only at the parts in which its two sides differ.

use std::rc::Rc;

/// A time for each thread of a block; 0 is before its first access.
pub type Times = Rc<[u32]>;

const BITS: u32 = 4;
const WIDTH: usize = 1 << BITS;
/// Levels of inner nodes: the numbers of blocks have 32 bits.
const HEIGHT: u32 = u32::BITS / BITS;

/// Blocks by number, and a time for each of their threads: all that the threads did until then is known.
#[derive(Debug, Clone, Default)]
pub struct Knowledge(Node);

#[derive(Debug, Clone, Default)]
enum Node {
    #[default]
    Empty,
    Inner(Rc<[Node; WIDTH]>),
    Leaf(Times),
}

impl Knowledge {
    /// Of one block only.
    pub fn of(block: u32, times: Times) -> Self {
        let leaf = Node::Leaf(times);
        Knowledge((0..HEIGHT).fold(leaf, |child, level| {
            let mut children = [const { Node::Empty }; WIDTH];
            children[digit(block, level)] = child;
            Node::Inner(Rc::new(children))
        }))
    }

    pub fn is_empty(&self) -> bool {
        matches!(self.0, Node::Empty)
    }

    /// What is known of a block, if anything.
    pub fn of_block(&self, block: u32) -> Option<&Times> {
        let mut node = &self.0;
        for level in (0..HEIGHT).rev() {
            match node {
                Node::Inner(children) => node = &children[digit(block, level)],
                _ => return None,
            }
        }
        match node {
            Node::Leaf(times) => Some(times),
            _ => None,
        }
    }

    /// The same under numbers of blocks that no block has: what is known in another sense ([`Sense`]).
    pub fn in_sense(&self, sense: Sense) -> Self {
        let Node::Inner(children) = &self.0 else { return Knowledge::default() };
        let mut moved = [const { Node::Empty }; WIDTH];
        let first = digit(sense.of_block(0), HEIGHT - 1);
        let plain = digit(Sense::Initialised.of_block(0), HEIGHT - 1);
        moved[first..first + plain].clone_from_slice(&children[..plain]);
        Knowledge(Node::Inner(Rc::new(moved)))
    }

    pub fn join(&mut self, other: &Knowledge) {
        if !self.0.is(&other.0) {
            self.0 = self.0.join(&other.0);
        }
    }
}

/// Senses in which an access may be known beyond having been made, by fences that all blocks and barriers hand on
/// like the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sense {
    /// The asynchronous proxy sees it if it wrote shared memory: `fence.proxy.async`.
    AsyncShared,
    /// Likewise of global memory.
    AsyncGlobal,
    /// The asynchronous proxy sees it if it initialised an mbarrier: `fence.mbarrier_init`.
    Initialised,
}

impl Sense {
    /// What stands for a block in this sense; numbers of blocks have 30 bits.
    pub fn of_block(self, block: u32) -> u32 {
        match self {
            Sense::Initialised => block | 1 << 30,
            Sense::AsyncShared => block | 2 << 30,
            Sense::AsyncGlobal => block | 3 << 30,
        }
    }
}

/// The digit of a block's number that chooses the child on a level; level 0 is above the leaves.
fn digit(block: u32, level: u32) -> usize {
    (block >> (level * BITS)) as usize % WIDTH
}

impl Node {
    /// Whether both are the same object.
    fn is(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Empty, Node::Empty) => true,
            (Node::Inner(a), Node::Inner(b)) => Rc::ptr_eq(a, b),
            (Node::Leaf(a), Node::Leaf(b)) => Rc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// One of the sides wherever it contains the other, so that sharing lasts.
    fn join(&self, other: &Node) -> Node {
        match (self, other) {
            (a, Node::Empty) => a.clone(),
            (Node::Empty, b) => b.clone(),
            (a, b) if a.is(b) => a.clone(),
            (Node::Inner(a), Node::Inner(b)) => {
                let children: [Node; WIDTH] = std::array::from_fn(|i| a[i].join(&b[i]));
                let same_as = |side: &[Node; WIDTH]| children.iter().zip(side).all(|(child, old)| child.is(old));
                match (same_as(a), same_as(b)) {
                    (true, _) => self.clone(),
                    (_, true) => other.clone(),
                    _ => Node::Inner(Rc::new(children)),
                }
            }
            (Node::Leaf(a), Node::Leaf(b)) => Node::Leaf(later(a, b)),
            _ => unreachable!("all leaves are on one level"),
        }
    }
}

/// The later of two times, thread by thread; one of the sides where it is nowhere behind.
pub fn later(a: &Times, b: &Times) -> Times {
    if Rc::ptr_eq(a, b) || a.iter().zip(&**b).all(|(a, b)| a >= b) {
        a.clone()
    } else if a.iter().zip(&**b).all(|(a, b)| a <= b) {
        b.clone()
    } else {
        a.iter().zip(&**b).map(|(a, b)| *a.max(b)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_knows_what_its_sides_know() {
        let mut known = Knowledge::of(3, Rc::new([5, 1]));
        known.join(&Knowledge::of(3, Rc::new([2, 4])));
        known.join(&Knowledge::of(0xffff_0003, Rc::new([7, 7])));
        assert_eq!(known.of_block(3).map(|times| &**times), Some(&[5, 4][..]));
        assert_eq!(known.of_block(0xffff_0003).map(|times| &**times), Some(&[7, 7][..]));
        assert!(known.of_block(4).is_none());
        assert!(Knowledge::default().of_block(3).is_none() && Knowledge::default().is_empty());
    }

    #[test]
    fn a_join_shares_the_side_that_contains_the_other() {
        let mut all = Knowledge::default();
        for block in 0..100 {
            all.join(&Knowledge::of(block, Rc::new([1])));
        }
        let mut more = all.clone();
        more.join(&Knowledge::of(50, Rc::new([1])));
        assert!(more.0.is(&all.0));

        let mut part = Knowledge::of(50, all.of_block(50).unwrap().clone());
        part.join(&all);
        assert!(part.0.is(&all.0));
    }
}
