//! `.env` files: the values of variables whose names say that they are credentials.

use zeroize::Zeroizing;

use super::{
    Finding, ReportError, Secret,
    credential::{is_name_of_one, of_header},
};

/// One `NAME=VALUE`.
pub(super) struct Assignment<'a> {
    name: &'a str,
    value: Secret,
    line: usize,
}

pub(super) fn findings(report: &[u8]) -> Result<Vec<Finding>, ReportError> {
    let text = std::str::from_utf8(report).map_err(|_not_utf8| ReportError::NotUtf8)?;
    let named = assignments(text)?
        .into_iter()
        .filter(|variable| is_name_of_one(variable.name));
    Ok(named
        .map(|variable| {
            Finding::new("env", Some(of_header(&variable.value)))
                .rule([Some(variable.name.to_owned())])
                .place([Some(format!("line {}", variable.line))])
        })
        .collect())
}

/// All variables. Values stand as they are, in single quotes, or in double quotes with escapes; quoted ones may
/// take several lines.
pub(super) fn assignments(text: &str) -> Result<Vec<Assignment<'_>>, ReportError> {
    let mut assignments = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let first = first.trim();
        if first.is_empty() || first.starts_with('#') {
            (rest, line) = (after, line + 1);
            continue;
        }
        let wrong = ReportError::Assignment { line };
        let (name, value) = rest.split_once('=').ok_or(wrong)?;
        let name = name.trim();
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        if !is_name(name) {
            return Err(wrong);
        }
        let (value, after) = value_of(value).ok_or(wrong)?;
        assignments.push(Assignment { name, value, line });
        line += rest.len().checked_sub(after.len()).map_or(0, |taken| {
            rest.bytes()
                .take(taken)
                .filter(|byte| *byte == b'\n')
                .count()
        });
        rest = after;
    }
    Ok(assignments)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// The value at the beginning of `text`, and the lines that follow it.
fn value_of(text: &str) -> Option<(Secret, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let (value, rest) = match text.chars().next() {
        Some('\'') => {
            let (value, rest) = text.get(1..)?.split_once('\'')?;
            (value.to_owned(), rest)
        }
        Some('"') => double_quoted(text.get(1..)?)?,
        _ => {
            let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
            let value = line.split(" #").next().unwrap_or_default();
            return Some((Secret::new(value.trim().to_owned()), rest));
        }
    };
    let (behind, after) = rest.split_once('\n').unwrap_or((rest, ""));
    let behind = behind.trim();
    (behind.is_empty() || behind.starts_with('#')).then(|| (Secret::new(value), after))
}

fn double_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = Zeroizing::new(String::with_capacity(text.len().min(4096)));
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((std::mem::take(&mut *value), text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String, usize)> {
        assignments(text)
            .unwrap()
            .into_iter()
            .map(|a| (a.name.to_owned(), a.value.to_string(), a.line))
            .collect()
    }

    #[test]
    fn values_plain_and_quoted() {
        let text = "# comment\nA=one two # comment\nexport B = 'x # y'\r\nC=\"q\\\"\\n1\n2\" # z\n\nD=\nE=a#b";
        let expected = [
            ("A", "one two", 2),
            ("B", "x # y", 3),
            ("C", "q\"\n1\n2", 4),
            ("D", "", 7),
            ("E", "a#b", 8),
        ];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(name, value, line)| (name.to_owned(), value.to_owned(), line))
            .collect();
        assert_eq!(read(text), expected);
    }

    #[test]
    fn what_assigns_nothing_is_named_by_its_line() {
        for text in [
            "A=1\nsecret text\n",
            "A=1\nB=\"open",
            "A=1\nB='x' y",
            "A=1\n=x",
            "A=1\nb c=x",
        ] {
            let wrong = assignments(text).err();
            assert_eq!(wrong, Some(ReportError::Assignment { line: 2 }), "{text}");
        }
    }
}
