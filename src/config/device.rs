//! Where models compute.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A device that models compute on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ComputeDevice {
    /// The cores of this machine.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number, counted from 0.
    Cuda(usize),
}

impl FromStr for ComputeDevice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
        };
        number
            .map(Self::Cuda)
            .ok_or_else(|| format!("{text:?} is no device; write \"cpu\", \"cuda\", or \"cuda:1\" for the second GPU"))
    }
}

impl TryFrom<String> for ComputeDevice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for ComputeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_operators_know_them() {
        let devices = [("cpu", ComputeDevice::Cpu), ("cuda", ComputeDevice::Cuda(0)), ("cuda:1", ComputeDevice::Cuda(1))];
        for (text, device) in devices {
            assert_eq!(text.parse(), Ok(device), "{text}");
        }
        assert_eq!(ComputeDevice::Cuda(0).to_string(), "cuda:0");
        assert_eq!(ComputeDevice::default().to_string(), "cpu");
    }

    #[test]
    fn what_is_no_device_is_refused_with_those_there_are() {
        for text in ["gpu", "cuda:", "cuda:-1", "CUDA", ""] {
            let error = text.parse::<ComputeDevice>().unwrap_err();
            assert!(error.contains(&format!("{text:?} is no device")) && error.contains("\"cuda:1\""), "{error}");
        }
    }
}
