//! Packages that need each other at random, many in loops: installed and erased in rpm's order.

use std::path::PathBuf;

use crate::common::{Recorder, Rig, as_root, build, checked, elements, installed, nevra, rpm_install};

const PACKAGES: u32 = 24;

/// A linear congruential generator: the same packages on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

fn dependency(random: &mut Random) -> String {
    let mut name = || format!("p{:02}", random.below(PACKAGES));
    let (a, b, c) = (name(), name(), name());
    match random.below(14) {
        0..4 => format!("Requires: {a}"),
        4 => format!("Requires(pre): {a}"),
        5 => format!("Requires(post): {a}"),
        6 => format!("Requires(preun): {a}"),
        7 => format!("Requires: /usr/share/order/{a}"),
        8 => format!("Requires: some-{a} >= 2"),
        9 => format!("Recommends: {a}"),
        10 => format!("Supplements: {a}"),
        11 => format!("OrderWithRequires: {a}"),
        12 => format!("Requires(postun): ({a} or {b})"),
        _ => format!("Requires: (({a} and {b}) if {c})"),
    }
}

fn spec(random: &mut Random) -> String {
    let mut spec = "Name: top\nVersion: 1\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n\
                    %description\nx\n%install\nmkdir -p %{buildroot}/usr/share/order\n"
        .to_owned();
    for number in 0..PACKAGES {
        spec += &format!("echo > %{{buildroot}}/usr/share/order/p{number:02}\n");
    }
    for number in 0..PACKAGES {
        let provides = format!("Provides: some-p{:02} = {}", random.below(PACKAGES), 1 + random.below(3));
        let needs: Vec<String> = (0..random.below(4)).map(|_| dependency(random)).collect();
        spec += &format!(
            "%package -n p{number:02}\nSummary: x\nAutoReqProv: no\n{provides}\n{}\n%description -n p{number:02}\nx\n\
             %files -n p{number:02}\n/usr/share/order/p{number:02}\n",
            needs.join("\n")
        );
    }
    spec
}

#[test]
fn any_tangle_is_ordered_as_rpm_does() {
    as_root("order::any_tangle_is_ordered_as_rpm_does", || {
        for seed in 1..=4 {
            let rig = Rig::new();
            let rpm = build(rig.dir.path(), &spec(&mut Random(seed)));
            let rpms: Vec<PathBuf> = (0..PACKAGES).map(|n| rpm(&format!("p{n:02}"))).collect();
            let report = rig.install(&rpms, &Recorder::default()).unwrap();
            assert_eq!(
                installed(&report.installed),
                rpm_install(&rig, &rpms, &[]),
                "installs of seed {seed}"
            );

            let nevras: Vec<_> = rpms.iter().map(|p| nevra(p)).collect();
            let report = rig.apply(&[], &nevras, &Recorder::default()).unwrap();
            let log = checked(rig.rpm().args(["-evv", "--nodeps"]).args(nevras.iter().map(|n| &n.name)));
            assert_eq!(installed(&report.erased), elements(&log), "erasures of seed {seed}");
        }
    });
}
