//! What the tests share: the fixtures that feed every floor, the reference scanner, the kernel programs on
//! single packets, and the harness of the whole-host floor.

pub mod bench;
pub mod beside;
pub mod bodies;
pub mod bpf;
pub mod certificate;
pub mod client;
pub mod engine;
pub mod fixtures;
pub mod fuzz;
pub mod gate;
pub mod life;
pub mod netns;
pub mod origin;
pub mod poll;
pub mod product;
pub mod program;
pub mod raw;
pub mod receiver;
pub mod reference;
pub mod relay;
pub mod scanned;
pub mod sender;
pub mod systemd;
pub mod trace;
pub mod wire;
