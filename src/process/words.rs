//! Command lines as text that a shell reads as the same words.

/// The word as a shell takes it: in quotes where it has to be.
pub(crate) fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "@%_+=:,./-^~{}".contains(c);
    let splits = word.contains('{') && word.contains(',');
    if !word.is_empty() && !word.starts_with('~') && !splits && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The words of a line that [`quote`] has made. A line that was cut may end within a word.
pub(crate) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            ' ' => words.extend(word.take()),
            '\'' => word.get_or_insert_default().extend(rest.by_ref().take_while(|c| *c != '\'')),
            '\\' => word.get_or_insert_default().extend(rest.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_words_that_it_was_made_of() {
        for words in [
            &["git", "commit", "-m", "don't  \\ lose 'this"][..],
            &["git", "-C", "x update-ref", "merge", ""],
            &["git", "stash", "drop", "stash@{1}", "HEAD~1", "HEAD^"],
            &["git", "fetch", "o", "refs/*:refs/*", "~x", "a{b,c}", "ä", "$x", "#"],
        ] {
            let line = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
            assert_eq!(split(&line), words, "{line}");
        }
        assert_eq!(["stash@{1}", "HEAD~1", "a b", ""].map(quote), ["stash@{1}", "HEAD~1", "'a b'", "''"]);
        assert_eq!(split("git -c 'a b"), ["git", "-c", "a b"]);
    }
}
