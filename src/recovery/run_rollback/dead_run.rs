//! A run that is to be taken back.

use crate::git::Repository;
use crate::run::manifest::Manifest;
use crate::state::TxId;
use crate::wal::{Begin, Record};

/// A run that is to be taken back.
#[derive(Debug)]
pub(crate) struct DeadRun {
    pub(crate) id: TxId,
    pub(crate) begin: Begin,
    pub(crate) records: Vec<Record>,
    pub(crate) manifest: Manifest,
    pub(crate) repo: Repository,
}
