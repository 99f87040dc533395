//! One shape for every fault that an operator can mend, and one renderer.
