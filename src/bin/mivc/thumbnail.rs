//! Images small enough for a plot.

use std::ops::Range;

use crate::input::Images;

/// Samples along each side of the part of an image that becomes one pixel of its thumbnail.
const SAMPLES: usize = 8;

/// A row-major picture.
pub(crate) struct Thumbnail {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) pixels: Vec<[u8; 3]>,
}

impl Thumbnail {
    /// The image with its longer side at most `side` pixels; it is never enlarged.
    pub(crate) fn new(images: &Images<'_>, image: usize, side: usize) -> Self {
        let longer = images.width.max(images.height);
        let shrunk = |size: usize| {
            if longer <= side { size } else { ((size as f64 * side as f64 / longer as f64) as usize).max(1) }
        };
        let (width, height) = (shrunk(images.width), shrunk(images.height));
        let part = |i: usize, of: usize, size: usize| i * size / of..(i + 1) * size / of;
        let mut pixels = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                pixels.push(mean(images, image, part(y, height, images.height), part(x, width, images.width)));
            }
        }
        Thumbnail { width, height, pixels }
    }
}

fn mean(images: &Images<'_>, image: usize, rows: Range<usize>, columns: Range<usize>) -> [u8; 3] {
    let step = |range: &Range<usize>| range.len().div_ceil(SAMPLES).max(1);
    let mut sum = [0_usize; 3];
    let mut count = 0;
    for y in rows.clone().step_by(step(&rows)) {
        for x in columns.clone().step_by(step(&columns)) {
            let pixel = images.pixel(image, y, x);
            sum = [0, 1, 2].map(|channel| sum[channel] + usize::from(pixel[channel]));
            count += 1;
        }
    }
    sum.map(|sum| (sum / count.max(1)) as u8)
}

/// Stretches grey thumbnails together from black to white, as images of few grey levels need to be seen.
pub(crate) fn stretch<'a>(thumbnails: impl Iterator<Item = &'a mut Thumbnail>) {
    let mut levels: Vec<&mut [u8; 3]> = thumbnails.flat_map(|thumbnail| &mut thumbnail.pixels).collect();
    let darkest = levels.iter().map(|pixel| pixel[0]).min().unwrap_or(0);
    let brightest = levels.iter().map(|pixel| pixel[0]).max().unwrap_or(255);
    let span = u32::from(brightest - darkest).max(1);
    for pixel in &mut levels {
        **pixel = pixel.map(|level| (u32::from(level - darkest) * 255 / span) as u8);
    }
}
