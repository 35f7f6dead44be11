//! The settings of a set of programs, which change while they run.

use std::sync::{Arc, Mutex, PoisonError};

use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use tokenblock_ebpf::verdict::Settings;

use super::error::KernelError;

/// The settings that the programs read; all clones are the same.
#[derive(Clone)]
pub struct LiveSettings(Arc<Mutex<Held>>);

struct Held {
    map: Array<MapData, Settings>,
    current: Settings,
}

impl LiveSettings {
    /// Takes the map out of the loaded object; `current` is what the programs were loaded with.
    ///
    /// # Errors
    /// [`KernelError::BadObject`] where it is missing.
    pub fn take(ebpf: &mut Ebpf, current: Settings) -> Result<Self, KernelError> {
        let what = "SETTINGS";
        let map = ebpf.take_map(what).ok_or(KernelError::BadObject { what })?;
        let map = Array::try_from(map)?;
        Ok(Self(Arc::new(Mutex::new(Held { map, current }))))
    }

    /// Changes some of them; the others stay.
    ///
    /// # Errors
    /// [`KernelError::Map`]; they are as they were then.
    pub(super) fn change(&self, change: impl FnOnce(&mut Settings)) -> Result<(), KernelError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = held.current;
        change(&mut next);
        held.map.set(0, next, 0)?;
        held.current = next;
        Ok(())
    }
}
