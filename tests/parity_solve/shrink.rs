//! The smallest world in which strata and dnf still disagree.

use crate::both;
use crate::case::{Question, Sketch};
use crate::world::World;

/// Takes away what the difference does not need: packages, what they say, groups, entries.
pub fn smallest(mut sketch: Sketch, mut question: Question) -> (Sketch, Question) {
    loop {
        let before = (sketch.to_string(), question.to_string());
        sketch = without_lines(sketch, &question);
        sketch = without_parts(sketch, &question);
        question = without_entries(&sketch, question);
        if before == (sketch.to_string(), question.to_string()) {
            return (sketch, question);
        }
    }
}

fn differs(sketch: &Sketch, question: &Question) -> bool {
    let (strata, dnf) = both(&World::build(sketch), &[question]).remove(0);
    strata != dnf
}

/// Every line of a sketch that can be taken away.
fn lists(sketch: &mut Sketch) -> Vec<&mut Vec<String>> {
    let repos =
        sketch.repos.iter_mut().flat_map(|repo| [&mut repo.packages, &mut repo.comps, &mut repo.modules]);
    repos.chain([&mut sketch.below]).collect()
}

fn without_lines(mut sketch: Sketch, question: &Question) -> Sketch {
    for list in 0..lists(&mut sketch).len() {
        let mut step = lists(&mut sketch)[list].len();
        while step > 0 {
            let mut start = 0;
            while start < lists(&mut sketch)[list].len() {
                let mut smaller = sketch.clone();
                let lines = &mut lists(&mut smaller)[list];
                let end = (start + step).min(lines.len());
                lines.drain(start..end);
                match differs(&smaller, question) {
                    true => sketch = smaller,
                    false => start += step,
                }
            }
            step /= 2;
        }
    }
    sketch
}

/// Takes away parts of lines, `; needs a`.
fn without_parts(mut sketch: Sketch, question: &Question) -> Sketch {
    for list in 0..lists(&mut sketch).len() {
        for line in 0..lists(&mut sketch)[list].len() {
            let mut part = 1;
            loop {
                let mut smaller = sketch.clone();
                let text = &mut lists(&mut smaller)[list][line];
                let mut parts: Vec<&str> = text.split("; ").collect();
                if part >= parts.len() {
                    break;
                }
                parts.remove(part);
                *text = parts.join("; ");
                match differs(&smaller, question) {
                    true => sketch = smaller,
                    false => part += 1,
                }
            }
        }
    }
    sketch
}

fn without_entries(sketch: &Sketch, mut question: Question) -> Question {
    let fields: [fn(&mut Question) -> &mut Vec<String>; 3] =
        [|q| &mut q.install, |q| &mut q.exclude, |q| &mut q.no_weak];
    for field in fields {
        let mut index = 0;
        while index < field(&mut question).len() {
            let mut smaller = question.clone();
            field(&mut smaller).remove(index);
            match differs(sketch, &smaller) {
                true => question = smaller,
                false => index += 1,
            }
        }
    }
    question
}
