//! The README's tour, command by command.

use std::process::Command;

use crate::world::{User, World, run};

/// Commands of the README's tour: lines that begin with `$ ` in its console blocks.
fn commands() -> Vec<String> {
    let readme = include_str!("../../README.md");
    let tour = readme.split("\n## ").find(|section| section.starts_with("A tour")).unwrap();
    tour.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_tour_works() {
    let commands = commands();
    assert!(commands.len() >= 8, "{commands:?}");
    let world = World::new(User::Root);
    for command in commands {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", world.path("").display());
        let mut shell = Command::new("/bin/sh");
        shell.args(["-ec", &command]).current_dir(world.path("")).env("PATH", path);
        shell.env("STRATA_STORE", world.path("store"));
        run(&mut shell);
    }
}
