//! What names in watched directories say.

use std::path::Path;

use rustix::fs::inotify::ReadFlags;

use crate::git::reflog::RENAMED_LOG;
use crate::state::directory;
use crate::watch::events::FileEvent;
use crate::watch::repositories::{Key, Repo};
use crate::watch::server::Server;

impl Server<'_> {
    pub(super) fn handle_files(&mut self, files: Vec<FileEvent>) {
        for event in files {
            if Some(event.watched) == self.notes_directory {
                if event.what.intersects(ReadFlags::MOVED_TO | ReadFlags::CREATE)
                    && let Some(path) = event.name.to_str().and_then(|name| self.notes.path_of(name))
                {
                    self.know(&path);
                }
                if event.what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
                    self.drop_those_without_note();
                }
                if event.what.contains(ReadFlags::IGNORED) {
                    self.notes_directory = None;
                }
                continue;
            }
            self.handle_file(&event);
        }
    }

    fn handle_file(&mut self, event: &FileEvent) {
        if event.what.contains(ReadFlags::IGNORED) {
            if let Some(key) = self.repositories.lost(event.watched) {
                self.drop_one(key);
            }
            return;
        }
        let Some((key, dir)) = self.repositories.directory(event.watched) else { return };
        let dir = dir.to_owned();
        let common_dir = self.repositories.all.get(&key).map(|repo| repo.repo.common_dir.clone());
        if event.what.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
            // Where it has gone the next hook says.
            if common_dir.as_ref() == Some(&dir) {
                self.drop_one(key);
            }
        } else if event.what.contains(ReadFlags::ISDIR) {
            let is_gone = event.what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM);
            if is_gone && event.name == directory::NAME && common_dir.as_ref() == Some(&dir) {
                // It is not protected any more.
                self.drop_one(key);
            } else if event.what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                self.cover_new(key, &dir, &dir.join(&event.name));
            }
        } else if event.what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            if Path::new(&event.name) == Path::new(RENAMED_LOG).file_name().map_or(Path::new(""), Path::new) {
                self.look_soon(key);
            }
            self.repositories.appeared(key, &dir, &event.name);
        } else if event.what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            self.repositories.gone(key, &dir, &event.name);
        }
    }

    /// A note has gone: `uninstall` has taken it away, or a person.
    fn drop_those_without_note(&mut self) {
        let has_none = |repo: &Repo| !self.notes.cover(&repo.state());
        let gone: Vec<Key> =
            self.repositories.all.iter().filter(|(_, repo)| has_none(repo)).map(|(key, _)| *key).collect();
        gone.into_iter().for_each(|key| self.drop_one(key));
    }

    /// A directory has appeared in one that is watched.
    fn cover_new(&mut self, key: Key, within: &Path, dir: &Path) {
        let is_of_refs = within.components().any(|part| part.as_os_str() == "refs");
        let is_of_objects = within.ends_with("objects") && !dir.ends_with("info") && !dir.ends_with("pack");
        if within.ends_with("worktrees") {
            self.look_soon(key);
        }
        let covered = match (is_of_refs, is_of_objects) {
            (true, _) => self.repositories.cover_below(key, dir.to_owned(), &self.events),
            (false, true) => return,
            (false, false) => self.repositories.cover(key, &self.events),
        };
        if covered.is_err() {
            // It is gone, or cannot be read: then git makes no lock there either.
        }
    }
}
