
# What clap cannot know: the ids of operations, and what is in quarantine.
function __jin_txn_ids
    begin
        jin-txn log -n 100 2>/dev/null; or git txn log -n 100 2>/dev/null
    end | string replace -r '^(\S+)\s+' '$1\t'
end
for command in show undo redo
    complete -c jin-txn -n "__fish_jin_txn_using_subcommand $command" -f -k -a "(__jin_txn_ids)"
end
complete -c jin-txn -n "__fish_jin_txn_using_subcommand recover" -l acknowledge -f -k -r -a "(__jin_txn_ids)"
complete -c jin-txn -n "__fish_jin_txn_using_subcommand recover" -l take-back -f -k -r -a "(__jin_txn_ids)"
function __jin_txn_kept
    begin
        jin-txn quarantine list 2>/dev/null; or git txn quarantine list 2>/dev/null
    end | string replace -r '^(\S+)\s+' '$1\t'
end
complete -c jin-txn -n "__fish_jin_txn_using_subcommand quarantine; and __fish_seen_subcommand_from show restore drop" -f -k -a "(__jin_txn_kept)"
