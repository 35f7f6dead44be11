//! The keeper at work on files, and beside a tier that fails.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tokenblock_ebpf::digest::InstallationKey;
use tokio::task::JoinHandle;

use super::*;
use crate::{
    denylist::{identify, model::Model},
    key::StoredKey,
    sources::{Grammar, Source},
    state::Store,
};

/// Less than it takes until files are looked at without being told of.
const PATIENCE: Duration = Duration::from_secs(4);

/// A keeper at work on files of a folder.
struct Kept {
    folder: TempDir,
    key: InstallationKey,
    reader: SetReader,
    task: JoinHandle<Result<Infallible, JoinError>>,
    _requests: mpsc::Sender<Request>,
}

fn additions(folder: &Path) -> Additions {
    let key = StoredKey::load_or_create(folder).unwrap();
    let store = Store::open(folder, key.get()).unwrap();
    Additions::open(store, SystemTime::now()).unwrap()
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kept {
    /// `given` are the sources, `files` what is written before.
    fn new(given: &[&str], files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = StoredKey::load_or_create(folder.path()).unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in files {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), text).unwrap();
        }
        let paths: Vec<PathBuf> = given.iter().map(|name| path(name)).collect();
        let watch = Watch::new(paths.clone());
        let grammar = Grammar::Entries;
        let sources = Sources {
            files: paths
                .into_iter()
                .map(|path| Source { path, grammar })
                .collect(),
            key: StoredKey::load_or_create(folder.path()).unwrap(),
            min_token_length: 8.into(),
            jwt_expiry: None,
        };
        let loaded = sources
            .read(additions(folder.path()), SystemTime::now())
            .unwrap();
        let keeper = Keeper::<Model>::start(sources, loaded, None).unwrap();
        let (requests, requested) = mpsc::channel(1);
        Self {
            key: *key.get(),
            reader: keeper.reader(),
            task: tokio::spawn(keeper.keep(watch, requested)),
            _requests: requests,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn is_listed(&self, token: &str) -> bool {
        let identity = identify(&self.key, 8, token).unwrap();
        self.reader.get(&identity.digest).is_some()
    }

    async fn becomes(&self, token: &str, listed: bool) {
        let start = Instant::now();
        while self.is_listed(token) != listed {
            assert!(start.elapsed() < PATIENCE, "{token} stays {}", !listed);
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Time in which anything that happened to files would have been seen.
    async fn settles(&self) {
        sleep(Duration::from_millis(300)).await;
    }
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn a_rewritten_and_a_replaced_file_are_in_force_soon() {
    let kept = Kept::new(&["list"], &[("list", "token-one\ntoken-two\n")]);
    assert!(kept.is_listed("token-one") && kept.is_listed("token-two"));
    kept.write("list", "token-two\ntoken-three\n");
    kept.becomes("token-one", false).await;
    assert!(kept.is_listed("token-two") && kept.is_listed("token-three"));
    replace(&kept.path("list"), "token-four\n");
    kept.becomes("token-two", false).await;
    assert!(kept.is_listed("token-four"));
}

#[tokio::test]
async fn a_broken_or_missing_file_unblocks_nothing_and_holds_up_no_addition() {
    let kept = Kept::new(&["a", "b"], &[("a", "token-one\n"), ("b", "token-two\n")]);
    kept.write("a", "token-new\ntoken-one oops\n");
    kept.settles().await;
    assert!(kept.is_listed("token-one") && !kept.is_listed("token-new"));

    kept.write("b", "token-three\n");
    kept.becomes("token-three", true).await;
    assert!(kept.is_listed("token-one") && kept.is_listed("token-two"));

    fs::remove_file(kept.path("a")).unwrap();
    kept.settles().await;
    assert!(kept.is_listed("token-one"));

    kept.write("a", "token-new\n");
    kept.becomes("token-one", false).await;
    assert!(
        !kept.is_listed("token-two")
            && kept.is_listed("token-three")
            && kept.is_listed("token-new")
    );
}

#[tokio::test]
async fn the_lists_of_a_folder_come_and_go_and_a_folder_that_is_gone_unblocks_nothing() {
    let kept = Kept::new(&["lists"], &[("lists/a.list", "token-one\n")]);
    kept.write("lists/b.list", "token-two\n");
    kept.becomes("token-two", true).await;
    kept.write("lists/other", "token-three\n");

    fs::remove_file(kept.path("lists/a.list")).unwrap();
    kept.becomes("token-one", false).await;
    assert!(kept.is_listed("token-two") && !kept.is_listed("token-three"));

    // As where a volume is no longer mounted.
    fs::remove_file(kept.path("lists/b.list")).unwrap();
    kept.settles().await;
    assert!(kept.is_listed("token-two"));
    fs::remove_dir_all(kept.path("lists")).unwrap();
    kept.settles().await;
    assert!(kept.is_listed("token-two"));
}

#[tokio::test]
async fn a_file_whose_place_a_folder_takes_and_the_way_back_are_in_force_within_a_second() {
    let kept = Kept::new(&["list"], &[("list", "token-one\ntoken-two\n")]);
    fs::remove_file(kept.path("list")).unwrap();
    fs::create_dir(kept.path("list")).unwrap();
    kept.write("list/a.list", "token-two\ntoken-three\n");
    kept.becomes("token-three", true).await;
    kept.becomes("token-one", false).await;
    assert!(kept.is_listed("token-two"));
    // It is watched as any folder is.
    kept.write("list/b.list", "token-four\n");
    kept.becomes("token-four", true).await;
    fs::remove_file(kept.path("list/a.list")).unwrap();
    kept.becomes("token-two", false).await;

    fs::remove_dir_all(kept.path("list")).unwrap();
    kept.settles().await;
    assert!(kept.is_listed("token-four"));
    kept.write("list", "token-five\n");
    kept.becomes("token-five", true).await;
    kept.becomes("token-four", false).await;
    kept.write("list", "token-six\n");
    kept.becomes("token-five", false).await;

    // By renames, as one move: there is a list all the time.
    fs::create_dir(kept.path("other")).unwrap();
    kept.write("other/c.list", "token-seven\n");
    fs::rename(kept.path("list"), kept.path("gone")).unwrap();
    fs::rename(kept.path("other"), kept.path("list")).unwrap();
    kept.becomes("token-six", false).await;
    assert!(kept.is_listed("token-seven"));
    kept.write("list/c.list", "token-eight\n");
    kept.becomes("token-seven", false).await;
}

#[tokio::test]
async fn a_half_written_file_unblocks_nothing_until_it_is_closed() {
    let kept = Kept::new(&["list"], &[("list", "token-one\ntoken-two\n")]);
    let mut file = File::create(kept.path("list")).unwrap();
    kept.settles().await;
    assert!(kept.is_listed("token-one") && kept.is_listed("token-two"));
    file.write_all(b"token-three\ntoken-half").unwrap();
    kept.becomes("token-three", true).await;
    assert!(kept.is_listed("token-one"));
    file.write_all(b"-one\ntoken-one\n").unwrap();
    drop(file);
    kept.becomes("token-two", false).await;
    assert!(kept.is_listed("token-one") && kept.is_listed("token-three"));
    assert!(!kept.is_listed("token-half") && kept.is_listed("token-half-one"));
}

#[tokio::test]
async fn appended_lines_are_in_force_while_the_file_stays_open() {
    let kept = Kept::new(&["list"], &[("list", "token-one\n")]);
    let mut file = OpenOptions::new()
        .append(true)
        .open(kept.path("list"))
        .unwrap();
    for token in ["token-two", "token-three"] {
        writeln!(file, "{token}").unwrap();
        kept.becomes(token, true).await;
    }
}

#[test]
fn what_the_kernel_tier_did_not_take_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list");
    fs::write(&path, "token-one\n").unwrap();
    let sources = Sources {
        files: vec![Source {
            path: path.clone(),
            grammar: Grammar::Entries,
        }],
        key: StoredKey::load_or_create(folder.path()).unwrap(),
        min_token_length: 8.into(),
        jwt_expiry: None,
    };
    let loaded = sources
        .read(additions(folder.path()), SystemTime::now())
        .unwrap();
    let kernel = Model::default();
    let mut keeper = Keeper::start(sources, loaded, Some(kernel.clone())).unwrap();
    assert_eq!(kernel.map().len(), 1);

    kernel.fail(true);
    fs::write(&path, "token-two\ntoken-three\n").unwrap();
    keeper.reload(Change::Settled);
    assert!(keeper.missed.is_some());
    // The proxy has what it is to have; nothing was released.
    assert_eq!(keeper.denylist.records().len(), 3);

    kernel.fail(false);
    // Not each second: that would be much for a long list.
    keeper.tried = Instant::now();
    keeper.look_at_clock();
    assert_eq!(keeper.denylist.records().len(), 3);
    keeper.tick();
    let in_force = keeper.denylist.records();
    assert_eq!(in_force.len(), 2);
    assert!(
        kernel
            .map()
            .into_keys()
            .eq(in_force.iter().map(|record| record.digest))
    );
}

#[tokio::test]
async fn an_entry_leaves_at_its_second() {
    let expires = SystemTime::now() + Duration::from_millis(1_200);
    let text = jiff::Timestamp::try_from(expires).unwrap().to_string();
    let kept = Kept::new(
        &["list"],
        &[("list", &format!("token-one expires={text}\ntoken-two\n"))],
    );
    loop {
        let listed = kept.is_listed("token-one");
        if SystemTime::now() >= expires {
            break;
        }
        assert!(listed);
        sleep(Duration::from_millis(20)).await;
    }
    kept.becomes("token-one", false).await;
    assert!(kept.is_listed("token-two"));
}
