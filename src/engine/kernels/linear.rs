//! The matrix products. This type is the only place that multiplies by weights.

/// `x · Wᵀ`, with `W` as the checkpoint stores it: a row an output.
pub(in crate::engine) struct Linear {
    weight: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// Takes `outputs` rows of `inputs` weights.
    pub(in crate::engine) fn new(weight: Vec<f32>, inputs: usize, outputs: usize) -> Self {
        assert_eq!(weight.len(), inputs * outputs, "a weight matrix of {outputs} rows and {inputs} columns");
        Self { weight, inputs, outputs }
    }

    /// Writes the product of every row of `input` to the rows of `output`.
    pub(in crate::engine) fn apply(&self, input: &[f32], output: &mut [f32]) {
        let rows = input.len() / self.inputs;
        assert_eq!(input.len(), rows * self.inputs, "whole rows of {} inputs", self.inputs);
        assert_eq!(output.len(), rows * self.outputs, "{rows} rows of {} outputs", self.outputs);
        // SAFETY: the three slices hold exactly rows x inputs, outputs x inputs and rows x outputs values (asserted above and
        // in `new`), the strides walk them row by row, and `output` is borrowed mutably, so it overlaps neither of the others.
        #[allow(unsafe_code)]
        unsafe {
            gemm::gemm(
                rows,
                self.outputs,
                self.inputs,
                output.as_mut_ptr(),
                1,
                self.outputs as isize,
                false,
                input.as_ptr(),
                1,
                self.inputs as isize,
                self.weight.as_ptr(),
                self.inputs as isize,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}
