//! The reader of safetensors files: a header that says where each tensor lies, then the tensors' bytes.
//!
//! Tensors are read one at a time, so that a file is never in memory as a whole. The header is checked before anything of the size that it
//! claims is allocated.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::matrix::Matrix;

/// The longest header that is read: a hundred times what the largest models have.
const HEADER_BYTES: u64 = 100 << 20;

/// A safetensors file: the tensors that have not been taken out yet.
pub struct TensorFile<R> {
    source: R,
    /// The first byte after the header.
    start: u64,
    tensors: BTreeMap<String, TensorInfo>,
    /// The publisher's own words.
    metadata: BTreeMap<String, String>,
}

/// Why a safetensors file cannot be used: a sentence whose subject is the file.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// The file is cut off, or its header contradicts itself or the file's size.
    #[error("is not a whole safetensors file: {0}; fetch it again and compare its size")]
    Broken(String),
    #[error("lacks the tensor {0}; use a file of the same model")]
    Missing(String),
    #[error("the tensor {name} has shape {found:?} and not {expected:?}; use a file of the same model")]
    Misshapen { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("the tensor {name} is stored as {dtype:?}, which is not supported; use the model in bf16, f16 or f32")]
    UnsupportedType { name: String, dtype: Dtype },
}

impl<R: Read + Seek> TensorFile<R> {
    /// Reads and checks the header.
    pub fn open(mut source: R) -> Result<Self, TensorFileError> {
        let broken = |reason: String| TensorFileError::Broken(reason);
        let length = source.seek(SeekFrom::End(0))?;
        source.rewind()?;
        let mut size = [0; 8];
        source.read_exact(&mut size).map_err(|_| broken("it ends before its header".into()))?;
        let size = u64::from_le_bytes(size);
        if size > HEADER_BYTES || size.saturating_add(8) > length {
            return Err(broken(format!("its header claims {size} bytes and the file has {length}")));
        }
        let mut header = Vec::new();
        Read::by_ref(&mut source).take(size).read_to_end(&mut header)?;
        let header: Metadata = serde_json::from_slice(&header).map_err(|e| broken(e.to_string()))?;
        let start = size + 8;
        let expected = start + header.data_len() as u64;
        if expected != length {
            return Err(broken(format!("its tensors take {expected} bytes and the file has {length}")));
        }
        let tensors: BTreeMap<String, TensorInfo> =
            header.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        if let Some((name, _)) = tensors.iter().find(|(_, info)| !is_filled(info, header.data_len())) {
            return Err(broken(format!("the bytes of the tensor {name} are not as many as its shape says")));
        }
        let metadata = header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Self { source, start, tensors, metadata })
    }

    /// The publisher's entry `key` in the header.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// The names of the tensors that have not been taken, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of the tensor `name`, where it has not been taken.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|info| &*info.shape)
    }

    /// Takes the tensor `name`, which must have `shape`, as f32.
    pub fn take_f32(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TensorFileError> {
        self.take(name, shape).map(Matrix::into_f32)
    }

    /// Takes the tensor `name`, which must have `shape`, as rows of its last dimension.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Matrix, TensorFileError> {
        let info = self.tensors.get(name).ok_or_else(|| TensorFileError::Missing(name.to_owned()))?;
        if info.shape != shape {
            let (name, found, expected) = (name.to_owned(), info.shape.clone(), shape.to_vec());
            return Err(TensorFileError::Misshapen { name, found, expected });
        }
        let (from, to) = info.data_offsets;
        let dtype = info.dtype;
        if !matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64) {
            return Err(TensorFileError::UnsupportedType { name: name.to_owned(), dtype });
        }
        self.tensors.remove(name);
        let mut bytes = vec![0; to - from];
        self.source.seek(SeekFrom::Start(self.start + from as u64))?;
        self.source.read_exact(&mut bytes)?;
        let inputs = shape.last().copied().unwrap_or(1);
        let halves = || bytes.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
        let rows = match dtype {
            Dtype::BF16 => return Ok(Matrix::Bf16 { rows: halves().collect(), inputs }),
            Dtype::F16 => halves().map(|bits| half::f16::from_bits(bits).to_f32()).collect(),
            Dtype::F64 => bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
            _ => bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        };
        Ok(Matrix::F32 { rows, inputs })
    }
}

/// Whether the tensor has as many bytes as its shape and type say, all of them inside the file's `length` bytes of data.
fn is_filled(info: &TensorInfo, length: usize) -> bool {
    let (from, to) = info.data_offsets;
    let values = info.shape.iter().try_fold(1_usize, |values, size| values.checked_mul(*size));
    let bits = values.and_then(|values| values.checked_mul(info.dtype.bitsize()));
    from <= to && to <= length && bits.is_some_and(|bits| bits.div_ceil(8) == to - from)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    fn open(bytes: &[u8]) -> Result<TensorFile<Cursor<&[u8]>>, String> {
        TensorFile::open(Cursor::new(bytes)).map_err(|e| e.to_string())
    }

    #[test]
    fn tensors_are_taken_once_and_by_their_shape() {
        let header = r#"{"__metadata__":{"by":"us"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},
            "b":{"dtype":"F64","shape":[1],"data_offsets":[8,16]},"c":{"dtype":"I64","shape":[1],"data_offsets":[16,24]}}"#;
        let data = [&1.5_f32.to_le_bytes()[..], &(-2.0_f32).to_le_bytes(), &0.25_f64.to_le_bytes(), &[0; 8]].concat();
        let bytes = file(header, &data);
        let mut tensors = open(&bytes).unwrap();
        assert_eq!((tensors.metadata("by"), tensors.metadata("of")), (Some("us"), None));
        assert_eq!(tensors.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(tensors.take_f32("a", &[1, 2]).unwrap_err().to_string().contains("[2, 1] and not [1, 2]"));
        assert_eq!(tensors.take_f32("a", &[2, 1]).unwrap(), [1.5, -2.0]);
        assert!(tensors.take_f32("a", &[2, 1]).unwrap_err().to_string().contains("lacks the tensor a"));
        assert_eq!(tensors.take_f32("b", &[1]).unwrap(), [0.25]);
        assert!(tensors.take_f32("c", &[1]).unwrap_err().to_string().contains("stored as I64"));
        assert_eq!(tensors.names().collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn a_header_that_does_not_fit_its_file_is_refused() {
        let tensor =
            |shape: &str, offsets: &str| format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#);
        let refused = |bytes: &[u8], reason: &str| {
            let error = open(bytes).err().unwrap_or_else(|| panic!("{reason} must be refused"));
            assert!(error.contains("is not a whole safetensors file") && error.contains(reason), "{error}");
        };
        refused(&[1, 2, 3], "ends before its header");
        refused(&u64::MAX.to_le_bytes(), "its header claims");
        refused(&file("{", &[]), "EOF");
        refused(&file(&tensor("[1]", "[0,4]"), &[0; 3]), "the file has");
        refused(&file(&tensor("[1]", "[0,4]"), &[0; 5]), "the file has");
        refused(&file(&tensor("[2]", "[0,4]"), &[0; 4]), "");
        refused(&file(&tensor("[4294967296,4294967296,4294967296]", "[0,4]"), &[0; 4]), "");
        refused(&file(&tensor("[1]", "[4,0]"), &[]), "");
    }
}
