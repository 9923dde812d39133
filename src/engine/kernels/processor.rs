//! What of the processor is used: all that it has, unless the environment says less. `TIDEMILL_CPU` makes each way of multiplying
//! testable and measurable on one machine, and `avx512` keeps models in bf16 to sums of f32.

use std::sync::LazyLock;

/// How wide products may be. Each level includes those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) enum Level {
    /// 256 bits of f32.
    Avx2,
    /// 512 bits of f32.
    Avx512,
    /// 512 bits of bf16.
    Bf16,
    /// Tiles of bf16.
    Amx,
}

const NAMES: [(&str, Level); 4] = [("avx2", Level::Avx2), ("avx512", Level::Avx512), ("bf16", Level::Bf16), ("amx", Level::Amx)];

static CHOSEN: LazyLock<Result<Level, String>> = LazyLock::new(|| named(std::env::var("TIDEMILL_CPU").ok().as_deref()));

/// Whether products may be so wide, if the processor can.
pub(super) fn allows(level: Level) -> bool {
    CHOSEN.as_ref().is_ok_and(|chosen| *chosen >= level)
}

/// Refuses a word that names no level.
pub(in crate::engine) fn check() -> Result<(), String> {
    CHOSEN.as_ref().map(drop).map_err(Clone::clone)
}

fn named(word: Option<&str>) -> Result<Level, String> {
    let Some(word) = word else { return Ok(Level::Amx) };
    let found = NAMES.iter().find(|(name, _)| *name == word).map(|(_, level)| *level);
    found.ok_or_else(|| format!("TIDEMILL_CPU is `{word}`; set it to avx2, avx512, bf16 or amx, or leave it away"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_named_or_refused_with_those_that_there_are() {
        assert_eq!(named(None), Ok(Level::Amx));
        assert_eq!(named(Some("avx512")), Ok(Level::Avx512));
        assert!(Level::Avx2 < Level::Avx512 && Level::Avx512 < Level::Bf16 && Level::Bf16 < Level::Amx);
        assert!(named(Some("AVX")).unwrap_err().contains("avx2, avx512, bf16 or amx"));
    }
}
