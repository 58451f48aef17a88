//! Attacks by strangers: repositories, users and secrets that are not ours. Each was made to work once.

mod belief;
mod links;
mod programs;
mod trust;
mod users;
