//! Which instructions are used: all that the processor has, unless the environment variable `TIDEMILL_CPU` allows fewer. The variable
//! makes each way of multiplying testable and measurable on one machine; `avx512` also keeps models in bf16 to products in f32.

use std::sync::LazyLock;

/// The widest instructions that products may use. Each level includes those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// 256 bits of f32.
    Avx2,
    /// 512 bits of f32.
    Avx512,
    /// 512 bits of bf16.
    Bf16,
    Amx,
}

const NAMES: [(&str, Level); 4] = [("avx2", Level::Avx2), ("avx512", Level::Avx512), ("bf16", Level::Bf16), ("amx", Level::Amx)];

static CHOSEN: LazyLock<Result<Level, String>> = LazyLock::new(|| named(std::env::var("TIDEMILL_CPU").ok().as_deref()));

/// Whether products may use the instructions of this level, if the processor has them.
pub(super) fn allows(level: Level) -> bool {
    CHOSEN.as_ref().is_ok_and(|chosen| *chosen >= level)
}

/// Fails if `TIDEMILL_CPU` names no level.
pub fn check() -> Result<(), String> {
    CHOSEN.as_ref().map(drop).map_err(Clone::clone)
}

fn named(word: Option<&str>) -> Result<Level, String> {
    let Some(word) = word else { return Ok(Level::Amx) };
    let found = NAMES.iter().find(|(name, _)| *name == word).map(|(_, level)| *level);
    found.ok_or_else(|| format!("TIDEMILL_CPU is `{word}`; set it to avx2, avx512, bf16 or amx, or remove it"))
}

/// The name and the vector instructions of this machine's processor.
pub fn name() -> String {
    let chosen = std::env::var("TIDEMILL_CPU").unwrap_or_default();
    let known = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    format!("{} {chosen}", described(&known)).trim_end().to_owned()
}

/// Name and vector instructions, as Linux reports them. Two virtual machines on processors of one name may report different ones.
fn described(cpuinfo: &str) -> String {
    let value = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim())
    };
    let flags: Vec<&str> = value("flags").unwrap_or_default().split_whitespace().collect();
    let units = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"].into_iter().filter(|unit| flags.contains(unit));
    let mut words = vec![value("model name").unwrap_or(std::env::consts::ARCH)];
    words.extend(units);
    words.join(" ")
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

    #[test]
    fn a_processor_is_known_by_name_and_vector_units() {
        let linux = "processor\t: 0\nmodel name\t: AMD EPYC 9R14\nflags\t\t: fpu avx2 avx512f fma avx512_bf16\nprocessor\t: 1\n";
        assert_eq!(described(linux), "AMD EPYC 9R14 avx2 avx512f avx512_bf16");
        assert_eq!(described(""), std::env::consts::ARCH);
    }
}
