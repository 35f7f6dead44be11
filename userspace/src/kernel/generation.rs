//! The generation of the list and the rules: what the programs found clean under one, they judge anew under the next.

use std::sync::{
    Arc,
    atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

use aya::{
    Ebpf,
    maps::{Array, IterableMap as _, MapData},
};

use super::{error::KernelError, shared::Shared};

/// The word by which the programs are told that the list or the rules have changed; all clones are the same.
#[derive(Clone)]
pub(super) struct Generation(Arc<Shared>);

impl Generation {
    /// That of the loaded object.
    ///
    /// # Errors
    /// [`KernelError::BadObject`] where it has none, [`KernelError::Share`] where it can't be shared.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, KernelError> {
        let what = "GENERATION";
        let map = ebpf.map(what).ok_or(KernelError::BadObject { what })?;
        let array: Array<&MapData, u64> = Array::try_from(map)?;
        Ok(Self(Arc::new(Shared::of(array.map(), 1)?)))
    }

    /// To be called once a change is in force, and before anybody is told so: from here on no program passes unread what it
    /// judged before the change.
    ///
    /// A program reads this word before anything of the list and the rules. Where it reads the new one it sees the change,
    /// which was written before; what it remembers under the old one is of no use any more.
    pub(super) fn bump(&self) {
        fence(SeqCst);
        let word: Option<&AtomicU64> = self.0.words().first();
        word.map(|word| word.fetch_add(1, Relaxed));
        fence(SeqCst);
    }
}
