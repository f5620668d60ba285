//! The order in which packages are installed or erased: rpm's (rpm: `lib/order.c`, 4.16 to 4.19).
//!
//! A package follows what it requires, as far as that is in the transaction; weak dependencies count too.
//! Loops are common (`glibc` and `bash`), so:
//!
//! 1. Every dependency satisfied by another package of the set is an edge; it is a *prereq* edge if a
//!    scriptlet needs it.
//! 2. Strongly connected components are found (Tarjan).
//! 3. Packages without unmet predecessors wait in a queue, those with most successors first. Taking one
//!    from the queue frees its successors.
//! 4. A component is taken as a whole when everything it needs outside itself is done. Inside, packages
//!    farthest from any prereq edge go first, so that the edges broken are those that hurt least.
//!
//! Ties depend on the order of the input, so callers sort it.

use std::collections::{HashMap, HashSet, VecDeque};

use anyhow::{Context, Result};
use rpm::IndexTag as Tag;

use super::Package;
use super::satisfy::{ordering_terms, satisfies};
use crate::package::Dependency;
use crate::package::header::HeaderDependency;

/// What is done with the packages that are ordered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Install,
    /// Requirers go before what they require.
    Erase,
}

/// Orders `packages`; gives indices into them.
pub(super) fn order(packages: &[&Package], direction: Direction) -> Result<Vec<usize>> {
    let mut graph = Graph::new(packages, direction)?;
    let components = graph.components();
    Ok(Walk { graph, components, order: Vec::with_capacity(packages.len()) }.run())
}

/// `RPMSENSE_*` bits (rpm: `include/rpm/rpmds.h`).
mod sense {
    pub const POSTTRANS: u32 = 1 << 5;
    pub const PREREQ: u32 = 1 << 6;
    pub const PRETRANS: u32 = 1 << 7;
    pub const INTERP: u32 = 1 << 8;
    pub const PRE: u32 = 1 << 9;
    pub const POST: u32 = 1 << 10;
    pub const PREUN: u32 = 1 << 11;
    pub const POSTUN: u32 = 1 << 12;
    pub const VERIFY: u32 = 1 << 13;
    pub const FIND_REQUIRES: u32 = 1 << 14;
    pub const MISSINGOK: u32 = 1 << 19;
    pub const RPMLIB: u32 = 1 << 24;
    pub const KEYRING: u32 = 1 << 26;
    pub const CONFIG: u32 = 1 << 28;
    pub const META: u32 = 1 << 29;

    const INSTALL: u32 = PRE | POST | RPMLIB | KEYRING | PRETRANS | POSTTRANS;
    const ERASE: u32 = PREUN | POSTUN;
    const UNORDERED: u32 = RPMLIB | CONFIG | PRETRANS | POSTTRANS | VERIFY | META;
    const ALL: u32 = INSTALL | ERASE | INTERP | VERIFY | FIND_REQUIRES | PREREQ | META | MISSINGOK;

    /// Whether packages are ordered by such a dependency at all.
    pub fn orders(flags: u32) -> bool {
        flags & UNORDERED == 0 || flags & (PRE | POST | PREUN | POSTUN) != 0
    }

    /// Whether a scriptlet of the operation needs it.
    pub fn is_prereq(flags: u32, erase: bool) -> bool {
        // the old PreReq without any other bit
        flags & ALL == PREREQ || flags & if erase { ERASE } else { INSTALL } != 0
    }
}

/// The colour of 64-bit ELF files, which rpm prefers on the architectures that have two.
const PREFERRED_COLOR: u32 = 2;

struct Edge {
    to: usize,
    prereq: bool,
}

#[derive(Default)]
struct Node {
    color: u32,
    /// Predecessors not yet taken.
    unmet: usize,
    /// How many successors it had at first, the queue's measure.
    weight: usize,
    /// Packages that follow this one, in the order they were found. rpm walks them backwards.
    successors: Vec<Edge>,
    /// Packages this one follows, likewise.
    predecessors: Vec<Edge>,
    component: Component,
    /// Steps to the nearest prereq edge inside the component.
    distance: usize,
}

impl Node {
    /// Successors and predecessors, or the other way round.
    fn edges(&mut self, reversed: bool) -> (&mut Vec<Edge>, &mut Vec<Edge>) {
        match reversed {
            false => (&mut self.successors, &mut self.predecessors),
            true => (&mut self.predecessors, &mut self.successors),
        }
    }
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Component {
    /// In no loop.
    #[default]
    Alone,
    /// In the strongly connected component of this number.
    Loop(usize),
    /// Already in the order.
    Taken,
}

struct Graph {
    nodes: Vec<Node>,
    erase: bool,
}

impl Graph {
    fn new(packages: &[&Package], direction: Direction) -> Result<Self> {
        let nodes = packages.iter().map(|p| Ok(Node { color: color(p)?, ..Node::default() }));
        let nodes = nodes.collect::<Result<_>>()?;
        let mut graph = Self { nodes, erase: direction == Direction::Erase };
        let needs = packages.iter().map(|p| needs(p)).collect::<Result<Vec<_>>>()?;
        let providers = Providers::new(packages, &needs)?;
        for (package, needs) in needs.iter().enumerate() {
            for need in needs {
                for term in &need.terms {
                    if let Some(provider) = providers.best(&graph.nodes, package, term) {
                        graph.relate(package, provider, need);
                    }
                }
            }
        }
        Ok(graph)
    }

    /// Records that `package` needs `provider`.
    fn relate(&mut self, package: usize, provider: usize, need: &Need) {
        if package == provider {
            return;
        }
        let prereq = !need.weak && sense::is_prereq(need.flags, self.erase);
        let reversed = need.reversed != self.erase;
        let (after, before) = if reversed { (provider, package) } else { (package, provider) };
        // all edges of one package come in a row, so a repeated one is the latest
        let latest = self.nodes[before].edges(reversed).0.last_mut();
        if let Some(edge) = latest.filter(|e| e.to == after) {
            edge.prereq |= prereq;
            let back = self.nodes[after].edges(reversed).1.iter_mut().rev().find(|e| e.to == before);
            back.into_iter().for_each(|edge| edge.prereq |= prereq);
            return;
        }
        self.nodes[after].unmet += 1;
        self.nodes[before].weight += 1;
        self.nodes[before].successors.push(Edge { to: after, prereq });
        self.nodes[after].predecessors.push(Edge { to: before, prereq });
    }

    /// Finds loops (Tarjan's algorithm), numbers them in the nodes and gives them in that order.
    fn components(&mut self) -> Vec<Loop> {
        let mut tarjan = Tarjan {
            found: vec![None; self.nodes.len()],
            low: vec![0; self.nodes.len()],
            ..Default::default()
        };
        for node in 0..self.nodes.len() {
            if tarjan.found[node].is_none() {
                tarjan.visit(self, node);
            }
        }
        tarjan.loops
    }

    fn is_in(&self, node: usize, number: usize) -> bool {
        self.nodes[node].component == Component::Loop(number)
    }
}

/// A strongly connected component of more than one package.
struct Loop {
    members: Vec<usize>,
    /// Edges from packages outside that are not yet taken.
    unmet: usize,
}

#[derive(Default)]
struct Tarjan {
    /// When a node was first visited.
    found: Vec<Option<usize>>,
    low: Vec<usize>,
    visited: usize,
    stack: Vec<usize>,
    on_stack: HashSet<usize>,
    loops: Vec<Loop>,
}

impl Tarjan {
    fn visit(&mut self, graph: &mut Graph, node: usize) {
        self.found[node] = Some(self.visited);
        self.low[node] = self.visited;
        self.visited += 1;
        self.stack.push(node);
        self.on_stack.insert(node);
        for at in (0..graph.nodes[node].successors.len()).rev() {
            let next = graph.nodes[node].successors[at].to;
            match self.found[next] {
                None => {
                    self.visit(graph, next);
                    self.low[node] = self.low[node].min(self.low[next]);
                }
                Some(found) if self.on_stack.contains(&next) => self.low[node] = self.low[node].min(found),
                Some(_) => {}
            }
        }
        if self.found[node] == Some(self.low[node]) {
            let start = self.stack.iter().rposition(|&n| n == node).expect("the node was pushed above");
            let members = self.stack.split_off(start);
            members.iter().for_each(|n| _ = self.on_stack.remove(n));
            if members.len() > 1 {
                self.close(graph, members);
            }
        }
    }

    fn close(&mut self, graph: &mut Graph, members: Vec<usize>) {
        let number = self.loops.len();
        members.iter().for_each(|&m| graph.nodes[m].component = Component::Loop(number));
        let outside =
            |m: &usize| graph.nodes[*m].predecessors.iter().filter(|e| !graph.is_in(e.to, number)).count();
        let unmet = members.iter().map(outside).sum();
        self.loops.push(Loop { members, unmet });
    }
}

/// Taking packages one by one.
struct Walk {
    graph: Graph,
    components: Vec<Loop>,
    order: Vec<usize>,
}

impl Walk {
    fn run(mut self) -> Vec<usize> {
        let mut queue = VecDeque::new();
        for node in 0..self.graph.nodes.len() {
            if self.graph.nodes[node].unmet == 0 {
                self.enqueue(&mut queue, node);
            }
        }
        for number in 0..self.components.len() {
            if self.components[number].unmet == 0 {
                self.enqueue(&mut queue, self.components[number].members[0]);
            }
        }
        while let Some(node) = queue.pop_front() {
            match self.graph.nodes[node].component {
                Component::Loop(number) => self.take_loop(number, &mut queue),
                _ => self.take(node, &mut queue, None),
            }
        }
        self.order
    }

    /// Puts a package before the first that has no more successors than it. Of two colours, the one not
    /// preferred goes to the tail when installing, and the preferred one when erasing.
    fn enqueue(&self, queue: &mut VecDeque<usize>, node: usize) {
        let new = &self.graph.nodes[node];
        let to_tail = new.color != 0 && (new.color == PREFERRED_COLOR) == self.graph.erase;
        let place = queue.iter().position(|&other| {
            let other = &self.graph.nodes[other];
            !(to_tail && other.color != new.color) && other.weight <= new.weight
        });
        queue.insert(place.unwrap_or(queue.len()), node);
    }

    /// Takes `node` and enqueues what it frees; what is outside the node's loop goes to `outer`.
    fn take(&mut self, node: usize, queue: &mut VecDeque<usize>, mut outer: Option<&mut VecDeque<usize>>) {
        self.order.push(node);
        let component = self.graph.nodes[node].component;
        for at in (0..self.graph.nodes[node].successors.len()).rev() {
            let next = self.graph.nodes[node].successors[at].to;
            let next_component = self.graph.nodes[next].component;
            if next_component == Component::Taken {
                continue;
            }
            let leaves = next_component != component;
            self.graph.nodes[next].unmet -= 1;
            let mut ready = self.graph.nodes[next].unmet == 0;
            if let Component::Loop(number) = next_component
                && leaves
            {
                self.components[number].unmet -= 1;
                // the package that is named stands for its whole loop
                ready |= self.components[number].unmet == 0;
            }
            if ready {
                match &mut outer {
                    Some(outer) if leaves => self.enqueue(outer, next),
                    _ => self.enqueue(queue, next),
                }
            }
        }
        self.graph.nodes[node].component = Component::Taken;
    }

    fn take_loop(&mut self, number: usize, outer: &mut VecDeque<usize>) {
        let members = std::mem::take(&mut self.components[number].members);
        self.measure(number, &members);
        let rest = |walk: &Self| {
            let left = members.iter().copied().filter(|&m| walk.graph.is_in(m, number));
            left.max_by_key(|&m| walk.graph.nodes[m].distance)
        };
        while let Some(farthest) = rest(self) {
            let mut queue = VecDeque::from([farthest]);
            while let Some(node) = queue.pop_front() {
                self.take(node, &mut queue, Some(outer));
            }
        }
    }

    /// Sets each member's distance from the members that have a prereq edge inside the loop.
    fn measure(&mut self, number: usize, members: &[usize]) {
        let graph = &mut self.graph;
        let mut queue = VecDeque::new();
        for &member in members {
            let prereq =
                graph.nodes[member].predecessors.iter().any(|e| e.prereq && graph.is_in(e.to, number));
            graph.nodes[member].distance = if prereq { 0 } else { usize::MAX };
            queue.extend(prereq.then_some(member));
        }
        while let Some(node) = queue.pop_front() {
            let step = graph.nodes[node].distance + 1;
            for at in (0..graph.nodes[node].predecessors.len()).rev() {
                let next = graph.nodes[node].predecessors[at].to;
                if graph.is_in(next, number) && graph.nodes[next].distance > step {
                    graph.nodes[next].distance = step;
                    queue.push_back(next);
                }
            }
        }
    }
}

/// A dependency that orders packages.
struct Need {
    terms: Vec<Dependency>,
    flags: u32,
    weak: bool,
    /// Supplements and Enhances: the package that has it follows nothing, but is followed.
    reversed: bool,
}

/// What a package is ordered by, in rpm's order.
fn needs(package: &Package) -> Result<Vec<Need>> {
    let context = || format!("ordering {}", package.nevra());
    let requires = package.header.requires().with_context(context)?;
    let [recommends, suggests, supplements, enhances, order] = package.header.weak().with_context(context)?;
    let mut needs = Vec::new();
    for (list, weak, reversed) in [
        (requires, false, false),
        (recommends, true, false),
        (suggests, true, false),
        (supplements, true, true),
        (enhances, true, true),
        (order, true, false),
    ] {
        for HeaderDependency { dependency, flags } in list {
            if sense::orders(flags) {
                let weak = weak || flags & sense::MISSINGOK != 0;
                let terms = ordering_terms(&dependency).with_context(context)?;
                needs.push(Need { terms, flags, weak, reversed });
            }
        }
    }
    Ok(needs)
}

/// The ELF colours of a package's files that have generated dependencies, joined (rpm: `rpmteColorDS`).
fn color(package: &Package) -> Result<u32> {
    let generated = package.header.u32s(Tag::RPMTAG_FILEDEPENDSN)?;
    Ok(package.files.iter().zip(generated).filter(|(_, n)| *n > 0).fold(0, |all, (f, _)| all | f.color))
}

/// Who offers what.
struct Providers {
    provides: HashMap<String, Vec<(usize, Dependency)>>,
    /// Paths that some package of the set asks for.
    files: HashMap<String, Vec<usize>>,
}

impl Providers {
    fn new(packages: &[&Package], needs: &[Vec<Need>]) -> Result<Self> {
        let terms = needs.iter().flatten().flat_map(|need| &need.terms);
        let wanted: HashSet<&str> = terms.map(|t| t.name.as_str()).collect();
        let mut providers = Self { provides: HashMap::new(), files: HashMap::new() };
        for (index, package) in packages.iter().enumerate() {
            for HeaderDependency { dependency, .. } in package.header.provides()? {
                if wanted.contains(dependency.name.as_str()) {
                    providers.provides.entry(dependency.name.clone()).or_default().push((index, dependency));
                }
            }
            for file in package.files.iter().filter(|f| wanted.contains(f.path.as_str())) {
                providers.files.entry(file.path.clone()).or_default().push(index);
            }
        }
        Ok(providers)
    }

    /// The provider rpm takes: one of the preferred colour rather than another, then the package itself,
    /// then the first.
    fn best(&self, nodes: &[Node], package: usize, term: &Dependency) -> Option<usize> {
        let by_name = || {
            let provided = self.provides.get(&term.name).into_iter().flatten();
            provided.filter(|(_, p)| satisfies(p, term)).map(|(index, _)| *index).collect()
        };
        let candidates = self.files.get(&term.name).cloned().unwrap_or_else(by_name);
        let score = |&p: &usize| (nodes[p].color == PREFERRED_COLOR, p == package);
        // of equals max_by_key takes the last
        candidates.into_iter().rev().max_by_key(score)
    }
}
