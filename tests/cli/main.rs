//! What a person meets: commands and their words, installation, shells, and every way in which git comes to call us.

#![allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]

mod bad_input;
mod beside;
mod commands;
mod completions;
mod conventions;
mod doctor;
mod entry_points;
mod everyday;
mod everywhere;
mod install;
mod listing;
mod places;
mod protection;
mod recipes;
mod recovering;
mod script;
mod shells;
mod shim;
mod speaking;
#[path = "../support/mod.rs"]
mod support;
mod watching;
