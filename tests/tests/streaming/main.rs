//! The engine and the language as a whole, in memory and stepped by hand.

mod crash;
mod plans;
mod random;
mod scripts;
mod tidy;
