//! How far something long has come, shown on standard error where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is shorter is done before anybody has read a bar, in bytes.
const SHORT: u64 = 4 << 20;
/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(250);

/// A bar for so many bytes; hidden where they are few, or nobody looks.
pub(crate) fn of_bytes(bytes: u64) -> ProgressBar {
    if bytes < SHORT {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {elapsed} {msg}");
    let bar = bar.with_style(style.unwrap_or_else(|_never| ProgressStyle::default_bar()));
    // Also while nothing moves it on.
    bar.enable_steady_tick(TICK);
    bar
}
