//! A device that candle computes on, and uploads to it.

use candle_core::{DType, Device, Result, Shape, Tensor};
use half::bf16;
use half::vec::HalfBitsVecExt;

use crate::error::{EngineError, first_line};
use crate::matrix::Matrix;
use tidemill_base::config::ComputeDevice;

/// A device that candle computes on.
#[derive(Clone)]
pub(crate) struct Accelerator {
    pub(super) device: Device,
    /// The type of weights, and of vectors between layers.
    pub(super) dtype: DType,
    name: String,
}

impl Accelerator {
    /// Opens the device that the configuration names; none if that is the CPU, which has kernels of its own.
    pub(crate) fn open(device: ComputeDevice) -> std::result::Result<Option<Self>, EngineError> {
        let number = match device {
            ComputeDevice::Cpu => return Ok(None),
            ComputeDevice::Cuda(number) => number,
        };
        let unusable = |reason: String| EngineError::Device { device: device.to_string(), reason };
        if !cfg!(feature = "cuda") {
            let reason =
                "this binary was built without CUDA; build one with deploy/build-cuda.sh, or set engine.device to \"cpu\"";
            return Err(unusable(reason.into()));
        }
        // A stream of its own: candle's default stream differs from thread to thread, and a step may run on any thread.
        let opened = Device::new_cuda_with_stream(number).map_err(|e| {
            unusable(format!(
                "the GPU cannot be opened: {}; install an NVIDIA driver of series 580 or later and compare nvidia-smi, or set engine.device to \"cpu\"",
                first_line(&e)
            ))
        })?;
        Ok(Some(Self { device: opened, dtype: DType::BF16, name: device.to_string() }))
    }

    /// candle's own CPU device, on which the tests compute.
    #[cfg(test)]
    pub(crate) fn on_cpu(dtype: DType) -> Self {
        Self { device: Device::Cpu, dtype, name: "candle".into() }
    }

    /// The same device with another type of numbers.
    #[cfg(all(test, feature = "cuda"))]
    pub(super) fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// The device as metrics and messages name it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The product name of the device.
    pub(crate) fn kind(&self) -> String {
        #[cfg(feature = "cuda")]
        if let Some(kind) = self.device.as_cuda_device().ok().and_then(|device| device.cuda_stream().context().name().ok()) {
            return kind;
        }
        self.name.clone()
    }

    /// Free memory of the device, if it reports any.
    pub(crate) fn free_bytes(&self) -> Option<usize> {
        #[cfg(feature = "cuda")]
        if let Ok(device) = self.device.as_cuda_device() {
            return device.cuda_stream().context().mem_get_info().ok().map(|(free, _)| free);
        }
        None
    }

    /// Uploads f32 in the device's type of numbers.
    pub(super) fn upload(&self, values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
        // Converted before the upload, so that fewer bytes are moved.
        Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)
    }

    /// Uploads f32 that stays f32.
    pub(super) fn upload_f32(&self, values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::from_vec(values, shape, &self.device)
    }

    /// Uploads indexes of rows.
    pub(super) fn upload_indexes(&self, indexes: Vec<u32>) -> Result<Tensor> {
        let count = indexes.len();
        Tensor::from_vec(indexes, count, &self.device)
    }

    /// Uploads a matrix of `outputs` rows.
    pub(super) fn upload_matrix(&self, matrix: Matrix, outputs: usize) -> Result<Tensor> {
        match matrix {
            Matrix::Bf16 { rows, inputs } => {
                let rows: Vec<bf16> = rows.reinterpret_into();
                Tensor::from_vec(rows, (outputs, inputs), &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)
            }
            wide => {
                let rows = wide.into_f32();
                let inputs = rows.len() / outputs;
                self.upload(rows, (outputs, inputs))
            }
        }
    }

    /// Waits until the device is idle, so that the memory of a failed attempt is free again.
    pub(super) fn tidy(&self) -> Result<()> {
        self.device.synchronize()
    }

    /// The error of a failed computation. Nothing on the device can be relied on afterwards.
    pub(super) fn failed(&self, error: &candle_core::Error) -> EngineError {
        EngineError::Device { device: self.name.clone(), reason: format!("the device failed: {}", first_line(error)) }
    }

    /// What was uploaded, or why the model cannot be loaded.
    pub(super) fn hold<T>(&self, uploaded: Result<T>) -> std::result::Result<T, EngineError> {
        uploaded.map_err(|e| self.cannot_hold(&e))
    }

    /// Why a model's weights could not be moved onto the device.
    pub(super) fn cannot_hold(&self, error: &candle_core::Error) -> EngineError {
        let reason = format!(
            "the model cannot be moved onto the device: {}; use a smaller model, or lower engine.kv_cache_mib where another one has taken the memory",
            first_line(error)
        );
        EngineError::Device { device: self.name.clone(), reason }
    }
}
