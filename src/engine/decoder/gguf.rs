//! Reads a decoder from a GGUF file: its shape from the metadata, and its tensors, which stay quantized.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};

use super::config::{DecoderFamily, DecoderShape};
use super::gguf_blocks::unpack;
use super::rope::RotaryEmbedding;
use super::tensor_source::TensorSource;
use crate::error::{EngineError, first_line};
use crate::folder::ModelFolder;
use crate::matrix::Matrix;
use tidemill_kernels::{GroupScales, Quantized};

/// The tensors of a GGUF file, under the names of Hugging Face folders.
pub(super) struct GgufTensors {
    content: Arc<Content>,
    file: File,
    path: PathBuf,
    /// The components of a head, if the file interleaves the query and key rows of each head.
    interleaved: Option<usize>,
}

/// The parts of a layer: the name in a Hugging Face folder and the name in the file.
const PARTS: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

impl GgufTensors {
    /// Opens the file and reads the shape of its decoder.
    pub(super) fn open(folder: &mut ModelFolder) -> Result<(DecoderShape, Self), EngineError> {
        let content = folder.gguf()?;
        let path = folder.path().to_owned();
        let file = File::open(&path).map_err(|source| EngineError::Unreadable { path: path.clone(), source })?;
        let mut tensors = Self { content, file, path, interleaved: None };
        let shape = tensors.shape().map_err(|reason| EngineError::invalid(&tensors.path, reason))?;
        // The converter interleaves the two halves of each query and key head for this architecture alone, Mistral's models included.
        tensors.interleaved = (shape.architecture == "llama").then_some(shape.head_width);
        Ok((tensors.stretched(shape)?, tensors))
    }

    fn shape(&self) -> Result<DecoderShape, String> {
        let architecture = match self.content.metadata.get("general.architecture") {
            Some(Value::String(name)) => name.as_str(),
            _ => return Err("lacks general.architecture; take a GGUF file made by llama.cpp's converter".into()),
        };
        let family = DecoderFamily::named(architecture).filter(|family| *family != DecoderFamily::Mistral).ok_or_else(|| {
            format!("the architecture {architecture:?} is not supported; use a llama, qwen2 or qwen3 decoder, or a remote model")
        })?;
        let find = |key: &str| self.content.metadata.get(&format!("{architecture}.{key}"));
        let lacks = |key: &str| format!("lacks {architecture}.{key}; take a GGUF file made by llama.cpp's converter");
        let size = |key: &str| find(key).and_then(integer).ok_or_else(|| lacks(key));
        if let Some(Value::String(kind)) =
            find("rope.scaling.type").filter(|kind| !matches!(kind, Value::String(k) if k == "none"))
        {
            return Err(format!("rope scaling {kind:?} is not supported; use a model with the scaling of Llama 3 or none"));
        }
        let (hidden, heads, layers) = (size("embedding_length")?, size("attention.head_count")?, size("block_count")?);
        let (inner, kv_heads) =
            (size("feed_forward_length")?, find("attention.head_count_kv").and_then(integer).unwrap_or(heads));
        let named = |key: &str| format!("{architecture}.{key}");
        DecoderShape::bounded(
            (&named("block_count"), layers),
            &[(&named("attention.head_count"), heads), (&named("attention.head_count_kv"), kv_heads)],
            &[(&named("embedding_length"), hidden), (&named("feed_forward_length"), inner)],
        )?;
        if heads == 0 {
            return Err(format!("{architecture}.attention.head_count is 0; take a GGUF file made by llama.cpp's converter"));
        }
        let head_width = find("attention.key_length").and_then(integer).unwrap_or(hidden / heads);
        for (key, name) in [("attention.value_length", "values"), ("rope.dimension_count", "turned components")] {
            if let Some(width) = find(key).and_then(integer).filter(|width| *width != head_width) {
                return Err(format!("heads of {head_width} components with {width} {name} are not supported; use another model"));
            }
        }
        self.fits(architecture, hidden, layers, heads.checked_mul(head_width))?;
        let window = find("attention.sliding_window").and_then(integer).filter(|window| *window > 0);
        let table = self
            .content
            .tensor_infos
            .get("token_embd.weight")
            .ok_or("lacks the tensor token_embd.weight; fetch the file again")?;
        let bias = |part: &str| self.content.tensor_infos.contains_key(&format!("blk.0.{part}.bias"));
        let shape = DecoderShape {
            architecture: architecture.to_owned(),
            vocabulary: table.shape.dims().first().copied().unwrap_or(0),
            hidden,
            layers,
            heads,
            kv_heads,
            head_width,
            inner,
            context: size("context_length")?,
            sliding_window: window,
            windows: vec![window; layers],
            epsilon: find("attention.layer_norm_rms_epsilon")
                .and_then(real)
                .ok_or_else(|| lacks("attention.layer_norm_rms_epsilon"))? as f32,
            rotation: RotaryEmbedding::new(find("rope.freq_base").and_then(real).unwrap_or(10_000.0), head_width),
            tied: !self.content.tensor_infos.contains_key("output.weight"),
            qkv_bias: bias("attn_q"),
            output_bias: bias("attn_output"),
            inner_bias: bias("ffn_down"),
            head_norm: family == DecoderFamily::Qwen3,
        };
        shape.checked()
    }

    /// Whether the file holds tensors of the sizes in its metadata. Checked before anything of these sizes is allocated.
    fn fits(&self, architecture: &str, hidden: usize, layers: usize, queries: Option<usize>) -> Result<(), String> {
        let converter = "take a GGUF file made by llama.cpp's converter";
        let rows = |name: &str| self.content.tensor_infos.get(name).map(|info| info.shape.dims());
        if rows(&format!("blk.{}.attn_q.weight", layers.saturating_sub(1))).is_none() {
            return Err(format!(
                "{architecture}.block_count is {layers}, and the file does not hold as many layers; {converter}"
            ));
        }
        let width = rows("token_embd.weight").and_then(|dims| dims.get(1));
        if width.is_some_and(|width| *width != hidden) {
            return Err(format!(
                "{architecture}.embedding_length is {hidden}, and token_embd.weight has {} columns; {converter}",
                width.copied().unwrap_or(0)
            ));
        }
        let found = rows("blk.0.attn_q.weight").and_then(|dims| dims.first().copied());
        if found != queries {
            return Err(format!(
                "heads of {architecture} have {} components together, and blk.0.attn_q.weight has {} rows; {converter}",
                queries.map_or("too many".to_owned(), |count| count.to_string()),
                found.unwrap_or(0)
            ));
        }
        Ok(())
    }

    /// Applies the factors of Llama 3's rope scaling, which the converter stores as a tensor.
    fn stretched(&mut self, shape: DecoderShape) -> Result<DecoderShape, EngineError> {
        if !self.content.tensor_infos.contains_key("rope_freqs.weight") {
            return Ok(shape);
        }
        let factors = self.take("rope_freqs.weight", &[shape.head_width / 2])?.into_f32();
        let rotation = shape.rotation.clone().divided(&factors);
        Ok(DecoderShape { rotation, ..shape })
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Matrix, EngineError> {
        let invalid = |reason: String| EngineError::invalid(&self.path, reason);
        let Some(info) = self.content.tensor_infos.get(name) else {
            return Err(invalid(format!("lacks the tensor {name}; the file is not a whole model of its architecture")));
        };
        if info.shape.dims() != shape {
            let reason = format!(
                "the tensor {name} has shape {:?} and the metadata say {shape:?}; take a GGUF file made by llama.cpp's converter",
                info.shape.dims()
            );
            return Err(invalid(reason));
        }
        let unreadable =
            |e: candle_core::Error| format!("the tensor {name} cannot be read: {}; fetch the file again", first_line(&e));
        let tensor = self.content.tensor(&mut self.file, name, &Device::Cpu).map_err(|e| invalid(unreadable(e)))?;
        let inputs = shape.last().copied().unwrap_or(1);
        let bytes = tensor.data().map_err(|e| invalid(unreadable(e)))?;
        let halves = || bytes.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
        match tensor.dtype() {
            GgmlDType::BF16 => Ok(Matrix::Bf16 { rows: halves().collect(), inputs }),
            GgmlDType::F16 => {
                Ok(Matrix::F32 { rows: halves().map(|bits| half::f16::from_bits(bits).to_f32()).collect(), inputs })
            }
            GgmlDType::F32 => {
                let rows = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                Ok(Matrix::F32 { rows, inputs })
            }
            other => unpack(other, &bytes, inputs).map(Matrix::Quantized).ok_or_else(|| {
                let reason = format!(
                    "the tensor {name} is stored as {other:?}, which is not supported; use a file in Q8_0, Q4_K_M, Q5_K_M, Q6_K or F16"
                );
                invalid(reason)
            }),
        }
    }

    /// The width of the heads whose rows must be reordered, if `name` has such rows.
    fn mixed(&self, name: &str) -> Option<usize> {
        self.interleaved.filter(|_| name.contains(".q_proj.") || name.contains(".k_proj."))
    }
}

impl TensorSource for GgufTensors {
    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix, EngineError> {
        let matrix = self.take(&file_name(name), &[outputs, inputs])?;
        let Some(width) = self.mixed(name) else { return Ok(matrix) };
        Ok(match matrix {
            Matrix::F32 { rows, inputs } => Matrix::F32 { rows: in_order(&rows, inputs, width), inputs },
            Matrix::Bf16 { rows, inputs } => Matrix::Bf16 { rows: in_order(&rows, inputs, width), inputs },
            Matrix::Quantized(rows) => {
                let measures = |measures: GroupScales| GroupScales {
                    large: in_order(&measures.large, measures.large.len() / outputs, width),
                    small: in_order(&measures.small, measures.small.len() / outputs, width),
                };
                Matrix::Quantized(Quantized {
                    values: in_order(&rows.values, inputs, width),
                    scales: measures(rows.scales),
                    offsets: rows.offsets.map(measures),
                    ..rows
                })
            }
        })
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, EngineError> {
        let values = self.take(&file_name(name), &[length])?.into_f32();
        match self.mixed(name) {
            Some(width) => Ok(in_order(&values, 1, width)),
            None => Ok(values),
        }
    }
}

/// The name in a GGUF file of the tensor that a Hugging Face folder calls `name`.
fn file_name(name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        _ => {}
    }
    let layer = name.strip_prefix("model.layers.").unwrap_or(name);
    let (index, rest) = layer.split_once('.').unwrap_or((layer, ""));
    let (part, kind) = rest.rsplit_once('.').unwrap_or((rest, "weight"));
    let part = PARTS.iter().find(|(folder, _)| *folder == part).map_or(part, |(_, file)| file);
    format!("blk.{index}.{part}.{kind}")
}

/// Reorders the rows of heads whose two halves alternate, so that one half follows the other. Empty if rows are empty.
fn in_order<T: Copy>(rows: &[T], row: usize, width: usize) -> Vec<T> {
    if row == 0 {
        return Vec::new();
    }
    let mut ordered = Vec::with_capacity(rows.len());
    for head in rows.chunks_exact(width * row) {
        for start in [0, 1] {
            (start..width).step_by(2).for_each(|i| ordered.extend_from_slice(&head[i * row..][..row]));
        }
    }
    ordered
}

fn integer(value: &Value) -> Option<usize> {
    match value {
        Value::U8(n) => Some(usize::from(*n)),
        Value::U16(n) => Some(usize::from(*n)),
        Value::U32(n) => Some(*n as usize),
        Value::U64(n) => usize::try_from(*n).ok(),
        Value::I32(n) => usize::try_from(*n).ok(),
        Value::I64(n) => usize::try_from(*n).ok(),
        _ => None,
    }
}

fn real(value: &Value) -> Option<f64> {
    match value {
        Value::F32(x) => Some(f64::from(*x)),
        Value::F64(x) => Some(*x),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_become_those_of_the_file() {
        for (folder, file) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.11.self_attn.q_proj.bias", "blk.11.attn_q.bias"),
            ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
            ("model.layers.3.post_attention_layernorm.weight", "blk.3.ffn_norm.weight"),
        ] {
            assert_eq!(file_name(folder), file);
        }
    }

    #[test]
    fn interleaved_heads_are_put_half_after_half() {
        assert_eq!(in_order(&[0, 10, 2, 12, 1, 11, 3, 13], 2, 4), [0, 10, 1, 11, 2, 12, 3, 13]);
        assert!(in_order::<i8>(&[], 0, 4).is_empty());
    }
}
