//! What a run takes back, and what it leaves alone.
