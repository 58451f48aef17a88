//! When the disk, the clock or the kernel does not do its part.
