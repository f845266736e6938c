//! The integration tests stand in tests/.
