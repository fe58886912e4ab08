//! Fences: of memory orders, and of proxies.

use super::Scope;
use super::cluster::{At, Cluster};
use super::warp::Warp;
use crate::check::Sense;
use crate::registers::{Mask, lanes};

impl Cluster<'_> {
    pub(super) fn fence_proxy(&mut self, warp: &mut Warp, at: At, mask: Mask, senses: &[Sense]) {
        let Some(races) = &mut self.races else { return };
        for (lane, &sense) in lanes(mask).flat_map(|lane| senses.iter().map(move |sense| (lane, sense))) {
            races.fence_proxy(at.thread(lane), sense);
        }
        // It is also a release, of the initialisations, for the arrival at the cluster's barrier that follows.
        if senses.contains(&Sense::Initialised) {
            self.fence_cluster(warp, at, mask);
        }
    }

    fn fence_cluster(&mut self, warp: &mut Warp, at: At, mask: Mask) {
        if let Some(races) = self.races.as_mut().filter(|_| self.blocks.len() > 1) {
            lanes(mask).for_each(|lane| warp.fenced[lane] = races.publish(at.thread(lane)));
        }
    }

    pub(super) fn fence(&mut self, warp: &mut Warp, at: At, mask: Mask, scope: Scope) {
        if scope == Scope::Device {
            self.fence_cluster(warp, at, mask);
        }
        if let Some(races) = &mut self.races {
            lanes(mask).for_each(|lane| races.fence(at.thread(lane), scope));
        }
    }
}
