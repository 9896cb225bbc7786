//! Rust source as the rules see it: per line, the code without comments and literals, the comment,
//! and whether the line is test code.
//!
//! A lexer, not a parser: it knows comments, literals and braces, which is all the rules need.

/// A file of Rust source, line by line.
#[derive(Debug, Clone)]
pub struct Source {
    /// The lines, in order.
    pub lines: Vec<Line>,
}

/// One line of source.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// The code; comments are gone, the contents of literals are blanked, columns are kept.
    pub code: String,
    /// The text of the line's comment, with its slashes.
    pub comment: String,
    /// Whether the line belongs to an item that exists in tests only.
    pub test: bool,
    /// Whether the line is inside `impl Trait for Type { .. }`: its names are the trait's choice.
    pub foreign: bool,
}

impl Line {
    /// Whether the line holds code.
    pub fn is_code(&self) -> bool {
        !self.code.trim().is_empty()
    }

    /// Whether the line is a comment and nothing else.
    pub fn is_comment(&self) -> bool {
        !self.is_code() && !self.comment.is_empty()
    }
}

impl Source {
    /// Reads `text`.
    pub fn new(text: &str) -> Self {
        let mut lines = split(text);
        mark(&mut lines, is_test_attribute, |line| line.test = true);
        mark(&mut lines, is_trait_impl, |line| line.foreign = true);
        Self { lines }
    }

    /// Marks every line as test code.
    pub fn become_test(&mut self) {
        self.lines.iter_mut().for_each(|line| line.test = true);
    }

    /// Lines with their numbers, from 1.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().map(|(at, line)| (at + 1, line))
    }

    /// Names of the modules that are declared in files of their own, for tests only.
    pub fn test_modules(&self) -> Vec<String> {
        let declared = self.lines.iter().filter(|line| line.test).map(|line| line.code.trim());
        let name = |code: &str| Some(code.split("mod ").nth(1)?.strip_suffix(';')?.trim().to_owned());
        declared.filter_map(name).collect()
    }
}

/// Whether `word` occurs in `code` as a whole identifier.
pub fn has_word(code: &str, word: &str) -> bool {
    words(code).any(|found| found == word)
}

/// The identifiers and keywords of `code`.
pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn is_test_attribute(code: &str) -> bool {
    let code = code.trim_start();
    code.starts_with("#[") && !code.contains("not(test)") && has_word(code, "test")
}

fn is_trait_impl(code: &str) -> bool {
    let code = code.trim_start();
    let code = code.strip_prefix("unsafe ").unwrap_or(code);
    (code.starts_with("impl ") || code.starts_with("impl<")) && has_word(code, "for")
}

/// Applies `set` to every item (up to its closing brace or semicolon) that begins with a line for
/// which `begins` holds.
fn mark(lines: &mut [Line], begins: fn(&str) -> bool, set: fn(&mut Line)) {
    let mut at = 0;
    while at < lines.len() {
        if !begins(&lines[at].code) {
            at += 1;
            continue;
        }
        let end = item_end(lines, at);
        lines[at..=end].iter_mut().for_each(set);
        at = end + 1;
    }
}

/// Last line of the item that begins in line `start`, attributes included.
fn item_end(lines: &[Line], start: usize) -> usize {
    let (mut depth, mut opened) = (0i32, false);
    for (at, line) in lines.iter().enumerate().skip(start) {
        for c in line.code.chars() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth -= 1,
                _ => {}
            }
            opened |= c == '{' && depth == 1;
            if depth == 0 && ((opened && c == '}') || c == ';') {
                return at;
            }
        }
    }
    lines.len() - 1
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    LineComment,
    BlockComment(u32),
    Text,
    RawText(usize),
}

fn split(text: &str) -> Vec<Line> {
    let (mut lines, mut line) = (Vec::new(), Line::default());
    let mut state = State::Code;
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let step = if chars[at] == '\n' {
            let next = if state == State::LineComment { State::Code } else { state };
            Step { taken: 1, code: false, comment: false, next }
        } else {
            step(state, &chars[at..], at.checked_sub(1).map(|before| chars[before]))
        };
        let end = (at + step.taken).min(chars.len());
        for &c in &chars[at..end] {
            if c == '\n' {
                lines.push(std::mem::take(&mut line));
                continue;
            }
            line.code.push(if step.code { c } else { ' ' });
            if step.comment {
                line.comment.push(c);
            }
        }
        (state, at) = (step.next, end);
    }
    lines.push(line);
    lines
}

/// What the lexer does next: take characters, as code or comment, and change state.
struct Step {
    taken: usize,
    code: bool,
    comment: bool,
    next: State,
}

fn step(state: State, rest: &[char], before: Option<char>) -> Step {
    let code = |taken, next| Step { taken, code: true, comment: false, next };
    let comment = |taken, next| Step { taken, code: false, comment: true, next };
    let blank = |taken, next| Step { taken, code: false, comment: false, next };
    let pair = (rest[0], rest.get(1).copied().unwrap_or(' '));
    match (state, pair) {
        (State::Code, ('/', '/')) => comment(2, State::LineComment),
        (State::Code, ('/', '*')) => comment(2, State::BlockComment(1)),
        (State::Code, ('"', _)) => code(1, State::Text),
        (State::Code, ('r', '"' | '#')) if !before.is_some_and(is_identifier) => match raw_hashes(&rest[1..])
        {
            Some(hashes) => code(2 + hashes, State::RawText(hashes)),
            None => code(1, State::Code),
        },
        (State::Code, ('b' | 'c', 'r')) if !before.is_some_and(is_identifier) => match raw_hashes(&rest[2..])
        {
            Some(hashes) => code(3 + hashes, State::RawText(hashes)),
            None => code(1, State::Code),
        },
        (State::Code, ('\'', _)) => match character(rest) {
            Some(length) => blank(length, State::Code),
            None => code(1, State::Code),
        },
        (State::Code, _) => code(1, State::Code),
        (State::LineComment, _) => comment(1, State::LineComment),
        (State::BlockComment(1), ('*', '/')) => comment(2, State::Code),
        (State::BlockComment(depth), ('*', '/')) => comment(2, State::BlockComment(depth - 1)),
        (State::BlockComment(depth), ('/', '*')) => comment(2, State::BlockComment(depth + 1)),
        (State::BlockComment(depth), _) => comment(1, State::BlockComment(depth)),
        (State::Text, ('\\', _)) => blank(2, State::Text),
        (State::Text, ('"', _)) => code(1, State::Code),
        (State::Text, _) => blank(1, State::Text),
        (State::RawText(hashes), ('"', _))
            if rest[1..].iter().take_while(|c| **c == '#').count() >= hashes =>
        {
            code(1 + hashes, State::Code)
        }
        (State::RawText(hashes), _) => blank(1, State::RawText(hashes)),
    }
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Hashes of a raw literal whose `r` has just been read; `None` if it is not one.
fn raw_hashes(rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    (rest.get(hashes) == Some(&'"')).then_some(hashes)
}

/// Length of the character literal that starts `rest`; `None` if it is a lifetime.
fn character(rest: &[char]) -> Option<usize> {
    if rest.get(1) == Some(&'\\') {
        let close = rest.iter().skip(3).take(10).position(|c| *c == '\'')?;
        return Some(close + 4);
    }
    (rest.get(2) == Some(&'\'')).then_some(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of one line, runs of blanks made one.
    fn code(text: &str) -> String {
        let source = Source::new(text);
        assert_eq!(source.lines[0].code.chars().count(), text.chars().count(), "columns are kept");
        source.lines[0].code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        assert_eq!(code("a /* b /* c */ d */ e // f"), "a e");
        assert_eq!(code(r#"x("unsafe { \" }") y"#), r#"x(" ") y"#);
        assert_eq!(code("let s = r#\"a \" unwrap() \"#; b"), "let s = r#\" \"#; b");
        assert_eq!(code("br\"\\\" + c"), "br\" \" + c");
        assert_eq!(code("for<'a> '{' '\\'' '\\u{1F600}' x"), "for<'a> x");
    }

    #[test]
    fn literals_may_span_lines() {
        let source = Source::new("let a = \"one\n two\\\n three\"; // end\nb");
        assert_eq!(source.lines.len(), 4);
        assert_eq!(source.lines[2].code.trim(), "\";");
        assert_eq!(source.lines[2].comment, "// end");
    }

    #[test]
    fn test_items_end_with_their_braces() {
        let source =
            Source::new("fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { let x = [1; 2]; }\n}\nfn c() {}");
        let test: Vec<bool> = source.lines.iter().map(|line| line.test).collect();
        assert_eq!(test, [false, true, true, true, true, false]);
        assert!(!Source::new("#[cfg(not(test))]\nfn a() {}").lines[1].test);
        assert!(Source::new("#[tokio::test]\nasync fn a() {\n}").lines[2].test);
    }

    #[test]
    fn test_modules_in_files_of_their_own_are_known() {
        assert_eq!(Source::new("mod a;\n#[cfg(test)]\nmod story;\nmod b;").test_modules(), ["story"]);
    }

    #[test]
    fn trait_implementations_are_foreign() {
        let source = Source::new("impl A {\n fn x() {}\n}\nimpl B for A\nwhere A: C {\n fn y() {}\n}");
        let foreign: Vec<bool> = source.lines.iter().map(|line| line.foreign).collect();
        assert_eq!(foreign, [false, false, false, true, true, true, true]);
    }
}
