//! The counters of all parts, in one log line.

use serde_json::{Map, Value};

/// Counters with their names.
pub type Counted = Vec<(String, u64)>;

/// Logs the counters of each part as one line; `counters` holds a JSON object by part and name.
pub fn log<'a>(parts: impl IntoIterator<Item = (&'a str, Counted)>) {
    tracing::info!(counters = %object(parts), "counters");
}

/// The same object as a value.
pub fn object<'a>(parts: impl IntoIterator<Item = (&'a str, Counted)>) -> Value {
    let part = |(name, counted): (&str, Counted)| {
        let counters: Map<_, _> = counted
            .into_iter()
            .map(|(name, n)| (name, n.into()))
            .collect();
        (name.to_owned(), Value::Object(counters))
    };
    Value::Object(parts.into_iter().map(part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_names_nest() {
        let parts = [
            (
                "kernel",
                vec![("packets".to_owned(), 3), ("hits".to_owned(), u64::MAX)],
            ),
            ("proxy", Vec::new()),
        ];
        let text = r#"{"kernel":{"hits":18446744073709551615,"packets":3},"proxy":{}}"#;
        assert_eq!(object(parts).to_string(), text);
    }
}
