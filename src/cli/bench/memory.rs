//! The read bandwidth of this machine's memory, and the bytes of a model's weights.

use std::hint::black_box;
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use multiversion::multiversion;

/// Bytes that are read: more than the caches of most servers.
const BYTES: usize = 256 << 20;
/// Measurements; the fastest counts, because disturbances only make one slower.
const ROUNDS: usize = 8;
/// Numbers that are added in parallel.
const LANES: usize = 64;

/// Bytes per second that all threads read together.
pub(super) fn read_bandwidth() -> f64 {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let numbers = vec![1_u64; BYTES / size_of::<u64>()];
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        thread::scope(|scope| {
            for part in numbers.chunks(numbers.len().div_ceil(threads)) {
                scope.spawn(move || black_box(sum(part)));
            }
        });
        best = best.min(started.elapsed().as_secs_f64());
    }
    BYTES as f64 / best
}

// With the widest vectors, only memory limits the speed.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2", "aarch64+neon"))]
fn sum(numbers: &[u64]) -> u64 {
    let mut sums = [0_u64; LANES];
    for numbers in numbers.as_chunks::<LANES>().0 {
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum = sum.wrapping_add(*number));
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

/// Bytes of the model's weights: a GGUF file, or the safetensors files of a folder.
pub(super) fn weights_bytes(model: &Path) -> Result<u64> {
    let size = |path: &Path| {
        let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::Ok(metadata.len())
    };
    if !model.is_dir() {
        return size(model);
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(model).with_context(|| format!("cannot read {}", model.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", model.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            bytes += size(&path)?;
        }
    }
    ensure!(bytes > 0, "{} has no weights; pull the model again", model.display());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_numbers_count_in_a_sum_of_whole_lanes() {
        let numbers: Vec<u64> = (0..4 * LANES as u64).collect();
        assert_eq!(sum(&numbers), numbers.iter().sum::<u64>());
    }

    #[test]
    fn weights_are_those_of_all_shards_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        assert!(weights_bytes(folder.path()).unwrap_err().to_string().contains("has no weights"));
        for (name, size) in [("model-1.safetensors", 5), ("model-2.safetensors", 7), ("tokenizer.json", 11)] {
            std::fs::write(folder.path().join(name), vec![0; size]).unwrap();
        }
        assert_eq!(weights_bytes(folder.path()).unwrap(), 12);
        assert_eq!(weights_bytes(&folder.path().join("tokenizer.json")).unwrap(), 11);
        assert!(weights_bytes(&folder.path().join("model.gguf")).unwrap_err().to_string().contains("model.gguf"));
    }
}
