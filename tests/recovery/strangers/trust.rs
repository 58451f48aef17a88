//! Repositories that this user never installed: surfaces that nobody asked for start nothing there, and ownership is judged as git does.
