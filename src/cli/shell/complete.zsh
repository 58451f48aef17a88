(( $+functions[_jin-txn-ids] )) ||
_jin-txn-ids() {
    local -a ids
    ids=(${(f)"$({ jin-txn log -n 100 || git txn log -n 100 } 2>/dev/null)"})
    ids=(${ids/ ##/:})
    _describe -V -t operations operation ids
}

(( $+functions[_jin-txn-kept] )) ||
_jin-txn-kept() {
    local -a names
    names=(${(f)"$({ jin-txn quarantine list || git txn quarantine list } 2>/dev/null)"})
    names=(${names/ ##/:})
    _describe -V -t quarantine 'in quarantine' names
}

# git's completion calls this where `git-txn` is in PATH; behind an alias it looks by itself.
_git-txn() {
    words[1]=jin-txn
    _jin-txn "$@"
}

if [ "$funcstack[1]" = "_git-txn" ]; then
    _git-txn "$@"
    return
fi
