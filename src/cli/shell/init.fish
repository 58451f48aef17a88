# jin-txn in fish: jin-txn shell-init fish | source

set -g __jin_txn '@JIN_TXN@'

# Looks for what was interrupted, recovers it, and becomes git: one process, which has these arguments, this terminal
# and this standard input. `command git` is git alone. So is the git of a completion, which asks while the command line
# is still being edited: nothing is recovered before a command is given.
function git --description 'git, after jin-txn has looked for what was interrupted'
    set -l being_edited (commandline 2>/dev/null)
    if test -x "$__jin_txn"; and test -z "$being_edited"
        command $__jin_txn git --from-shell -- $argv
    else
        command git $argv
    end
end

# For a prompt: function fish_right_prompt; jin_txn_prompt; end. Empty when there is nothing to say, else
# `jin:interrupted`, `jin:needs-human`, `jin:busy`, `jin:unprotected` or `jin:off`.
function jin_txn_prompt --description 'what jin-txn has to say about this repository, if anything'
    if test -x "$__jin_txn"
        command $__jin_txn check --prompt 2>/dev/null
    end
end
