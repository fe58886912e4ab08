//! The table on stdout.

use std::collections::BTreeMap;
use std::fmt::Write;

use mivc::Pooled;

use crate::arguments::PoolArguments;
use crate::input::Input;
use crate::ranking::{Ranked, heads, heaviest};

/// Lines at either end of a long table; what lies between is counted, not shown.
const END: usize = 10;

/// One line per bag, for attention of several heads one per bag and head: the size of the bag (of those
/// a mask left) and its top instances, by row in the file. They are those of the highest attention; for
/// max, those that hold the largest share of the maxima; mean treats all alike.
pub(crate) fn render(arguments: &PoolArguments, input: &Input<'_>, pooled: &Pooled) -> String {
    let heads = pooled.weights.as_ref().map_or(1, heads);
    let lines = input.bags.len() * heads;
    let columns = Columns::new(input, heads);

    let mut text = summary(arguments, input);
    text += &columns.header(top_instances_title(pooled));
    let long = lines > 2 * END + 1;
    let (first, last) = if long { (0..END, lines - END..lines) } else { (0..lines, lines..lines) };
    for line in first.chain(last) {
        if long && line == lines - END {
            let _ = writeln!(text, "{:>1$}  ({2} lines left out)", "…", columns.bag, lines - 2 * END);
        }
        let (bag, head) = (line / heads, line % heads);
        let top = heaviest(instances(input, pooled, bag, head), arguments.top);
        text += &columns.line(bag, head, input.present(bag).count(), &top);
    }
    text
}

fn summary(arguments: &PoolArguments, input: &Input<'_>) -> String {
    let (bags, instances) = (input.bags.len(), input.instances());
    format!("{}: {bags} bags, {instances} instances of {} features\n\n", arguments.pooling, input.dim)
}

fn top_instances_title(pooled: &Pooled) -> &'static str {
    match pooled {
        Pooled { weights: Some(_), .. } => "top instances (row: weight)",
        Pooled { argmax: Some(_), .. } => "top instances (row: share of the maxima)",
        _ => "",
    }
}

/// The instances of a bag with what they count for one head; none where the pooling does not tell them apart.
fn instances(input: &Input<'_>, pooled: &Pooled, bag: usize, head: usize) -> Vec<Ranked> {
    if let Some(weights) = &pooled.weights {
        let weight = |row| weights.data[row * heads(weights) + head];
        return input.present(bag).map(|row| Ranked { row, weight: weight(row) }).collect();
    }
    let Some(argmax) = &pooled.argmax else {
        return Vec::new();
    };
    let mut maxima = BTreeMap::new();
    for row in argmax.data[bag * input.dim..(bag + 1) * input.dim].iter().filter_map(|&row| usize::try_from(row).ok()) {
        *maxima.entry(row).or_insert(0_u32) += 1;
    }
    maxima.into_iter().map(|(row, count)| Ranked { row, weight: count as f32 / input.dim as f32 }).collect()
}

/// Widths in characters.
struct Columns {
    bag: usize,
    /// 0 where there is one head, which needs no number.
    head: usize,
    size: usize,
    row: usize,
}

impl Columns {
    fn new(input: &Input<'_>, heads: usize) -> Self {
        let digits = |number: usize| number.to_string().len();
        Columns {
            bag: digits(input.bags.len()).max("bag".len()),
            head: if heads == 1 { 0 } else { digits(heads).max("head".len()) + 2 },
            size: digits(input.instances()).max("size".len()),
            row: digits(input.instances()),
        }
    }

    fn header(&self, top: &str) -> String {
        let Columns { bag, head, size, .. } = self;
        let head_title = if *head == 0 { "" } else { "head" };
        let line = format!("{:>bag$}{head_title:>head$}  {:>size$}  {top}", "bag", "size");
        format!("{}\n", line.trim_end())
    }

    fn line(&self, bag: usize, head: usize, size: usize, top: &[Ranked]) -> String {
        let head = if self.head == 0 { String::new() } else { head.to_string() };
        let mut line = format!("{bag:>0$}{head:>1$}  {size:>2$}", self.bag, self.head, self.size);
        for Ranked { row, weight } in top {
            let _ = write!(line, "  {row:>0$}: {1:<6}", self.row, weight_text(*weight));
        }
        format!("{}\n", line.trim_end())
    }
}

/// Three decimals, or the magnitude where they would all be 0.
fn weight_text(weight: f32) -> String {
    if weight > 0.0 && weight < 0.0005 { format!("{weight:.0e}") } else { format!("{weight:.3}") }
}
