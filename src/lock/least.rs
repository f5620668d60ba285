//! The least change: which packages of an old lock cannot stay.

use std::collections::BTreeSet;

use crate::resolve::{Error, Held, Request, has_solution, solve};

/// The names of `held` that have to be let go so that the request, which as it is holds less, has a solution when it
/// holds the others, too: no more than are needed, for if any of them stayed there would be none. Fails as solving
/// does if it does not help to let all go.
///
/// U. Junker: QUICKXPLAIN: Preferred Explanations and Relaxations for Over-Constrained Problems (2004): solves in
/// the order of `k * log(n / k)` times to let `k` of `n` go. A solver's own preferences for what is locked would do
/// in one, but move a package where another one could have been added.
pub(super) fn released(request: &Request, held: &Held) -> Result<BTreeSet<String>, Error> {
    solve(request)?;
    let names: Vec<&str> = held.keys().map(String::as_str).collect();
    let mut search = Search { request, held };
    let found = search.among(&BTreeSet::new(), &names, false)?;
    Ok(found.into_iter().map(str::to_owned).collect())
}

struct Search<'s> {
    request: &'s Request<'s>,
    held: &'s Held,
}

impl<'s> Search<'s> {
    /// The names of `candidates` that have to go, given that those of `gone` do.
    fn among(
        &mut self,
        gone: &BTreeSet<&'s str>,
        candidates: &[&'s str],
        may_do: bool,
    ) -> Result<Vec<&'s str>, Error> {
        if candidates.is_empty() || may_do && self.does(gone)? {
            return Ok(Vec::new());
        }
        if let [only] = candidates {
            return Ok(vec![*only]);
        }
        let (left, right) = candidates.split_at(candidates.len() / 2);
        let with = |more: &[&'s str]| gone.iter().chain(more).copied().collect::<BTreeSet<_>>();
        let mut found = self.among(&with(left), right, true)?;
        found.extend(self.among(&with(&found), left, !found.is_empty())?);
        Ok(found)
    }

    /// Whether there is a solution without those that are gone.
    fn does(&self, gone: &BTreeSet<&str>) -> Result<bool, Error> {
        let mut held = self.held.clone();
        held.retain(|name, _| !gone.contains(name.as_str()));
        held.extend(self.request.held.clone());
        has_solution(&Request { held: &held, ..*self.request })
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use crate::lock::worlds::{NAMES, World, random_offer, text, valid, versions};
    use crate::lock::{Advised, Update};
    use crate::package::{Evr, Nevra};
    use crate::repo::Advisory;

    fn world(offer: &[&str]) -> World {
        World::new("false", &[("base", &["app"])], &[("x86_64", offer)])
    }

    fn offer(world: &mut World, list: &[&str]) {
        world.packages.insert("x86_64", list.iter().map(|text| (*text).to_owned()).collect());
    }

    fn advisory(id: &str, kind: &str, severity: &str, cve: &str, (name, version): (&str, &str)) -> Advisory {
        Advisory {
            id: id.into(),
            kind: kind.into(),
            severity: severity.into(),
            title: String::new(),
            cves: vec![cve.into()],
            packages: vec![Nevra {
                name: name.into(),
                evr: Evr::new(0, version, "1"),
                arch: "x86_64".into(),
            }],
        }
    }

    #[test]
    fn another_package_is_added_rather_than_one_moved() {
        let mut world = world(&["app 1-1; needs lib", "lib 1-1"]);
        world.lock();
        let lib_has_it =
            ["app 1-1; needs lib", "lib 1-1", "lib 2-1; needs cap", "cap 1-1", "extra 1-1; needs cap"];
        offer(&mut world, &lib_has_it);
        world.install("base", &["app", "extra"]);
        assert_eq!(world.lock(), ["base.x86_64: app-1-1 cap-1-1 extra-1-1 lib-1-1"]);
    }

    #[test]
    fn security_only_takes_what_advisories_name_and_what_that_needs() {
        let old = ["app 1-1; needs lib, tool", "lib 1-1; needs dep = 1-1", "dep 1-1", "tool 1-1"];
        let new = [
            &old[..],
            &["app 2-1; needs lib, tool", "lib 2-1; needs dep = 2-1", "lib 3-1; needs dep = 3-1"],
            &["dep 2-1", "dep 3-1", "tool 2-1"],
        ]
        .concat();
        let select = |advised: Advised| {
            let mut world = world(&old);
            world.lock();
            offer(&mut world, &new);
            world.advisories = vec![
                advisory("SA-1", "security", "Important", "CVE-1", ("lib", "2")),
                advisory("SA-2", "security", "Low", "CVE-2", ("absent", "2")),
                advisory("BA-1", "bugfix", "", "", ("tool", "2")),
            ];
            world.try_lock(&Update::Advised(advised)).map(|locks| {
                let packages = locks[0].lock.packages.iter();
                packages.map(|p| format!("{}-{}", p.name, p.evr.version)).collect::<Vec<_>>().join(" ")
            })
        };
        let (none, fixed) = ("app-1 dep-1 lib-1 tool-1", "app-1 dep-2 lib-2 tool-1");
        let security = Advised { security: true, ..Advised::default() };
        assert_eq!(select(security).unwrap(), fixed);
        let id = |id: &str| Advised { ids: [id.to_owned()].into(), ..Advised::default() };
        assert_eq!(select(id("SA-1")).unwrap(), fixed);
        assert_eq!(select(id("SA-2")).unwrap(), none);
        assert_eq!(select(id("BA-1")).unwrap(), "app-1 dep-1 lib-1 tool-2");
        let told = select(id("SA-3")).unwrap_err().to_string();
        assert_eq!(told, "no advisory of the stream's repositories has the id `SA-3`");
        let cve = Advised { cves: ["CVE-1".to_owned()].into(), ..Advised::default() };
        assert_eq!(select(cve).unwrap(), fixed);
        let severity = |text: &str| Advised { severities: [text.to_owned()].into(), ..Advised::default() };
        assert_eq!(select(severity("important")).unwrap(), fixed);
        assert_eq!(select(severity("critical")).unwrap(), none);
    }

    #[test]
    fn a_repair_moves_what_is_gone_and_nothing_else() {
        let mut world = world(&["app 1-1; needs lib, tool", "lib 2-1", "tool 1-1"]);
        world.lock();
        let now =
            ["app 1-1; needs lib, tool", "app 2-1; needs lib", "lib 1-1", "lib 3-1", "lib 4-1", "tool 2-1"];
        offer(&mut world, &now);
        let repair = |name: &str| Update::Repair([name.to_owned()].into());
        assert_eq!(world.update(&repair("lib")), ["base.x86_64: app-1-1 lib-3-1 tool-1-1"]);
        assert_eq!(world.update(&repair("tool")), ["base.x86_64: app-1-1 lib-3-1 tool-2-1"]);
        assert_eq!(world.update(&repair("app")), ["base.x86_64: app-1-1 lib-3-1 tool-2-1"]);
    }

    /// After a change of the manifest and the repository no package moved that could have stayed.
    #[test]
    fn small_worlds_against_every_set() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (mut still, mut moved, mut fewest) = (0, 0, 0);
        for case in 0..300 {
            let [old, new] = random_offer(&mut rng);
            let world_of = |offer| {
                let mut world = World::new("false", &[("base", &["a"])], &[("x86_64", &[])]);
                world.packages.insert("x86_64", text(offer));
                world
            };
            let mut world = world_of(&old);
            let Ok(before) = world.try_lock(&Update::Nothing) else { continue };
            let before = versions(&before[0]);
            let added = rng.gen_range(1..4);
            if before[added] > 0 {
                continue;
            }
            world.packages.insert("x86_64", text(&new));
            world.install("base", &["a", NAMES[added]]);
            let Ok(after) = world.try_lock(&Update::Nothing) else { continue };
            let after = versions(&after[0]);
            let moves = |set: &[usize; 4]| -> Vec<usize> {
                (0..4)
                    .filter(|&name| before[name] > 0 && set[name] > 0 && set[name] != before[name])
                    .collect()
            };
            // what is asked for anew is taken in the newest version
            let newest = (1..=3).rev().find(|version| new.contains_key(&(added, *version)));
            let sets = valid(&new, &[0, added]);
            assert!(sets.contains(&after), "case {case}");
            let all: Vec<Vec<usize>> =
                sets.iter().filter(|set| Some(set[added]) == newest).map(moves).collect();
            let found = moves(&after);
            let less = |other: &&Vec<usize>| {
                other.len() < found.len() && other.iter().all(|name| found.contains(name))
            };
            assert_eq!(all.iter().find(less), None, "case {case}: {before:?} {after:?} {new:#?}");
            still += usize::from(found.is_empty());
            moved += usize::from(!found.is_empty());
            fewest += usize::from(all.iter().all(|other| other.len() >= found.len()));
        }
        assert!(still > 20 && moved > 10, "{still} {moved}");
        assert_eq!(fewest, still + moved, "there was a smaller number of others that could have moved");
    }
}
