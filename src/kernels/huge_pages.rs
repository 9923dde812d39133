//! Memory in large pages. A product reads its weights from the first to the last. With pages of 4 KiB, a fifth of that time is spent on
//! translating addresses and on starting the prefetcher anew in each page.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use super::cache_line::Bf16Line;

/// The size of large pages on x86 and on most other processors. Where it is another, the memory is in ordinary pages.
const LARGE: usize = 2 << 20;

/// A fixed number of values, in large pages if they fill any and the system has them. They begin on a cache line.
pub(super) struct HugePageBuffer<T> {
    first: NonNull<T>,
    count: usize,
    layout: Layout,
}

// SAFETY: the buffer owns its values, as a vector does.
unsafe impl<T: Send> Send for HugePageBuffer<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for HugePageBuffer<T> {}

impl<T: Copy> HugePageBuffer<T> {
    /// `count` copies of `value`.
    ///
    /// # Panics
    /// If so many values cannot be addressed.
    pub(super) fn new(value: T, count: usize) -> Self {
        let layout = Layout::array::<T>(count.max(1)).expect("no more values than can be addressed");
        assert!(layout.size() > 0, "values of no size");
        let align = if layout.size() < LARGE { align_of::<Bf16Line>() } else { LARGE };
        let layout = layout.align_to(align).expect("a power of two");
        // SAFETY: the size is not zero.
        let Some(first) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        advise(first, layout.size() / LARGE * LARGE);
        let first = first.cast::<T>();
        for i in 0..count {
            // SAFETY: there is room for `count` values, of their alignment or more.
            unsafe { first.add(i).write(value) };
        }
        Self { first, count, layout }
    }
}

impl<T> Deref for HugePageBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` wrote so many values, and the buffer owns them.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl<T> DerefMut for HugePageBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.first.as_ptr(), self.count) }
    }
}

impl<T> Drop for HugePageBuffer<T> {
    fn drop(&mut self) {
        // SAFETY: the memory was allocated with this layout. The values are `Copy`, so that none has to be dropped.
        unsafe { dealloc(self.first.as_ptr().cast(), self.layout) };
    }
}

/// Asks the system for large pages, before the memory is used for the first time.
fn advise(first: NonNull<u8>, bytes: usize) {
    #[cfg(target_os = "linux")]
    if bytes > 0 {
        // SAFETY: the caller has just allocated so many bytes, and the advice does not change what they hold.
        unsafe { nix::libc::madvise(first.as_ptr().cast(), bytes, nix::libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (first, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_as_many_values_as_asked_for_from_none_to_more_than_a_large_page() {
        for count in [0, 1, 1000, LARGE / 2, LARGE + 3] {
            let mut pages = HugePageBuffer::new(7_u16, count);
            assert!(pages.len() == count && pages.iter().all(|value| *value == 7), "{count} values");
            pages.iter_mut().for_each(|value| *value += 1);
            assert_eq!(pages.iter().map(|value| usize::from(*value)).sum::<usize>(), 8 * count);
            assert!(2 * count < LARGE || pages.as_ptr().addr().is_multiple_of(LARGE), "{count} values begin within a large page");
        }
    }
}
