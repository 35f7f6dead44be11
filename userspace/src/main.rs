//! The `tokenblock` binary.

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use tokenblock::{
    cli::{Cli, CliError, Command},
    control,
    exit::{Exit, Failure},
    import,
    kernel::pins::detach,
    run::run,
    wiping::Wiping,
};

#[global_allocator]
static ALLOCATOR: Wiping = Wiping;

fn main() -> ExitCode {
    let result = match Cli::read(env::args_os()) {
        Ok(cli) => match cli.command {
            Command::Run(args) => run(*args).map(|()| Exit::Ok),
            Command::Import(args) => match import::run(&args) {
                Ok(()) => Ok(Exit::Ok),
                Err(error) => Err(error.into()),
            },
            Command::Deny(command) => control::deny(command),
            Command::Detach(args) => detach(&args),
            Command::Status(args) => control::status(&args),
        },
        Err(CliError::Config(error)) => Err(error.into()),
        Err(CliError::Clap(error)) => {
            // Standard error may be closed; the code says enough.
            let _printed = error.print();
            let asked_for_help = !error.use_stderr();
            return if asked_for_help {
                Exit::Ok
            } else {
                Exit::Usage
            }
            .into();
        }
    };
    match result {
        Ok(exit) => exit.into(),
        Err(Failure { exit, error }) => {
            let _printed = writeln!(io::stderr(), "error: {error:#}");
            exit.into()
        }
    }
}
