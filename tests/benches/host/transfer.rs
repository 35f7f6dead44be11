//! One gibibyte each way, by curl.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use tokenblock_tests::bench::{cores, request};

use crate::contenders::{CLIENTS, Contender};

/// Bytes of the body.
const LENGTH: u64 = 1 << 30;
/// Bytes that are made up; they are repeated.
const BLOCK: u64 = 1 << 20;

/// Which way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Upload,
    Download,
}

impl Way {
    pub(crate) const ALL: [Self; 2] = [Self::Upload, Self::Download];

    /// How figures call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
        }
    }

    /// Sends the body; gives bytes per second.
    ///
    /// # Errors
    /// Where not all of it comes over.
    pub(crate) fn run(self, contender: &Contender, body: &Path) -> Result<f64> {
        let mut curl = cores::pinned(&contender.pair.client, CLIENTS, "curl");
        curl.args(["-sSf", "--noproxy", "*", "-o", "/dev/null", "-H", "Expect:"])
            .args([
                "-H",
                &format!("Authorization: Bearer {}", request::opaque("clean")),
            ]);
        match self {
            Self::Upload => curl
                .arg("-T")
                .arg(body)
                .args(["-w", "%{size_upload} %{time_total}"]),
            Self::Download => curl.args(["-w", "%{size_download} %{time_total}"]),
        };
        let output = curl
            .arg(contender.url(&format!("/{}", self.name())))
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let what = || format!("{} {}: {said}", contender.kind.name(), self.name());
        let (length, seconds) = said.split_once(' ').with_context(what)?;
        ensure!(
            output.status.success() && length.parse::<u64>()? == LENGTH,
            "{}",
            what()
        );
        #[expect(clippy::cast_precision_loss, reason = "a power of two")]
        Ok(LENGTH as f64 / seconds.parse::<f64>()?)
    }
}

/// Writes the body: random bytes, as archives and pictures are.
pub(crate) fn write_body(path: &Path) -> Result<()> {
    let block = request::random("body", usize::try_from(BLOCK)?);
    let mut file = BufWriter::new(File::create(path)?);
    for _ in 0..LENGTH / BLOCK {
        file.write_all(&block).context("writing a body")?;
    }
    Ok(file.flush()?)
}
