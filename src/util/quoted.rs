//! Paths in double quotes with escapes of C, as git prints what is not plain (`core.quotePath`) and reads it again.

/// A quoted word that git would not read either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadQuote {
    #[error("a quote does not end")]
    NoEnd,
    #[error("a broken escape in a quoted word")]
    Escape,
}

/// Reads the quoted word that `text` begins with. Returns it, and what follows its closing quote.
pub(crate) fn unquote(text: &[u8]) -> Result<(Vec<u8>, &[u8]), BadQuote> {
    let mut rest = text.strip_prefix(b"\"").ok_or(BadQuote::NoEnd)?;
    let mut word = Vec::new();
    loop {
        match next(&mut rest)? {
            b'"' => return Ok((word, rest)),
            b'\\' => word.push(escaped(&mut rest)?),
            byte => word.push(byte),
        }
    }
}

/// The byte that an escape stands for, read behind its backslash.
fn escaped(rest: &mut &[u8]) -> Result<u8, BadQuote> {
    Ok(match next(rest)? {
        b'a' => 7,
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 11,
        b'f' => 12,
        b'r' => b'\r',
        byte @ (b'"' | b'\\') => byte,
        first @ b'0'..=b'3' => {
            let mut digit = || match next(rest)? {
                digit @ b'0'..=b'7' => Ok(digit - b'0'),
                _ => Err(BadQuote::Escape),
            };
            (first - b'0') * 64 + digit()? * 8 + digit()?
        }
        _ => return Err(BadQuote::Escape),
    })
}

fn next(rest: &mut &[u8]) -> Result<u8, BadQuote> {
    let (first, behind) = rest.split_first().ok_or(BadQuote::NoEnd)?;
    *rest = behind;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_is_read_as_git_reads_it_and_what_git_would_refuse_is_refused() {
        let read: [(&[u8], &[u8], &[u8]); 7] = [
            (b"\"\"", b"", b""),
            (b"\"a b\" c", b"a b", b" c"),
            (br#""\a\b\t\n\v\f\r\"\\""#, b"\x07\x08\t\n\x0b\x0c\r\"\\", b""),
            (br#""\000\177\377\101""#, b"\0\x7f\xffA", b""),
            (br#""\1234""#, b"S4", b""),
            (b"\"\xc3\xb6\xff\"", b"\xc3\xb6\xff", b""),
            (b"\"a\"\"b\"", b"a", b"\"b\""),
        ];
        for (text, word, behind) in read {
            assert_eq!(unquote(text), Ok((word.to_vec(), behind)), "{}", text.escape_ascii());
        }
        let refused: [(&[u8], BadQuote); 10] = [
            (b"", BadQuote::NoEnd),
            (b"plain\"", BadQuote::NoEnd),
            (b"\"", BadQuote::NoEnd),
            (b"\"a", BadQuote::NoEnd),
            (b"\"\\", BadQuote::NoEnd),
            (b"\"\\1", BadQuote::NoEnd),
            (br#""\400""#, BadQuote::Escape),
            (br#""\18""#, BadQuote::Escape),
            (br#""\x41""#, BadQuote::Escape),
            (br#""\12""#, BadQuote::Escape),
        ];
        for (text, error) in refused {
            assert_eq!(unquote(text), Err(error), "{}", text.escape_ascii());
        }
    }

    /// Every byte that a name can have, as git itself prints it with `core.quotePath` on and off.
    #[test]
    fn what_git_quotes_is_read_back_whatever_the_bytes() {
        use std::os::unix::ffi::OsStrExt;
        let scratch = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let mut command = std::process::Command::new("git");
            command.current_dir(scratch.path()).env("GIT_CONFIG_GLOBAL", "/dev/null").args(arguments);
            command.output().unwrap().stdout
        };
        git(&["init", "-q"]);
        let name: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
        let path = scratch.path().join(std::ffi::OsStr::from_bytes(&name));
        crate::fs::durable::create_new(&path, b"").unwrap();
        for quotes_all in ["true", "false"] {
            let listed = git(&["-c", &format!("core.quotePath={quotes_all}"), "ls-files", "--others"]);
            assert_eq!(unquote(&listed), Ok((name.clone(), b"\n".as_slice())), "core.quotePath={quotes_all}");
        }
    }
}
