//! `wasklet image`: with files and a store of the test's own, with a real registry, and with other tools.

mod commands;
mod registries;
mod tools;
mod wrong_input;
