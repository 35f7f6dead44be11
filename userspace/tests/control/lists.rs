//! What may come into the place of a denylist file: nothing of it unblocks, and it is told what is wrong with it.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
};

use flate2::{Compression, write::GzEncoder};

use crate::{
    remote::until,
    support::{Host, IN_FILE},
};

fn half_a_gzip(path: &Path) {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    for n in 0..1000 {
        writeln!(gzip, "half-token-{n:08}").unwrap();
    }
    let whole = gzip.finish().unwrap();
    fs::write(path, &whole[..whole.len() / 2]).unwrap();
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn nothing_that_takes_the_place_of_a_list_unblocks() {
    type Make = fn(&Path);
    let cases: [(&str, Make, &str); 9] = [
        (
            "bytes",
            |at| fs::write(at, [0xff; 5000]).unwrap(),
            "list:1: not UTF-8",
        ),
        (
            "a long line",
            |at| fs::write(at, "a".repeat(200_000)).unwrap(),
            "list:1: longer than 64 KiB",
        ),
        (
            "half a gzip",
            half_a_gzip,
            "list: a gzip file that is damaged or cut short",
        ),
        ("a pipe", fifo, "list: is a device, a pipe or a socket"),
        (
            "a device",
            |at| symlink("/dev/zero", at).unwrap(),
            "list: is a device, a pipe or a socket",
        ),
        (
            "a link to itself",
            |at| symlink("list", at).unwrap(),
            "list: can't be read: Too many levels of symbolic links",
        ),
        (
            "a link to nothing",
            |at| symlink("nothing", at).unwrap(),
            "list: there is no such file",
        ),
        (
            "a folder",
            |at| fs::create_dir(at).unwrap(),
            "list: there is no *.list or *.list.gz in this folder",
        ),
        (
            "a file without end",
            |at| File::create(at).unwrap().set_len(1 << 40).unwrap(),
            "list: 1099511627776 bytes are more than a denylist can have",
        ),
    ];
    let host = Host::new();
    let running = host.start(&[]);
    let status = || host.call(&["status"], "").1;
    for (name, make, told) in cases {
        let (list, next) = (host.path("list"), host.path("next"));
        make(&next);
        fs::remove_file(&list).unwrap();
        fs::rename(&next, &list).unwrap();
        until(
            || status().contains(told) && running.log().contains(told),
            name,
        );
        assert!(running.blocks(IN_FILE), "{name}");
        // Additions don't wait for it to be mended.
        host.add(&format!("added-beside-{}", name.replace(' ', "-")));

        if list.is_dir() {
            fs::remove_dir(&list).unwrap();
        }
        fs::write(&next, format!("{IN_FILE}\n")).unwrap();
        fs::rename(&next, &list).unwrap();
        until(|| status().contains("file list: 1 entries"), "it is mended");
    }
    assert!(running.blocks(IN_FILE) && running.blocks("added-beside-a-pipe"));
}
