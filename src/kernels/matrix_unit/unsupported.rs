//! Processors that have no such unit.

use std::ops::Range;

use super::{ActivationFunction, BLOCK_ROWS, PanelStep, Sums, TileBlock};
use crate::cache_line::Bf16Line;
use crate::panel::PANEL;
use crate::tiles::Tiles;

pub(crate) use super::rounded_each as rounded;

pub(super) fn available() -> bool {
    false
}

/// There is none.
pub(crate) enum MatrixUnit {}

impl MatrixUnit {
    pub(crate) fn take() -> Self {
        panic!("products of bf16 on a processor without them")
    }

    pub(crate) fn multiply(&self, _: TileBlock<'_>, _: &mut Sums) {
        match *self {}
    }

    pub(crate) fn finish(&self, _: &Sums, _: Range<usize>, _: (&[f32; PANEL], ActivationFunction), _: (&mut Tiles, usize)) {
        match *self {}
    }

    pub(crate) fn gate(&self, _: &[Sums; 2], _: usize, _: &mut [Bf16Line; BLOCK_ROWS]) {
        match *self {}
    }

    pub(crate) fn scale(&self, _: &Sums, _: Range<usize>, _: &[f32], _: (&mut Tiles, usize)) {
        match *self {}
    }

    pub(crate) fn weigh(&self, _: &[Sums], _: usize, _: f32, _: &mut Tiles) -> [f32; BLOCK_ROWS] {
        match *self {}
    }

    pub(crate) fn across(&self, _: &[Bf16Line], _: &mut PanelStep) {
        match *self {}
    }

    pub(crate) fn pairwise(&self, _: &[Bf16Line], _: &mut PanelStep) {
        match *self {}
    }
}
