//! Attacks by strangers: repositories, users and secrets that are not ours. Each was made to work once.

mod belief;
mod installation;
mod links;
mod programs;
mod secrets;
mod trust;
mod users;
