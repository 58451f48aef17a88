//! Files in `.jin` that somebody else wrote are believed no further than we could have written them; secrets stay with the owner.
