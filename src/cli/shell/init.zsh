# jin-txn in zsh: eval "$(jin-txn shell-init zsh)"

typeset -g __jin_txn='@JIN_TXN@'

# Looks for what was interrupted, recovers it, and becomes git: one process, which has these arguments, this terminal
# and this standard input. `command git` is git alone. (The word `function` keeps an alias of that name from being
# expanded here.)
function git {
    if [[ -x $__jin_txn ]]; then
        "$__jin_txn" git --from-shell -- "$@"
    else
        command git "$@"
    fi
}

# For a prompt: setopt prompt_subst; PROMPT='%~ $(jin_txn_prompt)%# '. Empty when there is nothing to say, else
# `jin:interrupted`, `jin:needs-human`, `jin:busy` or `jin:off`.
function jin_txn_prompt {
    if [[ -x $__jin_txn ]]; then
        "$__jin_txn" check --prompt 2>/dev/null
    fi
}
