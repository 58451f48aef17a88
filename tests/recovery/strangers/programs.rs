//! Programs that a repository names (filters, hooks, fsmonitor, pagers, gpg, transports): no git of ours starts them.
