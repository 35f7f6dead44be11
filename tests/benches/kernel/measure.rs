//! Taking the time of a packet on a machine that does other things too.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokenblock_tests::bpf::{Programs, frame::Frame};

use crate::packets;

/// The program that is measured.
pub(crate) const PROGRAM: &str = "ingress_ethernet";
/// The one that sees what the server says.
pub(crate) const EGRESS: &str = "egress_ethernet";
/// Rounds of which the best counts: what other work there is can only add.
const ROUNDS: usize = 15;
/// About as long as one round lasts.
const ROUND: Duration = Duration::from_millis(20);

/// Runs one by one, of which the best counts.
const ALONE: usize = 4000;

/// The program's verdict on what passes.
const UNSPEC: u32 = u32::MAX;

/// Nanoseconds of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// The best round.
    pub(crate) best: f64,
    /// The middle round.
    pub(crate) median: f64,
    /// The worst round.
    pub(crate) worst: f64,
}

impl Measured {
    pub(crate) fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| rounds.get(index).copied().unwrap_or(f64::NAN);
        Self {
            best: at(0),
            median: at(rounds.len() / 2),
            worst: at(rounds.len().saturating_sub(1)),
        }
    }
}

/// The same packet over and over: code and data are in the caches.
pub(crate) fn warm(programs: &mut Programs, frame: &[u8]) -> Result<Measured> {
    let times = repeats(programs, frame)?;
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        // The kernel gives the mean in whole nanoseconds; the clock outside has the fraction.
        let began = Instant::now();
        let (_, inside) = programs.repeat(PROGRAM, frame, times)?;
        let outside = began.elapsed().as_secs_f64() * 1e9 / f64::from(times);
        programs.events();
        let inside = inside.as_secs_f64() * 1e9;
        rounds.push(if outside - inside < 1.0 {
            outside
        } else {
            inside
        });
    }
    Ok(Measured::of(rounds))
}

/// How often to run for one round.
fn repeats(programs: &mut Programs, frame: &[u8]) -> Result<u32> {
    const TRIAL: u32 = 1000;
    let began = Instant::now();
    programs.repeat(PROGRAM, frame, TRIAL)?;
    let one = began.elapsed().as_secs_f64() / f64::from(TRIAL);
    programs.events();
    Ok((ROUND.as_secs_f64() / one).clamp(1000.0, 1e6) as u32)
}

/// By how much a run on its own is measured longer than one of a loop: it has a reading of the clock to itself.
/// Nanoseconds.
fn clock(programs: &mut Programs) -> Result<f64> {
    let frame = packets::acknowledgment()?;
    let alone: Result<Vec<_>> = (0..ALONE).map(|_| one(programs, &frame)).collect();
    let alone = Measured::of(alone?).best;
    Ok((alone - warm(programs, &frame)?.best).max(0.0))
}

/// Runs on their own, each of which was measured with a reading of the clock.
pub(crate) fn without_clock(programs: &mut Programs, runs: Vec<f64>) -> Result<Measured> {
    let clock = clock(programs)?;
    Ok(Measured::of(
        runs.into_iter().map(|run| run - clock).collect(),
    ))
}

/// Segments of one connection, one after the other, each judged once: `best` is the fastest of them, `median` the
/// middle one, both without the reading of the clock. The kernel measures one run to 10 ns, and a call from outside
/// leaves colder caches than a stream of packets finds, so these are upper bounds. No other connection is followed.
pub(crate) fn in_order(programs: &mut Programs, frames: &[Vec<u8>]) -> Result<Measured> {
    programs.forget_flows()?;
    connection(programs, frames)
}

/// As [`in_order`], beside the connections that are followed.
pub(crate) fn connection(programs: &mut Programs, frames: &[Vec<u8>]) -> Result<Measured> {
    accept(programs, &packets::accepted()?)?;
    behind(programs, Frame::SEQUENCE, frames)
}

/// As [`in_order`], behind the head of the request that the segments are the body of.
pub(crate) fn in_body(programs: &mut Programs, frames: &[Vec<u8>]) -> Result<Measured> {
    programs.forget_flows()?;
    accept(programs, &packets::accepted()?)?;
    let head = packets::body_head()?;
    one(programs, &packets::at(&head, Frame::SEQUENCE))?;
    behind(programs, packets::end(&head, Frame::SEQUENCE)?, frames)
}

/// The server takes a connection. One whose beginning was not seen is read with more care, and slower.
pub(crate) fn accept(programs: &mut Programs, syn: &[u8]) -> Result<()> {
    let (action, _) = programs.repeat(EGRESS, syn, 1)?;
    ensure!(action == UNSPEC, "the server's SYN was not passed");
    Ok(())
}

/// Segments from this sequence number on.
fn behind(programs: &mut Programs, mut next: u32, frames: &[Vec<u8>]) -> Result<Measured> {
    let mut runs = Vec::with_capacity(frames.len());
    for frame in frames {
        let frame = packets::at(frame, next);
        next = packets::end(&frame, next)?;
        runs.push(one(programs, &frame)?);
    }
    without_clock(programs, runs)
}

/// One run, in nanoseconds.
pub(crate) fn one(programs: &mut Programs, frame: &[u8]) -> Result<f64> {
    let (action, inside) = programs.repeat(PROGRAM, frame, 1)?;
    ensure!(action == UNSPEC, "a measured segment was not passed");
    Ok(inside.as_secs_f64() * 1e9)
}
