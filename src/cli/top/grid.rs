//! Rows that can be sorted by any of their columns, and of whose columns the most important ones are shown where there is no
//! room for all.

use std::cmp::Ordering;

use unicode_width::UnicodeWidthStr;

/// Between two columns.
pub const GAP: usize = 2;
/// A name is not shortened below this to make room for columns beside it.
const NAME_WIDTH_MIN: usize = 16;

/// A column, the same for all grids of its kind.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    /// What sorts by it when it is typed.
    pub key: char,
    /// Columns of the highest number go first where there is no room; those of 0 stay.
    pub rank: u8,
    pub is_numeric: bool,
}

/// What a cell shows, and what it is sorted by.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub text: String,
    order: Order,
    /// Somebody should look at it.
    pub is_alarming: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Order {
    Text,
    /// `None`: what is not known comes last.
    Number(Option<f64>),
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sorting {
    pub column: usize,
    pub is_descending: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Grid {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
}

/// The columns that are shown, and how wide each is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    pub columns: Vec<(usize, usize)>,
}

impl Column {
    pub const fn text(title: &'static str, key: char, rank: u8) -> Self {
        Self { title, key, rank, is_numeric: false }
    }

    pub const fn number(title: &'static str, key: char, rank: u8) -> Self {
        Self { title, key, rank, is_numeric: true }
    }

    /// Names are read from A on, and the largest of numbers is what somebody looks for.
    pub fn sorting(column: usize, of: &Self) -> Sorting {
        Sorting { column, is_descending: of.is_numeric }
    }
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), order: Order::Text, is_alarming: false }
    }

    /// `-` where nothing is known.
    pub fn number(value: Option<f64>, text: impl FnOnce(f64) -> String) -> Self {
        let shown = value.map_or_else(|| "-".to_owned(), text);
        Self { text: shown, order: Order::Number(value), is_alarming: false }
    }

    #[must_use]
    pub fn alarming_if(self, is_alarming: bool) -> Self {
        Self { is_alarming, ..self }
    }

    fn cmp(&self, other: &Self, is_descending: bool) -> Ordering {
        let directed = |order: Ordering| if is_descending { order.reverse() } else { order };
        match (&self.order, &other.order) {
            (Order::Number(Some(one)), Order::Number(Some(other))) => directed(one.total_cmp(other)),
            (Order::Number(one), Order::Number(other)) => other.is_some().cmp(&one.is_some()),
            _ => directed(self.text.cmp(&other.text)),
        }
    }
}

impl Grid {
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "a row has a cell for every column");
        self.rows.push(cells);
    }

    /// The column that a key sorts by.
    pub fn column_of(&self, key: char) -> Option<usize> {
        self.columns.iter().position(|column| column.key == key)
    }

    /// Rows that are equal by the column stand in the order of their names, which are in the first one.
    pub fn sort(&mut self, sorting: Sorting) {
        self.rows.sort_by(|one, other| {
            let by_column = one[sorting.column].cmp(&other[sorting.column], sorting.is_descending);
            by_column.then_with(|| one[0].text.cmp(&other[0].text))
        });
    }

    /// Keeps the rows in whose first cell the text is.
    pub fn keep(&mut self, text: &str) {
        if !text.is_empty() {
            let text = text.to_lowercase();
            self.rows.retain(|row| row[0].text.to_lowercase().contains(&text));
        }
    }

    fn width_of(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].text.width());
        cells.chain([self.columns[column].title.width()]).max().unwrap_or(0)
    }

    /// The columns for which a line of so many cells has room. Names are shortened before a column goes, down to where they
    /// would not be told apart.
    pub fn fit(&self, width: usize) -> Fit {
        let mut shown: Vec<(usize, usize)> =
            (0..self.columns.len()).map(|column| (column, self.width_of(column))).collect();
        loop {
            let total: usize = shown.iter().map(|(_, width)| width + GAP).sum::<usize>().saturating_sub(GAP);
            let Some(excess) = total.checked_sub(width).filter(|excess| *excess > 0) else { break };
            let name = shown[0].1;
            let spare = name.saturating_sub(NAME_WIDTH_MIN.min(name));
            let last = shown.iter().rposition(|(column, _)| {
                let rank = self.columns[*column].rank;
                rank > 0 && shown.iter().all(|(other, _)| self.columns[*other].rank <= rank)
            });
            match last {
                _ if spare >= excess => shown[0].1 -= excess,
                Some(at) => drop(shown.remove(at)),
                None => {
                    shown[0].1 = name.saturating_sub(excess).max(1);
                    break;
                }
            }
        }
        Fit { columns: shown }
    }
}

impl Grid {
    /// As text, in lines of no more than so many cells; `None`: as wide as it is.
    pub fn render(&self, width: Option<usize>) -> String {
        let fit = self.fit(width.unwrap_or(usize::MAX));
        let titles = fit.columns.iter().map(|(at, _)| self.columns[*at].title);
        let mut text = self.line(&fit, titles);
        for row in &self.rows {
            text += &self.line(&fit, fit.columns.iter().map(|(at, _)| row[*at].text.as_str()));
        }
        text
    }

    fn line<'a>(&self, fit: &Fit, cells: impl Iterator<Item = &'a str>) -> String {
        let mut line = String::new();
        for ((at, width), cell) in fit.columns.iter().zip(cells) {
            let cell = shortened(cell, *width);
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            line += &if self.columns[*at].is_numeric { padding + &cell } else { cell + &padding };
            line += &" ".repeat(GAP);
        }
        line.trim_end().to_owned() + "\n"
    }
}

/// Shortened to so many cells, with a mark in the place of what is left out.
pub fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for character in text.chars() {
        kept.push(character);
        if kept.width() >= width {
            kept.pop();
            break;
        }
    }
    kept + "~"
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::text("TOPIC", 'n', 0),
        Column::number("IN/S", 'i', 0),
        Column::number("LAG", 'l', 1),
        Column::number("QUEUES", 'u', 2),
    ];

    fn grid() -> Grid {
        let mut grid = Grid::new(&COLUMNS);
        for (name, rate, lag) in [("b", Some(2.0), 1.0), ("a", Some(10.0), 1.0), ("c", None, 5.0)] {
            let number = |value: Option<f64>| Cell::number(value, |value| format!("{value:.0}"));
            grid.row(vec![Cell::text(name), number(rate), number(Some(lag)), number(Some(4.0))]);
        }
        grid
    }

    fn sorted(column: usize, is_descending: bool) -> Vec<String> {
        let mut grid = grid();
        grid.sort(Sorting { column, is_descending });
        grid.rows.into_iter().map(|row| row[0].text.clone()).collect()
    }

    #[test]
    fn numbers_are_sorted_as_numbers_and_what_is_not_known_comes_last() {
        assert_eq!(sorted(0, false), ["a", "b", "c"]);
        assert_eq!(sorted(0, true), ["c", "b", "a"]);
        assert_eq!(sorted(1, true), ["a", "b", "c"], "10 is more than 2");
        assert_eq!(sorted(1, false), ["b", "a", "c"]);
        assert_eq!(sorted(2, true), ["c", "a", "b"], "equal ones by their names");
    }

    #[test]
    fn columns_of_the_highest_rank_go_first() {
        let titles = |width: usize| {
            let grid = grid();
            let fit = grid.fit(width);
            let used: usize = fit.columns.iter().map(|(_, width)| width + GAP).sum::<usize>() - GAP;
            assert!(used <= width || fit.columns.len() == 2, "{fit:?} in {width}");
            fit.columns.iter().map(|(column, _)| grid.columns[*column].title).collect::<Vec<_>>()
        };
        assert_eq!(titles(80), ["TOPIC", "IN/S", "LAG", "QUEUES"]);
        assert_eq!(titles(20), ["TOPIC", "IN/S", "LAG"]);
        assert_eq!(titles(12), ["TOPIC", "IN/S"]);
        assert_eq!(titles(4), ["TOPIC", "IN/S"]);
    }

    #[test]
    fn a_long_name_is_shortened_before_a_column_goes() {
        let mut grid = grid();
        grid.rows[0][0] = Cell::text("a-name-that-is-far-too-long-for-this");
        assert_eq!(grid.fit(45).columns.iter().map(|(_, width)| *width).collect::<Vec<_>>(), [26, 4, 3, 6]);
        assert_eq!(shortened("orders", 6), "orders");
        assert_eq!(shortened("orders", 4), "ord~");
        assert_eq!(shortened("\u{6f22}\u{5b57}\u{6f22}", 4), "\u{6f22}~", "wide characters are two cells");
    }

    #[test]
    fn a_filter_keeps_the_rows_that_have_it_in_their_name() {
        let mut grid = grid();
        grid.keep("B");
        assert_eq!(grid.rows.len(), 1);
    }
}
