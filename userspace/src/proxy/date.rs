//! The time as HTTP writes it (RFC 9110 section 5.6.7), written once a second.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) type Date = [u8; 29];

thread_local! {
    /// The second that was written last.
    static LAST: Cell<(u64, Date)> = const { Cell::new((u64::MAX, [b' '; 29])) };
    /// The same as a field's value, which is shared by all that bear it.
    static VALUE: RefCell<(Date, HeaderValue)> =
        const { RefCell::new(([0; 29], HeaderValue::from_static(""))) };
}

/// Now.
pub(super) fn now() -> Date {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let second = since.as_ref().map_or(0, Duration::as_secs);
    let (last, date) = LAST.get();
    if last == second {
        return date;
    }
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
    let date = text.as_bytes().try_into().unwrap_or([b' '; 29]);
    LAST.set((second, date));
    date
}

/// Now, as a field's value.
pub(super) fn value() -> HeaderValue {
    let now = now();
    VALUE.with_borrow_mut(|(written, value)| {
        if *written != now {
            // It is visible ASCII.
            *value = HeaderValue::from_bytes(&now).unwrap_or(HeaderValue::from_static(""));
            *written = now;
        }
        value.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_reads_back_as_now() {
        let text = now();
        let read = httpdate::parse_http_date(std::str::from_utf8(&text).unwrap()).unwrap();
        assert!(SystemTime::now().duration_since(read).unwrap() < Duration::from_secs(3));
        assert_eq!(now().len(), text.len());
    }
}
