//! Bags of handwritten digits, from `examples/data/`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;

use flate2::read::GzDecoder;
use mivc::Bags;

use crate::Result;

/// An image is 8 × 8.
pub(crate) const SIDE: usize = 8;
pub(crate) const PIXELS: usize = SIDE * SIDE;
/// Of 0 to 16, as in the file.
const BRIGHTEST: f32 = 16.0;
/// The digit that the bags are searched for.
pub(crate) const WANTED: u8 = 9;

pub(crate) struct Data {
    /// Each is one bag: there is one to a step.
    pub(crate) train: Vec<Batch>,
    /// All held-out bags.
    pub(crate) test: Batch,
}

/// `B` bags of `N` images in all.
pub(crate) struct Batch {
    pub(crate) bags: Bags<'static>,
    /// `[B]`, whether the bag holds a 9.
    pub(crate) labels: Vec<bool>,
    /// `[N, 64]`, 0 to 1.
    pub(crate) pixels: Vec<f32>,
    /// `[N, 64]`, 0 to 16.
    pub(crate) images: Vec<u8>,
    /// `[N]`, what each image shows. Training does not look at it.
    pub(crate) digits: Vec<u8>,
}

impl Data {
    pub(crate) fn load() -> Result<Self> {
        let mut rows = String::new();
        GzDecoder::new(File::open("examples/data/digits.csv.gz")?).read_to_string(&mut rows)?;
        let rows: Vec<Vec<u8>> = rows.lines().map(row).collect::<Result<_>>()?;

        let bags = fs::read("examples/data/bags.json")?;
        let bags: BTreeMap<String, Vec<Vec<usize>>> = serde_json::from_slice(&bags)?;
        let train = bags["train"].chunks(1).map(|bag| Batch::new(&rows, bag)).collect::<Result<_>>()?;
        Ok(Data { train, test: Batch::new(&rows, &bags["test"])? })
    }
}

/// 64 pixels and the digit.
fn row(line: &str) -> Result<Vec<u8>> {
    let numbers = line.split(',').map(str::parse).collect::<Result<Vec<u8>, _>>()?;
    if numbers.len() != PIXELS + 1 {
        return Err(format!("digits.csv.gz: expected {} numbers in a line, got {}", PIXELS + 1, numbers.len()).into());
    }
    Ok(numbers)
}

impl Batch {
    fn new(rows: &[Vec<u8>], bags: &[Vec<usize>]) -> Result<Self> {
        let mut images = Vec::new();
        let mut digits = Vec::new();
        for &index in bags.iter().flatten() {
            images.extend(&rows[index][..PIXELS]);
            digits.push(rows[index][PIXELS]);
        }
        let lengths: Vec<i64> = bags.iter().map(|bag| bag.len() as i64).collect();
        let bags = Bags::from_lengths(&lengths)?;
        let labels = bags.ranges().map(|bag| digits[bag].contains(&WANTED)).collect();
        let pixels = images.iter().map(|&pixel| f32::from(pixel) / BRIGHTEST).collect();
        Ok(Batch { bags, labels, pixels, images, digits })
    }
}
