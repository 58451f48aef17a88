//! Links, FIFOs and devices below the git directory lead nowhere.
