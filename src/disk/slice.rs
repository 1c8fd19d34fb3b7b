//! Bytes of a buffer that was written or read, shared by everybody who reads or sends them.

use std::fmt;
use std::ops::{Deref, Range};
use std::rc::Rc;

use super::DiskBuffer;

/// Memory that nobody changes any more.
pub trait Memory: 'static {
    fn bytes(&self) -> &[u8];
}

/// What was read, or put together, as memory for slices.
pub struct Whole<T>(pub T);

/// A part of a buffer that nobody changes any more. It keeps the whole buffer in memory: whoever holds slices for long
/// counts [`pinned_bytes`](BufferSlice::pinned_bytes), not their lengths.
#[derive(Clone)]
pub struct BufferSlice {
    buffer: Rc<dyn Memory>,
    range: Range<usize>,
}

impl<B: DiskBuffer> Memory for B {
    fn bytes(&self) -> &[u8] {
        self.as_slice()
    }
}

impl<T: Deref<Target = [u8]> + 'static> Memory for Whole<T> {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl BufferSlice {
    /// Panics when `range` is not within the buffer.
    pub fn new(buffer: Rc<dyn Memory>, range: Range<usize>) -> Self {
        let bytes = buffer.bytes().len();
        assert!(range.start <= range.end && range.end <= bytes, "{range:?} of a buffer of {bytes} bytes");
        Self { buffer, range }
    }

    /// Makes this slice longer by `next` if that follows in the same buffer. Whether it does.
    pub fn join(&mut self, next: &BufferSlice) -> bool {
        let follows = Rc::ptr_eq(&self.buffer, &next.buffer) && self.range.end == next.range.start;
        if follows {
            self.range.end = next.range.end;
        }
        follows
    }

    /// Bytes that stay in memory for as long as the slice does.
    pub fn pinned_bytes(&self) -> usize {
        self.buffer.bytes().len()
    }
}

impl Deref for BufferSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer.bytes()[self.range.clone()]
    }
}

impl fmt::Debug for BufferSlice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} of {} bytes", self.range, self.pinned_bytes())
    }
}
