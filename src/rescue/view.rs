//! The scratch repository: it borrows every object of the damaged one that is whole, and gets what can be had again.
//!
//! ```text
//! <scratch>/git/            a repository of ours: its own configuration, no refs but the roots
//!   objects/                what was salvaged
//!     info/alternates ─────▶ <scratch>/whole/    links to whole loose objects and packs
//!                            and the alternates of the damaged repository
//! ```
//! It lies outside of the damaged repository, is readable for this user alone, and is removed at the end.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::fs::door;
use crate::fs::{absent_is_none, durable, named as fs};
use crate::git::hash::Hash;
use crate::git::{Git, Oid, Repository};
use crate::rescue::Request;
use crate::rescue::config::Settings;
use crate::rescue::objects::{Objects, Pack, PackState, ends_with_sum};
use crate::rescue::plan::Plan;
use crate::util::text::shown;

/// The scratch repository.
#[derive(Debug)]
pub(crate) struct View {
    root: PathBuf,
    /// The object directory of the damaged repository.
    pub(crate) objects: Objects,
    /// git, in the scratch repository.
    pub(crate) git: Git,
    common_dir: PathBuf,
}

impl Drop for View {
    fn drop(&mut self) {
        if durable::remove_tree(&self.root).is_err() {
            // It lies among temporary files.
        }
    }
}

impl View {
    /// Makes it.
    pub(crate) fn make(
        repo: &Repository,
        request: &Request,
        settings: &Settings,
        objects: Objects,
    ) -> anyhow::Result<View> {
        let root = new_directory(&request.scratch)?;
        let git_dir = root.join("git");
        let common_dir = repo.common_dir.clone();
        let mut view = View { git: Git::new(&request.git_program).at(&git_dir), root, objects, common_dir };
        for dir in ["git", "git/objects", "git/objects/info", "git/objects/pack", "git/refs", "whole", "whole/pack"] {
            view.make_dir(dir)?;
        }
        let (version, extension) = match settings.hash {
            Hash::Sha1 => (0, ""),
            Hash::Sha256 => (1, "[extensions]\n\tobjectformat = sha256\n"),
        };
        let config = format!("[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{extension}");
        durable::create_new(&git_dir.join("config"), config.as_bytes())?;
        durable::create_new(&git_dir.join("HEAD"), b"ref: refs/heads/none\n")?;
        view.objects.verify(&view.git)?;
        view.borrow()?;
        Ok(view)
    }

    fn make_dir(&self, name: &str) -> anyhow::Result<()> {
        Ok(door::place(&self.root.join(name))?.make_dir(0o700)?)
    }

    /// Links what is whole.
    fn borrow(&self) -> anyhow::Result<()> {
        let whole = self.root.join("whole");
        let link = |to: &Path, at: PathBuf| door::place(&at)?.symlink(to);
        for name in &self.objects.fan_out {
            let dir = self.objects.dir.join(name);
            if !self.objects.bad_loose.iter().any(|bad| bad.starts_with(&dir)) {
                link(&dir, whole.join(name))?;
                continue;
            }
            door::place(&whole.join(name))?.make_dir(0o700)?;
            for (object, _) in door::entries(&dir)?.unwrap_or_default() {
                let path = dir.join(&object);
                if !self.objects.bad_loose.contains(&path) {
                    link(&path, whole.join(name).join(&object))?;
                }
            }
        }
        for pack in self.objects.packs.iter().filter(|pack| pack.state == PackState::Whole) {
            for file in ["pack", "idx"].map(|e| pack.stem.with_extension(e)) {
                let name = file.file_name().context("a pack has a name")?;
                link(&file, whole.join("pack").join(name))?;
            }
        }
        let mut alternates = [whole.as_os_str().as_bytes(), b"\n"].concat();
        for other in &self.objects.alternates {
            alternates.extend_from_slice(other.as_os_str().as_bytes());
            alternates.push(b'\n');
        }
        durable::create_new(&self.own_objects().join("info/alternates"), &alternates)?;
        Ok(())
    }

    /// Its own objects: what was salvaged.
    pub(crate) fn own_objects(&self) -> PathBuf {
        self.root.join("git/objects")
    }

    /// Stores a loose object.
    pub(crate) fn add_loose(&self, oid: &Oid, header: &[u8], content: &[u8]) -> anyhow::Result<()> {
        let hex = oid.hex();
        let dir = self.own_objects().join(&hex[..2]);
        match door::place(&dir)?.make_dir(0o700) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let mut deflated = ZlibEncoder::new(Vec::new(), Compression::default());
        deflated.write_all(header)?;
        deflated.write_all(content)?;
        match durable::create_new(&dir.join(&hex[2..]), &deflated.finish()?) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// How many loose objects it has of its own.
    pub(crate) fn count_own(&self) -> anyhow::Result<usize> {
        let mut count = 0;
        for (dir, _) in door::entries(&self.own_objects())?.unwrap_or_default().iter().filter(|(dir, _)| dir.len() == 2)
        {
            count += door::entries(&self.own_objects().join(dir))?.unwrap_or_default().len();
        }
        Ok(count)
    }

    /// Another scratch repository, which borrows from this one, and from a damaged pack.
    pub(crate) fn with_pack(&self, pack: &Pack) -> anyhow::Result<Git> {
        let name = pack.stem.file_name().context("a pack has a name")?.to_string_lossy();
        let name = format!("damaged-{name}");
        let git = self.another(&name)?;
        let objects = self.root.join(&name).join("objects");
        let alternate = [self.own_objects().as_os_str().as_bytes(), b"\n"].concat();
        durable::create_new(&objects.join("info/alternates"), &alternate)?;
        let copy = |extension: &str| objects.join("pack").join(format!("{name}.{extension}"));
        let index = fs::read(pack.stem.with_extension("idx"))?;
        durable::create_new(&copy("pack"), &framed(fs::read(pack.stem.with_extension("pack"))?, &index))?;
        durable::create_new(&copy("idx"), &index)?;
        Ok(git)
    }

    /// Another scratch repository, an empty one.
    pub(crate) fn another(&self, name: &str) -> anyhow::Result<Git> {
        for part in ["", "/objects", "/objects/info", "/objects/pack", "/refs"] {
            self.make_dir(&format!("{name}{part}"))?;
        }
        let git_dir = self.root.join(name);
        durable::create_new(&git_dir.join("config"), &fs::read(self.root.join("git/config"))?)?;
        durable::create_new(&git_dir.join("HEAD"), b"ref: refs/heads/none\n")?;
        Ok(self.git.at(&git_dir))
    }

    /// The names of all loose objects that are whole.
    pub(crate) fn loose_names(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for dir in &self.objects.fan_out {
            for (name, _) in door::entries(&self.objects.dir.join(dir))?.unwrap_or_default() {
                let path = self.objects.dir.join(dir).join(&name);
                let name = format!("{}{}", dir.to_string_lossy(), name.to_string_lossy());
                if Oid::parse(name.as_bytes()).is_some() && !self.objects.bad_loose.contains(&path) {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    /// How large all loose objects are together, in bytes.
    pub(crate) fn loose_size(&self) -> anyhow::Result<u64> {
        let mut size = 0;
        for dir in &self.objects.fan_out {
            for (name, _) in door::entries(&self.objects.dir.join(dir))?.unwrap_or_default() {
                let found = absent_is_none(fs::symlink_metadata(self.objects.dir.join(dir).join(name)))?;
                size += found.map_or(0, |found| found.len());
            }
        }
        Ok(size)
    }

    /// A path for a file of ours.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The roots, as refs of the scratch repository.
    pub(crate) fn set_roots(&self, roots: impl Iterator<Item = Oid>) -> anyhow::Result<()> {
        let mut text = "# pack-refs with: sorted \n".to_owned();
        for (number, root) in roots.enumerate() {
            text.push_str(&format!("{root} refs/roots/{number:08}\n"));
        }
        let path = self.root.join("git/packed-refs");
        durable::remove_file(&path)?;
        durable::create_new(&path, text.as_bytes())?;
        Ok(())
    }

    /// Takes over `shallow`: the commits at which history was cut when it was fetched. One that git cannot read goes to quarantine,
    /// and none is made: of a hole nobody can tell a commit that was lost from one that was never fetched.
    pub(crate) fn take_shallow(&self, plan: &mut Plan) -> anyhow::Result<()> {
        let path = self.common_dir.join("shallow");
        let Some(text) = absent_is_none(fs::read(&path))? else { return Ok(()) };
        // Where a line of it cannot be read git ends; an empty one it reads as none.
        let is_sound = |line: &[u8]| line.is_empty() || Oid::parse(line).is_some();
        if text.split(|byte| *byte == b'\n').all(is_sound) {
            return Ok(durable::create_new(&self.root.join("git/shallow"), &text).map(|_| ())?);
        }
        plan.set_name_aside(path);
        let repair = "it goes to quarantine, and no other is made";
        plan.lost("shallow is damaged", repair, "at which commits the history of a shallow clone ends");
        Ok(())
    }
}

/// A damaged pack with the beginning and the end that its index says it has: git opens no other one, and reads each object of it then.
fn framed(mut content: Vec<u8>, index: &[u8]) -> Vec<u8> {
    const COUNT: std::ops::Range<usize> = 8 + 255 * 4..8 + 256 * 4;
    let header = [b"PACK\0\0\0\x02", index.get(COUNT).unwrap_or_default()].concat();
    if let Some(start) = content.get_mut(..header.len()) {
        start.copy_from_slice(&header);
    }
    // The checksum of the pack comes before that of the index.
    let ends = [20, 32].into_iter().filter(|length| ends_with_sum(index, *length));
    for length in ends {
        let sum = &index[index.len() - 2 * length..index.len() - length];
        if !content.ends_with(sum) {
            content.extend_from_slice(sum);
        }
    }
    content
}

/// A new directory for this user alone.
fn new_directory(parent: &Path) -> anyhow::Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let parent = fs::canonicalize(parent).with_context(|| format!("cannot use {}", shown(parent)))?;
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("jin-rescue.{}.{number}", std::process::id()));
        match door::place(&path)?.make_dir(0o700) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path.clone()).with_context(|| format!("cannot make {}", shown(&path))),
        }
    }
}
