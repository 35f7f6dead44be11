//! The filter of fingerprints in front of the table; it grows by pages.

use std::sync::atomic::Ordering::Relaxed;

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, MapData},
};
use tokenblock_ebpf::filter::{BITS_PER_ENTRY, Fingerprint, PAGE, PAGES};

use super::{error::KernelError, live::LiveSettings, shared::Shared};

/// Entries of a page.
const ENTRIES: usize = (PAGE * (u64::BITS / BITS_PER_ENTRY)) as usize;

/// The words of a page.
type Words = [u64; PAGE as usize];

/// The filter, and the settings that say how large it is.
pub(super) struct Filter {
    outer: ArrayOfMaps<MapData, Array<MapData, Words>>,
    pages: Vec<Shared>,
    settings: LiveSettings,
    /// As the settings have it.
    mask: u32,
}

impl Filter {
    /// Takes the map out of the loaded object. The programs, which have these settings, ask no filter until it grows for
    /// the first time.
    pub(super) fn take(ebpf: &mut Ebpf, settings: LiveSettings) -> Result<Self, KernelError> {
        let mut take = |what| ebpf.take_map(what).ok_or(KernelError::BadObject { what });
        Ok(Self {
            outer: ArrayOfMaps::try_from(take("FILTER")?)?,
            pages: Vec::new(),
            settings,
            mask: 0,
        })
    }

    /// Whether a list of that many entries wants a larger filter.
    pub(super) fn is_small_for(&self, entries: usize) -> bool {
        entries > self.pages.len() * ENTRIES
    }

    /// Lets a fingerprint through to the digest.
    pub(super) fn admit(&self, fingerprint: Fingerprint) {
        let (block, bits) = fingerprint.place(self.mask);
        admit(&self.pages, block, bits);
    }

    /// Makes room for that many entries, of which these are listed. At no moment is one of them ruled out: the new pages
    /// are there before the programs look into them, and the old ones, in which more stands than there should, are
    /// replaced once none looks for what has moved.
    pub(super) fn grow(
        &mut self,
        entries: usize,
        listed: impl Iterator<Item = Fingerprint>,
    ) -> Result<(), KernelError> {
        let wanted = entries.div_ceil(ENTRIES).max(1).next_power_of_two();
        let pages = wanted.clamp(self.pages.len(), PAGES as usize);
        let mask = u32::try_from(pages).unwrap_or(PAGES) * PAGE - 1;
        let mut made = Vec::with_capacity(pages);
        let mut arrays = Vec::with_capacity(pages);
        for _ in 0..pages {
            let (page, array) = Shared::create::<Words>(1, 0)?;
            made.push(page);
            arrays.push(array);
        }
        for fingerprint in listed {
            let (block, bits) = fingerprint.place(mask);
            admit(&made, block, bits);
        }
        let old = self.pages.len();
        self.put(arrays.iter().enumerate().skip(old))?;
        self.settings
            .change(|settings| settings.filter_mask = mask)?;
        self.mask = mask;
        if old > 0 {
            // To put one in its own place takes until no program runs any more that began before, and read the old mask.
            self.put(arrays.iter().enumerate().skip(old).take(1))?;
            self.put(arrays.iter().enumerate().take(old))?;
        }
        self.pages = made;
        Ok(())
    }

    fn put<'a>(
        &mut self,
        pages: impl Iterator<Item = (usize, &'a Array<MapData, Words>)>,
    ) -> Result<(), KernelError> {
        for (index, page) in pages {
            let index = u32::try_from(index).unwrap_or(PAGES);
            self.outer.set(index, page, 0)?;
        }
        Ok(())
    }
}

fn admit(pages: &[Shared], block: u32, bits: u64) {
    let words = pages.get((block / PAGE) as usize).map(Shared::words);
    if let Some(word) = words.and_then(|words| words.get((block % PAGE) as usize))
        && word.load(Relaxed) & bits != bits
    {
        word.fetch_or(bits, Relaxed);
    }
}
