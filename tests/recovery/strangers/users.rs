//! Other users of the machine and of the repository: colleagues are not refused, strangers do not block.
