//! Runs the tests of this package with every way of multiplying that this processor has, not with the fastest alone.

use std::process::Command;

#[test]
fn kernels_agree_with_their_references_whatever_the_processor_is_said_to_be() {
    let program = std::env::current_exe().unwrap();
    for level in ["avx2", "avx512", "bf16"] {
        let output = Command::new(&program).args(["--skip", "levels::"]).env("TIDEMILL_CPU", level).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "with TIDEMILL_CPU={level}:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("test result: ok. ") && !said.contains("ok. 0 passed"), "with TIDEMILL_CPU={level}:\n{said}");
    }
}
