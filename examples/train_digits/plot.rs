//! A picture of a few held-out bags: each digit, and above it a bar as high as its attention weight.

use std::path::Path;

use mivc::Bags;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::Result;
use crate::data::{Batch, PIXELS, SIDE, WANTED};
use crate::network::{Forward, Fusion, sigmoid};

/// Bags of either kind, one below the other: the first of the held-out ones that are neither tiny nor too wide.
const BAGS: usize = 4;
const SMALLEST: usize = 6;
const LARGEST: usize = 12;

// Lengths are in pixels of the picture.
const MARGIN: i32 = 48;
/// Of a digit and of the bar above it.
const IMAGE: i32 = 6 * SIDE as i32;
/// From one digit to the next.
const SLOT: i32 = IMAGE + 8;
const COLUMN: i32 = SLOT * LARGEST as i32;
const COLUMN_GAP: i32 = 56;
const HEADER: i32 = 150;
/// Of a bag, with the label of a bar that is as high as can be.
const HEADING: i32 = 64;
const BAR: i32 = 72;
const PANEL: i32 = HEADING + BAR + IMAGE + 24;
/// Around a 9.
const FRAME: i32 = 3;
const SIZE: (u32, u32) =
    ((2 * MARGIN + 2 * COLUMN + COLUMN_GAP) as u32, (HEADER + BAGS as i32 * PANEL + MARGIN / 2) as u32);

const FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");
const INK: RGBColor = RGBColor(34, 38, 46);
const FAINT: RGBColor = RGBColor(128, 134, 145);
const RULE: RGBColor = RGBColor(226, 229, 234);
const A_NINE: RGBColor = RGBColor(230, 126, 34);
const ANOTHER: RGBColor = RGBColor(46, 110, 182);

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Bags that hold a 9 on the left, others on the right.
pub(crate) fn draw(path: &Path, fusion: Fusion, batch: &Batch, forward: &Forward) -> Result<()> {
    register_font("sans-serif", FontStyle::Normal, FONT).map_err(|_| "the bundled font cannot be read")?;
    let area = BitMapBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let title = match fusion {
        Fusion::GatedAttention => "Gated attention",
        _ => "Attention",
    };
    text(&area, &format!("{title} on bags that it has not seen"), (MARGIN, 44), 34, INK)?;
    draw_legend(&area)?;
    for (column, (heading, label)) in [("with a 9", true), ("without", false)].into_iter().enumerate() {
        let x = MARGIN + column as i32 * (COLUMN + COLUMN_GAP);
        text(&area, heading, (x, HEADER - 18), 25, INK)?;
        rectangle(&area, (x, HEADER), (COLUMN - SLOT + IMAGE, 2), RULE)?;
        for (row, bag) in chosen(batch, label).enumerate() {
            draw_bag(&area, (x, HEADER + row as i32 * PANEL), batch, forward, bag)?;
        }
    }
    Ok(area.present()?)
}

fn chosen(batch: &Batch, label: bool) -> impl Iterator<Item = usize> {
    let fits = |bags: &Bags<'_>, bag: usize| (SMALLEST..=LARGEST).contains(&bags.range(bag).len());
    (0..batch.bags.len()).filter(move |&bag| batch.labels[bag] == label && fits(&batch.bags, bag)).take(BAGS)
}

fn draw_legend(area: &Area<'_>) -> Result<()> {
    let mut x = MARGIN;
    for (color, what) in [(A_NINE, "attention weight of a 9"), (ANOTHER, "of another digit")] {
        rectangle(area, (x, 80), (16, 16), color)?;
        text(area, what, (x + 24, 88), 20, FAINT)?;
        x += 24 + width(area, what, 20)? + 28;
    }
    text(area, "p: the network's probability that the bag holds a 9", (x, 88), 20, FAINT)
}

fn draw_bag(area: &Area<'_>, (x, y): (i32, i32), batch: &Batch, forward: &Forward, bag: usize) -> Result<()> {
    let name = format!("bag {bag}");
    let probability = format!("p = {:.2}", sigmoid(forward.logits[bag]));
    text(area, &name, (x, y + 26), 21, FAINT)?;
    text(area, &probability, (x + width(area, &name, 21)? + 16, y + 26), 21, INK)?;

    let base = y + HEADING + BAR;
    for (slot, instance) in batch.bags.range(bag).enumerate() {
        let x = x + slot as i32 * SLOT;
        let is_wanted = batch.digits[instance] == WANTED;
        draw_image(area, (x, base + 6), &batch.images[instance * PIXELS..(instance + 1) * PIXELS], is_wanted)?;
        if let Some(attended) = &forward.attended {
            let color = if is_wanted { A_NINE } else { ANOTHER };
            draw_bar(area, (x, base), attended.weights[instance], color)?;
        }
    }
    Ok(())
}

/// `(x, y)` is its lower left.
fn draw_bar(area: &Area<'_>, (x, y): (i32, i32), weight: f32, color: RGBColor) -> Result<()> {
    // The least ones are seen as a line.
    let height = ((weight * BAR as f32).round() as i32).max(1);
    rectangle(area, (x, y - height), (IMAGE, height), color)?;
    if weight >= 0.05 {
        let label = format!("{weight:.2}");
        text(area, &label, (x + (IMAGE - width(area, &label, 18)?) / 2, y - height - 12), 18, INK)?;
    }
    Ok(())
}

/// Dark on light, as written.
fn draw_image(area: &Area<'_>, (x, y): (i32, i32), pixels: &[u8], framed: bool) -> Result<()> {
    if framed {
        rectangle(area, (x - FRAME, y - FRAME), (IMAGE + 2 * FRAME, IMAGE + 2 * FRAME), A_NINE)?;
    }
    let side = IMAGE / SIDE as i32;
    for (index, &pixel) in pixels.iter().enumerate() {
        let (column, row) = ((index % SIDE) as i32, (index / SIDE) as i32);
        let grey = 244 - 13 * pixel.min(16);
        rectangle(area, (x + column * side, y + row * side), (side, side), RGBColor(grey, grey, grey))?;
    }
    Ok(())
}

fn rectangle(area: &Area<'_>, (x, y): (i32, i32), (width, height): (i32, i32), color: RGBColor) -> Result<()> {
    let corners = [(x, y), (x + width, y + height)];
    Ok(area.draw(&Rectangle::new(corners, color.filled()))?)
}

/// Starts at `x`; its middle line is at `y`.
fn text(area: &Area<'_>, text: &str, (x, y): (i32, i32), size: u32, color: RGBColor) -> Result<()> {
    let style = TextStyle::from(("sans-serif", size)).color(&color).pos(Pos::new(HPos::Left, VPos::Center));
    // plotters centres the lower-case letters; figures reach higher.
    Ok(area.draw_text(text, &style, (x, y + size as i32 / 8))?)
}

fn width(area: &Area<'_>, text: &str, size: u32) -> Result<i32> {
    let (width, _) = area.estimate_text_size(text, &TextStyle::from(("sans-serif", size)))?;
    Ok(width as i32)
}
