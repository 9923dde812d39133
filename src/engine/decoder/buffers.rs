//! Memory of a step, kept between steps.

/// The intermediate rows of a forward pass.
#[derive(Default)]
pub(super) struct DecoderBuffers {
    pub(super) hidden: Vec<f32>,
    pub(super) normed: Vec<f32>,
    pub(super) qkv: Vec<f32>,
    pub(super) context: Vec<f32>,
    pub(super) wide: Vec<f32>,
    pub(super) gated: Vec<f32>,
}
