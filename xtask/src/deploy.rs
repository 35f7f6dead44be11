//! The deployment files, checked by the programs that will read them where they are there.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{exec, workspace};

/// The unit's program, which need not be installed where the unit is checked.
const INSTALLED: &str = "/usr/local/bin/tokenblock";

/// Checks what a machine's own tools can check; says what it skips.
///
/// # Errors
/// Where a tool finds fault.
pub(crate) fn check() -> Result<()> {
    if exec::is_on_path("systemd-analyze") {
        verify_units()?;
    } else {
        println!("skipped: the systemd unit: there is no systemd-analyze");
    }
    if exec::is_on_path("kubectl") {
        let folder = folder("kubernetes");
        exec::output(Command::new("kubectl").arg("kustomize").arg(folder))?;
    } else {
        println!("skipped: the kustomization: there is no kubectl");
    }
    Ok(())
}

/// `systemd-analyze verify` must have nothing to say.
fn verify_units() -> Result<()> {
    let stand_in = env::current_exe().context("finding this program")?;
    let copies = tempfile::tempdir()?;
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for name in [
        "tokenblock.service",
        "tokenblock.socket",
        "tokenblock-bpf.service",
    ] {
        let unit = folder("systemd").join(name);
        let text = fs::read_to_string(&unit).with_context(|| unit.display().to_string())?;
        let copy = copies.path().join(name);
        fs::write(&copy, text.replace(INSTALLED, &stand_in.to_string_lossy()))?;
        verify.arg(copy);
    }
    let output = verify.output()?;
    if !output.status.success() || !output.stderr.is_empty() {
        let complaints = String::from_utf8_lossy(&output.stderr);
        bail!("the units of systemd: {}", complaints.trim());
    }
    Ok(())
}

fn folder(name: &str) -> PathBuf {
    workspace::root().join("deploy").join(name)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokenblock::cli::Cli;

    use super::*;

    /// Every document of a manifest.
    fn documents(file: &str) -> Vec<Value> {
        let text = fs::read_to_string(folder("kubernetes").join(file)).unwrap();
        serde_saphyr::from_multiple(&text).unwrap()
    }

    fn strings<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
        let objects = list.as_array().unwrap().iter();
        objects
            .map(|object| object[field].as_str().unwrap())
            .collect()
    }

    #[test]
    fn the_tools_find_no_fault() {
        check().unwrap();
    }

    #[test]
    fn the_kustomization_names_manifests() {
        let kustomization = &documents("kustomization.yaml")[0];
        for resource in kustomization["resources"].as_array().unwrap() {
            for object in documents(resource.as_str().unwrap()) {
                for field in ["apiVersion", "kind"] {
                    assert!(object[field].is_string(), "{resource}: {field}");
                }
                assert!(object["metadata"]["name"].is_string(), "{resource}");
            }
        }
    }

    #[test]
    fn the_daemon_set_mounts_what_there_is() {
        let daemon_set = &documents("daemonset.yaml")[0];
        let pod = &daemon_set["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let volumes = strings(&pod["volumes"], "name");
        assert_eq!(strings(&container["volumeMounts"], "name"), volumes);
        let secret = &documents("denylist.example.yaml")[0];
        assert_eq!(
            pod["volumes"][0]["secret"]["secretName"],
            secret["metadata"]["name"]
        );
    }

    #[test]
    fn tokenblock_takes_the_settings() {
        let file = folder("systemd").join("tokenblock.toml");
        let config = format!("--config={}", file.display());
        Cli::read(["tokenblock", "run", &config]).unwrap();

        let daemon_set = &documents("daemonset.yaml")[0];
        let container = &daemon_set["spec"]["template"]["spec"]["containers"][0];
        let arguments = container["args"].as_array().unwrap().iter();
        let arguments = arguments.map(|argument| argument.as_str().unwrap());
        Cli::read(["tokenblock"].into_iter().chain(arguments)).unwrap();
    }

    /// The probes ask the process that the arguments start.
    #[test]
    fn the_probes_ask_for_the_status() {
        let daemon_set = &documents("daemonset.yaml")[0];
        let container = &daemon_set["spec"]["template"]["spec"]["containers"][0];
        let folder = "--state-dir=/var/lib/tokenblock";
        let arguments = container["args"].as_array().unwrap();
        assert!(arguments.iter().any(|argument| argument == folder));
        for probe in ["startupProbe", "readinessProbe"] {
            let command = container[probe]["exec"]["command"].as_array().unwrap();
            let words: Vec<_> = command.iter().map(|word| word.as_str().unwrap()).collect();
            assert_eq!(words[1..], ["status", folder], "{probe}");
            assert!(words[0].ends_with("/tokenblock"), "{probe}");
            Cli::read(words).unwrap();
        }
    }

    /// The folder that the list is mounted to holds the file that the arguments name.
    #[test]
    fn the_denylist_is_where_the_arguments_say() {
        let daemon_set = &documents("daemonset.yaml")[0];
        let container = &daemon_set["spec"]["template"]["spec"]["containers"][0];
        let folder = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
        let secret = &documents("denylist.example.yaml")[0];
        for file in secret["stringData"].as_object().unwrap().keys() {
            let argument = format!("--denylist={folder}/{file}");
            let arguments = container["args"].as_array().unwrap();
            assert!(arguments.iter().any(|given| given == argument.as_str()));
        }
    }
}
