//! Work that keeps all processors busy, beside those that serve requests.

use std::{io, time::Duration};

use rustix::{process::setpriority_process, thread::gettid};

/// As nice(1) counts.
const NICE: i32 = 10;
/// How long such a thread would run at a time. Linux lets who wakes run at once where he asks for shorter slices (since
/// 6.12; all others ask for 3 ms or less), and else has him wait until the slice is over, whatever is nice; the share that each
/// gets stays the same.
const SLICE: Duration = Duration::from_millis(20);

/// Runs `work`, and what it has rayon do, on threads that give way.
pub(crate) fn giving_way<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new()
        .start_handler(|_| {
            // Where that is refused it runs as others do; systemd's `RestrictRealtime=` may refuse the second.
            let _refused = setpriority_process(Some(gettid()), NICE);
            let _refused = ask_for_slices();
        })
        .build();
    match pool {
        Ok(pool) => pool.install(work),
        Err(_no_threads) => work(),
    }
}

/// Has the calling thread run for [`SLICE`] at a time.
fn ask_for_slices() -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: size(),
        sched_policy: libc::SCHED_OTHER.cast_unsigned(),
        sched_flags: 0,
        sched_nice: NICE,
        sched_priority: 0,
        sched_runtime: u64::try_from(SLICE.as_nanos()).unwrap_or(0),
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads as many bytes as `size` says.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn size() -> u32 {
    u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the calling thread.
    fn attributes() -> libc::sched_attr {
        // SAFETY: zeroes are values of all its fields.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes as many bytes as it is told.
        let got =
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size(), 0) };
        assert_eq!(got, 0, "{}", io::Error::last_os_error());
        attributes
    }

    #[test]
    fn its_threads_are_nice_and_give_way_to_who_wakes_and_others_stay_as_they_are() {
        let before = attributes();
        let within = giving_way(attributes);
        assert_eq!(within.sched_nice, NICE.max(before.sched_nice));
        // A kernel that knows no slices says that there is none.
        let slice = Duration::from_nanos(within.sched_runtime);
        assert!(slice == SLICE || before.sched_runtime == 0, "{slice:?}");
        let after = attributes();
        assert_eq!(after.sched_nice, before.sched_nice);
        assert_eq!(after.sched_runtime, before.sched_runtime);
    }
}
