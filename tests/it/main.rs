//! The integration tests: the real binary, alone and on a real control plane.
