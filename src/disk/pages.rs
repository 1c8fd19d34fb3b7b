//! The bytes of one file in memory: 4-KiB pages behind shared pointers, zero pages not stored.
//!
//! A copy of a file costs one pointer, and one per stored page when either side changes, so that a test can keep
//! several images of one disk and make thousands of them. Two rules keep it so: what is shared is never changed, and a
//! page of zeros is absent, so that a prepared segment of 16 MiB costs nothing.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use crate::limits::BLOCK_BYTES;

/// One block of a file.
pub(super) type Page = Rc<[u8; BLOCK_BYTES]>;

/// Contents and size of one file. Bytes that were never written read as zero; nothing is stored at or beyond the size.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    bytes: u64,
    /// Shared with copies of this file until one of the two changes.
    stored: Rc<BTreeMap<u64, Page>>,
}

static ZEROS: [u8; 64 * BLOCK_BYTES] = [0; 64 * BLOCK_BYTES];

impl Pages {
    /// Size of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pages that are not all zero.
    #[cfg(test)]
    pub(super) fn stored_count(&self) -> usize {
        self.stored.len()
    }

    /// Cuts the file or lets it grow with zeros.
    pub(super) fn set_bytes(&mut self, bytes: u64) {
        if bytes < self.bytes {
            let stored = Rc::make_mut(&mut self.stored);
            stored.split_off(&bytes.div_ceil(BLOCK_BYTES as u64));
            let kept = (bytes % BLOCK_BYTES as u64) as usize;
            if kept > 0
                && let Some(page) = stored.get_mut(&(bytes / BLOCK_BYTES as u64))
            {
                Rc::make_mut(page)[kept..].fill(0);
            }
        }
        self.bytes = bytes;
    }

    /// The page with this number; `None` is a page of zeros.
    pub(super) fn page(&self, index: u64) -> Option<&Page> {
        self.stored.get(&index)
    }

    /// Replaces a whole page. The file grows to hold it.
    pub(super) fn set_page(&mut self, index: u64, page: Option<Page>) {
        match page {
            Some(page) => _ = Rc::make_mut(&mut self.stored).insert(index, page),
            None if self.stored.contains_key(&index) => _ = Rc::make_mut(&mut self.stored).remove(&index),
            None => {}
        }
        self.bytes = self.bytes.max((index + 1) * BLOCK_BYTES as u64);
    }

    /// Replaces whole pages from `position` on, which is a multiple of the block size.
    pub(super) fn write(&mut self, position: u64, pages: &[Option<Page>]) {
        let first = position / BLOCK_BYTES as u64;
        for (index, page) in (first..).zip(pages) {
            self.set_page(index, page.clone());
        }
    }

    /// `bytes` bytes from `position` on; `None` when they are not all inside the file.
    pub(super) fn read(&self, position: u64, bytes: usize) -> Option<Bytes> {
        let end = position.checked_add(bytes as u64)?;
        if end > self.bytes {
            return None;
        }
        let first = position / BLOCK_BYTES as u64;
        let pages = first..end.div_ceil(BLOCK_BYTES as u64);
        if bytes <= ZEROS.len() && self.stored.range(pages.clone()).next().is_none() {
            return Some(Bytes::from_static(&ZEROS[..bytes]));
        }
        let mut contents = Vec::with_capacity(bytes);
        for index in pages {
            let page = self.stored.get(&index).map_or(&ZEROS[..BLOCK_BYTES], |page| &page[..]);
            contents.extend_from_slice(&page[..BLOCK_BYTES.min(bytes - contents.len())]);
        }
        Some(contents.into())
    }
}

/// Cuts whole blocks into pages; `None` is a page of zeros.
pub(super) fn cut(bytes: &[u8]) -> Rc<[Option<Page>]> {
    let blocks = bytes.chunks_exact(BLOCK_BYTES);
    blocks.map(|block| page_of(block.try_into().expect("chunks have the size of a block"))).collect()
}

/// The page with these contents; `None` when they are zeros.
pub(super) fn page_of(block: &[u8; BLOCK_BYTES]) -> Option<Page> {
    (*block != [0; BLOCK_BYTES]).then(|| Rc::new(*block))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = BLOCK_BYTES as u64;

    #[test]
    fn zero_pages_are_not_stored() {
        let mut pages = Pages::default();
        pages.set_bytes(1 << 40);
        pages.write(BLOCK, &cut(&[0; 2 * BLOCK_BYTES]));
        assert_eq!(pages.stored_count(), 0);
        pages.write(BLOCK, &cut(&[7; 2 * BLOCK_BYTES]));
        assert_eq!(pages.stored_count(), 2);
        pages.write(2 * BLOCK, &cut(&[0; BLOCK_BYTES]));
        assert_eq!(pages.stored_count(), 1);
        assert_eq!(pages.bytes(), 1 << 40);
    }

    #[test]
    fn a_copy_does_not_see_later_writes() {
        let mut pages = Pages::default();
        pages.write(0, &cut(&[1; BLOCK_BYTES]));
        let copy = pages.clone();
        pages.write(0, &cut(&[2; BLOCK_BYTES]));
        pages.set_bytes(100);
        assert_eq!(copy.read(0, BLOCK_BYTES).as_deref(), Some(&[1; BLOCK_BYTES][..]));
        assert_eq!(copy.bytes(), BLOCK);
    }

    #[test]
    fn bytes_cut_off_come_back_as_zeros() {
        let mut pages = Pages::default();
        pages.write(0, &cut(&[9; 3 * BLOCK_BYTES]));
        pages.set_bytes(BLOCK + 10);
        assert_eq!(pages.read(0, 2 * BLOCK_BYTES), None);
        pages.set_bytes(3 * BLOCK);
        let contents = pages.read(0, 3 * BLOCK_BYTES).expect("inside the file");
        let kept = BLOCK_BYTES + 10;
        assert!(contents[..kept].iter().all(|&byte| byte == 9));
        assert!(contents[kept..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn reads_join_stored_pages_and_zeros() {
        let mut pages = Pages::default();
        pages.set_bytes(200 * BLOCK);
        pages.write(BLOCK, &cut(&[3; BLOCK_BYTES]));
        let contents = pages.read(0, 3 * BLOCK_BYTES).expect("inside the file");
        assert_eq!(contents[..BLOCK_BYTES], [0; BLOCK_BYTES]);
        assert_eq!(contents[BLOCK_BYTES..2 * BLOCK_BYTES], [3; BLOCK_BYTES]);
        assert_eq!(contents[2 * BLOCK_BYTES..], [0; BLOCK_BYTES]);
        // Longer than the shared zeros.
        assert_eq!(
            pages.read(2 * BLOCK, 100 * BLOCK_BYTES).map(|zeros| zeros.len()),
            Some(100 * BLOCK_BYTES)
        );
        assert_eq!(pages.read(u64::MAX - BLOCK + 1, BLOCK_BYTES), None);
    }
}
