//! Notes in `.jin`: small files that say one thing each. A note that is missing or unreadable says what is safe.

use std::io;

use serde::{Deserialize, Serialize};

use crate::fs::{FileId, durable, named as fs};
use crate::state::directory::{SMALL, StateDir};
use crate::state::identity::{VERIFIED, birth_name};
use crate::state::settings::Settings;

const DURABILITY: &str = "durability";

const SETTINGS: &str = "settings";

const PACKED: &str = "packed-refs-synced";

/// What the repository survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Power cuts: git goes on only when objects and log are on disk.
    Full,
    /// Killed processes: git goes on when the log is on disk.
    Process,
}

impl StateDir {
    /// What was chosen at `install`; [`Durability::Full`] when nothing was, or nothing readable.
    #[must_use]
    pub fn durability(&self) -> Durability {
        match durable::read_own(&self.path().join(DURABILITY), SMALL) {
            Ok(text) if text.trim_ascii() == b"process" => Durability::Process,
            _ => Durability::Full,
        }
    }

    /// Writes down what was chosen.
    pub(crate) fn set_durability(&self, durability: Durability) -> io::Result<()> {
        let text = match durability {
            Durability::Full => "full\n",
            Durability::Process => "process\n",
        };
        durable::replace(&self.path().join(DURABILITY), text.as_bytes())
    }

    /// What `install` has written down of the user's configuration.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let text =
            durable::read_own(&self.path().join(SETTINGS), SMALL).ok().and_then(|text| String::from_utf8(text).ok());
        text.map_or_else(Settings::default, |text| Settings::parse(&text))
    }

    /// Writes settings down; the defaults need no file.
    pub(crate) fn set_settings(&self, settings: &Settings) -> io::Result<()> {
        if *settings == self.settings() {
            return Ok(());
        }
        durable::replace(&self.path().join(SETTINGS), settings.to_string().as_bytes())
    }

    /// Is the name of the `packed-refs` that has the identity `packed` known to be durable?
    #[must_use]
    pub fn is_known_durable(&self, packed: &FileId) -> bool {
        durable::read_own(&self.path().join(PACKED), SMALL).is_ok_and(|known| known == packed_line(packed))
    }

    /// Notes that it is: a hint that saves a sync for each of the files that git removes next.
    pub(crate) fn note_durable(&self, packed: &FileId) -> io::Result<()> {
        let tmp = format!("{PACKED}.{}", std::process::id());
        durable::publish(self.path(), &tmp, PACKED, &packed_line(packed))
    }

    /// The name of the note that the boot `boot` has verified what the one before left. It names the directory as well, so
    /// that it says nothing in a copy.
    pub fn verified_name(&self, boot: &str) -> io::Result<String> {
        Ok(format!("{VERIFIED}{boot}.{}", birth_name(self.birth()?)))
    }

    /// Notes that the boot `boot` has verified what the one before left.
    pub(crate) fn mark_verified(&self, boot: &str) -> io::Result<()> {
        let name = self.verified_name(boot)?;
        for entry in fs::read_dir(self.path())? {
            let entry = entry?;
            let old = entry.file_name();
            if old.to_str().is_some_and(|n| n.starts_with(VERIFIED) && n != name) {
                durable::remove_file(&entry.path())?;
            }
        }
        match durable::create_new(&self.path().join(name), b"") {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }
}

fn packed_line(packed: &FileId) -> Vec<u8> {
    format!("{} {} {}\n", packed.ino, packed.size, packed.mtime).into_bytes()
}
