//! Stands in for the matrix unit on processors that have none.

use std::ops::Range;

use super::{ActivationFunction, PanelStep, Sums};
use crate::cache_line::Bf16Line;
use crate::panel::PANEL;
use crate::tiles::{BLOCK_ROWS, TileBlock, Tiles};

pub(super) fn available() -> bool {
    false
}

/// No value of this type exists.
pub(crate) enum MatrixUnit {}

impl MatrixUnit {
    pub(crate) fn take() -> Self {
        panic!("products of bf16 on a processor without them")
    }

    pub(crate) fn multiply(&self, _: TileBlock<'_>, _: &mut Sums) {
        match *self {}
    }

    pub(crate) fn activate(&self, _: &Sums, _: Range<usize>, _: &[f32; PANEL], _: ActivationFunction, _: &mut Tiles, _: usize) {
        match *self {}
    }

    pub(crate) fn gate(&self, _: &[Sums; 2], _: usize, _: &mut [Bf16Line; BLOCK_ROWS]) {
        match *self {}
    }

    pub(crate) fn scale(&self, _: &Sums, _: Range<usize>, _: &[f32], _: &mut Tiles, _: usize) {
        match *self {}
    }

    pub(crate) fn softmax_weights(&self, _: &[Sums], _: usize, _: f32, _: &mut Tiles) -> [f32; BLOCK_ROWS] {
        match *self {}
    }

    pub(crate) fn pack_transposed(&self, _: &[Bf16Line], _: &mut PanelStep) {
        match *self {}
    }

    pub(crate) fn pack_pairs(&self, _: &[Bf16Line], _: &mut PanelStep) {
        match *self {}
    }
}
