//! Hashes of files: SHA-256 to compare with the hub, and BLAKE3, which is faster, for the manifest.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use rustls::crypto::hash::{Hash, HashAlgorithm};

/// The size and the hashes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileDigest {
    pub(super) size: u64,
    pub(super) blake3: String,
    /// In hexadecimal; computed only on request.
    pub(super) sha256: Option<String>,
}

/// Reads the whole file. Blocks.
pub(super) fn digest(path: &Path, with_sha256: bool) -> Result<FileDigest> {
    let unreadable = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(unreadable)?;
    let mut blake3 = blake3::Hasher::new();
    let mut sha256 = if with_sha256 { Some(sha256().context("the TLS library offers no SHA-256")?.start()) } else { None };
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let count = file.read(&mut buffer).with_context(unreadable)?;
        if count == 0 {
            break;
        }
        size += count as u64;
        blake3.update(&buffer[..count]);
        if let Some(sha256) = &mut sha256 {
            sha256.update(&buffer[..count]);
        }
    }
    let sha256 = sha256.map(|sha256| sha256.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect());
    Ok(FileDigest { size, blake3: blake3.finalize().to_hex().to_string(), sha256 })
}

/// The TLS library's implementation, which is already part of the program.
fn sha256() -> Option<&'static dyn Hash> {
    let suites = rustls::crypto::ring::default_provider().cipher_suites;
    let hashes = suites.iter().filter_map(|suite| suite.tls13()).map(|suite| suite.common.hash_provider);
    hashes.into_iter().find(|hash| hash.algorithm() == HashAlgorithm::SHA256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_hashes_that_everyone_gets() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let found = digest(file.path(), true).unwrap();
        assert_eq!(found.sha256.as_deref(), Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
        assert_eq!(found.blake3, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        assert_eq!(found.size, 3);
    }
}
