//! Command lines as they may be written down and shown: without the secrets that were typed.
//!
//! Hidden are user and password of URLs, values of git's `-c` and `--config-env`, values of options, variables and parameters
//! whose names say that they are secret, and credentials in headers. A word that holds a script is read word by word.
//!
//! Limit: names and places are known, secrets are not. What stands elsewhere (a message, an argument of an unknown program)
//! is kept.

use crate::process::git_argv::is_git_name;
use crate::process::words::quote;

const HIDDEN: &str = "***";

/// The command line on one line, as a shell reads it.
pub(crate) fn command_line<S: AsRef<str>>(argv: &[S]) -> String {
    let mut line = Line::default();
    let shown = |word: &S| {
        let shown = line.word(word.as_ref());
        // What is hidden needs no quotes for its sake.
        let is_plain = quote(&shown.replace(HIDDEN, "x")) == shown.replace(HIDDEN, "x");
        if is_plain { shown } else { quote(&shown) }
    };
    argv.iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// The same for a command line that is one text already.
pub(crate) fn text(text: &str) -> String {
    script(text, 0)
}

/// A script that lies this `deep` in words that hold scripts.
fn script(text: &str, deep: usize) -> String {
    const DEEPEST: usize = 8;
    let mut pieces = pieces(text, deep < DEEPEST);
    if pieces.len() < 2 {
        if let Some((quote, inner)) = quoted(text).filter(|_| deep < DEEPEST) {
            return format!("{quote}{}{quote}", script(inner, deep + 1));
        }
        pieces = self::pieces(text, false);
    }
    let mut line = Line { deep: deep + 1, ..Line::default() };
    let shown = pieces.into_iter().map(|(blank, word)| format!("{blank}{}", line.word(word)));
    shown.collect()
}

/// What the words so far say about the next one.
#[derive(Default)]
struct Line {
    next: Next,
    of_git: bool,
    /// Options of the program whose value is a secret.
    short: &'static [&'static str],
    /// How deep in words that hold scripts it lies.
    deep: usize,
}

#[derive(Default, Clone, Copy)]
enum Next {
    #[default]
    Any,
    /// A secret.
    Secret,
    /// `key=value` of git's configuration.
    Setting,
    /// A message: prose, in which only URLs hold secrets.
    Message,
    /// This word and all behind it are a secret.
    Rest,
}

impl Line {
    fn word(&mut self, word: &str) -> String {
        match std::mem::take(&mut self.next) {
            Next::Any => {}
            Next::Secret => return HIDDEN.to_owned(),
            Next::Setting => return setting(word),
            Next::Message => return urls(word),
            Next::Rest => {
                self.next = Next::Rest;
                return HIDDEN.to_owned();
            }
        }
        let bare = word.trim_matches(['"', '\'']);
        self.note_program(bare);
        if let Some(shown) = self.option(bare) {
            return shown;
        }
        if word.contains(char::is_whitespace) {
            return script(word, self.deep);
        }
        let shown = parameters(&urls(word));
        match end_of_header_name(&shown) {
            Some(end) => {
                self.next = Next::Rest;
                let value = if shown[end..].is_empty() { "" } else { HIDDEN };
                format!("{}{value}", &shown[..end])
            }
            None => shown,
        }
    }

    fn note_program(&mut self, word: &str) {
        let name = word.rsplit('/').next().unwrap_or(word);
        self.of_git |= is_git_name(name);
        match name {
            "curl" => self.short = &["-u", "-U", "-b", "--user", "--proxy-user"],
            "sshpass" | "mysql" | "mysqldump" | "mariadb" | "docker" | "podman" | "svn" => self.short = &["-p"],
            _ => {}
        }
    }

    /// An option or a variable with a secret, as it is shown.
    fn option(&mut self, word: &str) -> Option<String> {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let of_setting = matches!(name, "--config" | "--config-env") || (name == "-c" && value.is_none());
        if self.of_git && of_setting {
            let Some(value) = value else {
                self.next = Next::Setting;
                return Some(word.to_owned());
            };
            return Some(format!("{name}={}", setting(value)));
        }
        let letters = word.strip_prefix('-').filter(|letters| letters.bytes().all(|b| b.is_ascii_lowercase()));
        if self.of_git && (word == "--message" || letters.is_some_and(|letters| letters.ends_with('m'))) {
            self.next = Next::Message;
            return Some(word.to_owned());
        }
        if self.of_git && name == "--message" {
            return value.map(|value| format!("{name}={}", urls(value)));
        }
        if let Some(option) = self.short.iter().find(|option| word.starts_with(**option)) {
            // Long ones have a `=` before their value, which is found below.
            let rest = word[option.len()..].trim_start_matches('=');
            if rest.is_empty() {
                self.next = Next::Secret;
                return Some(word.to_owned());
            }
            return (!option.starts_with("--")).then(|| format!("{option}{HIDDEN}"));
        }
        if name.contains(char::is_whitespace) || !is_secret(name) {
            return None;
        }
        if value.is_some() {
            return Some(format!("{name}={HIDDEN}"));
        }
        if !name.starts_with("--") {
            return None;
        }
        self.next = Next::Secret;
        Some(word.to_owned())
    }
}

/// `key=value`, without the value.
fn setting(word: &str) -> String {
    word.split_once('=').map_or_else(|| urls(word), |(key, _)| format!("{}={HIDDEN}", urls(key)))
}

/// Does the name of an option, a variable or a parameter say that its value is a secret?
fn is_secret(name: &str) -> bool {
    #[rustfmt::skip]
    const PARTS: [&str; 14] = [
        "password", "passwd", "passphrase", "secret", "token", "apikey", "api-key", "api_key", "access-key", "access_key",
        "private-key", "private_key", "bearer", "proxy-user",
    ];
    const WORDS: [&str; 4] = ["pass", "pat", "auth", "cookie"];
    let name = name.to_ascii_lowercase();
    let is_elsewhere = ["file", "stdin", "path", "env", "jar", "sock"].iter().any(|end| name.ends_with(end));
    let says =
        |name: &str| PARTS.iter().any(|part| name.contains(part)) || name.split(['-', '_']).any(|w| WORDS.contains(&w));
    !is_elsewhere && !name.starts_with("--no-") && says(&name)
}

/// URLs without user and password. The user of ssh is no secret.
fn urls(word: &str) -> String {
    if let Some(at) = end_of_scp_user(word) {
        return format!("{HIDDEN}{}", &word[at..]);
    }
    let (mut shown, mut rest) = (String::with_capacity(word.len()), word);
    while let Some(at) = rest.find("://") {
        let (scheme, tail) = rest.split_at(at + 3);
        shown.push_str(scheme);
        let end = tail.find(|c: char| "/?#\"'".contains(c) || c.is_whitespace()).unwrap_or(tail.len());
        rest = match tail[..end].rfind('@') {
            Some(at) if !scheme.ends_with("ssh://") || tail[..at].contains(':') => {
                shown.push_str(HIDDEN);
                &tail[at..]
            }
            _ => tail,
        };
    }
    shown + rest
}

/// Where `user:password` ends in `user:password@host:path`.
fn end_of_scp_user(word: &str) -> Option<usize> {
    let at = word.find('@')?;
    let (user, host) = (&word[..at], &word[at + 1..]);
    let is_host = host.split_once(':').is_some_and(|(host, _)| !host.is_empty() && !host.contains(['/', '@', '{']));
    (is_host && user.contains(':') && !user.contains('/')).then_some(at)
}

/// `?token=...&x=y` without the secrets.
fn parameters(word: &str) -> String {
    let is_end = |c: char| "&?#\"'".contains(c);
    let mut shown = String::with_capacity(word.len());
    for (n, part) in word.split_inclusive(is_end).enumerate() {
        let (body, end) = part.split_at(part.trim_end_matches(is_end).len());
        match body.split_once('=').filter(|(name, _)| n > 0 && is_secret(name)) {
            Some((name, _)) => shown += &format!("{name}={HIDDEN}{end}"),
            None => shown += part,
        }
    }
    shown
}

/// Where the name of a header with credentials ends, its colon included.
fn end_of_header_name(word: &str) -> Option<usize> {
    let lower = word.to_ascii_lowercase();
    let ends = ["authorization:", "cookie:", "token:", "api-key:"];
    ends.iter().filter_map(|name| Some(lower.find(name)? + name.len())).min()
}

/// The text between quotes that stand at both ends.
fn quoted(text: &str) -> Option<(char, &str)> {
    ['"', '\''].into_iter().find_map(|quote| Some((quote, text.strip_prefix(quote)?.strip_suffix(quote)?)))
}

/// Words with the blanks before them. Within quotes there is no end of a word, if `by_quotes`.
fn pieces(text: &str, by_quotes: bool) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let blank = rest.len() - rest.trim_start().len();
        let mut quote = None;
        let ends = |c: char| match quote {
            Some(open) => {
                quote = quote.filter(|_| c != open);
                false
            }
            None => {
                quote = (by_quotes && matches!(c, '"' | '\'')).then_some(c);
                c.is_whitespace()
            }
        };
        let len = rest[blank..].find(ends).unwrap_or(rest.len() - blank);
        found.push((&rest[..blank], &rest[blank..blank + len]));
        rest = &rest[blank + len..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_on_a_command_line_is_hidden_and_nothing_else() {
        for (argv, shown) in [
            (&["git", "commit", "-m", "a = b"][..], "git commit -m 'a = b'"),
            (&["git", "commit", "-qam", "Fix csrf token: rotate it"], "git commit -qam 'Fix csrf token: rotate it'"),
            (&["git", "commit", "--message=docker -p 80"], "git commit '--message=docker -p 80'"),
            (&["git", "commit", "-m", "see https://bob:TOKEN@host/"], "git commit -m 'see https://***@host/'"),
            (&["git", "fetch", "https://bob:TOKEN@host/x.git", "main"], "git fetch https://***@host/x.git main"),
            (&["git", "fetch", "https://TOKEN@host/x.git"], "git fetch https://***@host/x.git"),
            (&["git", "fetch", "https://bob:a@b@host/x"], "git fetch https://***@host/x"),
            (&["git", "fetch", "ssh://git@host/x"], "git fetch ssh://git@host/x"),
            (&["git", "fetch", "git@host:x"], "git fetch git@host:x"),
            (&["git", "fetch", "bob:SECRET@host:x/y.git"], "git fetch ***@host:x/y.git"),
            (&["git", "show", "HEAD:a@b"], "git show HEAD:a@b"),
            (&["x", "--pat", "SECRET", "--auth=SECRET", "--cookie", "SECRET"], "x --pat *** --auth=*** --cookie ***"),
            (&["x", "--path", "p", "--author=me", "--cookie-jar", "f"], "x --path p --author=me --cookie-jar f"),
            (&["curl", "-b", "SECRET", "url"], "curl -b *** url"),
            (&["git", "fetch", "https://host/a@b"], "git fetch https://host/a@b"),
            (&["git", "-c", "http.extraHeader=X: SECRET", "push"], "git -c http.extraHeader=*** push"),
            (&["git", "-c", "url.https://u:SECRET@h/.insteadOf=x"], "git -c url.https://***@h/.insteadOf=***"),
            (&["git", "-c", "core.bare", "push"], "git -c core.bare push"),
            (&["git", "--config-env=a.b=SECRET", "push"], "git --config-env=a.b=*** push"),
            (&["git", "clone", "--config", "a.b=SECRET"], "git clone --config a.b=***"),
            (&["/usr/bin/git", "commit", "-c", "HEAD~"], "/usr/bin/git commit -c HEAD~"),
            (&["git", "switch", "-c", "x"], "git switch -c x"),
            (&["git", "push", "-o", "ci.token=SECRET"], "git push -o ci.token=***"),
            (&["git", "add", "-p", "file"], "git add -p file"),
            (&["git", "send-email", "--smtp-pass=SECRET"], "git send-email --smtp-pass=***"),
            (&["x", "--password", "SECRET", "y"], "x --password *** y"),
            (&["x", "--password=SECRET WORDS", "y"], "x --password=*** y"),
            (&["x", "--password-stdin", "y"], "x --password-stdin y"),
            (&["x", "--token-file", "path"], "x --token-file path"),
            (&["x", "--no-password", "y"], "x --no-password y"),
            (&["env", "GITHUB_TOKEN=SECRET", "make"], "env GITHUB_TOKEN=*** make"),
            (&["curl", "-u", "bob:SECRET", "url"], "curl -u *** url"),
            (&["curl", "-ubob:SECRET"], "curl -u***"),
            (&["curl", "-H", "Authorization: Bearer SECRET", "url"], "curl -H 'Authorization: *** ***' url"),
            (&["curl", "-HAuthorization:SECRET"], "curl -HAuthorization:***"),
            (&["curl", "https://h/x?a=b&access_token=SECRET#c"], "curl 'https://h/x?a=b&access_token=***#c'"),
            (&["sshpass", "-p", "SECRET", "git"], "sshpass -p *** git"),
            (&["sh", "-c", "x=1; git push https://u:SECRET@h  main"], "sh -c 'x=1; git push https://***@h  main'"),
            (&["sh", "-c", "git -c a.b='X Y SECRET' push"], "sh -c 'git -c a.b=*** push'"),
            (&["sh", "-c", "curl -H 'Authorization: a SECRET' u"], r"sh -c 'curl -H '\''Authorization: *** ***'\'' u'"),
            (&["git", "commit", "-m", "don't  lose 'this"], r"git commit -m 'don'\''t  lose '\''this'"),
            (&["git", "commit", "-m", "ä 'b c' \"d"], "git commit -m 'ä '\\''b c'\\'' \"d'"),
            (&["git", "commit", "-m", ""], "git commit -m ''"),
        ] {
            assert_eq!(command_line(argv), shown, "{argv:?}");
        }
    }

    #[test]
    fn a_text_is_read_as_its_words_are() {
        assert_eq!(text("release 1.0"), "release 1.0");
        assert_eq!(text("git fetch https://u:p@h"), "git fetch https://***@h");
        assert_eq!(text("'--token SECRET'"), "'--token ***'");
        let nested = |depth: usize| format!("{}a b --token SECRET{}", "'\"".repeat(depth), "\"'".repeat(depth));
        for depth in [1, 4, 5, 100_000] {
            assert!(!text(&nested(depth)).contains("SECRET"), "{depth} pairs of quotes");
        }
    }
}
