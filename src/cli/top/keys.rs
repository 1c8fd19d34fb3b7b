//! What keys do: which view is shown, what its rows are sorted by, and what is looked at closer.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::grid::{Column, Grid, Sorting};
use super::grids;
use super::picture::Picture;
use crate::types::GroupName;

/// A filter is a part of a name, which has no more.
const FILTER_CHARACTERS_MAX: usize = 255;
const PAGE_ROWS: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Topics,
    Groups,
    Shards,
    Members,
}

/// What a key asks of whoever shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    Quit,
    /// The members of this group are wanted from now on.
    Watch(GroupName),
}

/// What is shown of a picture.
#[derive(Debug)]
pub struct Looks {
    pub view: View,
    sorting: [Sorting; View::ALL.len()],
    selected: [usize; View::ALL.len()],
    /// Only groups of this topic are shown.
    pub topic: Option<String>,
    /// Whose members are shown.
    pub group: Option<GroupName>,
    pub filter: String,
    /// Keys are the filter's now.
    pub types_filter: bool,
    pub is_paused: bool,
    pub shows_help: bool,
}

impl View {
    pub const ALL: [View; 4] = [View::Topics, View::Groups, View::Shards, View::Members];

    pub fn name(self) -> &'static str {
        match self {
            View::Topics => "Topics",
            View::Groups => "Groups",
            View::Shards => "Shards",
            View::Members => "Members",
        }
    }

    pub fn columns(self) -> &'static [Column] {
        match self {
            View::Topics => &grids::TOPICS,
            View::Groups => &grids::GROUPS,
            View::Shards => &grids::SHARDS,
            View::Members => &grids::MEMBERS,
        }
    }

    /// What somebody looks for first: what has the most to do, is the furthest behind, or comes first.
    pub fn first_sorting(self) -> Sorting {
        let column = match self {
            View::Topics => 1,
            View::Groups => 2,
            View::Shards | View::Members => 0,
        };
        Sorting { column, is_descending: matches!(self, View::Topics | View::Groups) }
    }

    fn next(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            view: View::Topics,
            sorting: View::ALL.map(View::first_sorting),
            selected: [0; View::ALL.len()],
            topic: None,
            group: None,
            filter: String::new(),
            types_filter: false,
            is_paused: false,
            shows_help: false,
        }
    }
}

impl Looks {
    pub fn sorting(&self) -> Sorting {
        self.sorting[self.view as usize]
    }

    /// The row that is marked.
    pub fn selected(&self) -> usize {
        self.selected[self.view as usize]
    }

    /// The rows of the view, in their order.
    pub fn grid(&self, picture: &Picture) -> Grid {
        let mut grid = match self.view {
            View::Topics => grids::topics(picture),
            View::Groups => grids::groups(picture, self.topic.as_deref()),
            View::Shards => grids::shards(picture),
            View::Members => {
                let of_group = picture.group.as_ref().filter(|of| Some(&of.group) == self.group.as_ref());
                of_group.map_or_else(|| Grid::new(&grids::MEMBERS), grids::members)
            }
        };
        grid.keep(&self.filter);
        grid.sort(self.sorting());
        grid
    }

    /// Carries out a key that was pressed over these rows.
    pub fn press(&mut self, key: KeyEvent, grid: &Grid) -> Outcome {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Outcome::Quit } else { Outcome::Nothing };
        }
        if self.types_filter {
            self.type_filter(key.code);
            return Outcome::Nothing;
        }
        let page = |by: isize| by * PAGE_ROWS as isize;
        match key.code {
            KeyCode::Char('q') => return Outcome::Quit,
            KeyCode::Esc => return self.go_back(),
            KeyCode::Char('h' | '?') => self.shows_help = !self.shows_help,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') => self.types_filter = true,
            KeyCode::Char('r') => self.reverse(),
            KeyCode::Tab | KeyCode::Right => self.view = self.view.next(1),
            KeyCode::BackTab | KeyCode::Left => self.view = self.view.next(View::ALL.len() - 1),
            KeyCode::Up => self.move_by(-1, grid),
            KeyCode::Down => self.move_by(1, grid),
            KeyCode::PageUp => self.move_by(page(-1), grid),
            KeyCode::PageDown => self.move_by(page(1), grid),
            KeyCode::Home => self.move_by(isize::MIN, grid),
            KeyCode::End => self.move_by(isize::MAX, grid),
            KeyCode::Enter => return self.enter(grid),
            KeyCode::Char(typed @ '1'..='4') => self.view = View::ALL[typed as usize - '1' as usize],
            KeyCode::Char(typed) => self.sort_by(typed, grid),
            _ => {}
        }
        Outcome::Nothing
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.types_filter = false,
            KeyCode::Esc => {
                self.types_filter = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(typed) if self.filter.chars().count() < FILTER_CHARACTERS_MAX => {
                self.filter.push(typed);
            }
            _ => {}
        }
        self.selected[self.view as usize] = 0;
    }

    /// The way back from what was opened last; from the first view, out.
    fn go_back(&mut self) -> Outcome {
        if self.shows_help {
            self.shows_help = false;
        } else if !self.filter.is_empty() {
            self.filter.clear();
        } else if self.view == View::Members {
            self.view = View::Groups;
        } else if self.topic.take().is_some() || self.view != View::Topics {
            self.view = View::Topics;
        } else {
            return Outcome::Quit;
        }
        Outcome::Nothing
    }

    fn reverse(&mut self) {
        let sorting = &mut self.sorting[self.view as usize];
        sorting.is_descending = !sorting.is_descending;
    }

    fn sort_by(&mut self, typed: char, grid: &Grid) {
        let Some(column) = grid.column_of(typed) else { return };
        if column == self.sorting().column {
            return self.reverse();
        }
        self.sorting[self.view as usize] = Column::sorting(column, &grid.columns[column]);
    }

    fn move_by(&mut self, by: isize, grid: &Grid) {
        let last = grid.rows.len().saturating_sub(1);
        let selected = &mut self.selected[self.view as usize];
        *selected = (*selected).min(last).saturating_add_signed(by).min(last);
    }

    /// From a topic to the groups that consume it, from a group to its members.
    fn enter(&mut self, grid: &Grid) -> Outcome {
        let Some(row) = grid.rows.get(self.selected().min(grid.rows.len().saturating_sub(1))) else {
            return Outcome::Nothing;
        };
        let name = row[0].text.clone();
        match self.view {
            View::Topics => {
                self.topic = Some(name);
                self.open(View::Groups);
            }
            View::Groups => {
                if let Ok(group) = name.parse::<GroupName>() {
                    self.group = Some(group.clone());
                    self.open(View::Members);
                    return Outcome::Watch(group);
                }
            }
            View::Shards | View::Members => {}
        }
        Outcome::Nothing
    }

    fn open(&mut self, view: View) {
        self.view = view;
        self.filter.clear();
        self.selected[view as usize] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::grid::Cell;

    fn grid(names: &[&str]) -> Grid {
        let mut grid = Grid::new(&grids::TOPICS);
        for name in names {
            let mut row = vec![Cell::text(*name)];
            row.resize(grids::TOPICS.len(), Cell::number(None, |_| String::new()));
            grid.row(row);
        }
        grid
    }

    fn type_into(looks: &mut Looks, keys: &str, grid: &Grid) -> Vec<Outcome> {
        keys.chars().map(|typed| looks.press(KeyCode::Char(typed).into(), grid)).collect()
    }

    #[test]
    fn every_column_has_a_key_that_does_nothing_else() {
        for view in View::ALL {
            let mut keys: Vec<_> = view.columns().iter().map(|column| column.key).collect();
            keys.extend("qhpr/? 1234".chars());
            let count = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), count, "{view:?}: {keys:?}");
        }
    }

    #[test]
    fn a_column_typed_once_more_is_reversed() {
        let (mut looks, grid) = (Looks::default(), grid(&["a"]));
        type_into(&mut looks, "n", &grid);
        assert_eq!(looks.sorting(), Sorting { column: 0, is_descending: false }, "names from A on");
        type_into(&mut looks, "n", &grid);
        assert_eq!(looks.sorting(), Sorting { column: 0, is_descending: true });
        type_into(&mut looks, "l", &grid);
        assert_eq!(looks.sorting(), Sorting { column: 3, is_descending: true }, "the largest lag first");
        type_into(&mut looks, "r", &grid);
        assert_eq!(looks.sorting(), Sorting { column: 3, is_descending: false });
        type_into(&mut looks, "3", &grid);
        assert_eq!(looks.sorting(), View::Shards.first_sorting(), "each view has its own");
    }

    #[test]
    fn the_way_in_and_back() {
        let (mut looks, grid) = (Looks::default(), grid(&["a", "b"]));
        looks.press(KeyCode::Down.into(), &grid);
        looks.press(KeyCode::Down.into(), &grid);
        assert_eq!(looks.press(KeyCode::Enter.into(), &grid), Outcome::Nothing);
        assert_eq!((looks.view, looks.topic.as_deref()), (View::Groups, Some("b")));
        let watched = looks.press(KeyCode::Enter.into(), &grid);
        assert_eq!(watched, Outcome::Watch("a".parse().expect("a name")));
        assert_eq!(looks.view, View::Members);
        for view in [View::Groups, View::Topics] {
            assert_eq!(looks.press(KeyCode::Esc.into(), &grid), Outcome::Nothing);
            assert_eq!(looks.view, view);
        }
        assert_eq!(looks.press(KeyCode::Esc.into(), &grid), Outcome::Quit);
    }

    #[test]
    fn what_is_typed_into_the_filter_is_no_command() {
        let (mut looks, grid) = (Looks::default(), grid(&["a"]));
        assert_eq!(type_into(&mut looks, "/qp1", &grid), vec![Outcome::Nothing; 4]);
        looks.press(KeyCode::Backspace.into(), &grid);
        assert_eq!((looks.filter.as_str(), looks.is_paused, looks.view), ("qp", false, View::Topics));
        looks.press(KeyCode::Enter.into(), &grid);
        type_into(&mut looks, "p", &grid);
        assert!(looks.is_paused);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(looks.press(interrupt, &grid), Outcome::Quit);
    }
}
