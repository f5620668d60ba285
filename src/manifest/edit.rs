//! Taking entries out of manifests that people wrote; the rest of the file stays as it is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use toml_edit::{Document, DocumentMut, Item, Table};

use crate::plan::Origin;
use crate::replace::replace;

/// Removes the `[[override]]` at `origin`, in `[[when]]` blocks, too, with the comments right above it.
pub fn remove_override(origin: &Origin) -> Result<()> {
    let context = || format!("removing the override at {origin}");
    let text = fs::read_to_string(&origin.file).with_context(context)?;
    let text = without_override(&text, origin.line).with_context(context)?;
    replace(Path::new(&origin.file), text.as_bytes()).with_context(context)
}

fn without_override(text: &str, line: usize) -> Result<String> {
    let parsed = Document::parse(text)?;
    let line_of = |table: &Table| {
        let start = table.span()?.start;
        Some(text[..start].matches('\n').count() + 1)
    };
    let Some(path) = find(parsed.as_table(), &|table| line_of(table) == Some(line)) else {
        bail!("there is no [[override]] on line {line} any more");
    };
    let mut document: DocumentMut = parsed.into_mut();
    remove(document.as_table_mut(), &path);
    Ok(document.to_string())
}

/// The numbers of the `[[when]]` blocks, outermost first, and of the override among its neighbours.
fn find(table: &Table, is_it: &dyn Fn(&Table) -> bool) -> Option<Vec<usize>> {
    if let Some(index) = blocks(table, "override").iter().position(|table| is_it(table)) {
        return Some(vec![index]);
    }
    let inner = |(index, table): (usize, &&Table)| Some([vec![index], find(table, is_it)?].concat());
    blocks(table, "when").iter().enumerate().find_map(inner)
}

fn blocks<'t>(table: &'t Table, key: &str) -> Vec<&'t Table> {
    let blocks = table.get(key).and_then(Item::as_array_of_tables);
    blocks.into_iter().flat_map(|blocks| blocks.iter()).collect()
}

fn remove(table: &mut Table, path: &[usize]) {
    let (key, index, rest) = match path {
        [index] => ("override", *index, None),
        [index, rest @ ..] => ("when", *index, Some(rest)),
        [] => return,
    };
    let Some(blocks) = table.get_mut(key).and_then(Item::as_array_of_tables_mut) else { return };
    match (rest, blocks.get_mut(index)) {
        (Some(rest), Some(block)) => return remove(block, rest),
        (None, Some(_)) => blocks.remove(index),
        (_, None) => return,
    };
    if blocks.is_empty() {
        table.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
from = \"bootc\" # the base

[packages]
install = [ \"a\",   \"b\" ]

# why conmon
[[override]]
package = \"conmon\"
kind = \"fast-track\"

[[override]]
package = \"runc\"

[[when]]
if = \"true\"

[[when.override]]
package = \"crun\"

[image]
name = \"x\"
";

    #[test]
    fn one_block_goes_and_the_rest_stays() {
        let conmon = "# why conmon\n[[override]]\npackage = \"conmon\"\nkind = \"fast-track\"\n\n";
        assert_eq!(without_override(TEXT, 7).unwrap(), TEXT.replace(conmon, ""));
        let runc = "[[override]]\npackage = \"runc\"\n\n";
        assert_eq!(without_override(TEXT, 11).unwrap(), TEXT.replace(runc, ""));
        let crun = "\n[[when.override]]\npackage = \"crun\"\n";
        assert_eq!(without_override(TEXT, 17).unwrap(), TEXT.replace(crun, ""));
    }

    #[test]
    fn another_line_is_no_override() {
        for line in [1, 8, 14, 99] {
            assert!(without_override(TEXT, line).is_err(), "{line}");
        }
    }
}
