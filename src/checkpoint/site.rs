//! Where in a file the attention is, and reading it from there.

use std::collections::BTreeMap;
use std::iter;

use super::tensors::{Linear, Size, Tensors};
use super::{LAYOUTS, Layout, Names};
use crate::attention::{AttentionParams, AttentionShape, AttentionTensors, Projection};
use crate::error::{CheckpointError, Result};

/// How many keys or places a message lists before it counts the rest.
const LISTED: usize = 12;

/// The one place in a file where the attention is.
pub(super) struct Site<'k> {
    layout: &'static Layout,
    names: &'static Names,
    prefix: &'k str,
    groups: usize,
}

impl<'k> Site<'k> {
    /// The one attention of a file.
    ///
    /// V and w make an attention. Where there is none, U beside one of them is taken for an
    /// attention that lacks a tensor, which reading it will name.
    pub(super) fn find(tensors: &'k Tensors<'_>) -> Result<Self, CheckpointError> {
        let mut whole = Vec::new();
        let mut incomplete = None;
        for layout in &LAYOUTS {
            for names in layout.attentions {
                for (prefix, [v, u, w]) in count_weights(tensors, names) {
                    // The most, so that one that a head group lacks is missed when it is read.
                    let site = Site { layout, names, prefix, groups: v.max(u).max(w) };
                    if v > 0 && w > 0 {
                        whole.push(site);
                    } else if u > 0 && (v > 0 || w > 0) {
                        incomplete.get_or_insert(site);
                    }
                }
            }
        }
        if whole.len() > 1 {
            let sites = whole.iter().map(|site| format!("{}{} ({})", site.prefix, site.names.v, site.layout.name));
            return Err(CheckpointError::Ambiguous { found: list(sites) });
        }
        whole.pop().or(incomplete).ok_or_else(|| CheckpointError::UnknownLayout {
            known: LAYOUTS.each_ref().map(|layout| layout.name).join(", "),
            found: list(tensors.keys().map(|key| key.escape_debug().to_string())),
        })
    }

    /// Reads the attention and the projection in front of it.
    pub(super) fn read(&self, tensors: &Tensors<'_>) -> Result<AttentionParams> {
        let v = self.linear(tensors, self.names.v, Size::Free('L'), Size::Free('D'))?;
        let (hidden, dim) = (Size::Exactly(v.rows), Size::Exactly(v.columns));
        let u = match self.names.u {
            Some(u) if self.has(tensors, u) => Some(self.linear(tensors, u, hidden, dim)?),
            _ => None,
        };
        let w = self.linear(tensors, self.names.w, Size::Free('K'), hidden)?;

        let shape = AttentionShape { dim: v.columns, hidden: v.rows, heads: self.groups * w.rows, groups: self.groups };
        let params = AttentionParams::new(
            shape,
            AttentionTensors {
                v: &v.weight,
                v_bias: v.bias.as_deref(),
                u: u.as_ref().map(|u| &u.weight[..]),
                u_bias: u.as_ref().and_then(|u| u.bias.as_deref()),
                w: &w.weight,
                w_bias: w.bias.as_deref(),
            },
        )?;
        match self.projection(tensors, shape.dim)? {
            Some(projection) => params.with_projection(projection),
            None => Ok(params),
        }
    }

    /// The projection, under the prefix of the attention or, where the attention is a submodule
    /// beside it, under the prefix around that.
    fn projection(&self, tensors: &Tensors<'_>, dim: usize) -> Result<Option<Projection>> {
        let outer = self.prefix.strip_suffix('.').map_or("", parent);
        for prefix in [self.prefix, outer] {
            for name in self.layout.projections {
                let name = format!("{prefix}{name}");
                if self.is_projection(tensors, &name, dim) {
                    let (rows, columns) = (Size::Exactly(dim), Size::Free('D'));
                    let linear = Linear::read(tensors, self.layout.name, iter::once(name), rows, columns)?;
                    return Projection::new(linear.columns, linear.weight, linear.bias).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// Whether `name` is a Linear that puts out what the attention takes in, and but for the
    /// attention the only layer of its block: with another one behind it, it would not be what the
    /// attention reads.
    fn is_projection(&self, tensors: &Tensors<'_>, name: &str, dim: usize) -> bool {
        let shape = tensors.shape(&format!("{name}.weight"));
        let block = parent(name);
        shape.is_some_and(|shape| matches!(*shape, [output, input] if output == dim && input > 0))
            && tensors
                .keys()
                .filter(|key| key.starts_with(block))
                .all(|key| key.rsplit_once('.').is_some_and(|(layer, _)| layer == name || self.is_attention(layer)))
    }

    fn is_attention(&self, layer: &str) -> bool {
        let Names { v, u, w } = *self.names;
        [Some(v), u, Some(w)].into_iter().flatten().any(|name| self.layers(name).any(|own| own == layer))
    }

    /// Whether any head group has the layer `name`.
    fn has(&self, tensors: &Tensors<'_>, name: &str) -> bool {
        self.layers(name)
            .any(|layer| ["weight", "bias"].iter().any(|part| tensors.contains(&format!("{layer}.{part}"))))
    }

    /// The Linear layers `name` of all head groups.
    fn linear(&self, tensors: &Tensors<'_>, name: &str, rows: Size, columns: Size) -> Result<Linear, CheckpointError> {
        Linear::read(tensors, self.layout.name, self.layers(name), rows, columns)
    }

    /// The full name of the layer `name` in each head group.
    fn layers(&self, name: &str) -> impl Iterator<Item = String> + Clone {
        (0..self.groups).map(move |h| format!("{}{}", self.prefix, name.replace("{h}", &h.to_string())))
    }
}

/// How many weights of V, of U and of w there are under each prefix, one per head group.
fn count_weights<'k>(tensors: &'k Tensors<'_>, names: &Names) -> BTreeMap<&'k str, [usize; 3]> {
    let mut counts = BTreeMap::<_, [usize; 3]>::new();
    for key in tensors.keys() {
        for (tensor, name) in [Some(names.v), names.u, Some(names.w)].into_iter().enumerate() {
            if let Some(prefix) = name.and_then(|name| prefix_of(key, name)) {
                counts.entry(prefix).or_default()[tensor] += 1;
            }
        }
    }
    counts
}

/// What stands before the layer `name` in `key`, where `key` is that layer's weight.
fn prefix_of<'k>(key: &'k str, name: &str) -> Option<&'k str> {
    let layer = key.strip_suffix(".weight")?;
    let prefix = match name.split_once("{h}") {
        None => layer.strip_suffix(name)?,
        Some((before, after)) => {
            let numbered = layer.strip_suffix(after)?;
            let unnumbered = numbered.trim_end_matches(|c: char| c.is_ascii_digit());
            unnumbered.strip_suffix(before).filter(|_| unnumbered.len() < numbered.len())?
        }
    };
    let is_module_path = prefix.is_empty() || prefix.ends_with('.');
    // Prefixes go into messages of one line.
    (is_module_path && !prefix.contains(char::is_control)).then_some(prefix)
}

/// The prefix that a dotted name has: `a.b.` for `a.b.c`.
fn parent(name: &str) -> &str {
    name.trim_end_matches(|c| c != '.')
}

/// The items with commas between them, or the first few and a count of the rest.
fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let count = items.len();
    let shown = items.take(LISTED).collect::<Vec<_>>().join(", ");
    match count {
        0 => "none".to_owned(),
        1..=LISTED => shown,
        _ => format!("{shown} and {} more", count - LISTED),
    }
}
