//! The durable lease journal.
