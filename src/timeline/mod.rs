//! Boot events, attempts, stages and deadlines.
