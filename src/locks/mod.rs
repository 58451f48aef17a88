//! Lock files: where git makes them, who could hold them, and when one may go.

pub mod holders;
pub mod judge;
