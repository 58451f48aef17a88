//! A log that is damaged or lost: set aside as a whole, and begun anew.
//!
//! ```text
//!  wal/ is missing, or a segment is no file ──▶ make_appendable: begun behind a gap, which reads as damage
//!  damage, and no marker that may need it   ──▶ set_aside: new segment ──▶ all older ones to quarantine
//! ```
//! Numbers of records and transactions go on. The new segment is there before the others go, so that there always is a log: cut in
//! between, the damage still shows, and it is done again.

use std::path::PathBuf;

use anyhow::Context;

use crate::fs::{durable, moving, named as fs};
use crate::state::marker::Listing;
use crate::state::quarantine;
use crate::util::text::shown;
use crate::wal::log::Log;
use crate::wal::record::Lsn;
use crate::wal::{rotate, segments};

impl Log<'_> {
    /// Of a log that was there: makes sure that it can be appended to. What is no file goes to quarantine, and where nothing else says what
    /// there was, the log begins behind a gap. What was wrong, if anything was.
    pub(crate) fn make_appendable(&self) -> anyhow::Result<Option<String>> {
        self.state.while_appending(self.wait, || {
            let (mut lost, mut what) = (None, None);
            if segments::list(self.state)?.is_empty() {
                (lost, what) = (Some(1), Some(format!("{} was missing, or empty", shown(&self.state.wal()))));
            }
            for first in segments::list(self.state)? {
                let path = segments::path(self.state, first);
                if !fs::symlink_metadata(&path)?.is_file() {
                    let aside = quarantine::free_path(self.state, &format!("no-segment.{first}"))?;
                    moving::move_new(&path, &aside).with_context(|| format!("cannot set {} aside", shown(&path)))?;
                    (lost, what) = (Some(first), Some(format!("{} was no file", shown(&path))));
                }
            }
            if let Some(first) = lost {
                self.begin_behind_gap(first)?;
            }
            Ok(what)
        })
    }

    /// The records of the segment `first` are gone. Within this boot the note of the log's end says so by itself.
    fn begin_behind_gap(&self, first: Lsn) -> anyhow::Result<()> {
        let head = self.note()?.end();
        self.rebuild_head(Some(head.unwrap_or_else(|| self.empty_head(first))), None).map(|_| ())
    }

    /// Moves the whole log to quarantine and begins a new one. `None` while any transaction is unfinished: it may need what can
    /// still be read.
    pub(crate) fn set_aside(&self) -> anyhow::Result<Option<PathBuf>> {
        self.state.while_appending(self.wait, || {
            if !Listing::read(self.state.path())?.markers.is_empty() {
                return Ok(None);
            }
            let mut head = self.load_head()?;
            let old = segments::list(self.state)?;
            let name = old.last().map_or(head.next_lsn, |last| head.next_lsn.max(last + 1));
            head.next_lsn = name;
            let aside = quarantine::make_dir(self.state, "damaged-log")?;
            rotate::begin_segment(self.state, &self.boot, &mut head, name)?;
            for path in old.into_iter().map(|first| segments::path(self.state, first)) {
                let to = aside.join(path.file_name().unwrap_or_default());
                moving::move_new(&path, &to).with_context(|| format!("cannot set {} aside", shown(&path)))?;
            }
            durable::fsync_dir(&self.state.wal())?;
            durable::fsync_dir(&aside)?;
            Ok(Some(aside))
        })
    }
}
