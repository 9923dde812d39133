//! The header of a GGUF file: its metadata, and where its tensors lie.
//!
//! candle limits its allocations by the file's size. Two values that it does not check are checked here: the alignment, by which it divides,
//! and sizes of tensors whose product no file could hold.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use candle_core::quantized::gguf_file::Content;

use super::error::first_line;

/// The deepest nesting of arrays that is read.
const MOST_DEPTH: usize = 64;

/// The metadata key of the alignment.
const ALIGNMENT: &[u8] = b"general.alignment";

/// The most values that a byte holds. The smallest format needs two and a half bits for a value, so this is generous.
const VALUES_OF_A_BYTE: u64 = 8;

/// Reads the header of the file.
///
/// # Errors
/// A sentence whose subject is the file.
pub(super) fn content(file: &File) -> Result<Content, String> {
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    let mut reader = BufReader::new(file);
    // If the header cannot be read, candle reports it below.
    if has_no_alignment(&mut HeaderReader { reader: &mut reader, wide: true }).unwrap_or(false) {
        return Err("general.alignment is 0, and tensors begin at multiples of it".into());
    }
    reader.rewind().map_err(|e| e.to_string())?;
    let content = Content::read(&mut reader).map_err(|e| first_line(&e))?;
    for (name, tensor) in &content.tensor_infos {
        let values = tensor.shape.dims().iter().try_fold(1_u64, |values, size| values.checked_mul(*size as u64));
        if values.is_none_or(|values| values / VALUES_OF_A_BYTE > length) {
            let shape = tensor.shape.dims();
            return Err(format!("the tensor {name} has shape {shape:?}, which a file of {length} bytes cannot hold"));
        }
    }
    Ok(content)
}

struct HeaderReader<'a, R> {
    reader: &'a mut R,
    /// Whether lengths have eight bytes.
    wide: bool,
}

fn has_no_alignment<R: Read + Seek>(head: &mut HeaderReader<'_, R>) -> io::Result<bool> {
    head.number(4)?;
    head.wide = head.number(4)? > 1;
    head.length()?;
    let entries = head.length()?;
    for _ in 0..entries {
        let length = head.length()?;
        let mut key = Vec::new();
        match length == ALIGNMENT.len() as u64 {
            true => drop(Read::by_ref(head.reader).take(length).read_to_end(&mut key)?),
            false => head.pass(length)?,
        }
        let kind = head.number(4)?;
        match size(kind) {
            Some(size) if key == ALIGNMENT && matches!(kind, 0..=5 | 10 | 11) => {
                if head.number(size)? == 0 {
                    return Ok(true);
                }
            }
            _ => head.skip(kind, 0)?,
        }
    }
    Ok(false)
}

/// Bytes of a value of this kind, if all values of the kind have as many.
fn size(kind: u64) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

impl<R: Read + Seek> HeaderReader<'_, R> {
    fn number(&mut self, bytes: usize) -> io::Result<u64> {
        let mut number = [0; 8];
        self.reader.read_exact(&mut number[..bytes])?;
        Ok(u64::from_le_bytes(number))
    }

    fn length(&mut self) -> io::Result<u64> {
        self.number(if self.wide { 8 } else { 4 })
    }

    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        self.reader.seek(SeekFrom::Current(bytes)).map(drop)
    }

    fn skip(&mut self, kind: u64, depth: usize) -> io::Result<()> {
        match (kind, size(kind)) {
            (_, Some(size)) => self.pass(size as u64),
            (8, _) => {
                let length = self.length()?;
                self.pass(length)
            }
            (9, _) if depth < MOST_DEPTH => {
                let kind = self.number(4)?;
                let length = self.length()?;
                if let Some(size) = size(kind) {
                    return self.pass(length.saturating_mul(size as u64));
                }
                (0..length).try_for_each(|_| self.skip(kind, depth + 1))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
    }

    fn head(tensors: u64, entries: u64) -> Vec<u8> {
        [&b"GGUF"[..], &3_u32.to_le_bytes(), &tensors.to_le_bytes(), &entries.to_le_bytes()].concat()
    }

    fn read(bytes: &[u8]) -> Result<Content, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        content(&file)
    }

    #[test]
    fn an_alignment_of_nothing_is_refused_wherever_it_stands() {
        let words = [text(b"a.list"), 9_u32.to_le_bytes().into(), 8_u32.to_le_bytes().into(), 2_u64.to_le_bytes().into()];
        let words = [words.concat(), text(b"one"), text(b"two")].concat();
        let alignment = |value: u32| [text(ALIGNMENT), 4_u32.to_le_bytes().into(), value.to_le_bytes().into()].concat();
        let file = |value: u32| [head(0, 2), words.clone(), alignment(value)].concat();
        assert!(read(&file(0)).unwrap_err().contains("general.alignment is 0"));
        assert_eq!(read(&file(64)).unwrap().metadata.len(), 2);
        assert!(read(&head(0, 1)).is_err(), "the library tells of what is cut off");
    }

    #[test]
    fn a_tensor_larger_than_its_file_is_refused() {
        let dims = |a: u64, b: u64| {
            let info = [2_u32.to_le_bytes().to_vec(), a.to_le_bytes().into(), b.to_le_bytes().into()].concat();
            [head(1, 0), text(b"t"), info, 0_u32.to_le_bytes().into(), 0_u64.to_le_bytes().into(), vec![0; 4096]].concat()
        };
        assert!(read(&dims(1 << 33, 1 << 33)).unwrap_err().contains("the tensor t has shape"));
        assert!(read(&dims(1 << 20, 1 << 20)).unwrap_err().contains("cannot hold"));
        assert!(read(&dims(16, 16)).is_ok());
    }
}
