//! The devices that models run on.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// A device that models run on.
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
            .ok_or_else(|| format!("{text:?} is not a device; write \"cpu\", \"cuda\", or \"cuda:1\" for the second GPU"))
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

/// The devices of a process: one, or several that share the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeDevices(Vec<ComputeDevice>);

impl ComputeDevices {
    /// The devices, in the order of the configuration; at least one.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ComputeDevice> {
        self.0.iter().copied()
    }
}

impl fmt::Display for ComputeDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, device) in self.0.iter().enumerate() {
            write!(f, "{}{device}", if place > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl Default for ComputeDevices {
    fn default() -> Self {
        ComputeDevice::default().into()
    }
}

impl From<ComputeDevice> for ComputeDevices {
    fn from(device: ComputeDevice) -> Self {
        Self(vec![device])
    }
}

impl TryFrom<Vec<ComputeDevice>> for ComputeDevices {
    type Error = String;

    fn try_from(devices: Vec<ComputeDevice>) -> Result<Self, String> {
        let Some(first) = devices.first() else {
            return Err("the list of devices is empty; name one, or leave the setting out".into());
        };
        let cpus = devices.iter().filter(|device| **device == ComputeDevice::Cpu).count();
        if cpus > 0 && cpus < devices.len() {
            let reason = "the CPU and a GPU cannot share the work: they round differently, so that a result would depend on the \
                          device; name GPUs only, or \"cpu\"";
            return Err(reason.into());
        }
        let twice = devices.iter().enumerate().find(|(place, device)| devices[..*place].contains(device));
        match twice {
            Some((_, device)) if *first != ComputeDevice::Cpu => Err(format!("{device} is named twice; name each GPU once")),
            _ => Ok(Self(devices)),
        }
    }
}

/// One device, several in a list, or several in one text with commas, which an environment variable needs.
impl<'de> Deserialize<'de> for ComputeDevices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DevicesVisitor;

        impl<'de> Visitor<'de> for DevicesVisitor {
            type Value = Vec<ComputeDevice>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a device or a list of devices")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                text.split(',').map(|name| name.trim().parse().map_err(E::custom)).collect()
            }

            fn visit_seq<A: SeqAccess<'de>>(self, devices: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(devices))
            }
        }

        deserializer.deserialize_any(DevicesVisitor)?.try_into().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
            assert!(error.contains(&format!("{text:?} is not a device")) && error.contains("\"cuda:1\""), "{error}");
        }
    }

    /// The devices of a file with this value, or the error.
    fn configured(value: &str) -> Result<ComputeDevices, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidemill.toml");
        std::fs::write(&path, format!("[engine]\ndevice = {value}\n")).unwrap();
        Config::layered(Some(&path), [], &[]).map(|config| config.engine.device).map_err(|error| error.to_string())
    }

    #[test]
    fn several_devices_are_a_list_or_a_text_with_commas() {
        let both = ComputeDevices(vec![ComputeDevice::Cuda(0), ComputeDevice::Cuda(1)]);
        assert_eq!(configured("[\"cuda:0\", \"cuda:1\"]"), Ok(both.clone()));
        assert_eq!(configured("[\"cpu\", \"cpu\"]").unwrap().iter().len(), 2);
        assert_eq!(configured("\"cuda:1\""), Ok(ComputeDevice::Cuda(1).into()));
        let variable = ("TIDEMILL_ENGINE__DEVICE".to_owned(), "cuda, cuda:1".to_owned());
        assert_eq!(Config::layered(None, [variable], &[]).unwrap().engine.device, both);
        assert_eq!(Config::default().engine.device, ComputeDevice::Cpu.into());
    }

    #[test]
    fn devices_that_cannot_share_the_work_are_refused() {
        let cases = [
            ("[]", "empty"),
            ("[\"cuda:0\", \"cuda\"]", "cuda:0 is named twice"),
            ("[\"cuda:0\", \"cpu\"]", "GPUs only"),
            ("[\"cpu\", \"gpu\"]", "\"gpu\" is not a device"),
            ("3", "a device or a list of devices"),
        ];
        for (value, reason) in cases {
            let error = configured(value).unwrap_err();
            assert!(error.contains("`engine.device") && error.contains(reason), "{value}: {error}");
        }
    }
}
