//! A folder of denylist files: all that is called `*.list` or `*.list.gz` in it.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// Whether a file of this name in a folder of lists is one. Hidden names are not: editors, and mounted Secrets
/// of Kubernetes, keep other versions under them.
pub(super) fn is_list(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !name.starts_with(b".") && (name.ends_with(b".list") || name.ends_with(b".list.gz"))
}

/// The lists in a folder, in the order of their names; `None` where `path` is no folder.
///
/// # Errors
/// Where the folder can't be read to its end: what is in it isn't known then.
pub(super) fn lists(path: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    // What is not there, or hides behind a folder without a permission, is told by who opens it.
    if !path.is_dir() {
        return Ok(None);
    }
    let mut lists = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if is_list(&entry.file_name()) {
            lists.push(entry.path());
        }
    }
    lists.sort_unstable();
    Ok(Some(lists))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_a_folder_are_those_with_the_names_of_lists() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "b.list.gz",
            "a.list",
            ".a.list.swp",
            ".hidden.list",
            "a.list.bak",
            "list",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let lists = lists(folder.path()).unwrap().unwrap();
        let names: Vec<_> = lists.iter().map(|list| list.file_name().unwrap()).collect();
        assert_eq!(names, ["a.list", "b.list.gz"]);
    }

    #[test]
    fn what_is_no_folder_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(lists(&folder.path().join("gone")).unwrap().is_none());
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(lists(&folder.path().join("file")).unwrap().is_none());
    }
}
