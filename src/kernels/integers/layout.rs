//! The layout of quantized weights in memory: 32 outputs together, and all parts of a step side by side, so that a product reads one stream.
//!
//! A panel is a row of spans, in which scales are shared, each a row of steps. All is in lines of 64 bytes:
//!
//! ```text
//! span      a line of scales in f16; one of offsets, if there are any; the steps
//! step      the values of the first 16 outputs, those of the others; a line of factors, if there are any
//! 8 bits    a line is four inputs of 16 outputs: w0 w1 w2 w3 w0' w1' w2' w3' …      (a dash marks the second output)
//! 4 bits    a line is eight inputs: the lower halves of its bytes are the first four
//! factors   those of the scales, then those of the offsets or of the step's second group
//! ```

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::{GroupScales, PANEL, PanelWeights, QUAD, QUADS, Quantized, STEP, single};
use crate::cache_line::CacheAligned;
use crate::huge_pages::HugePageBuffer;

/// Outputs of a line.
const OUTPUTS: usize = PANEL / 2;

/// A cache line of bytes.
pub(super) type ByteLine = CacheAligned<[u8; 64]>;

/// Where the parts of a panel lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct PanelLayout {
    /// Whether values have four bits.
    pub(super) nibbles: bool,
    /// Inputs that share a scale: 16 or 32.
    pub(super) group: usize,
    /// Steps that share a line of scales.
    span: usize,
    /// Whether scales have factors.
    pub(super) factors: bool,
    pub(super) offsets: bool,
    /// Whether offsets have factors.
    pub(super) offset_factors: bool,
}

impl PanelLayout {
    fn of(rows: &Quantized) -> Self {
        let Quantized { inputs, group, nibbles, .. } = *rows;
        assert!(
            inputs.is_multiple_of(STEP) && STEP.is_multiple_of(group) && group >= STEP / 2,
            "{inputs} inputs in groups of {group}"
        );
        assert!(rows.offsets.is_none() || group == STEP, "offsets of groups of {group}");
        assert!(!nibbles || rows.values.iter().all(|value| (0..16).contains(value)), "values of more than four bits");
        let shared = inputs / rows.scales.of_row(rows);
        assert!(shared.is_multiple_of(STEP) && inputs.is_multiple_of(shared), "scales of {shared} of {inputs} inputs");
        let same = rows.offsets.as_ref().is_none_or(|offsets| offsets.large.len() == rows.scales.large.len());
        assert!(same, "offsets of other inputs than the scales'");
        Self {
            nibbles,
            group,
            span: shared / STEP,
            factors: !rows.scales.small.is_empty(),
            offsets: rows.offsets.is_some(),
            offset_factors: rows.offsets.as_ref().is_some_and(|offsets| !offsets.small.is_empty()),
        }
    }

    /// Lines before the first step of a span.
    pub(super) fn before(self) -> usize {
        1 + usize::from(self.offsets)
    }

    /// Lines of the values of a step.
    pub(super) fn values(self) -> usize {
        if self.nibbles { QUADS } else { 2 * QUADS }
    }

    /// Lines of a step.
    pub(super) fn step(self) -> usize {
        self.values() + usize::from(self.factors || self.offset_factors)
    }

    /// Lines of a span.
    pub(super) fn span(self) -> usize {
        self.before() + self.span * self.step()
    }

    /// Lines of a panel.
    pub(super) fn panel(self, inputs: usize) -> usize {
        inputs / (self.span * STEP) * self.span()
    }

    /// The first lines of the span and of the step that an input is in.
    fn lines(self, input: usize) -> (usize, usize) {
        let (span, step) = (input / STEP / self.span, input / STEP % self.span);
        (span * self.span(), span * self.span() + self.before() + step * self.step())
    }

    /// The byte of a panel that holds a value, and the first of its bits.
    fn place(self, input: usize, output: usize) -> (usize, usize) {
        let (half, quad) = (output / OUTPUTS, input % STEP / QUAD);
        let (line, shift) = if self.nibbles { ((half * QUADS + quad) / 2, quad % 2 * 4) } else { (half * QUADS + quad, 0) };
        ((self.lines(input).1 + line) * 64 + output % OUTPUTS * QUAD + input % QUAD, shift)
    }

    /// The bytes of a panel at which an input's scale and its factor lie, or its offset and its factor.
    fn measure(self, input: usize, output: usize, offset: bool) -> (usize, usize) {
        let (span, step) = self.lines(input);
        let second = offset || input % STEP >= self.group;
        ((span + usize::from(offset)) * 64 + 2 * output, (step + self.values()) * 64 + usize::from(second) * PANEL + output)
    }
}

impl GroupScales {
    /// How many scales or offsets in f16 each row has.
    fn of_row(&self, rows: &Quantized) -> usize {
        self.large.len() / (rows.values.len() / rows.inputs)
    }

    /// Writes the scales or offsets of row `row` to their places in the panel, where it is the output `within`.
    fn lay(&self, layout: PanelLayout, rows: &Quantized, row: usize, within: usize, offset: bool, panel: &mut [u8]) {
        let (larges, groups) = (self.of_row(rows), rows.inputs / rows.group);
        for group in 0..groups {
            let (large, small) = layout.measure(group * rows.group, within, offset);
            let value = self.large[row * larges + group * larges / groups];
            panel[large..][..2].copy_from_slice(&value.to_le_bytes());
            if !self.small.is_empty() {
                panel[small] = self.small[row * groups + group].cast_unsigned();
            }
        }
    }
}

/// Quantized weights in panels.
pub(crate) struct QuantizedPanels {
    lines: HugePageBuffer<ByteLine>,
    layout: PanelLayout,
    inputs: usize,
}

impl QuantizedPanels {
    /// Lays weights out in panels.
    pub(crate) fn new(rows: &Quantized) -> Self {
        let (layout, inputs) = (PanelLayout::of(rows), rows.inputs);
        let outputs = rows.values.len() / inputs;
        let size = layout.panel(inputs);
        let count = outputs.div_ceil(PANEL) * size;
        let mut lines = HugePageBuffer::new(CacheAligned([0; 64]), count);
        let panels = lines.par_chunks_mut(size).zip(rows.values.par_chunks(PANEL * inputs)).enumerate();
        panels.for_each(|(index, (panel, values))| {
            let mut bytes = vec![0; size * 64];
            for (output, values) in values.chunks_exact(inputs).enumerate() {
                for (input, value) in values.iter().enumerate() {
                    let (place, shift) = layout.place(input, output);
                    bytes[place] |= value.cast_unsigned() << shift;
                }
                let row = index * PANEL + output;
                rows.scales.lay(layout, rows, row, output, false, &mut bytes);
                if let Some(offsets) = &rows.offsets {
                    offsets.lay(layout, rows, row, output, true, &mut bytes);
                }
            }
            panel.iter_mut().zip(bytes.as_chunks().0).for_each(|(line, bytes)| line.0 = *bytes);
        });
        Self { lines, layout, inputs }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// Copies the weights of output `within` of the panel `index`.
    pub(crate) fn row(&self, index: usize, within: usize, row: &mut [f32]) {
        let Self { layout, .. } = *self;
        let lines = self.weights(index).lines;
        let byte = |place: usize| lines[place / 64].0[place % 64];
        let measure = |input, offset, factors| {
            let (large, small) = layout.measure(input, within, offset);
            let large = single(u16::from_le_bytes([byte(large), byte(large + 1)]));
            if factors { large * f32::from(byte(small).cast_signed()) } else { large }
        };
        for (group, row) in row.chunks_exact_mut(layout.group).enumerate() {
            let first = group * layout.group;
            let scale = measure(first, false, layout.factors);
            let offset = if layout.offsets { measure(first, true, layout.offset_factors) } else { 0.0 };
            for (i, weight) in row.iter_mut().enumerate() {
                let (place, shift) = layout.place(first + i, within);
                let value = if layout.nibbles { (byte(place) >> shift & 15).cast_signed() } else { byte(place).cast_signed() };
                *weight = f32::from(value) * scale + offset;
            }
        }
    }

    /// The weights of the panel `index`.
    pub(crate) fn weights(&self, index: usize) -> PanelWeights<'_> {
        let size = self.layout.panel(self.inputs);
        PanelWeights { lines: &self.lines[index * size..][..size], layout: self.layout }
    }
}

/// The scales, or the offsets, of 32 outputs: a line of them and their factors.
#[inline(always)]
pub(super) fn widen(large: &ByteLine, small: Option<&[u8; PANEL]>) -> [f32; PANEL] {
    let mut wide = [0.0; PANEL];
    wide.iter_mut().zip(large.0.as_chunks().0).for_each(|(wide, half)| *wide = single(u16::from_le_bytes(*half)));
    if let Some(small) = small {
        wide.iter_mut().zip(small).for_each(|(wide, factor)| *wide *= f32::from(factor.cast_signed()));
    }
    wide
}
