//! Loose objects and packs as they lie on disk: which of them are whole.
//!
//! A loose object has to hash to its name. A pack is compared with its checksums, object by object. What git keeps beside packs to
//! be faster (commit-graph, multi-pack-index, bitmaps) ends with its own checksum, and can be made again.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::fs::door::{self, Kind};
use crate::fs::named as fs;
use crate::git::hash::Hash;
use crate::git::{Git, Plumbing, Repository, objects};
use crate::rescue::alternates;
use crate::rescue::stage::Stage;
use crate::util::text::shown;

/// A pack, by the files that there are of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pack {
    /// Its path without `.pack`.
    pub(crate) stem: PathBuf,
    /// What is wrong with it.
    pub(crate) state: PackState,
}

/// What is wrong with a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackState {
    /// Nothing.
    Whole,
    /// Its index is damaged or gone.
    NoIndex,
    /// Some objects in it cannot be read.
    Corrupt,
    /// There is an index alone.
    NoPack,
}

/// The object directory of the damaged repository.
#[derive(Debug)]
pub(crate) struct Objects {
    /// The directory.
    pub(crate) dir: PathBuf,
    /// Directories of loose objects.
    pub(crate) fan_out: Vec<OsString>,
    /// Loose objects that are none.
    pub(crate) bad_loose: Vec<PathBuf>,
    /// The packs.
    pub(crate) packs: Vec<Pack>,
    /// Damaged files that git can make again.
    pub(crate) bad_caches: Vec<PathBuf>,
    /// Object directories of other repositories.
    pub(crate) alternates: Vec<PathBuf>,
    /// Such that are not there.
    pub(crate) absent_alternates: Vec<PathBuf>,
}

impl Objects {
    /// Looks at loose objects, caches and alternates. Packs are verified by [`Objects::verify`], which needs a git.
    pub(crate) fn look(repo: &Repository, stage: &Stage) -> anyhow::Result<Objects> {
        let dir = repo.common_dir.join("objects");
        refuse_links(&dir)?;
        let entries = door::entries(&dir)?.unwrap_or_default();
        let is_fan_out = |name: &OsString| name.len() == 2 && name.as_bytes().iter().all(u8::is_ascii_hexdigit);
        let mut fan_out: Vec<OsString> = entries
            .into_iter()
            .filter(|(name, kind)| *kind == Kind::Directory && is_fan_out(name))
            .map(|(name, _)| name)
            .collect();
        fan_out.sort();
        stage.begin_steps("reading loose objects", fan_out.len());
        let mut bad_loose = objects::corrupt_loose(&repo.common_dir, 0, || stage.step())?;
        for name in &fan_out {
            let odd =
                door::entries(&dir.join(name))?.unwrap_or_default().into_iter().filter(|(_, kind)| *kind != Kind::File);
            bad_loose.extend(odd.map(|(object, _)| dir.join(name).join(object)));
        }
        let mut found = Objects {
            packs: packs(&dir.join("pack"))?,
            bad_caches: bad_caches(&dir)?,
            dir,
            fan_out,
            bad_loose,
            alternates: Vec::new(),
            absent_alternates: Vec::new(),
        };
        found.read_alternates()?;
        Ok(found)
    }

    fn read_alternates(&mut self) -> anyhow::Result<()> {
        for path in alternates::read(&self.dir)? {
            match fs::canonicalize(&path) {
                Ok(real) if real.is_dir() => {
                    refuse_what_waits(&real, 0)?;
                    self.alternates.push(real);
                }
                _ => self.absent_alternates.push(path),
            }
        }
        Ok(())
    }

    /// Compares every pack with its checksums.
    pub(crate) fn verify(&mut self, git: &Git, stage: &Stage) -> anyhow::Result<()> {
        let count = self.packs.len();
        for (number, pack) in self.packs.iter_mut().enumerate().filter(|(_, pack)| pack.state == PackState::Whole) {
            stage.begin(format!("checking pack {} of {count}", number + 1));
            let index = pack.stem.with_extension("idx");
            if !git.run(Plumbing::VerifyPack(&index.to_string_lossy()))?.success {
                pack.state = PackState::Corrupt;
            }
        }
        Ok(())
    }

    /// The files that are in git's way, or name objects that cannot be read.
    /// `is_stale`: objects that were there are not.
    pub(crate) fn bad_files(&self, is_stale: bool) -> impl Iterator<Item = PathBuf> {
        let of_pack = |pack: &Pack| {
            let named =
                |extensions: &[&str]| extensions.iter().map(|e| pack.stem.with_extension(e)).collect::<Vec<_>>();
            let files = match pack.state {
                PackState::Whole => Vec::new(),
                // The index first: without one git does not look at the pack.
                PackState::Corrupt => named(&["idx", "rev", "bitmap", "pack", "promisor", "mtimes"]),
                PackState::NoIndex | PackState::NoPack => named(&["idx", "rev", "bitmap"]),
            };
            files.into_iter().filter(|path| fs::symlink_metadata(path).is_ok()).collect::<Vec<_>>()
        };
        let of_packs: Vec<PathBuf> = self.packs.iter().flat_map(of_pack).collect();
        // These name packs and objects that go.
        let is_whole = self.packs.iter().all(|pack| pack.state == PackState::Whole) && self.bad_loose.is_empty();
        let caches =
            if is_whole && !is_stale { self.bad_caches.clone() } else { caches(&self.dir).unwrap_or_default() };
        let mut all = [self.bad_loose.clone(), of_packs, caches].concat();
        all.dedup();
        all.into_iter()
    }
}

fn is_named_as_a_pack(stem: &Path) -> bool {
    stem.file_name().is_some_and(|name| name.as_bytes().starts_with(b"pack-"))
}

/// git reads objects and packs through links, and rescue does not: what lies behind them would count as missing.
fn refuse_links(dir: &Path) -> anyhow::Result<()> {
    for (name, kind) in door::entries(dir)?.unwrap_or_default() {
        let path = dir.join(&name);
        refuse_link(&path, kind)?;
        let has_objects = name.len() == 2 || name == "pack" || name == "info";
        if kind == Kind::Directory && has_objects {
            for (inside, kind) in door::entries(&path)?.unwrap_or_default() {
                refuse_link(&path.join(inside), kind)?;
            }
        }
    }
    Ok(())
}

/// git reads whatever is in an alternate, and waits for ever at a FIFO.
fn refuse_what_waits(dir: &Path, depth: usize) -> anyhow::Result<()> {
    /// git follows no more alternates of alternates.
    const DEEPEST: usize = 5;
    for (name, _) in door::entries(dir)?.unwrap_or_default() {
        if !(name.len() == 2 || name == "pack" || name == "info") {
            continue;
        }
        for (inside, kind) in door::entries(&dir.join(&name))?.unwrap_or_default() {
            let path = dir.join(&name).join(inside);
            let is_odd =
                |real: PathBuf| fs::symlink_metadata(real).is_ok_and(|found| !found.is_file() && !found.is_dir());
            let waits = kind == Kind::Other || kind == Kind::Symlink && fs::canonicalize(&path).is_ok_and(is_odd);
            anyhow::ensure!(!waits, "{} is no file: git would wait for it", shown(&path));
        }
    }
    for path in alternates::read(dir)? {
        if let Some(real) = fs::canonicalize(&path).ok().filter(|real| depth < DEEPEST && real.is_dir()) {
            refuse_what_waits(&real, depth + 1)?;
        }
    }
    Ok(())
}

/// Refuses a symbolic link.
pub(crate) fn refuse_link(path: &Path, kind: Kind) -> anyhow::Result<()> {
    anyhow::ensure!(
        kind != Kind::Symlink,
        "{} is a link, which rescue does not follow\nhint: put what it leads to in its place, or move the link away",
        shown(path)
    );
    Ok(())
}

fn packs(dir: &Path) -> anyhow::Result<Vec<Pack>> {
    let entries = door::entries(dir)?.unwrap_or_default();
    let has = |path: &Path| entries.iter().any(|(name, kind)| *kind == Kind::File && dir.join(name) == path);
    let mut stems: Vec<PathBuf> = entries
        .iter()
        .map(|(name, _)| dir.join(name))
        .filter(|path| path.extension().is_some_and(|e| e == "pack" || e == "idx"))
        .map(|path| path.with_extension(""))
        // git reads a pack of any name, by its index.
        .filter(|stem| has(&stem.with_extension("idx")) || is_named_as_a_pack(stem))
        .collect();
    stems.sort();
    stems.dedup();
    let state = |stem: &PathBuf| match (has(&stem.with_extension("pack")), has(&stem.with_extension("idx"))) {
        (true, true) => PackState::Whole,
        (true, false) => PackState::NoIndex,
        _ => PackState::NoPack,
    };
    Ok(stems.into_iter().map(|stem| Pack { state: state(&stem), stem }).collect())
}

/// Where an incremental multi-pack-index lies.
const LAYERS: &str = "pack/multi-pack-index.d";

/// Everything that git has made to be faster.
fn caches(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let named = [dir.join("info/commit-graph"), dir.join("pack/multi-pack-index")];
    let mut found: Vec<PathBuf> = named.into_iter().filter(|path| fs::symlink_metadata(path).is_ok()).collect();
    let below =
        [("info/commit-graphs", &["graph"][..]), ("pack", &["bitmap", "rev"]), (LAYERS, &["midx", "bitmap", "rev"])];
    for (below, extensions) in below {
        let entries = door::entries(&dir.join(below))?.unwrap_or_default();
        let paths = entries.into_iter().map(|(name, _)| dir.join(below).join(name));
        found.extend(paths.filter(|path| path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known))));
    }
    let chains = ["info/commit-graphs/commit-graph-chain", "pack/multi-pack-index.d/multi-pack-index-chain"];
    found.extend(chains.iter().map(|chain| dir.join(chain)).filter(|path| fs::symlink_metadata(path).is_ok()));
    found.sort();
    Ok(found)
}

fn bad_caches(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut bad = Vec::new();
    let all = caches(dir)?;
    let is_chain = |path: &Path| path.file_name().is_some_and(|name| name.as_bytes().ends_with(b"-chain"));
    for path in all.iter().filter(|path| !is_chain(path)) {
        if !ends_with_checksum(path)? {
            bad.push(path.clone());
        }
    }
    // A chain names graphs, or layers, one after the other: all of them go together.
    for below in ["info/commit-graphs", LAYERS].map(|below| dir.join(below)) {
        if bad.iter().any(|path| path.starts_with(&below)) {
            bad.extend(all.iter().filter(|path| path.starts_with(&below)).cloned());
        }
    }
    bad.sort();
    bad.dedup();
    Ok(bad)
}

/// The last bytes of these files are the hash of all before them.
fn ends_with_checksum(path: &Path) -> anyhow::Result<bool> {
    let Ok(content) = fs::read(path) else { return Ok(false) };
    Ok([20, 32].into_iter().any(|length| ends_with_sum(&content, length)))
}

/// Are the last `length` bytes the hash, of that length, of all before them?
pub(crate) fn ends_with_sum(content: &[u8], length: usize) -> bool {
    let Some(at) = content.len().checked_sub(length).filter(|at| *at >= length) else { return false };
    let mut sum = if length == 20 { Hash::Sha1 } else { Hash::Sha256 }.start();
    sum.write_all(&content[..at]).is_ok() && sum.finish().as_bytes() == &content[at..]
}
