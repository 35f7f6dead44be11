//! The configuration file: its values become the defaults of the flags of the same names.
//!
//! So a setting is defined once, in `cli`, and clap's own order (flag, environment, default) is the order of
//! precedence.

use std::{
    fmt, fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use clap::{Arg, Command};
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

/// Why the configuration file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can't be read.
    #[error("can't read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {what}", path.display())]
    At {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        what: Wrong,
    },
}

/// What is wrong at a place of the file.
#[derive(Debug)]
pub enum Wrong {
    /// It is no TOML; with the parser's reason.
    Syntax(String),
    /// No setting has this name.
    UnknownKey {
        /// The name.
        key: String,
        /// A setting with a name that is spelt alike.
        nearest: Option<String>,
    },
    /// One setting by two spellings.
    Twice(String),
    /// A table, a date, a nested array.
    Kind {
        /// The setting.
        key: String,
        /// What was found.
        found: &'static str,
    },
    /// More than one value for a setting that takes one.
    Several(String),
    /// The setting doesn't take this value; with the reason.
    Value(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(reason) | Self::Value(reason) => f.write_str(reason),
            Self::UnknownKey { key, nearest } => {
                write!(f, "there is no setting `{key}`")?;
                match nearest {
                    Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
                    None => f.write_str("; `tokenblock run --help` lists them"),
                }
            }
            Self::Twice(key) => write!(f, "`{key}` is set twice"),
            Self::Kind { key, found } => write!(
                f,
                "`{key}` is {found}; a setting is a string, a number, true or false, or an array of those"
            ),
            Self::Several(key) => write!(f, "`{key}` takes one value"),
        }
    }
}

/// The command with the values of `file` as the defaults of its subcommand.
///
/// # Errors
/// Where the file can't be read, is no TOML, or has something that is no setting.
pub fn with_defaults(
    command: Command,
    subcommand: &str,
    file: &Path,
) -> Result<Command, ConfigError> {
    let text = fs::read_to_string(file).map_err(|source| ConfigError::Read {
        path: file.to_owned(),
        source,
    })?;
    let at = |(span, what): (Range<usize>, Wrong)| ConfigError::At {
        path: file.to_owned(),
        line: line_of(&text, span.start),
        what,
    };
    let settings = settings(&text, &command, subcommand).map_err(at)?;
    Ok(command.mut_subcommand(subcommand, |mut command| {
        for (id, values) in settings {
            command = command.mut_arg(id, |arg| arg.default_values(values));
        }
        command
    }))
}

type Misplaced = (Range<usize>, Wrong);

/// The settings of the file: argument and values.
fn settings(
    text: &str,
    command: &Command,
    subcommand: &str,
) -> Result<Vec<(String, Vec<String>)>, Misplaced> {
    let table = DeTable::parse(text).map_err(|error| {
        let reason = error.message().to_owned();
        (error.span().unwrap_or(0..0), Wrong::Syntax(reason))
    })?;
    let arguments: Vec<&Arg> = command
        .find_subcommand(subcommand)
        .into_iter()
        .flat_map(Command::get_arguments)
        .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "config"))
        .collect();
    let mut settings = Vec::<(String, Vec<String>)>::new();
    for (name, key, value) in entries(table.get_ref()) {
        let arg = arguments
            .iter()
            .find(|arg| arg.get_long() == Some(&name))
            .ok_or_else(|| (key.span(), unknown(key.get_ref(), &name, &arguments)))?;
        let id = arg.get_id().as_str();
        if settings.iter().any(|(seen, _)| seen == id) {
            return Err((key.span(), Wrong::Twice(name)));
        }
        let values = values(&name, value)?;
        check(command, subcommand, arg, &name, &values).map_err(|what| (value.span(), what))?;
        settings.push((id.to_owned(), values));
    }
    Ok(settings)
}

/// A setting's name, and where name and value stand in the file.
type Entry<'a> = (String, &'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>);

/// The entries of a table; those of tables in it begin with its name: `[timeout]` with `idle` is `timeout-idle`.
fn entries<'a>(table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let name = |key: &Spanned<DeString<'_>>| key.get_ref().replace('_', "-");
    let mut entries = Vec::new();
    for (key, value) in table {
        let Some(inner) = value.get_ref().as_table() else {
            entries.push((name(key), key, value));
            continue;
        };
        let prefix = name(key);
        entries.extend(
            inner
                .iter()
                .map(|(key, value)| (format!("{prefix}-{}", name(key)), key, value)),
        );
    }
    entries
}

fn unknown(key: &str, name: &str, arguments: &[&Arg]) -> Wrong {
    let nearest = arguments
        .iter()
        .filter_map(|arg| arg.get_long())
        .map(|long| (strsim::jaro_winkler(long, name), long))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, long)| long.to_owned());
    Wrong::UnknownKey {
        // Of a table's entry, all of the name.
        key: if key.len() == name.len() { key } else { name }.to_owned(),
        nearest,
    }
}

fn values(name: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, Misplaced> {
    if let DeValue::Array(items) = value.get_ref() {
        let record = RECORDS.iter().find(|record| record.name == name);
        let item = |item: &Spanned<DeValue<'_>>| match (record, item.get_ref()) {
            (Some(record), DeValue::Table(table)) => record.text(item.span(), table),
            _ => scalar(name, item),
        };
        return items.iter().map(item).collect();
    }
    Ok(vec![scalar(name, value)?])
}

/// A setting that can stand in the file as an array of tables, and the fields of one, as its text has them.
struct Record {
    name: &'static str,
    fields: &'static [Field],
}

struct Field {
    name: &'static str,
    needed: bool,
    /// What comes before it in the text.
    before: &'static str,
    /// Bytes that would end it there.
    ends: &'static [char],
}

const RECORDS: [Record; 2] = [
    Record {
        name: "route",
        fields: &[
            Field {
                name: "host",
                needed: false,
                before: "",
                ends: &['/', '=', ';'],
            },
            Field {
                name: "path",
                needed: false,
                before: "",
                ends: &['=', ';'],
            },
            Field {
                name: "upstream",
                needed: true,
                before: "=",
                ends: &[';'],
            },
        ],
    },
    Record {
        name: "certificate",
        fields: &[
            Field {
                name: "cert",
                needed: true,
                before: "",
                ends: &[':', ','],
            },
            Field {
                name: "key",
                needed: true,
                before: ":",
                ends: &[':', ','],
            },
        ],
    },
];

impl Record {
    /// What would be given on the command line.
    fn text(&self, span: Range<usize>, table: &DeTable<'_>) -> Result<String, Misplaced> {
        for key in table.keys() {
            if !self.fields.iter().any(|field| field.name == key.get_ref()) {
                let fields: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
                let what = Wrong::Value(format!(
                    "a {} has no `{}`; it has {}",
                    self.name,
                    key.get_ref(),
                    fields.join(", ")
                ));
                return Err((key.span(), what));
            }
        }
        let mut text = String::new();
        for field in self.fields {
            let Some(value) = table.get(field.name) else {
                if field.needed {
                    let what = format!("a {} needs `{}`", self.name, field.name);
                    return Err((span, Wrong::Value(what)));
                }
                continue;
            };
            let value = (values(field.name, value)?.join(","), value.span());
            if value.0.contains(field.ends) {
                let what = format!("`{}` can't have {:?} in it", field.name, field.ends);
                return Err((value.1, Wrong::Value(what)));
            }
            text.push_str(field.before);
            text.push_str(&value.0);
        }
        Ok(text)
    }
}

fn scalar(name: &str, value: &Spanned<DeValue<'_>>) -> Result<String, Misplaced> {
    let found = match value.get_ref() {
        DeValue::String(text) => return Ok(text.clone().into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => return Ok(number.as_str().to_owned()),
        DeValue::Boolean(boolean) => return Ok(boolean.to_string()),
        DeValue::Integer(_) => "a number that is not decimal",
        DeValue::Float(_) => "a fraction",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array in an array",
        DeValue::Table(_) => "a table",
    };
    let key = name.to_owned();
    Err((value.span(), Wrong::Kind { key, found }))
}

/// Tries the values as flags, so that a wrong one is told with its line.
fn check(
    command: &Command,
    subcommand: &str,
    arg: &Arg,
    name: &str,
    values: &[String],
) -> Result<(), Wrong> {
    let repeatable = arg.get_value_delimiter().is_some();
    if values.len() != 1 && !repeatable {
        return Err(Wrong::Several(name.to_owned()));
    }
    let flags = values.iter().map(|value| format!("--{name}={value}"));
    let line = [command.get_name(), subcommand]
        .map(str::to_owned)
        .into_iter()
        .chain(flags);
    match command.clone().try_get_matches_from(line) {
        Ok(_) => Ok(()),
        Err(error) => Err(Wrong::Value(first_paragraph(&error))),
    }
}

/// Clap's reason without the usage that follows it.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let reason = text.split("\n\n").next().unwrap_or_default();
    reason
        .trim()
        .trim_start_matches("error: ")
        .replace('\n', " ")
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    memchr::memchr_iter(b'\n', before).count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, CliError, Command, Direction, RunArgs};

    fn run(toml: &str, flags: &[&str]) -> Result<RunArgs, String> {
        let folder = folder_with(toml);
        let config = format!("--config={}/tokenblock.toml", folder.path().display());
        let line = ["tokenblock", "run", &config]
            .into_iter()
            .chain(flags.iter().copied());
        match Cli::read(line) {
            Ok(cli) => {
                let Command::Run(args) = cli.command else {
                    panic!("another command");
                };
                Ok(*args)
            }
            Err(CliError::Config(error)) => Err(error.to_string()),
            Err(CliError::Clap(error)) => panic!("{error}"),
        }
    }

    fn folder_with(toml: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tokenblock.toml"), toml).unwrap();
        folder
    }

    fn refused(toml: &str) -> String {
        let error = run(toml, &[]).expect_err(toml);
        let (_, place_and_reason) = error
            .split_once("tokenblock.toml:")
            .expect("names the file");
        place_and_reason.to_owned()
    }

    #[test]
    fn values_of_all_kinds_become_defaults() {
        let args = run(
            "denylist = ['a', 'b']\nmin_token_length = 12\nmonitor = true\n\
             proxy-listen = '[::]:1'\ndirection = 'both'\nport = [80, 'all']\nheader = []\n",
            &[],
        )
        .unwrap();
        assert_eq!(args.denylist, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!((args.min_token_length, args.monitor), (12, true));
        assert_eq!(args.proxy.proxy_listen.as_deref(), Some("[::]:1"));
        assert_eq!(
            (args.direction, args.port),
            (Direction::Both, vec!["80".into(), "all".into()])
        );
        assert!(args.header.is_empty() && !args.cookie.is_empty());
    }

    #[test]
    fn tables_stand_for_what_their_settings_begin_with() {
        let args = run(
            "denylist = 'd'\n[upstream]\nhttp = '2'\n[timeout]\nidle = '5s'\nupstream_idle = '6s'\n\
             [[route]]\nhost = 'shop.example'\nupstream = ['http://a', 'http://b']\n\
             [[route]]\npath = '/api'\nupstream = 'unix:/run/api.sock'\n\
             [[certificate]]\ncert = 'c.pem'\nkey = 'k.pem'\n",
            &[],
        );
        let args = args.unwrap().proxy;
        assert_eq!(
            args.upstreams.route,
            ["shop.example=http://a,http://b", "/api=unix:/run/api.sock"]
        );
        assert_eq!(args.tls.certificate, ["c.pem:k.pem"]);
        assert_eq!(args.timeouts.timeout_idle.to_string(), "5s");
        assert_eq!(args.timeouts.timeout_upstream_idle.to_string(), "6s");
        assert_eq!(
            refused("[[route]]\nhost = 'a'\n"),
            "1: a route needs `upstream`"
        );
        assert_eq!(
            refused("[[route]]\nhots = 'a'\nupstream='http://b'"),
            "2: a route has no `hots`; it has host, path, upstream"
        );
        assert!(refused("[[certificate]]\ncert = 'a:b'\nkey = 'c'").contains("`cert` can't have"));
        let twice = refused("timeout-idle = '1s'\n[timeout]\nidle = '1s'");
        assert!(twice.ends_with("`timeout-idle` is set twice"), "{twice}");
    }

    #[test]
    fn a_flag_comes_before_the_file() {
        let args = run(
            "monitor = true\nheader = ['a', 'b']\n",
            &["--monitor=false", "--header=c"],
        );
        let args = args.unwrap();
        assert_eq!((args.monitor, args.header), (false, vec!["c".to_owned()]));
    }

    #[test]
    fn an_unknown_key_is_told_with_line_and_nearest_name() {
        let text = "# comment\n\nproxy-lisen = 'x'\n";
        assert_eq!(
            refused(text),
            "3: there is no setting `proxy-lisen`; did you mean `proxy-listen`?"
        );
        assert!(refused("min_token_lenght = 9").contains("did you mean `min-token-length`?"));
        let far = refused("zzzz = 1");
        assert_eq!(
            far,
            "1: there is no setting `zzzz`; `tokenblock run --help` lists them"
        );
        assert!(refused("config = 'other.toml'").contains("there is no setting `config`"));
    }

    #[test]
    fn wrong_values_are_told_with_their_line() {
        let direction = refused("\ndirection = 'sideways'\n");
        assert!(
            direction.starts_with("2: invalid value 'sideways' for '--direction"),
            "{direction}"
        );
        assert!(refused("workers = 0").starts_with("1: invalid value '0' for '--workers"));
        assert_eq!(
            refused("direction = ['both', 'both']"),
            "1: `direction` takes one value"
        );
        assert_eq!(refused("port = 80\nport = 81").split(':').next(), Some("2"));
        assert_eq!(
            refused("tls-key = 'a'\ntls_key = 'b'"),
            "2: `tls-key` is set twice"
        );
        assert!(refused("[kernel]\nport = 80").contains("`kernel-port`"));
        assert!(refused("[a]\nb.c = 80").contains("`a-b`"));
        assert!(refused("header = [['a']]").contains("an array in an array"));
        assert!(refused("port = 8e1").contains("a fraction"));
        assert!(refused("port = ").starts_with("1: "));
    }

    #[test]
    fn a_missing_file_is_told() {
        let error =
            Cli::read(["tokenblock", "run", "--config=/none/such.toml"]).expect_err("missing");
        assert_eq!(
            error.to_string(),
            "can't read the configuration file /none/such.toml"
        );
    }
}
