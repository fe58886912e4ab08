//! The plot: how the attention of each bag is spread over its instances.
//!
//! One panel per bag. Its bars are the instances, heaviest first, all panels on one scale; under each bar
//! lies the instance's image, where the file has images, and its row in the file. With several heads a
//! bar is the mean over the heads and its segments are what each head adds to it.

use std::path::Path;

use mivc::Tensor;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::Result;
use crate::arguments::{Format, PoolingKind};
use crate::input::{Images, Input};
use crate::ranking::{Ranked, heads, heaviest};
use crate::thumbnail::{Thumbnail, stretch};

/// Bags shown; a file may hold thousands.
const PANELS: usize = 16;
const COLUMNS: usize = 4;

// Lengths are in pixels of the picture.
const MARGIN: i32 = 40;
/// Left of the first column, for the labels of the axis.
const AXIS: i32 = 84;
const HEADER: i32 = 120;
/// Where bars are, per panel, and what separates panels.
const PANEL_WIDTH: i32 = 432;
const GAP: (i32, i32) = (36, 36);
const HEADING: i32 = 64;
const BARS: i32 = 136;
const ROWS: i32 = 28;

/// Bounds of the distance from bar to bar. Thumbnails must stay recognisable.
const WIDEST_SLOT: f64 = 48.0;
const NARROWEST_SLOT: f64 = 2.0;
const NARROWEST_SLOT_WITH_IMAGE: f64 = 36.0;

/// Pixels along a thumbnail in an SVG, where each is an element of its own.
const SVG_DETAIL: usize = 24;

const FONT: &[u8] = include_bytes!("../../../assets/DejaVuSans.ttf");
const INK: RGBColor = RGBColor(34, 38, 46);
const FAINT: RGBColor = RGBColor(128, 134, 145);
const RULE: RGBColor = RGBColor(226, 229, 234);
/// One per head, again from the first after the last.
const HEADS: [RGBColor; 8] = [
    RGBColor(46, 110, 182),
    RGBColor(230, 126, 34),
    RGBColor(28, 150, 115),
    RGBColor(196, 66, 92),
    RGBColor(132, 94, 194),
    RGBColor(96, 176, 224),
    RGBColor(208, 170, 40),
    RGBColor(110, 118, 130),
];

/// Either of the two backends, whose errors can be passed on.
trait Backend: DrawingBackend<ErrorType: 'static> {}
impl<DB: DrawingBackend<ErrorType: 'static>> Backend for DB {}

pub(crate) struct Figure<'a> {
    title: String,
    input: &'a Input<'a>,
    weights: &'a Tensor<f32>,
    panels: Vec<Panel>,
    /// The top of the axis, the same in all panels.
    top: f64,
}

struct Panel {
    bag: usize,
    /// Instances in the bag; `bars` may be fewer.
    size: usize,
    bars: Vec<Ranked>,
    /// From the left of a bar to the left of the next.
    slot: f64,
}

impl Panel {
    /// Left and right of a bar.
    fn bar(&self, index: usize) -> (i32, i32) {
        let (left, right) = (index as f64 * self.slot, (index + 1) as f64 * self.slot);
        let gap = (self.slot / 6.0).clamp(1.0, 6.0);
        (left as i32, (right - gap) as i32)
    }
}

impl<'a> Figure<'a> {
    pub(crate) fn new(pooling: PoolingKind, input: &'a Input<'a>, weights: &'a Tensor<f32>) -> Self {
        let narrowest = if input.images.is_some() { NARROWEST_SLOT_WITH_IMAGE } else { NARROWEST_SLOT };
        let room = (f64::from(PANEL_WIDTH) / narrowest) as usize;
        let slot = |bars: usize| (f64::from(PANEL_WIDTH) / bars.max(1) as f64).clamp(narrowest, WIDEST_SLOT);
        let panel = |bag| {
            let instances: Vec<_> = input.present(bag).map(|row| ranked(weights, row)).collect();
            let (size, bars) = (instances.len(), heaviest(instances, room));
            Panel { bag, size, slot: slot(bars.len()), bars }
        };
        let mut panels: Vec<Panel> = (0..input.bags.len().min(PANELS)).map(panel).collect();
        if input.images.is_some() {
            let narrowest = panels.iter().map(|panel| panel.slot).fold(WIDEST_SLOT, f64::min);
            panels.iter_mut().for_each(|panel| panel.slot = narrowest);
        }
        let bars = panels.iter().flat_map(|panel| &panel.bars);
        let top = axis_top(bars.map(|bar| f64::from(bar.weight)).filter(|weight| weight.is_finite()));
        Figure { title: title(pooling, panels.len(), input.bags.len()), input, weights, panels, top }
    }

    pub(crate) fn draw(&self, path: &Path) -> Result<()> {
        register_font("sans-serif", FontStyle::Normal, FONT).map_err(|_| "the bundled font cannot be read")?;
        match Format::of(path)? {
            Format::Png => self.draw_on(BitMapBackend::new(path, self.size()), usize::MAX),
            Format::Svg => self.draw_on(SVGBackend::new(path, self.size()), SVG_DETAIL),
        }
    }

    fn columns(&self) -> usize {
        self.panels.len().clamp(2, COLUMNS)
    }

    fn size(&self) -> (u32, u32) {
        let (columns, rows) = (self.columns() as i32, self.panels.len().div_ceil(self.columns()) as i32);
        let width = AXIS + columns * (PANEL_WIDTH + GAP.0);
        let height = HEADER + rows * (self.panel_height() + GAP.1) + MARGIN / 2;
        (width as u32, height as u32)
    }

    fn panel_height(&self) -> i32 {
        let strip =
            self.input.images.as_ref().map_or(0, |images| scaled(images.height, images, self.side()) as i32 + 8);
        HEADING + BARS + strip + ROWS
    }

    fn draw_on<DB: Backend>(&self, backend: DB, detail: usize) -> Result<()> {
        let area = backend.into_drawing_area();
        area.fill(&WHITE)?;
        self.draw_header(&Canvas { area: &area, origin: (AXIS, MARGIN) })?;
        let thumbnails = self.thumbnails(detail);
        for (index, (panel, thumbnails)) in self.panels.iter().zip(&thumbnails).enumerate() {
            let (column, row) = ((index % self.columns()) as i32, (index / self.columns()) as i32);
            let x = AXIS + column * (PANEL_WIDTH + GAP.0);
            let y = HEADER + row * (self.panel_height() + GAP.1);
            let canvas = Canvas { area: &area, origin: (x, y) };
            self.draw_heading(&canvas, panel)?;
            self.draw_axis(&canvas, column == 0)?;
            self.draw_bars(&canvas, panel)?;
            self.draw_thumbnails(&canvas, panel, thumbnails)?;
            self.draw_row_numbers(&canvas, panel)?;
        }
        Ok(area.present()?)
    }

    fn draw_header<DB: Backend>(&self, canvas: &Canvas<'_, DB>) -> Result<()> {
        let heads = heads(self.weights);
        canvas.text(&self.title, (0, 0), 38, INK, LEFT)?;
        let what = match heads {
            1 => "attention weight, heaviest instance first; below, its row in the file".to_owned(),
            _ => format!("attention weight, mean of {heads} heads, heaviest instance first"),
        };
        canvas.text(&what, (0, 42), 22, FAINT, LEFT)?;
        let mut x = canvas.width(&what, 22)? + 28;
        for (head, &color) in HEADS.iter().enumerate().take(heads).filter(|_| heads > 1) {
            let label = format!("head {head}");
            canvas.rectangle((x, 36), (x + 14, 50), color)?;
            canvas.text(&label, (x + 20, 42), 22, FAINT, LEFT)?;
            x += 20 + canvas.width(&label, 22)? + 22;
        }
        Ok(())
    }

    fn draw_heading<DB: Backend>(&self, canvas: &Canvas<'_, DB>, panel: &Panel) -> Result<()> {
        let name = format!("bag {}", panel.bag);
        let size = match (panel.size, panel.bars.len()) {
            (0, _) => "empty".to_owned(),
            (1, _) => "1 instance".to_owned(),
            (size, shown) if shown < size => {
                let weight: f32 = panel.bars.iter().map(|bar| bar.weight).sum();
                format!("{shown} of {size} instances, weight {weight:.2}")
            }
            (size, _) => format!("{size} instances"),
        };
        canvas.text(&name, (0, 14), 27, INK, LEFT)?;
        canvas.text(&size, (canvas.width(&name, 27)? + 14, 15), 21, FAINT, LEFT)
    }

    fn draw_axis<DB: Backend>(&self, canvas: &Canvas<'_, DB>, labelled: bool) -> Result<()> {
        for tick in [0.0, self.top / 2.0, self.top] {
            let y = self.y(tick);
            canvas.rectangle((0, y), (PANEL_WIDTH, y + 1), RULE)?;
            if labelled {
                canvas.text(&tick.to_string(), (-12, y), 20, FAINT, RIGHT)?;
            }
        }
        Ok(())
    }

    fn draw_bars<DB: Backend>(&self, canvas: &Canvas<'_, DB>, panel: &Panel) -> Result<()> {
        let all_labels_fit = f64::from(canvas.width("0.00", 18)?) <= panel.slot;
        for (index, bar) in panel.bars.iter().enumerate() {
            let (left, right) = panel.bar(index);
            let mut sum = 0.0;
            for (head, weight) in head_weights(self.weights, bar.row).iter().enumerate() {
                let below = self.y(sum);
                sum += f64::from(*weight) / heads(self.weights) as f64;
                canvas.rectangle((left, self.y(sum)), (right, below), HEADS[head % HEADS.len()])?;
            }
            // Lesser weights round to 0.00, and the bar tells as much.
            if (index == 0 || all_labels_fit) && (bar.weight.is_nan() || bar.weight >= 0.005) {
                let middle = (left + right) / 2;
                canvas.text(&format!("{:.2}", bar.weight), (middle, self.y(sum) - 12), 18, INK, CENTRE)?;
            }
        }
        Ok(())
    }

    fn draw_thumbnails<DB: Backend>(
        &self,
        canvas: &Canvas<'_, DB>,
        panel: &Panel,
        thumbnails: &[Thumbnail],
    ) -> Result<()> {
        let Some(images) = &self.input.images else {
            return Ok(());
        };
        let (width, height) = (scaled(images.width, images, self.side()), scaled(images.height, images, self.side()));
        for (index, thumbnail) in thumbnails.iter().enumerate() {
            let (left, right) = panel.bar(index);
            let left = (left + right - width as i32) / 2;
            let x = |column: usize| left + (column * width / thumbnail.width) as i32;
            let y = |row: usize| HEADING + BARS + 4 + (row * height / thumbnail.height) as i32;
            for (row, pixels) in thumbnail.pixels.chunks_exact(thumbnail.width).enumerate() {
                let mut column = 0;
                for run in pixels.chunk_by(PartialEq::eq) {
                    let end = column + run.len();
                    let [red, green, blue] = run[0];
                    canvas.rectangle((x(column), y(row)), (x(end), y(row + 1)), RGBColor(red, green, blue))?;
                    column = end;
                }
            }
        }
        Ok(())
    }

    fn draw_row_numbers<DB: Backend>(&self, canvas: &Canvas<'_, DB>, panel: &Panel) -> Result<()> {
        let widest = panel.bars.iter().map(|bar| bar.row).max().unwrap_or(0).to_string();
        if f64::from(canvas.width(&widest, 18)?) > panel.slot {
            return Ok(());
        }
        for (index, bar) in panel.bars.iter().enumerate() {
            let (left, right) = panel.bar(index);
            let position = ((left + right) / 2, self.panel_height() - ROWS / 2);
            canvas.text(&bar.row.to_string(), position, 18, FAINT, CENTRE)?;
        }
        Ok(())
    }

    fn thumbnails(&self, detail: usize) -> Vec<Vec<Thumbnail>> {
        let Some(images) = &self.input.images else {
            return self.panels.iter().map(|_| Vec::new()).collect();
        };
        let side = self.side().min(detail);
        let thumbnail = |bar: &Ranked| Thumbnail::new(images, bar.row, side);
        let mut thumbnails: Vec<Vec<Thumbnail>> =
            self.panels.iter().map(|panel| panel.bars.iter().map(thumbnail).collect()).collect();
        if images.are_grey() {
            stretch(thumbnails.iter_mut().flatten());
        }
        thumbnails
    }

    /// Pixels along the longer side of a thumbnail, at most.
    fn side(&self) -> usize {
        self.panels.first().map_or(0, |panel| panel.slot as usize).saturating_sub(4)
    }

    /// How far down a panel a weight is.
    fn y(&self, weight: f64) -> i32 {
        let height = if weight.is_finite() { weight / self.top * f64::from(BARS) } else { 0.0 };
        HEADING + BARS - height.round() as i32
    }
}

fn title(pooling: PoolingKind, shown: usize, bags: usize) -> String {
    let pooling = if pooling == PoolingKind::GatedAttention { "Gated attention" } else { "Attention" };
    let count = match (shown, bags) {
        (_, 1) => "1 bag".to_owned(),
        _ if shown < bags => format!("first {shown} of {bags} bags"),
        _ => format!("{bags} bags"),
    };
    format!("{pooling}, {count}")
}

/// How long one side of an image is in the plot, where the longer may take up `side` pixels. Small images
/// are enlarged to whole multiples, which keeps them crisp.
fn scaled(size: usize, images: &Images<'_>, side: usize) -> usize {
    let longer = images.width.max(images.height);
    if longer <= side { size * (side / longer) } else { (size as f64 * side as f64 / longer as f64).ceil() as usize }
}

/// One weight per head.
fn head_weights(weights: &Tensor<f32>, row: usize) -> &[f32] {
    &weights.data[row * heads(weights)..][..heads(weights)]
}

/// An instance with the mean of its heads.
fn ranked(weights: &Tensor<f32>, row: usize) -> Ranked {
    let weight = head_weights(weights, row).iter().sum::<f32>() / heads(weights) as f32;
    Ranked { row, weight }
}

/// The least of 1, 0.5, 0.2, 0.1, 0.05 … that no weight is above.
fn axis_top(weights: impl Iterator<Item = f64>) -> f64 {
    let heaviest = weights.fold(0.0, f64::max);
    let steps = (0..30).flat_map(|decade| [10.0, 5.0, 2.0].map(|step| step / 10_f64.powi(decade + 1)));
    steps.take_while(|&top| top >= heaviest && heaviest > 0.0).last().unwrap_or(1.0)
}

const LEFT: HPos = HPos::Left;
const CENTRE: HPos = HPos::Center;
const RIGHT: HPos = HPos::Right;

/// A part of the picture, drawn in coordinates of its own.
struct Canvas<'a, DB: Backend> {
    area: &'a DrawingArea<DB, Shift>,
    origin: (i32, i32),
}

impl<DB: Backend> Canvas<'_, DB> {
    fn rectangle(&self, upper_left: (i32, i32), lower_right: (i32, i32), color: RGBColor) -> Result<()> {
        let corners = [self.place(upper_left), self.place(lower_right)];
        Ok(self.area.draw(&Rectangle::new(corners, color.filled()))?)
    }

    /// Text whose middle line is at the height of `position`.
    fn text(&self, text: &str, position: (i32, i32), size: u32, color: RGBColor, anchor: HPos) -> Result<()> {
        let style = TextStyle::from(("sans-serif", size)).color(&color).pos(Pos::new(anchor, VPos::Center));
        // The backends centre the lower-case letters; figures reach higher.
        let lowered = (position.0, position.1 + size as i32 / 8);
        Ok(self.area.draw_text(text, &style, self.place(lowered))?)
    }

    fn width(&self, text: &str, size: u32) -> Result<i32> {
        let (width, _) = self.area.estimate_text_size(text, &TextStyle::from(("sans-serif", size)))?;
        Ok(width as i32)
    }

    fn place(&self, (x, y): (i32, i32)) -> (i32, i32) {
        (self.origin.0 + x, self.origin.1 + y)
    }
}
