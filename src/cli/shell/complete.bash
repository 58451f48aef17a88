
# What clap cannot know: the ids of operations, what is in quarantine, and the words behind `git txn` and `git tx`.
__jin_txn_first() {
    { jin-txn "$@" || git txn "$@"; } 2>/dev/null | while read -r word _; do echo "$word"; done
}

_jin_txn_complete() {
    local words=" ${COMP_WORDS[*]:0:COMP_CWORD} " cur="${COMP_WORDS[COMP_CWORD]}" word
    COMPREPLY=()
    _jin__txn "$@"
    # Names of arguments are no words to insert.
    local found=("${COMPREPLY[@]}")
    COMPREPLY=()
    for word in "${found[@]}"; do
        [[ $word == [\[\<]* ]] || COMPREPLY+=("$word")
    done
    case $words in
        *" quarantine show " | *" quarantine restore " | *" quarantine drop "*)
            if [[ $cur != -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$(__jin_txn_first quarantine list)" -- "$cur")
            fi
            ;;
        *" show " | *" undo " | *" redo " | *" --acknowledge " | *" --take-back ")
            if [[ $cur != -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$(__jin_txn_first log -n 100)" -- "$cur")
            fi
            ;;
    esac
}

# git's completion calls these, with `words` and `cword` of the whole line.
__jin_txn_behind() {
    local at
    for ((at = 1; at < cword; at++)); do
        [[ ${words[at]} == "$1" ]] && break
    done
    words=("${words[@]:at+1}")
    ((cword -= at + 1))
}

_git_txn() {
    __jin_txn_behind txn
    local COMP_WORDS=(jin-txn "${words[@]}") COMP_CWORD=$((cword + 1))
    _jin_txn_complete jin-txn "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
}

_git_tx() {
    __jin_txn_behind tx
    words=(git "${words[@]}")
    ((cword += 1))
    __git_main
}

complete -F _jin_txn_complete -o bashdefault -o default jin-txn
