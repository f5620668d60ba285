//! Locks of other tools in and out, through the built program; what it writes is judged by their readers' rules, by
//! createrepo_c and by dnf.

#[path = "../../examples/demo-repos/repos/mod.rs"]
mod demo_repos;
#[path = "../demo/world.rs"]
#[allow(dead_code, reason = "images are built elsewhere")]
mod world;

mod hostile;
mod prefetched;
mod real;
mod repository;
mod round_trip;
mod tools;
