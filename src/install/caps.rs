//! File capabilities: from a header's text to the kernel's `security.capability`.

use anyhow::{Context, Result, bail, ensure};

/// Extended attribute the kernel keeps file capabilities in.
pub(crate) const XATTR: &str = "security.capability";

/// Capabilities in the order of their numbers (linux/capability.h).
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

#[derive(Default)]
struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

/// The value of [`XATTR`] for `cap_net_admin,cap_net_raw=ep` (cap_from_text(3)): version 2, as cap_set_file
/// writes it; inside a user namespace the kernel makes it version 3. None without a text: one that leaves no
/// capability (`=`) is an attribute all the same, by which a file has none even if it is root's.
pub(crate) fn xattr(text: &str) -> Result<Option<Vec<u8>>> {
    if text.is_empty() {
        return Ok(None);
    }
    let context = || format!("parsing the file capabilities `{text}`");
    let mut sets = Sets::default();
    for clause in text.split_whitespace() {
        apply(&mut sets, clause).with_context(context)?;
    }
    // the kernel knows one bit for the whole effective set
    let all = sets.permitted | sets.inheritable;
    ensure!(sets.effective == 0 || sets.effective == all, "{}: only some are effective", context());
    let magic = 0x0200_0000 | u32::from(sets.effective != 0);
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let words =
        [magic, low(sets.permitted), low(sets.inheritable), high(sets.permitted), high(sets.inheritable)];
    Ok(Some(words.iter().flat_map(|w| w.to_le_bytes()).collect()))
}

/// `NAME[,NAME...]` followed by one or more of `=`, `+`, `-` with flags `e`, `p`, `i`.
fn apply(sets: &mut Sets, clause: &str) -> Result<()> {
    let start = clause.find(['=', '+', '-']).with_context(|| format!("`{clause}` has none of = + -"))?;
    let (names, mut actions) = clause.split_at(start);
    let mask = mask(names)?;
    while !actions.is_empty() {
        let (operator, rest) = actions.split_at(1);
        let end = rest.find(['=', '+', '-']).unwrap_or(rest.len());
        let flags = &rest[..end];
        ensure!(
            flags.chars().all(|c| "epi".contains(c)),
            "`{flags}` are not flags, expected some of e, p, i"
        );
        for (flag, set) in
            [('e', &mut sets.effective), ('p', &mut sets.permitted), ('i', &mut sets.inheritable)]
        {
            match (operator, flags.contains(flag)) {
                ("+" | "=", true) => *set |= mask,
                ("-", true) | ("=", false) => *set &= !mask,
                _ => {}
            }
        }
        actions = &rest[end..];
    }
    Ok(())
}

fn mask(names: &str) -> Result<u64> {
    let all = (1 << NAMES.len()) - 1;
    if names.is_empty() || names.eq_ignore_ascii_case("all") {
        return Ok(all);
    }
    names.split(',').try_fold(0, |mask, name| {
        let short = name.to_ascii_lowercase();
        let short = short.strip_prefix("cap_").unwrap_or(&short);
        match NAMES.iter().position(|known| *known == short) {
            Some(number) => Ok(mask | 1 << number),
            None => bail!("unknown capability `{name}`"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are what `setcap` wrote and `getfattr -e hex` showed.
    #[test]
    fn as_setcap_writes_them() {
        for (text, expected) in [
            ("cap_net_raw=ep", "0100000200200000000000000000000000000000"),
            ("cap_net_admin,cap_net_raw+p", "0000000200300000000000000000000000000000"),
            ("= cap_setuid+ep", "0100000280000000000000000000000000000000"),
            ("cap_bpf=eip", "0100000200000000000000008000000080000000"),
            ("cap_net_raw=p cap_setuid+i", "0000000200200000800000000000000000000000"),
            ("=", "0000000200000000000000000000000000000000"),
            ("cap_net_raw=", "0000000200000000000000000000000000000000"),
        ] {
            let found = xattr(text).unwrap().map(hex::encode);
            assert_eq!(found.as_deref(), Some(expected), "{text}");
        }
        assert_eq!(xattr("").unwrap(), None);
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for text in ["cap_net_raw", "cap_fly=ep", "cap_net_raw=x", "cap_net_raw=ep cap_setuid=p"] {
            assert!(xattr(text).is_err(), "{text}");
        }
    }
}
