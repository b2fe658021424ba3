# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# bash completion. Commands and options are those that the installed program's help lists.

# _turnkeyfs_names [COMMAND]: the commands, or the verbs of COMMAND.
_turnkeyfs_names() {
        turnkeyfs help "$@" 2>/dev/null | sed -n "s/^  turnkeyfs ${1:+$1 }\([a-z]*\) .*/\1/p"
}

# _turnkeyfs_options COMMAND [VERB]
_turnkeyfs_options() {
        turnkeyfs help "$@" 2>/dev/null | grep -o -e '--[a-z][a-z-]*' | sort -u
}

_turnkeyfs() {
        local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]-} words=() choices

        COMPREPLY=()
        case $command in
        key | protector | escrow) words=("$command" "${COMP_WORDS[2]-}") ;;
        *) words=("$command") ;;
        esac
        if ((COMP_CWORD == 1)) || [[ $command == help && $COMP_CWORD == 2 ]]; then
                choices=$(_turnkeyfs_names)
        elif ((COMP_CWORD == 2 && ${#words[@]} == 2)) || [[ $command == help ]]; then
                choices=$(_turnkeyfs_names "${COMP_WORDS[COMP_CWORD - 1]}")
        elif [[ $current == -* ]]; then
                choices=$(_turnkeyfs_options "${words[@]}")
        else
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
                return
        fi
        mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$current")
}

complete -o filenames -F _turnkeyfs turnkeyfs
