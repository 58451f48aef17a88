//! The scratch repository: it borrows every object of the damaged one that is whole, and gets what can be had again.
//!
//! ```text
//! <scratch>/git/            a repository of ours: its own configuration, no refs but the roots
//!   objects/                what was salvaged
//!     info/alternates ─────▶ <scratch>/whole/    links to whole loose objects and packs
//!                            and the alternates of the damaged repository
//! ```

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
use crate::rescue::scratch::Scratch;

/// The scratch repository.
#[derive(Debug)]
pub(crate) struct View {
    scratch: Scratch,
    hash: Hash,
    /// The object directory of the damaged repository.
    pub(crate) objects: Objects,
    /// git, in the scratch repository.
    pub(crate) git: Git,
    common_dir: PathBuf,
}

impl View {
    /// Makes it.
    pub(crate) fn make(
        repo: &Repository,
        request: &Request,
        settings: &Settings,
        objects: Objects,
    ) -> anyhow::Result<View> {
        let scratch = Scratch::make(&request.scratch)?;
        let whole = scratch.path("whole");
        let borrowed: Vec<PathBuf> = std::iter::once(whole).chain(objects.alternates.iter().cloned()).collect();
        let git = scratch.repository(&Git::new(&request.git_program), "git", settings.hash, &borrowed)?;
        let (hash, common_dir) = (settings.hash, repo.common_dir.clone());
        let mut view = View { scratch, hash, objects, git, common_dir };
        view.scratch.make_dir("whole")?;
        view.scratch.make_dir("whole/pack")?;
        view.objects.verify(&view.git, &request.stage)?;
        view.borrow()?;
        Ok(view)
    }

    /// Links what is whole.
    fn borrow(&self) -> anyhow::Result<()> {
        let whole = self.file("whole");
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
        Ok(())
    }

    /// Its own objects: what was salvaged.
    pub(crate) fn own_objects(&self) -> PathBuf {
        self.file("git/objects")
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

    /// The loose objects that it has of its own.
    pub(crate) fn own_loose(&self) -> anyhow::Result<BTreeSet<Oid>> {
        let (mut found, own) = (BTreeSet::new(), self.own_objects());
        for (dir, _) in door::entries(&own)?.unwrap_or_default().iter().filter(|(dir, _)| dir.len() == 2) {
            let names = door::entries(&own.join(dir))?.unwrap_or_default().into_iter();
            found.extend(names.filter_map(|(name, _)| Oid::parse(&[dir.as_bytes(), name.as_bytes()].concat())));
        }
        Ok(found)
    }

    /// Removes one of them.
    pub(crate) fn remove_loose(&self, oid: &Oid) -> anyhow::Result<()> {
        let hex = oid.hex();
        Ok(durable::remove_file(&self.own_objects().join(&hex[..2]).join(&hex[2..]))?)
    }

    /// The packs that it has of its own.
    pub(crate) fn own_packs(&self) -> anyhow::Result<BTreeSet<PathBuf>> {
        let dir = self.own_objects().join("pack");
        let entries = door::entries(&dir)?.unwrap_or_default().into_iter();
        Ok(entries
            .map(|(name, _)| dir.join(name))
            .filter(|path| path.extension().is_some_and(|e| e == "pack"))
            .collect())
    }

    /// Another scratch repository, which borrows from this one, and from a damaged pack.
    pub(crate) fn with_pack(&self, pack: &Pack) -> anyhow::Result<Git> {
        let name = pack.stem.file_name().context("a pack has a name")?.to_string_lossy();
        let name = format!("damaged-{name}");
        let git = self.scratch.repository(&self.git, &name, self.hash, &[self.own_objects()])?;
        let objects = self.file(&name).join("objects");
        let copy = |extension: &str| objects.join("pack").join(format!("{name}.{extension}"));
        let index = fs::read(pack.stem.with_extension("idx"))?;
        durable::create_new(&copy("pack"), &framed(fs::read(pack.stem.with_extension("pack"))?, &index))?;
        durable::create_new(&copy("idx"), &index)?;
        Ok(git)
    }

    /// Another scratch repository, an empty one.
    pub(crate) fn another(&self, name: &str) -> anyhow::Result<Git> {
        self.scratch.repository(&self.git, name, self.hash, &[])
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
        self.scratch.path(name)
    }

    /// The roots, as refs of the scratch repository.
    pub(crate) fn set_roots(&self, roots: impl Iterator<Item = Oid>) -> anyhow::Result<()> {
        let mut text = "# pack-refs with: sorted \n".to_owned();
        for (number, root) in roots.enumerate() {
            text.push_str(&format!("{root} refs/roots/{number:08}\n"));
        }
        let path = self.file("git/packed-refs");
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
            return Ok(durable::create_new(&self.file("git/shallow"), &text).map(|_| ())?);
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
