//! The pure core: who is asking, what to answer, what it boots.
