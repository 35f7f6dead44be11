//! The reference of the settings (`docs/settings.md`), made of the command itself.

use std::fmt::Write as _;

use clap::Arg;

use super::given::Change;

const INTRODUCTION: &str = "# Settings

Every setting of `tokenblock run`. This page is made of the command line itself (`tokenblock run --help` shows the
same), and a test holds it to that.

A setting is taken from its flag, else from its environment variable, else from the TOML file that `--config` names, else
from its default. In the file it has the flag's name without the dashes in front; `_` does for `-`. A table stands for
what the names in it begin with:

```toml
denylist = [\"/etc/tokenblock/lists\"]
proxy-listen = \"[::]:443\"
tls-cert = \"/etc/tokenblock/cert.pem\"
tls-key = \"/etc/tokenblock/key.pem\"
upstream = [\"http://10.0.0.1:8080\", \"http://10.0.0.2:8080\"]

[timeout]                           # timeout-idle, timeout-body
idle = \"2m\"
body = \"10s\"

[[route]]                           # --route 'api.example/v2=http://10.0.0.3:8080'
host = \"api.example\"
path = \"/v2\"
upstream = [\"http://10.0.0.3:8080\"]

[[certificate]]                     # --certificate /etc/tokenblock/api.pem:/etc/tokenblock/api.key
cert = \"/etc/tokenblock/api.pem\"
key = \"/etc/tokenblock/api.key\"
```

A setting that is repeatable takes several values: the flag several times, values separated by commas, or an array in
the file. Durations read `10s`, `800ms`, `5m`, `1h 30m`.

## Reading them again

On SIGHUP the file is read again (`systemctl reload tokenblock`). What the column *reload* marks with `yes` is then in
force for new connections, and for the next request of each that is open; what holds for a connection as a whole (its TLS
session, its time limits) stays as it was. The kernel tier takes up where tokens stand, how long they are at least, and whether
they are only reported, with the next packet; a request of which a part has passed is found all the same. Everything else counts at the next start; the log names what waits for that. A file with
anything wrong in it, or that names a certificate that can't be used, is refused whole: the settings in force stay in
force, and the log says why. Certificates and denylists themselves are watched, and need no signal.
";

/// The page.
#[must_use]
pub fn reference() -> String {
    let command = super::command();
    let arguments: Vec<&Arg> = command
        .find_subcommand("run")
        .into_iter()
        .flat_map(clap::Command::get_arguments)
        .filter(|arg| arg.get_id() != "help")
        .collect();
    let heading = |arg: &Arg| arg.get_help_heading().unwrap_or("General").to_owned();
    let mut headings = Vec::new();
    for arg in &arguments {
        if !headings.contains(&heading(arg)) {
            headings.push(heading(arg));
        }
    }
    let mut page = INTRODUCTION.to_owned();
    for of in headings {
        // Writing to a string can't fail.
        let _infallible = write!(
            page,
            "\n## {of}\n\n| flag | variable | default | reload | what |\n| --- | --- | --- | --- | --- |\n"
        );
        for arg in arguments.iter().filter(|arg| heading(arg) == of) {
            row(&mut page, arg);
        }
    }
    page
}

/// One setting.
fn row(page: &mut String, arg: &Arg) {
    let flag = arg.get_long().unwrap_or_default();
    let value = arg
        .get_value_names()
        .and_then(<[_]>::first)
        .map(clap::builder::Str::as_str)
        .filter(|name| *name != "BOOL");
    let value = value.map_or_else(String::new, |name| format!(" {name}"));
    let variable = arg.get_env().unwrap_or_default().to_string_lossy();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let (help, default) = default(arg, &help);
    let possible: Vec<String> = arg
        .get_possible_values()
        .iter()
        // Those of a switch go without saying.
        .filter(|_| !value.is_empty())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}`: {help}", value.get_name()),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    let possible = if possible.is_empty() {
        String::new()
    } else {
        format!(". {}", possible.join("; "))
    };
    let reload = match Change::of(flag) {
        Change::AtReload | Change::AtReloadOfProxy => "yes",
        Change::AtStart => "",
    };
    let what = cell(&format!("{help}{possible}"));
    let flag = cell(&format!("--{flag}{value}"));
    // Writing to a string can't fail.
    let _infallible = writeln!(
        page,
        "| `{flag}` | `{variable}` | {} | {reload} | {what} |",
        cell(&default)
    );
}

/// The default, from clap or from the end of the help, and the help without it.
fn default(arg: &Arg, help: &str) -> (String, String) {
    if let Some((help, default)) = help.split_once(" [default: ") {
        let default = default.trim_end_matches(']').to_owned();
        return (help.to_owned(), default);
    }
    let values: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    (help.to_owned(), values.join(", "))
}

/// What can stand in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
