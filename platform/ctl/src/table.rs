//! Tables for people: left-aligned columns, two spaces apart, no borders.

/// Lays `rows` out under `heads`; every row has as many cells as there are heads.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut text = line(heads.iter().map(|head| head.to_uppercase()), &widths);
    for row in rows {
        text.push_str(&line(row.iter().cloned(), &widths));
    }
    text
}

fn line(cells: impl Iterator<Item = String>, widths: &[usize]) -> String {
    let padded: Vec<String> = cells.zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    format!("{}\n", padded.join("  ").trim_end())
}

/// Names and values, one pair a line, the values aligned.
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["web-1".to_owned(), "3".to_owned()], vec!["a".to_owned(), "1000".to_owned()]];
        assert_eq!(table(&["name", "cid"], &rows), "NAME   CID\nweb-1  3\na      1000\n");
        assert_eq!(table(&["name"], &[]), "NAME\n");
    }
}
