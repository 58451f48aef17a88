# shellcheck shell=bash
# jin-txn in bash and zsh: eval "$(jin-txn shell-init bash)", or zsh

__jin_txn='@JIN_TXN@'

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

# For a prompt: PS1='\w $(jin_txn_prompt)\$ ' in bash, setopt prompt_subst; PROMPT='%~ $(jin_txn_prompt)%# ' in zsh.
# Empty when there is nothing to say, else `jin:interrupted`, `jin:needs-human`, `jin:busy`, `jin:unprotected` or
# `jin:off`.
function jin_txn_prompt {
    if [[ -x $__jin_txn ]]; then
        "$__jin_txn" check --prompt 2>/dev/null
    fi
}
