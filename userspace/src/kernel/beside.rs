//! What else is attached beside the programs: others may run in front of them, and may have taken them away.

use std::{collections::BTreeSet, io};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd};
use tracing::warn;

use super::{attach::Hook, error::KernelError, interfaces::Interfaces, programs::Programs, system};

/// Most programs that the kernel runs at one hook (`BPF_MPROG_MAX`).
const MOST: u32 = 64;

/// What is told of programs of others.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Those in front, by interface and hook: each is told once.
    told: BTreeSet<(u32, Hook, u32)>,
}

impl Beside {
    /// Looks at each hook at which these sets of programs are held: whether they are there, and who is in front of them. Sets that
    /// somebody else has detached from an interface are attached to it no more.
    pub(super) async fn look(&mut self, interfaces: &Interfaces, mut sets: Vec<&mut Programs>) {
        let ours = sets.iter().flat_map(|set| set.attachments.programs());
        let ours: BTreeSet<u32> = ours.collect();
        let Some(first) = sets.first() else {
            return;
        };
        let (tcx, hooks) = (first.attachments.by_tcx(), first.attachments.hooks());
        let mut told = BTreeSet::new();
        for (index, hook, interface) in hooks {
            let found = match found(interfaces, tcx, index, hook).await {
                Ok(found) => found,
                Err(error) if system::has_interface(index) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(interface, error, "unknown what is attached");
                    continue;
                }
                Err(_) => continue,
            };
            for set in &mut sets {
                if set.is_lost(index, hook, &found) {
                    warn!(
                        interface,
                        "somebody else has detached the programs: they are attached again, and what came meanwhile was not judged"
                    );
                }
            }
            for program in in_front(&found, &ours) {
                let one = (index, hook, program);
                if !self.told.contains(&one) {
                    warn!(
                        interface,
                        ?hook,
                        program,
                        "another program runs in front: what it accepts, redirects or rewrites is not judged as it came"
                    );
                }
                told.insert(one);
            }
        }
        self.told = told;
    }
}

/// The ids of the programs that run at a hook, in their order.
async fn found(
    interfaces: &Interfaces,
    tcx: bool,
    index: u32,
    hook: Hook,
) -> Result<Vec<u32>, KernelError> {
    let by_tcx = by_tcx(index, hook.tcx());
    if tcx {
        return by_tcx.map_err(KernelError::netlink);
    }
    // Those run first, where the kernel has tcx.
    let mut found = by_tcx.unwrap_or_default();
    found.extend(interfaces.filters(index, hook).await?);
    Ok(found)
}

/// The ids of the programs that tcx runs at a hook of this interface, in their order.
///
/// # Errors
/// What the kernel says.
fn by_tcx(interface: u32, hook: bpf_attach_type) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MOST as usize];
    // SAFETY: a union of integers.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    attributes.query.__bindgen_anon_1.target_ifindex = interface;
    attributes.query.__bindgen_anon_2.prog_cnt = MOST;
    // SAFETY: the fields of this command, of zeros.
    let query = unsafe { &mut attributes.query };
    query.attach_type = hook as u32;
    query.prog_ids = ids.as_mut_ptr().expose_provenance() as u64;
    // SAFETY: the kernel writes at most MOST ids, for which there is room.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_PROG_QUERY,
            &raw mut attributes,
            size_of::<bpf_attr>(),
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel wrote the count.
    let count = unsafe { attributes.query.__bindgen_anon_2.prog_cnt } as usize;
    Ok(ids.into_iter().take(count).collect())
}

/// Those of `found`, in their order, that run in front of any of `ours`.
fn in_front<'a>(found: &'a [u32], ours: &'a BTreeSet<u32>) -> impl Iterator<Item = u32> + 'a {
    let last = found.iter().rposition(|id| ours.contains(id)).unwrap_or(0);
    let front = found.iter().take(last).copied();
    front.filter(|id| !ours.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_front() {
        let ours = BTreeSet::from([3, 4]);
        let front = |found: &[u32]| in_front(found, &ours).collect::<Vec<_>>();
        assert_eq!(front(&[3, 4, 9]), [0; 0]);
        assert_eq!(front(&[9, 3, 4]), [9]);
        assert_eq!(front(&[3, 0, 4, 9]), [0]);
        assert_eq!(front(&[9]), [0; 0]);
        assert_eq!(front(&[]), [0; 0]);
    }
}
