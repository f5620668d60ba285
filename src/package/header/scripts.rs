//! Scriptlets and triggers of a header.

use anyhow::{Context, Result, bail};
use rpm::IndexTag as Tag;

use super::blob::Blob;
use super::{HeaderDependency, Phase, Scriptlet, Trigger, same_length};

/// See [`super::Header::scriptlet`].
pub fn scriptlet(header: &Blob, phase: Phase) -> Result<Option<Scriptlet>> {
    use Tag::*;
    let (body, program, flags) = match phase {
        Phase::Pretrans => (RPMTAG_PRETRANS, RPMTAG_PRETRANSPROG, RPMTAG_PRETRANSFLAGS),
        Phase::Pre => (RPMTAG_PREIN, RPMTAG_PREINPROG, RPMTAG_PREINFLAGS),
        Phase::Post => (RPMTAG_POSTIN, RPMTAG_POSTINPROG, RPMTAG_POSTINFLAGS),
        Phase::Preun => (RPMTAG_PREUN, RPMTAG_PREUNPROG, RPMTAG_PREUNFLAGS),
        Phase::Postun => (RPMTAG_POSTUN, RPMTAG_POSTUNPROG, RPMTAG_POSTUNFLAGS),
        Phase::Posttrans => (RPMTAG_POSTTRANS, RPMTAG_POSTTRANSPROG, RPMTAG_POSTTRANSFLAGS),
        Phase::Preuntrans => (RPMTAG_PREUNTRANS, RPMTAG_PREUNTRANSPROG, RPMTAG_PREUNTRANSFLAGS),
        Phase::Postuntrans => (RPMTAG_POSTUNTRANS, RPMTAG_POSTUNTRANSPROG, RPMTAG_POSTUNTRANSFLAGS),
        _ => return Ok(None),
    };
    let body = header.text(body)?.map(str::to_owned);
    let mut interpreter: Vec<String> = header.texts(program)?.into_iter().map(str::to_owned).collect();
    if interpreter.is_empty() {
        if body.is_none() {
            return Ok(None);
        }
        interpreter.push("/bin/sh".to_owned());
    }
    let flags = header.u32s(flags)?.first().copied().unwrap_or(0);
    Ok(Some(Scriptlet { interpreter, body, flags }))
}

/// The tags of one family of triggers, and what its phases are called.
struct Family {
    scripts: Tag,
    programs: Tag,
    script_flags: Tag,
    names: Tag,
    versions: Tag,
    flags: Tag,
    scripts_of: Tag,
    priorities: Option<Tag>,
    /// Phases by `RPMSENSE_TRIGGER*` bit.
    phases: &'static [(u32, Phase)],
}

const IN: u32 = 1 << 16;
const UN: u32 = 1 << 17;
const POSTUN: u32 = 1 << 18;
const PREIN: u32 = 1 << 25;

/// File triggers run at this priority if the spec names none (rpm: `build/parseScript.c`).
const DEFAULT_PRIORITY: u32 = 1_000_000;

const FAMILIES: [Family; 3] = [
    Family {
        scripts: Tag::RPMTAG_TRIGGERSCRIPTS,
        programs: Tag::RPMTAG_TRIGGERSCRIPTPROG,
        script_flags: Tag::RPMTAG_TRIGGERSCRIPTFLAGS,
        names: Tag::RPMTAG_TRIGGERNAME,
        versions: Tag::RPMTAG_TRIGGERVERSION,
        flags: Tag::RPMTAG_TRIGGERFLAGS,
        scripts_of: Tag::RPMTAG_TRIGGERINDEX,
        priorities: None,
        phases: &[
            (PREIN, Phase::TriggerPrein),
            (IN, Phase::TriggerIn),
            (UN, Phase::TriggerUn),
            (POSTUN, Phase::TriggerPostun),
        ],
    },
    Family {
        scripts: Tag::RPMTAG_FILETRIGGERSCRIPTS,
        programs: Tag::RPMTAG_FILETRIGGERSCRIPTPROG,
        script_flags: Tag::RPMTAG_FILETRIGGERSCRIPTFLAGS,
        names: Tag::RPMTAG_FILETRIGGERNAME,
        versions: Tag::RPMTAG_FILETRIGGERVERSION,
        flags: Tag::RPMTAG_FILETRIGGERFLAGS,
        scripts_of: Tag::RPMTAG_FILETRIGGERINDEX,
        priorities: Some(Tag::RPMTAG_FILETRIGGERPRIORITIES),
        phases: &[(IN, Phase::FileTriggerIn), (UN, Phase::FileTriggerUn), (POSTUN, Phase::FileTriggerPostun)],
    },
    Family {
        scripts: Tag::RPMTAG_TRANSFILETRIGGERSCRIPTS,
        programs: Tag::RPMTAG_TRANSFILETRIGGERSCRIPTPROG,
        script_flags: Tag::RPMTAG_TRANSFILETRIGGERSCRIPTFLAGS,
        names: Tag::RPMTAG_TRANSFILETRIGGERNAME,
        versions: Tag::RPMTAG_TRANSFILETRIGGERVERSION,
        flags: Tag::RPMTAG_TRANSFILETRIGGERFLAGS,
        scripts_of: Tag::RPMTAG_TRANSFILETRIGGERINDEX,
        priorities: Some(Tag::RPMTAG_TRANSFILETRIGGERPRIORITIES),
        phases: &[
            (IN, Phase::TransFileTriggerIn),
            (UN, Phase::TransFileTriggerUn),
            (POSTUN, Phase::TransFileTriggerPostun),
        ],
    },
];

/// See [`super::Header::triggers`].
pub fn triggers(header: &Blob) -> Result<Vec<Trigger>> {
    let families: Vec<Vec<Trigger>> = FAMILIES.iter().map(|f| f.triggers(header)).collect::<Result<_>>()?;
    Ok(families.concat())
}

impl Family {
    fn triggers(&self, header: &Blob) -> Result<Vec<Trigger>> {
        let bodies = header.texts(self.scripts)?;
        let programs = header.texts(self.programs)?;
        let script_flags = or_default(header.u32s(self.script_flags)?, 0, bodies.len());
        let priorities = match self.priorities {
            Some(tag) => or_default(header.u32s(tag)?, DEFAULT_PRIORITY, bodies.len()),
            None => vec![0; bodies.len()],
        };
        same_length(bodies.len(), [programs.len(), script_flags.len(), priorities.len()], "triggers")?;
        let scripts = bodies.into_iter().zip(programs).zip(script_flags).zip(priorities);
        let conditions = self.conditions(header, scripts.len())?;
        let mut triggers = Vec::with_capacity(scripts.len());
        for (number, ((((body, program), flags), priority), conditions)) in (0..).zip(scripts.zip(conditions))
        {
            let (phase, script) = (self.phase(&conditions)?, script(body, program, flags));
            triggers.push(Trigger { phase, conditions, number, priority, script });
        }
        Ok(triggers)
    }

    /// The conditions of each script, in the order of the header.
    fn conditions(&self, header: &Blob, scripts: usize) -> Result<Vec<Vec<HeaderDependency>>> {
        let names = header.texts(self.names)?;
        let versions = header.texts(self.versions)?;
        let flags = header.u32s(self.flags)?;
        let scripts_of = header.u32s(self.scripts_of)?;
        same_length(names.len(), [versions.len(), flags.len(), scripts_of.len()], "trigger conditions")?;
        let mut conditions = vec![Vec::new(); scripts];
        for (((name, version), flags), script) in names.into_iter().zip(versions).zip(flags).zip(scripts_of) {
            conditions
                .get_mut(script as usize)
                .with_context(|| format!("the trigger on {name} names script {script} of {scripts}"))?
                .push(HeaderDependency::new(name, version, flags)?);
        }
        Ok(conditions)
    }

    /// All conditions of a script share its phase.
    fn phase(&self, conditions: &[HeaderDependency]) -> Result<Phase> {
        let Some(first) = conditions.first() else { bail!("a trigger has no condition") };
        let phase = self.phases.iter().find(|(bit, _)| first.flags & bit != 0);
        let (_, phase) =
            phase.with_context(|| format!("a trigger has flags {:#x}, none of a phase", first.flags))?;
        Ok(*phase)
    }
}

/// A trigger's interpreter takes no arguments (rpm: `lib/rpmscript.c`).
fn script(body: &str, program: &str, flags: u32) -> Scriptlet {
    let body = Some(body).filter(|b| !b.is_empty()).map(str::to_owned);
    Scriptlet { interpreter: vec![program.to_owned()], body, flags }
}

/// An array that may be left out as a whole.
fn or_default(array: Vec<u32>, default: u32, length: usize) -> Vec<u32> {
    if array.is_empty() { vec![default; length] } else { array }
}
