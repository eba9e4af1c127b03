//! HTTP/1.1: a server that answers as many bytes as it is asked for, and a client that asks as often as
//! it can (closed loop) or as often as it is told (open loop). Both have one thread.

mod answer;
mod client;
mod connection;
pub mod serve;
mod tls;

pub use client::{Habit, load};
