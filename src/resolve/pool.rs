//! libsolv behind a safe face: the only module of the resolver with `unsafe` code.
//!
//! A [`Pool`] is filled with packages, sealed, and then asked: who provides what, and which packages fulfil a
//! list of jobs. Nothing of libsolv's ids and pointers leaves this module.

#![expect(unsafe_code, reason = "calls into libsolv")]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rattler_libsolv_c as ffi;
use rustc_hash::FxHashMap;

use super::rich::{Operator, Rich};
use crate::package::{Arch, Comparison, Dependency};
use crate::repo::RepoPackage;

/// libsolv reserves id 0, and 1 for the system itself.
const FIRST_SOLVABLE: ffi::Id = 2;

/// A package in a [`Pool`]: they count from 0 in the order they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId(pub usize);

impl PackageId {
    fn solvable(self) -> ffi::Id {
        ffi::Id::try_from(self.0).map_or(0, |id| id + FIRST_SOLVABLE)
    }

    fn of(solvable: ffi::Id) -> Option<Self> {
        usize::try_from(solvable - FIRST_SOLVABLE).ok().map(Self)
    }
}

/// A dependency interned in a [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DependencyId(ffi::Id);

/// What libsolv is told about a set of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// One of them must be there.
    Install,
    /// The same, unless something else stands against it.
    InstallIfPossible,
    /// None of them may be there.
    Erase,
    /// They stay as they are.
    Lock,
    /// They are preferred wherever there is a choice.
    Favor,
    /// Several versions of them may be there.
    Multiversion,
    /// No weak dependency brings them in.
    ExcludeFromWeak,
}

/// One job for the solver.
#[derive(Clone, Debug)]
pub struct Job {
    /// What to do.
    pub action: Action,
    /// With which packages.
    pub packages: Vec<PackageId>,
    /// A rich dependency to be met instead; `packages` are then those it can bring in.
    pub dependency: Option<DependencyId>,
}

/// A rule that takes part in a contradiction.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// The job with this index.
    Job(usize),
    /// A package that is there already stays.
    Stays(PackageId),
    /// A package requires what no package provides.
    NothingProvides(PackageId, DependencyId),
    /// A package requires what others provide.
    Requires(PackageId, DependencyId),
    /// Two packages of one name.
    SameName(PackageId, PackageId),
    /// The first conflicts with the second.
    Conflicts(PackageId, PackageId, DependencyId),
    /// The first obsoletes the second.
    Obsoletes(PackageId, PackageId, DependencyId),
    /// A package that can't be installed on this architecture.
    NotInstallable(PackageId),
    /// A package for an architecture that is taken in the place of a better one only if it is asked for.
    Inferior(PackageId),
}

/// A dependency that is no dependency.
#[derive(Debug, thiserror::Error)]
#[error("{package} has a malformed dependency `{dependency}`: {reason}")]
pub struct BadDependency {
    package: String,
    dependency: String,
    reason: String,
}

/// One of a solvable's lists.
type List = fn(&mut ffi::Solvable) -> &mut ffi::Offset;

/// All packages the solver can choose from.
pub struct Pool {
    raw: NonNull<ffi::Pool>,
    packages: usize,
    /// How many of them, the first ones, can be chosen.
    visible: usize,
    /// A bit for each solvable that can be chosen, and how libsolv is told of them.
    considered: Vec<u8>,
    considered_map: Box<ffi::Map>,
}

/// A repository in the pool, to be filled.
#[derive(Clone, Copy)]
pub struct RepoHandle(NonNull<ffi::Repo>);

impl Pool {
    /// An empty pool for packages that can be installed on `arch`.
    pub fn new(arch: Arch) -> Self {
        // SAFETY: pool_create never returns null (libsolv aborts when memory is short).
        let raw = unsafe { NonNull::new_unchecked(ffi::pool_create()) };
        let arch = CString::new(arch.rpm()).expect("architecture names hold no NUL");
        // SAFETY: the pool is live; pool_setarch only reads the string.
        unsafe {
            ffi::pool_setdisttype(raw.as_ptr(), ffi::DISTTYPE_RPM as i32);
            ffi::pool_setarch(raw.as_ptr(), arch.as_ptr());
            // RHEL's and Fedora's libsolv has it on (configured with -DFEDORA=1)
            ffi::pool_set_flag(raw.as_ptr(), ffi::POOL_FLAG_IMPLICITOBSOLETEUSESCOLORS as i32, 1);
            // what is hidden is in sight nevertheless, as in libdnf (`dnf_sack_init`)
            ffi::pool_set_flag(raw.as_ptr(), ffi::POOL_FLAG_WHATPROVIDESWITHDISABLED as i32, 1);
            (*raw.as_ptr()).debugmask = 0;
        }
        let considered_map = Box::new(ffi::Map { map: ptr::null_mut(), size: 0 });
        Self { raw, packages: 0, visible: 0, considered: Vec::new(), considered_map }
    }

    /// Adds a repository and its packages. `priority` and `cost` are dnf's: lower wins.
    pub fn add_repo<'p>(
        &mut self,
        priority: i32,
        cost: i32,
        packages: impl Iterator<Item = &'p RepoPackage>,
    ) -> Result<RepoHandle, BadDependency> {
        let repo = self.new_repo(priority, cost);
        let mut interned = HashMap::default();
        for package in packages {
            self.add_package(repo, package, &mut interned)?;
        }
        self.visible = self.packages;
        Ok(RepoHandle(repo))
    }

    /// Adds packages of a repository that can't be chosen, after all that can. Others are weighed by them: whether there
    /// is a later version or another architecture, and that is all libsolv needs to know of them.
    pub fn add_hidden<'p>(
        &mut self,
        priority: i32,
        cost: i32,
        packages: impl Iterator<Item = &'p RepoPackage>,
    ) {
        let repo = self.new_repo(priority, cost);
        for package in packages {
            let (id, own) = self.add_solvable(repo, package);
            // what is malformed is hidden well
            for provided in package.provides.iter().filter_map(|provided| self.intern(provided).ok()) {
                if provided.0 != own {
                    self.add_dependency(id, |s| &mut s.provides, provided.0);
                }
            }
        }
    }

    fn new_repo(&mut self, priority: i32, cost: i32) -> NonNull<ffi::Repo> {
        // SAFETY: the pool is live and owns the repo, which lives as long; repo_create never returns null and
        // the name may be.
        unsafe {
            let repo = ffi::repo_create(self.raw.as_ptr(), ptr::null());
            (*repo).priority = priority.saturating_neg();
            (*repo).subpriority = cost.saturating_neg();
            NonNull::new_unchecked(repo)
        }
    }

    /// A package that provides itself, and that it does.
    fn add_solvable(&mut self, repo: NonNull<ffi::Repo>, package: &RepoPackage) -> (ffi::Id, ffi::Id) {
        // SAFETY: the repo belongs to this live pool.
        let id = unsafe { ffi::repo_add_solvable(repo.as_ptr()) };
        assert_eq!(id, PackageId(self.packages).solvable(), "libsolv numbers solvables in sequence");
        self.packages += 1;

        let nevra = &package.nevra;
        let (name, evr) = (intern(self.raw, &nevra.name), intern(self.raw, &nevra.evr.to_string()));
        let arch = intern(self.raw, &nevra.arch);
        let vendor = package.vendor.as_deref().map_or(0, |vendor| intern(self.raw, vendor));
        // SAFETY: `id` indexes the pool's solvables, to which none is added while the pointer is in use.
        unsafe {
            let solvable = self.raw.as_ref().solvables.offset(id as isize);
            (*solvable).name = name;
            (*solvable).evr = evr;
            (*solvable).arch = arch;
            (*solvable).vendor = vendor;
        }
        let own = relation(self.raw, name, evr, ffi::REL_EQ);
        self.add_dependency(id, |s| &mut s.provides, own);
        (id, own)
    }

    /// `interned` has the dependencies that packages added before share with this one.
    fn add_package(
        &mut self,
        repo: NonNull<ffi::Repo>,
        package: &RepoPackage,
        interned: &mut FxHashMap<*const Dependency, DependencyId>,
    ) -> Result<(), BadDependency> {
        let (id, own) = self.add_solvable(repo, package);
        let lists: [(List, _); 8] = [
            (|s| &mut s.provides, &package.provides),
            (|s| &mut s.requires, &package.requires),
            (|s| &mut s.conflicts, &package.conflicts),
            (|s| &mut s.obsoletes, &package.obsoletes),
            (|s| &mut s.recommends, &package.recommends),
            (|s| &mut s.suggests, &package.suggests),
            (|s| &mut s.supplements, &package.supplements),
            (|s| &mut s.enhances, &package.enhances),
        ];
        for (list, dependencies) in lists {
            // what is needed before scriptlets run comes last, as in libsolv's reader of metadata
            let (first, last) =
                (dependencies.iter().filter(|d| !d.pre), dependencies.iter().filter(|d| d.pre));
            // what rpm itself can do is not solved for
            for dependency in first.chain(last).filter(|d| !d.name.starts_with("rpmlib(")) {
                let known = match interned.entry(Arc::as_ptr(dependency)) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        *new.insert(self.intern(dependency).map_err(|reason| BadDependency {
                            package: package.nevra.to_string(),
                            dependency: dependency.to_string(),
                            reason: reason.to_string(),
                        })?)
                    }
                };
                let is_twice = known.0 == own && std::ptr::eq(dependencies, &package.provides);
                if !is_twice {
                    self.add_dependency(id, list, known.0);
                }
            }
        }
        Ok(())
    }

    /// Appends to a list, without looking for what is in it already (`solvable_add_deparray` would, at a cost that grows
    /// with its square): what is there twice makes a rule twice, of which libsolv keeps one.
    fn add_dependency(&self, solvable: ffi::Id, list: List, dependency: ffi::Id) {
        // SAFETY: `solvable` indexes the pool's solvables, which do not move meanwhile, and belongs to a repo; its lists
        // are offsets into that repo's array, which this extends.
        unsafe {
            let solvable = &mut *self.raw.as_ref().solvables.offset(solvable as isize);
            let repo = solvable.repo;
            let list = list(solvable);
            *list = ffi::repo_addid(repo, *list, dependency);
        }
    }

    /// Makes the packages of `repo` the ones that are there already.
    pub fn set_installed(&mut self, repo: RepoHandle) {
        // SAFETY: repo handles are only made by this pool's `add_repo`.
        unsafe { ffi::pool_set_installed(self.raw.as_ptr(), repo.0.as_ptr()) };
    }

    /// Indexes who provides what. `files` are the paths in each package, and every package must have been added before.
    ///
    /// A package provides those of its paths that some dependency names (libsolv: `pool_addfileprovides`, which would
    /// have to be given all of them).
    pub fn seal<'p>(&mut self, files: impl Iterator<Item = &'p [String]>) {
        let mut provided: FxHashMap<&str, Option<ffi::Id>> = HashMap::default();
        for (index, files) in files.enumerate() {
            for path in files {
                let id = provided.entry(path).or_insert_with(|| self.known(path));
                if let Some(id) = *id {
                    self.add_dependency(PackageId(index).solvable(), |s| &mut s.provides, id);
                }
            }
        }
        self.consider();
        // SAFETY: the pool is live.
        unsafe { ffi::pool_createwhatprovides(self.raw.as_ptr()) };
    }

    /// Tells libsolv what can be chosen.
    fn consider(&mut self) {
        let solvables = PackageId(self.packages).solvable() as usize;
        self.considered = vec![u8::MAX; solvables.div_ceil(8)];
        for hidden in PackageId(self.visible).solvable() as usize..solvables {
            self.considered[hidden / 8] &= !(1 << (hidden % 8));
        }
        *self.considered_map =
            ffi::Map { map: self.considered.as_mut_ptr(), size: self.considered.len() as i32 };
        // SAFETY: the pool is live, and neither frees the map nor outlives it.
        unsafe { (*self.raw.as_ptr()).considered = &mut *self.considered_map };
    }

    /// A package that can be chosen.
    fn visible(&self, solvable: ffi::Id) -> Option<PackageId> {
        PackageId::of(solvable).filter(|id| id.0 < self.visible)
    }

    /// The id of a text that has been interned before.
    fn known(&self, text: &str) -> Option<ffi::Id> {
        let length = u32::try_from(text.len()).ok()?;
        // SAFETY: the pool is live; `length` bytes are read, and nothing is added.
        let id = unsafe { ffi::pool_strn2id(self.raw.as_ptr(), text.as_ptr().cast(), length, 0) };
        (id != 0).then_some(id)
    }

    /// Interns a dependency, plain or rich.
    pub fn intern(&self, dependency: &Dependency) -> Result<DependencyId, super::rich::ParseRichError> {
        let rich = match dependency.is_rich() {
            true => Rich::parse(&dependency.name)?,
            false => return Ok(DependencyId(self.intern_plain(dependency))),
        };
        Ok(DependencyId(self.intern_rich(&rich)))
    }

    fn intern_rich(&self, rich: &Rich) -> ffi::Id {
        let (operator, left, right) = match rich {
            Rich::Plain(dependency) => return self.intern_plain(dependency),
            Rich::Joined(operator, left, right) => (operator, left, right),
        };
        let flag = match operator {
            Operator::And => ffi::REL_AND,
            Operator::Or => ffi::REL_OR,
            Operator::If => ffi::REL_COND,
            Operator::Unless => ffi::REL_UNLESS,
            Operator::Else => ffi::REL_ELSE,
            Operator::With => ffi::REL_WITH,
            Operator::Without => ffi::REL_WITHOUT,
        };
        relation(self.raw, self.intern_rich(left), self.intern_rich(right), flag)
    }

    fn intern_plain(&self, dependency: &Dependency) -> ffi::Id {
        let name = intern(self.raw, &dependency.name);
        let Some((comparison, evr)) = &dependency.version else { return name };
        let flags = match comparison {
            Comparison::Lt => ffi::REL_LT,
            Comparison::Le => ffi::REL_LT | ffi::REL_EQ,
            Comparison::Eq => ffi::REL_EQ,
            Comparison::Ge => ffi::REL_GT | ffi::REL_EQ,
            Comparison::Gt => ffi::REL_GT,
        };
        relation(self.raw, name, intern(self.raw, &evr.to_string()), flags)
    }

    /// The packages that provide a dependency. The pool must be sealed.
    pub fn providers(&self, dependency: DependencyId) -> Vec<PackageId> {
        let mut found = Queue::new();
        let how = ffi::SOLVER_SOLVABLE_PROVIDES as ffi::Id;
        // SAFETY: the pool is live and sealed, and the id was interned in it; libsolv extends its own caches.
        unsafe { ffi::pool_job2solvables(self.raw.as_ptr(), &mut found.0, how, dependency.0) };
        found.iter().filter_map(|id| self.visible(id)).collect()
    }

    /// Whether a dependency matches the package's own name and EVR, as obsoletes do.
    pub fn matches_nevra(&self, package: PackageId, dependency: &Dependency) -> bool {
        let id = self.intern_plain(dependency);
        // SAFETY: package ids index this pool's solvables; `id` is a relation when it has a version.
        unsafe {
            let solvable = self.raw.as_ref().solvables.offset(package.solvable() as isize);
            match dependency.version {
                None => (*solvable).name == id,
                Some(_) => ffi::pool_match_nevr_rel(self.raw.as_ptr(), solvable, id) != 0,
            }
        }
    }

    /// A dependency as text.
    pub fn text(&self, dependency: DependencyId) -> String {
        // SAFETY: the result is a NUL-terminated string in the pool's scratch space, copied before the next call.
        let text = unsafe { CStr::from_ptr(ffi::pool_dep2str(self.raw.as_ptr(), dependency.0)) };
        text.to_string_lossy().into_owned()
    }

    /// The packages that are there when all jobs are done, sorted; or one list of rules per contradiction.
    ///
    /// The settings are libdnf's (`libdnf/goal/Goal.cpp`). With `best` an install job takes the best of its packages
    /// or fails, else the best that can be had.
    pub fn solve(
        &self,
        jobs: &[Job],
        best: bool,
        weak_dependencies: bool,
    ) -> Result<Vec<PackageId>, Vec<Vec<Rule>>> {
        let best = if best { ffi::SOLVER_FORCEBEST } else { 0 };
        let mut queue = Queue::new();
        for job in jobs {
            let how = match job.action {
                Action::Install => ffi::SOLVER_INSTALL | best,
                Action::InstallIfPossible => ffi::SOLVER_INSTALL | ffi::SOLVER_WEAK | best,
                Action::ExcludeFromWeak => ffi::SOLVER_EXCLUDEFROMWEAK,
                Action::Erase => ffi::SOLVER_ERASE,
                Action::Lock => ffi::SOLVER_LOCK,
                Action::Favor => ffi::SOLVER_FAVOR,
                Action::Multiversion => ffi::SOLVER_MULTIVERSION,
            };
            let (select, what) = match job.dependency {
                Some(dependency) => (ffi::SOLVER_SOLVABLE_PROVIDES, dependency.0),
                // who names packages means their versions and architectures (libdnf's filterPkgToJob)
                None => (
                    ffi::SOLVER_SOLVABLE_ONE_OF | ffi::SOLVER_SETARCH | ffi::SOLVER_SETEVR,
                    self.set(&job.packages),
                ),
            };
            queue.push((how | select) as ffi::Id);
            queue.push(what);
        }
        let solver = Solver::new(self);
        for (flag, value) in [
            (ffi::SOLVER_FLAG_ALLOW_VENDORCHANGE, true),
            (ffi::SOLVER_FLAG_ALLOW_DOWNGRADE, true),
            (ffi::SOLVER_FLAG_KEEP_ORPHANS, true),
            (ffi::SOLVER_FLAG_BEST_OBEY_POLICY, true),
            (ffi::SOLVER_FLAG_YUM_OBSOLETES, true),
            (ffi::SOLVER_FLAG_URPM_REORDER, true),
            (ffi::SOLVER_FLAG_IGNORE_RECOMMENDED, !weak_dependencies),
        ] {
            // SAFETY: the solver is live.
            unsafe { ffi::solver_set_flag(solver.raw.as_ptr(), flag as i32, value.into()) };
        }
        // SAFETY: solver and queue are live; libsolv copies the jobs.
        let problems = unsafe { ffi::solver_solve(solver.raw.as_ptr(), &mut queue.0) };
        match problems {
            0 => Ok(solver.chosen()),
            n => Err((1..=n).map(|problem| solver.rules(problem)).collect()),
        }
    }

    fn set(&self, packages: &[PackageId]) -> ffi::Id {
        let mut queue = Queue::new();
        packages.iter().for_each(|id| queue.push(id.solvable()));
        // SAFETY: pool and queue are live and the ids index the pool's solvables.
        unsafe { ffi::pool_queuetowhatprovides(self.raw.as_ptr(), &mut queue.0) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: made by pool_create, freed once; frees the repos too.
        unsafe { ffi::pool_free(self.raw.as_ptr()) };
    }
}

fn intern(pool: NonNull<ffi::Pool>, text: &str) -> ffi::Id {
    let length = u32::try_from(text.len()).expect("strings of metadata are shorter than 4 GiB");
    // SAFETY: the pool is live; `length` bytes are read, no terminator is needed.
    unsafe { ffi::pool_strn2id(pool.as_ptr(), text.as_ptr().cast(), length, 1) }
}

fn relation(pool: NonNull<ffi::Pool>, left: ffi::Id, right: ffi::Id, flags: u32) -> ffi::Id {
    // SAFETY: the pool is live and both ids were interned in it.
    unsafe { ffi::pool_rel2id(pool.as_ptr(), left, right, flags as i32, 1) }
}

struct Solver<'p> {
    raw: NonNull<ffi::Solver>,
    // the solver points into it
    pool: &'p Pool,
}

impl<'p> Solver<'p> {
    fn new(pool: &'p Pool) -> Self {
        // SAFETY: the pool is live and outlives the solver; solver_create never returns null.
        let raw = unsafe { NonNull::new_unchecked(ffi::solver_create(pool.raw.as_ptr())) };
        Self { raw, pool }
    }

    fn chosen(&self) -> Vec<PackageId> {
        let mut decisions = Queue::new();
        // SAFETY: solver and queue are live.
        unsafe { ffi::solver_get_decisionqueue(self.raw.as_ptr(), &mut decisions.0) };
        let mut chosen: Vec<_> = decisions.iter().filter_map(|id| self.pool.visible(id)).collect();
        chosen.sort_unstable();
        chosen
    }

    fn rules(&self, problem: ffi::Id) -> Vec<Rule> {
        let mut rules = Queue::new();
        // SAFETY: solver and queue are live; problems count from 1.
        unsafe { ffi::solver_findallproblemrules(self.raw.as_ptr(), problem, &mut rules.0) };
        rules.iter().filter_map(|rule| self.rule(rule)).collect()
    }

    fn rule(&self, rule: ffi::Id) -> Option<Rule> {
        let (mut from, mut to, mut dependency) = (0, 0, 0);
        // SAFETY: the solver is live and `rule` came from it.
        let kind =
            unsafe { ffi::solver_ruleinfo(self.raw.as_ptr(), rule, &mut from, &mut to, &mut dependency) };
        let dependency = DependencyId(dependency);
        let (a, b) = (self.pool.visible(from), self.pool.visible(to));
        Some(match kind {
            ffi::SolverRuleinfo_SOLVER_RULE_JOB
            | ffi::SolverRuleinfo_SOLVER_RULE_JOB_NOTHING_PROVIDES_DEP
            | ffi::SolverRuleinfo_SOLVER_RULE_JOB_UNSUPPORTED => self.job(rule)?,
            // the job's own rule, of which this one is the "best version" part
            ffi::SolverRuleinfo_SOLVER_RULE_BEST => self.job(to)?,
            ffi::SolverRuleinfo_SOLVER_RULE_PKG_NOTHING_PROVIDES_DEP => Rule::NothingProvides(a?, dependency),
            ffi::SolverRuleinfo_SOLVER_RULE_PKG_REQUIRES => {
                match self.pool.providers(dependency).is_empty() {
                    true => Rule::NothingProvides(a?, dependency),
                    false => Rule::Requires(a?, dependency),
                }
            }
            ffi::SolverRuleinfo_SOLVER_RULE_PKG_SAME_NAME => Rule::SameName(a?, b?),
            ffi::SolverRuleinfo_SOLVER_RULE_PKG_CONFLICTS => Rule::Conflicts(a?, b?, dependency),
            ffi::SolverRuleinfo_SOLVER_RULE_PKG_SELF_CONFLICT => Rule::Conflicts(a?, a?, dependency),
            ffi::SolverRuleinfo_SOLVER_RULE_PKG_OBSOLETES
            | ffi::SolverRuleinfo_SOLVER_RULE_PKG_IMPLICIT_OBSOLETES
            | ffi::SolverRuleinfo_SOLVER_RULE_PKG_INSTALLED_OBSOLETES => Rule::Obsoletes(a?, b?, dependency),
            ffi::SolverRuleinfo_SOLVER_RULE_PKG_NOT_INSTALLABLE => Rule::NotInstallable(a?),
            ffi::SolverRuleinfo_SOLVER_RULE_INFARCH => Rule::Inferior(a?),
            ffi::SolverRuleinfo_SOLVER_RULE_UPDATE | ffi::SolverRuleinfo_SOLVER_RULE_FEATURE => {
                Rule::Stays(a?)
            }
            // choice and learnt rules restate the ones above
            _ => return None,
        })
    }

    fn job(&self, rule: ffi::Id) -> Option<Rule> {
        // SAFETY: the solver is live; any number may be asked for, and 0 says that it is no job rule.
        let index = unsafe { ffi::solver_rule2jobidx(self.raw.as_ptr(), rule) };
        // jobs are pairs in libsolv's queue, and the index counts from 1
        usize::try_from(index - 1).ok().map(|index| Rule::Job(index / 2))
    }
}

impl Drop for Solver<'_> {
    fn drop(&mut self) {
        // SAFETY: made by solver_create, freed once, before its pool.
        unsafe { ffi::solver_free(self.raw.as_ptr()) };
    }
}

struct Queue(ffi::Queue);

impl Queue {
    fn new() -> Self {
        let mut queue = ffi::Queue { elements: ptr::null_mut(), alloc: ptr::null_mut(), count: 0, left: 0 };
        // SAFETY: initialises the struct it is given.
        unsafe { ffi::queue_init(&mut queue) };
        Self(queue)
    }

    fn push(&mut self, id: ffi::Id) {
        if self.0.left == 0 {
            // SAFETY: the queue was initialised; makes room for one element at least.
            unsafe { ffi::queue_alloc_one(&mut self.0) };
        }
        // SAFETY: there is room for an element after the last one (queue.h: queue_push).
        unsafe { *self.0.elements.offset(self.0.count as isize) = id };
        self.0.count += 1;
        self.0.left -= 1;
    }

    fn iter(&self) -> impl Iterator<Item = ffi::Id> + '_ {
        // SAFETY: `elements` points at `count` initialised ids, and is not read when there are none.
        (0..self.0.count).map(|i| unsafe { *self.0.elements.offset(i as isize) })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: initialised by queue_init, freed once.
        unsafe { ffi::queue_free(&mut self.0) };
    }
}
