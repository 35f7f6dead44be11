//! The kernel programs inside this binary, as the BPF linker wrote them.

/// The ELF objects; empty where the binary was built without them.
static KEYED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs"));
static SHA256: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs-sha256"));

/// What the programs digest candidates by; they are the same otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The keyed digest: for entries of tokens.
    Keyed,
    /// SHA-256: for entries of which nothing else is known.
    Sha256,
}

/// The binary was built by plain cargo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("built without the kernel programs: build with `cargo xtask build`")]
pub struct BuiltWithout;

/// The kernel programs, ready for the loader.
///
/// # Errors
/// Where the binary was built without them.
pub fn programs(variant: Variant) -> Result<&'static [u8], BuiltWithout> {
    let object = match variant {
        Variant::Keyed => KEYED,
        Variant::Sha256 => SHA256,
    };
    if object.is_empty() {
        return Err(BuiltWithout);
    }
    Ok(object)
}
