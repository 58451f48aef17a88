//! `jin-txn apply`: refs and files as one transaction, whatever is asked of it.

mod bad_input;
mod schema;
mod undo;
mod usual;
