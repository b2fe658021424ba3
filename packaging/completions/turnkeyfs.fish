# SPDX-License-Identifier: Apache-2.0
# fish completion. Commands and options are those that the installed program's help lists.

function __turnkeyfs_names
    set -l prefix
    test (count $argv) -gt 0; and set prefix "$argv[1] "
    turnkeyfs help $argv 2>/dev/null | string replace -rf "^  turnkeyfs $prefix([a-z]+) .*" '$1'
end

# The command that is typed, with its verb.
function __turnkeyfs_typed
    set -l words (commandline -opc)
    switch "$words[2]"
        case key protector escrow
            printf '%s\n' $words[2..3]
        case '*'
            printf '%s\n' $words[2]
    end
end

function __turnkeyfs_choices
    set -l words (commandline -opc)
    set -l count (count $words)
    if test $count -eq 1; or test $count -eq 2 -a "$words[2]" = help
        __turnkeyfs_names
    else if test $count -eq 2; and contains -- $words[2] key protector escrow
        __turnkeyfs_names $words[2]
    else if string match -q -- '-*' (commandline -ct)
        turnkeyfs help (__turnkeyfs_typed) 2>/dev/null | string match -ra -- '--[a-z][a-z-]*' | sort -u
    end
end

# Of a command without verbs, and of verbs, everything else is a file.
function __turnkeyfs_wants_word
    set -l words (commandline -opc)
    test (count $words) -eq 1; or contains -- $words[2] help
    or begin
        test (count $words) -eq 2; and contains -- $words[2] key protector escrow
    end
end

complete -c turnkeyfs -n __turnkeyfs_wants_word -f -a '(__turnkeyfs_choices)'
complete -c turnkeyfs -n 'not __turnkeyfs_wants_word' -a '(__turnkeyfs_choices)'
