//! `jin-txn rescue`: repositories that were never protected, damaged in every way that is known.

mod damage;
mod doubt;
mod hostile;
mod judge;
mod kills;
mod kinds;
mod options;
mod proof;
mod races;
