//! Processors that have no such unit.

use std::ops::Range;

use super::{BLOCK_ROWS, Block, Function, PanelStep, Sums};
use crate::engine::kernels::line::Line;
use crate::engine::kernels::panel::PANEL;
use crate::engine::kernels::tiles::Tiles;

pub(in crate::engine::kernels) use super::rounded_each as rounded;

pub(super) fn available() -> bool {
    false
}

/// There is none.
pub(in crate::engine::kernels) enum Unit {}

impl Unit {
    pub(in crate::engine::kernels) fn take() -> Self {
        panic!("products of bf16 on a processor without them")
    }

    pub(in crate::engine::kernels) fn multiply(&self, _: Block<'_>, _: &mut Sums) {
        match *self {}
    }

    pub(in crate::engine::kernels) fn finish(
        &self,
        _: &Sums,
        _: Range<usize>,
        _: (&[f32; PANEL], Function),
        _: (&mut Tiles, usize),
    ) {
        match *self {}
    }

    pub(in crate::engine::kernels) fn gate(&self, _: &[Sums; 2], _: usize, _: &mut [Line; BLOCK_ROWS]) {
        match *self {}
    }

    pub(in crate::engine::kernels) fn scale(&self, _: &Sums, _: Range<usize>, _: &[f32], _: (&mut Tiles, usize)) {
        match *self {}
    }

    pub(in crate::engine::kernels) fn weigh(&self, _: &[Sums], _: usize, _: f32, _: &mut Tiles) -> [f32; BLOCK_ROWS] {
        match *self {}
    }

    pub(in crate::engine::kernels) fn across(&self, _: &[Line], _: &mut PanelStep) {
        match *self {}
    }

    pub(in crate::engine::kernels) fn pairwise(&self, _: &[Line], _: &mut PanelStep) {
        match *self {}
    }
}
