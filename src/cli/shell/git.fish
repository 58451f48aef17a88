
# The words behind `git txn` are ours, those behind `git tx` are git's.
function __jin_txn_behind
    set -l words (commandline -opc) (commandline -ct)
    set -l at (contains -i -- $argv[1] $words)
    complete -C (string join ' ' -- $argv[2] (string escape -- $words[(math $at + 1)..-2]) $words[-1])
end
complete -c git -n 'string match -q "* txn *" -- (commandline -cp)' -f -a '(__jin_txn_behind txn jin-txn)'
complete -c git -n 'string match -q "* tx *" -- (commandline -cp)' -f -a '(__jin_txn_behind tx git)'
