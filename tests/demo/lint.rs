//! `strata lint` on the demo's images.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::world::{World, run, scratch, unpack};

#[test]
fn the_images_keep_all_rules() {
    let (world, images) = World::built();
    for image in images {
        let json = world.strata(&["--format", "json", "lint", "--fatal-warnings", &image.reference]);
        let report: Value = serde_json::from_str(&json).unwrap();
        assert!(
            report["findings"].as_array().unwrap().is_empty()
                && !report["passed"].as_array().unwrap().is_empty()
        );
    }
}

#[test]
fn findings_name_who_is_to_blame() {
    let (world, images) = World::built();
    let dir = scratch("lint");
    let root = unpack(&world.skopeo(&images[2]), &dir);
    fs::set_permissions(root.join("usr/bin/oc"), Permissions::from_mode(0o777)).unwrap();
    fs::write(root.join("usr/share/containers/oci/hooks.list"), "").unwrap();
    fs::set_permissions(root.join("usr/share/containers/oci/hooks.list"), Permissions::from_mode(0o666))
        .unwrap();
    fs::create_dir(root.join("var/lib/chrony/x")).unwrap();
    // the account that chrony's %pre makes
    run(Command::new("sh").args(["-c", "sed -i '/chrony/d' usr/lib/sysusers.d/*"]).current_dir(&root));
    let layout = format!("{}:image", dir.join("layout").display());
    run(Command::new("umoci").args(["repack", "--image", &layout]).arg(dir.join("bundle")));
    for subject in [format!("oci:{layout}"), root.to_str().unwrap().to_owned()] {
        let json = world.strata(&["--format", "json", "lint", &subject]);
        let report: Value = serde_json::from_str(&json).unwrap();
        let finding = |path: &str| {
            let found = report["findings"].as_array().unwrap().iter().find(|f| f["path"] == path);
            found.unwrap_or_else(|| panic!("{path}: {report:#}")).clone()
        };
        assert_eq!(finding("/usr/bin/oc")["package"], "openshift-clients");
        let origin = "demo/node.toml [[script]] container-hooks";
        assert_eq!(finding("/usr/share/containers/oci/hooks.list")["origin"], origin);
        assert_eq!(finding("/var/lib/chrony/x")["package"], "chrony");
        assert_eq!(finding("/etc/passwd")["package"], "chrony");
        assert_eq!(finding("/usr/bin/oc")["layer"].is_string(), subject.starts_with("oci:"));
    }
}
