//! Chooses the device for a generation job.
//!
//! The prompts of a group start alike, and a device caches that prefix after reading it once. So a group stays on its device until
//! that device has [`MAX_LOAD_GAP`] tokens more in progress than another one. Then the group moves, and the other device reads the
//! prefix too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::Sender;

use super::generation::GenerationJob;

/// The load difference, in tokens, at which a group moves to another device: a few steps, and many times the length of a shared
/// prefix.
const MAX_LOAD_GAP: usize = 8192;

/// Groups whose device is remembered. Beyond this number all are forgotten, which costs each group at most one more reading of its
/// prefix.
const MAX_GROUPS: usize = 4096;

/// Distributes jobs among the devices.
pub(super) struct Dispatcher {
    devices: Vec<DeviceSender>,
    assigned: Mutex<HashMap<(usize, Arc<str>), usize>>,
}

/// The channel to one device.
struct DeviceSender {
    jobs: Sender<(usize, GenerationJob)>,
    /// Tokens in progress on the device.
    load: Arc<AtomicUsize>,
}

/// Tokens in progress on a device, until this guard is dropped.
pub(super) struct LoadGuard {
    device: Arc<AtomicUsize>,
    tokens: usize,
}

impl Dispatcher {
    /// One channel per device, in the order of the devices.
    pub(super) fn new(devices: impl IntoIterator<Item = Sender<(usize, GenerationJob)>>) -> Self {
        let device = |jobs| DeviceSender { jobs, load: Arc::default() };
        Self { devices: devices.into_iter().map(device).collect(), assigned: Mutex::default() }
    }

    /// Sends a job of `tokens` tokens for the model at `index`; none if the device has stopped.
    pub(super) fn send(&self, index: usize, tokens: usize, job: GenerationJob) -> Option<LoadGuard> {
        let device = &self.devices[self.place(index, &job.group)];
        device.load.fetch_add(tokens, Ordering::Relaxed);
        let load = LoadGuard { device: device.load.clone(), tokens };
        device.jobs.send((index, job)).ok().map(|()| load)
    }

    fn place(&self, index: usize, group: &Arc<str>) -> usize {
        let loads: Vec<usize> = self.devices.iter().map(|device| device.load.load(Ordering::Relaxed)).collect();
        let mut assigned = self.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (index, group.clone());
        let place = choose(&loads, assigned.get(&key).copied());
        if assigned.len() >= MAX_GROUPS {
            assigned.clear();
        }
        assigned.insert(key, place);
        place
    }
}

/// The group's device, unless another one has far less load; for a new group the least loaded device.
fn choose(loads: &[usize], assigned: Option<usize>) -> usize {
    let least = (0..loads.len()).min_by_key(|place| loads[*place]).unwrap_or(0);
    assigned.filter(|assigned| loads[*assigned] <= loads[least] + MAX_LOAD_GAP).unwrap_or(least)
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.device.fetch_sub(self.tokens, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_stays_at_home_until_another_device_has_far_less_to_do() {
        assert_eq!(choose(&[30, 20, 20], None), 1, "the first of those with the fewest tokens");
        assert_eq!(choose(&[MAX_LOAD_GAP, 0], Some(0)), 0);
        assert_eq!(choose(&[MAX_LOAD_GAP + 1, 0], Some(0)), 1);
        assert_eq!(choose(&[7], Some(0)), 0);
    }

    #[test]
    fn groups_are_spread_and_found_again() {
        let (jobs, _received) = crossbeam_channel::unbounded();
        let dispatch = Dispatcher::new([jobs.clone(), jobs]);
        let (red, blue) = (Arc::from("red"), Arc::from("blue"));
        assert_eq!(dispatch.place(0, &red), 0);
        dispatch.devices[0].load.fetch_add(10, Ordering::Relaxed);
        let load = LoadGuard { device: dispatch.devices[0].load.clone(), tokens: 10 };
        assert_eq!((dispatch.place(0, &blue), dispatch.place(0, &red)), (1, 0), "a new group goes to the least loaded device");
        assert_eq!(dispatch.place(1, &red), 1, "each model has its own prefixes");
        drop(load);
        assert_eq!(dispatch.devices[0].load.load(Ordering::Relaxed), 0);
    }
}
