//! On which CPUs the two ends of a round trip run.
//!
//! A wake-up on the waker's own CPU is a context switch. On another one it is an interrupt to a CPU that
//! may be asleep, and what that costs is up to the hypervisor: between 25 and 55 us a round trip on the same
//! machine within minutes, whatever the channel does. The scheduler chooses differently from run to run and
//! between kinds of descriptors. So latencies are compared with the choice taken away: on one CPU, where
//! only what the two sides do counts, and, for comparison, apart, as a VM's CPU and its cell are.
//! Throughput is compared as the scheduler likes it.

use anyhow::Context;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use vamos_bench::process::Pid;

/// Where to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Wherever the scheduler likes.
    Free,
    /// This process on one CPU, the far end on another.
    Apart,
    /// Both on one CPU.
    Together,
}

/// The CPUs there are for a run.
#[derive(Debug, Clone)]
pub struct Cpus {
    all: CpuSet,
    /// The near end's, and the far end's; `None` if there is only one.
    pair: Option<(usize, usize)>,
}

impl Cpus {
    /// Those this process may use.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn of_this_process() -> anyhow::Result<Self> {
        let all = sched_getaffinity(None).context("ask which CPUs there are")?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu));
        let pair = usable.next().zip(usable.next());
        Ok(Self { all, pair })
    }

    /// Whether placements differ at all.
    pub fn can_be_apart(&self) -> bool {
        self.pair.is_some()
    }

    /// Places this process and the `far` ones.
    ///
    /// # Errors
    /// If the far processes are another user's.
    pub fn place(&self, placement: Placement, far: &[Pid]) -> anyhow::Result<()> {
        let Some((one, other)) = self.pair else { return Ok(()) };
        let only = |cpu| {
            let mut set = CpuSet::new();
            set.set(cpu);
            set
        };
        let (near_set, far_set) = match placement {
            Placement::Free => (self.all, self.all),
            Placement::Apart => (only(one), only(other)),
            Placement::Together => (only(one), only(one)),
        };
        let threads = |pid: &Pid| pid.threads();
        for thread in Pid::own().threads()? {
            move_thread(thread, &near_set)?;
        }
        for thread in far.iter().map(threads).collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten() {
            move_thread(thread, &far_set)?;
        }
        Ok(())
    }
}

fn move_thread(thread: i32, cpus: &CpuSet) -> anyhow::Result<()> {
    match sched_setaffinity(rustix::process::Pid::from_raw(thread), cpus) {
        // It has ended since it was listed.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("move a thread to a CPU (run as root to place the cell)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placed_process_stays_where_it_was_put() {
        let cpus = Cpus::of_this_process().expect("CPUs");
        let mut far = std::process::Command::new("sleep").arg("20").spawn().expect("start sleep");
        cpus.place(Placement::Apart, &[Pid(far.id())]).expect("place both");
        let near_cpus = sched_getaffinity(None).expect("own CPUs");
        let far_cpus = sched_getaffinity(rustix::process::Pid::from_raw(far.id() as i32)).expect("its CPUs");
        cpus.place(Placement::Free, &[]).expect("let go");
        far.kill().and_then(|()| far.wait().map(drop)).expect("end sleep");
        if cpus.can_be_apart() {
            assert_eq!((near_cpus.count(), far_cpus.count()), (1, 1));
            assert_ne!(near_cpus, far_cpus);
        }
        assert_eq!(sched_getaffinity(None).expect("own CPUs"), cpus.all);
    }
}
