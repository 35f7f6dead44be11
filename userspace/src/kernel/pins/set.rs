//! The pins of one set of programs: its links, and the maps of the connections that it follows.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use aya::{
    maps::{Array, Map, MapData, MapError},
    programs::{
        ProgramError,
        links::{FdLink, LinkError, PinnedLink},
    },
};
use rustix::io::Errno;
use tokenblock_ebpf::flow::PlaceKeys;
use tracing::{info, warn};

use super::{
    error::PinDirError,
    folder::{Counts, PinFolder, make_state, remove_state},
    name::{Name, Place, StateId},
};
use crate::kernel::{error::KernelError, load::place_keys, object::Variant, system};

/// The maps of connections and of what came of them, which go on with the next programs. All others belong to one process:
/// key, places, list and settings are always of one piece.
pub(in crate::kernel) const KEPT: [&str; 10] = [
    "FLOWS",
    "NEWCOMERS",
    "GAPS",
    "STATES",
    "HANDSHAKES",
    "BLOCKED",
    "ANY_BLOCKED",
    "OFFENDERS",
    "EVENTS",
    "COUNTS",
];
/// What the places of connections in their table depend on.
const PLACE_KEYS: &str = "PLACE_KEYS";

/// The pins of one set of programs.
pub(in crate::kernel) struct SetPins {
    folder: Arc<PinFolder>,
    set: Variant,
    id: StateId,
    state: State,
    /// Nobody else writes the folder.
    links: RefCell<Links>,
}

/// Where links are kept.
type Links = BTreeMap<(Place, u32), PathBuf>;

/// What became of the connections of the programs before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// They go on.
    TakenOver,
    /// There are none yet, and the maps are not those of any program.
    HalfMade,
    /// These programs have made their own.
    Own,
}

/// How a program comes under a link.
pub(in crate::kernel) struct Hold<'a, P, R, A> {
    /// The program.
    pub(in crate::kernel) program: &'a mut P,
    /// The interface's name, for messages.
    pub(in crate::kernel) interface: &'a str,
    /// Puts the program under a link that is there.
    pub(in crate::kernel) replace: R,
    /// Makes a new one.
    pub(in crate::kernel) attach: A,
}

impl SetPins {
    /// Those of `set`, whose connections go on if all that is attached follows them, and what they depend on has this very
    /// fingerprint.
    ///
    /// # Errors
    /// [`KernelError`] where the folder can't be read or written.
    pub(in crate::kernel) fn open(
        folder: &Arc<PinFolder>,
        set: Variant,
        fingerprint: u64,
    ) -> Result<Self, KernelError> {
        let (mut ids, mut links) = (Vec::new(), Links::new());
        for (name, path) in folder.names()? {
            let Name::Link {
                set: of,
                place,
                index,
                state,
            } = name
            else {
                continue;
            };
            if of != set {
                continue;
            }
            links.insert((place, index), path);
            if place.judges() && !ids.contains(&state) {
                ids.push(state);
            }
        }
        let mut pins = Self {
            folder: Arc::clone(folder),
            set,
            id: StateId {
                fingerprint,
                drawn: getrandom::u64().map_err(KernelError::Random)?,
            },
            state: State::HalfMade,
            links: RefCell::new(links),
        };
        match ids[..] {
            [id] if id.fingerprint == fingerprint && pins.has_maps(id) => {
                pins.id = id;
                pins.state = State::TakenOver;
                return Ok(pins);
            }
            [] => {}
            _ => info!(
                "open connections can't be taken over from the programs before: they are first seen in their middle"
            ),
        }
        make_state(&pins.maps())?;
        Ok(pins)
    }

    /// Whether the connections of the programs before go on.
    pub(in crate::kernel) fn is_taken_over(&self) -> bool {
        self.state == State::TakenOver
    }

    /// Leaves the connections of the programs before.
    ///
    /// # Errors
    /// [`KernelError`] where the folder can't be written.
    pub(in crate::kernel) fn renounce(&mut self) -> Result<(), KernelError> {
        self.id.drawn = getrandom::u64().map_err(KernelError::Random)?;
        self.state = State::HalfMade;
        make_state(&self.maps())?;
        Ok(())
    }

    /// Where the maps are that go on, or are to be pinned.
    pub(in crate::kernel) fn map_paths(&self) -> Vec<(&'static str, PathBuf)> {
        let maps = self.maps();
        KEPT.iter().map(|name| (*name, maps.join(name))).collect()
    }

    /// What the places of the connections in their table depend on.
    ///
    /// # Errors
    /// [`KernelError`] where it can't be read or kept.
    pub(in crate::kernel) fn place_keys(&self) -> Result<PlaceKeys, KernelError> {
        let path = self.maps().join(PLACE_KEYS);
        if self.is_taken_over() {
            let map = Map::from_map_data(MapData::from_pin(path)?)?;
            let array: Array<MapData, PlaceKeys> = Array::try_from(map)?;
            return Ok(array.get(&0, 0)?);
        }
        let keys = place_keys()?;
        let mut array: Array<MapData, PlaceKeys> = Array::create(1, 0)?;
        array.set(0, keys, 0)?;
        array.pin(path).map_err(|error| MapError::PinError {
            name: Some(PLACE_KEYS.to_owned()),
            error,
        })?;
        Ok(keys)
    }

    /// The programs are loaded, with all their maps: from now on these can be taken over.
    ///
    /// # Errors
    /// [`KernelError`] where the folder can't be written.
    pub(in crate::kernel) fn loaded(&mut self) -> Result<(), KernelError> {
        if self.state == State::HalfMade {
            let before = self.maps();
            let path = self.folder.path(Name::State(self.set, self.id));
            fs::rename(&before, &path).map_err(PinDirError::io("rename", &before))?;
            self.state = State::Own;
        }
        Ok(())
    }

    /// Interfaces whose packets were seen all the time, both ways.
    pub(in crate::kernel) fn followed(&self) -> BTreeSet<u32> {
        let links = self.links.borrow();
        let both = |index| {
            let judges = Place::ALL.into_iter().filter(|place| place.judges());
            judges
                .into_iter()
                .all(|place| links.contains_key(&(place, index)))
        };
        let indexes = links.keys().map(|(_, index)| *index);
        indexes.filter(|index| both(*index)).collect()
    }

    /// Whether links are kept.
    pub(in crate::kernel) fn is_used(&self) -> bool {
        !self.links.borrow().is_empty()
    }

    /// So many connections go on.
    pub(in crate::kernel) fn took_over(&self, flows: u32) {
        let counter = &self.folder.counts.flows;
        counter.fetch_add(flows.into(), Relaxed);
    }

    /// Puts a program under the link that is kept of a place, at one stroke, or makes one and keeps it.
    ///
    /// # Errors
    /// [`KernelError`]; a link that was there stays as it was.
    pub(in crate::kernel) fn hold<P, R, A>(
        &self,
        place: Place,
        index: u32,
        hold: Hold<'_, P, R, A>,
    ) -> Result<FdLink, KernelError>
    where
        R: FnOnce(&mut P, FdLink) -> Result<FdLink, ReplaceError>,
        A: FnOnce(&mut P) -> Result<FdLink, KernelError>,
    {
        let counts = &self.folder.counts;
        let path = self.path(place, index);
        let found = self.links.borrow_mut().remove(&(place, index));
        if let Some(found) = found {
            // Before the program: a link of this name never has connections that nobody has followed since.
            if found != path {
                fs::rename(&found, &path).map_err(PinDirError::io("rename", &found))?;
            }
            match PinnedLink::from_pin(&path) {
                Ok(link) => match (hold.replace)(hold.program, link.into()) {
                    Ok(link) => {
                        Counts::count(&counts.replaced);
                        self.links.borrow_mut().insert((place, index), path);
                        return Ok(link);
                    }
                    Err(ReplaceError::Program(error)) if is_dead(&error) => {}
                    Err(ReplaceError::Program(source)) => {
                        return Err(KernelError::Attach {
                            name: hold.interface.to_owned(),
                            source,
                        });
                    }
                    Err(ReplaceError::Link(source)) => {
                        return Err(PinDirError::Link { path, source }.into());
                    }
                },
                Err(source) => return Err(PinDirError::Link { path, source }.into()),
            }
            // Its interface is gone, and another has come since.
            fs::remove_file(&path).map_err(PinDirError::io("take away", &path))?;
        }
        let link = (hold.attach)(hold.program)?;
        let failed = |error| PinDirError::io("pin", &path)(error);
        let link = link
            .pin(&path)
            .map_err(|error| failed(std::io::Error::other(error)))?;
        Counts::count(&counts.attached);
        self.links.borrow_mut().insert((place, index), path);
        Ok(link.into())
    }

    /// Takes away the link of a place. It is a warning in the log where that fails.
    pub(in crate::kernel) fn release(&self, place: Place, index: u32) {
        let Some(path) = self.links.borrow_mut().remove(&(place, index)) else {
            return;
        };
        if let Err(error) = self.folder.remove_one(self.name(place, index), &path) {
            warn!(
                error = &error as &dyn std::error::Error,
                "a link can't be taken away: its program stays attached"
            );
        }
    }

    /// Takes away all links of these programs but `held`, and the connections of the programs before.
    ///
    /// # Errors
    /// [`KernelError`] where something can't be taken away.
    pub(in crate::kernel) fn keep_only(
        &self,
        held: &BTreeSet<(Place, u32)>,
    ) -> Result<(), KernelError> {
        for (name, path) in self.folder.names()? {
            let stays = match name {
                Name::Link { place, index, .. } => {
                    held.contains(&(place, index)) && path == self.path(place, index)
                }
                Name::State(_, id) | Name::HalfMade(_, id) => id == self.id,
            };
            if name.set() == self.set && !stays {
                self.folder.remove_one(name, &path)?;
            }
        }
        let mut links = self.links.borrow_mut();
        links.retain(|link, _| held.contains(link));
        Ok(())
    }

    /// Takes away all of these programs.
    pub(in crate::kernel) fn remove(&self) {
        self.links.borrow_mut().clear();
        if let Err(error) = self.folder.remove(self.set) {
            warn!(
                error = &error as &dyn std::error::Error,
                "programs can't be detached"
            );
        }
    }

    /// What is followed depends on something else from now on.
    ///
    /// # Errors
    /// [`KernelError`] where the folder can't be written; the next programs do not take over what is followed then.
    pub(in crate::kernel) fn refit(&mut self, fingerprint: u64) -> Result<(), KernelError> {
        if fingerprint == self.id.fingerprint {
            return Ok(());
        }
        let before = self.maps();
        self.id = StateId {
            fingerprint,
            drawn: getrandom::u64().map_err(KernelError::Random)?,
        };
        let after = self.folder.path(Name::State(self.set, self.id));
        fs::rename(&before, &after).map_err(PinDirError::io("rename", &before))?;
        for ((place, index), path) in self.links.borrow_mut().iter_mut() {
            let after = self.path(*place, *index);
            fs::rename(&*path, &after).map_err(PinDirError::io("rename", &*path))?;
            *path = after;
        }
        Ok(())
    }

    fn maps(&self) -> PathBuf {
        self.folder.path(match self.state {
            State::HalfMade => Name::HalfMade(self.set, self.id),
            State::TakenOver | State::Own => Name::State(self.set, self.id),
        })
    }

    /// Whether the maps of these connections are there, each under its own name.
    fn has_maps(&self, id: StateId) -> bool {
        let maps = self.folder.path(Name::State(self.set, id));
        let is_kept = |name: &str| -> bool { is_map(&maps.join(name), name) };
        let complete = KEPT.iter().all(|name| is_kept(name));
        let complete = complete && MapData::from_pin(maps.join(PLACE_KEYS)).is_ok();
        if !complete {
            warn!(
                path = %maps.display(),
                "the maps of open connections are not complete: they are first seen in their middle"
            );
        }
        complete
    }

    fn name(&self, place: Place, index: u32) -> Name {
        Name::Link {
            set: self.set,
            place,
            index,
            state: self.id,
        }
    }

    fn path(&self, place: Place, index: u32) -> PathBuf {
        self.folder.path(self.name(place, index))
    }
}

impl Drop for SetPins {
    fn drop(&mut self) {
        let links = self.links.borrow();
        let is_ours =
            |((place, index), path): (&(Place, u32), &PathBuf)| *path == self.path(*place, *index);
        if self.state != State::TakenOver && !links.iter().any(is_ours) {
            // The next start does so else.
            let _removed = remove_state(&self.maps());
        }
    }
}

/// Why a link does not take a program.
#[derive(Debug)]
pub(in crate::kernel) enum ReplaceError {
    /// It is none for such programs.
    Link(LinkError),
    /// The kernel refuses it.
    Program(ProgramError),
}

impl From<LinkError> for ReplaceError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<ProgramError> for ReplaceError {
    fn from(error: ProgramError) -> Self {
        Self::Program(error)
    }
}

/// Whether a link has outlived its interface.
fn is_dead(error: &ProgramError) -> bool {
    system::has_errno(error, &[Errno::NOLINK])
}

/// Whether a map of this name is pinned there.
fn is_map(path: &Path, name: &str) -> bool {
    let map = match MapData::from_pin(path) {
        Ok(map) => map,
        Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
            return false;
        }
        Err(error) => {
            warn!(path = %path.display(), %error, "no map");
            return false;
        }
    };
    map.info()
        .is_ok_and(|info| info.name_as_str() == Some(name))
}

#[cfg(test)]
mod tests {
    use aya_obj::Object;

    use super::*;
    use crate::kernel::object::programs;

    /// Those of one process.
    const OWN: [&str; 15] = [
        "RULES",
        "SETTINGS",
        "PORTS",
        "WAYS",
        "TABLE",
        "OVERFLOW",
        "FILTER",
        "GENERATION",
        "SUM_KEYS",
        "EXEMPT",
        "WORK",
        "NEW_FLOW",
        "REPLIES",
        "RESPONSES",
        "LOOK",
    ];
    /// Of the programs that intercept, and of the log.
    const OTHERS: [&str; 5] = ["INTERCEPT", "PROXY", "OWN", "PASSED", "AYA_LOGS"];

    /// Whoever adds a map has to say whether the next process goes on with it.
    #[test]
    fn each_map_is_kept_or_is_of_one_process() {
        for set in [Variant::Keyed, Variant::Sha256] {
            // Built without the programs there are none.
            let Ok(object) = programs(set) else {
                return;
            };
            let object = Object::parse(object).unwrap();
            let is_known = |name: &str| {
                let known = KEPT.iter().chain(&OWN).chain(&OTHERS);
                name.starts_with('.') || known.into_iter().any(|known| *known == name)
            };
            for name in object.maps.keys() {
                assert!(is_known(name), "{name}");
            }
            for name in KEPT {
                assert!(object.maps.contains_key(name), "{name}");
            }
        }
    }
}
