# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What hidden commands in the documents may use, beside everything else: a stand for the world around the reader.

# until COMMAND...: wait until it succeeds, 60 s at most.
until_true() {
        local waited
        for ((waited = 0; waited < 600; waited++)); do
                ! "$@" >/dev/null 2>&1 || return 0
                sleep 0.1
        done
        echo "waited in vain for: $*" >&2
        return 1
}

# fails CODE COMMAND...: it has to fail with that exit code.
fails() {
        local wanted=$1 status=0
        shift
        "$@" || status=$?
        ((status == wanted)) || {
                echo "exit code $status instead of $wanted: $*" >&2
                return 1
        }
}

# cannot_run REASON: what comes now can't be done on this machine.
cannot_run() {
        printf '\x1eskip\x1e\n%s\n' "$1"
        exit 0
}

# Azure Key Vault, Entra ID: tests/emulator. Sets what its env.sh says, and emulator_vault.
start_emulator() {
        (cd "$TOP/tests/emulator" && exec setsid /usr/bin/python3 -B -m turnkeyfs_emulator --known-keys --state /tmp/emulator \
                --vault demo --vault second) </dev/null >/tmp/emulator.log 2>&1 &
        until_true test -s /tmp/emulator/ready.json
        until_true curl -s "$(emulator_says 'ready["control"]')" -d '{"op": "counters"}'
        emulator '{"op": "vault", "name": "demo", "purge_protection": true}'
        emulator '{"op": "vault", "name": "second", "purge_protection": true}'
}

emulator_says() {
        /usr/bin/python3 -c 'import json, sys
ready = json.load(open("/tmp/emulator/ready.json"))
print(eval(sys.argv[1]))' "$1"
}

# emulator JSON: a control operation.
emulator() {
        curl -sf "$(emulator_says 'ready["control"]')" -d "$1" >/dev/null
}

# in_emulator CONF [VAULT]: the [azure] section of CONF for a vault of the emulator.
in_emulator() {
        local vault=${2-demo} key
        key=$(sed -n 's|^key = https://[^/]*/keys/||p' "$1")
        install -m 600 /dev/null /etc/turnkeyfs/client-secret
        emulator_says 'ready["client_secret"]' >/etc/turnkeyfs/client-secret
        sed -i "/^key = https:/d; /^auth *=/d; /^tenant_id/d; /^client_/d; s|^\[azure\]|[azure]\n$(
                printf '%s\\n' "key = $(emulator_says "ready['vaults']['$vault']")/keys/${key:-root}" 'auth = client-secret' \
                        "tenant_id = $(emulator_says 'ready["tenant"]')" "client_id = $(emulator_says 'ready["client_id"]')" \
                        'client_secret = file:/etc/turnkeyfs/client-secret' \
                        "authority = $(emulator_says 'ready["authority"]')" "ca_file = $(emulator_says 'ready["ca"]')"
        )|" "$1"
}

# A token of SoftHSM named TOKEN, with the PIN in /etc/turnkeyfs/token.pin.
start_token() {
        mkdir -p /var/lib/softhsm/tokens /etc/turnkeyfs
        printf 'directories.tokendir = /var/lib/softhsm/tokens\nobjectstore.backend = file\n' >/etc/softhsm2.conf
        export SOFTHSM2_CONF=/etc/softhsm2.conf
        softhsm2-util --init-token --free --label TOKEN --so-pin 12345678 --pin 4711-pin >/dev/null
        (umask 077 && echo 4711-pin >/etc/turnkeyfs/token.pin)
}

# configuration FILE PROVIDER [NAME [VAULT]]: a root key there, and the configuration for it. Windows are short, so that nobody waits.
configuration() {
        local file=$1 provider=$2 name=${3-root} window=2 vault=${4-demo}
        mkdir -p /etc/turnkeyfs
        [[ $provider != azure ]] || window=20 # a quarter of it is what the emulator may take to answer
        printf '[kms]\nprovider = %s\nrevocation_window = %s\nrotation_window = 0\n' "$provider" "$window" >"$file"
        case $provider in
        local)
                printf '[local]\nkeystore = /var/lib/turnkeyfs/%s.keystore\n' "$name" >>"$file"
                ;;
        azure)
                [[ -e /tmp/emulator/ready.json ]] || start_emulator
                printf '[azure]\nkey = https://x/keys/%s\n' "$name" >>"$file"
                in_emulator "$file" "$vault"
                turnkeyfs key create -c "$file"
                ;;
        pkcs11)
                [[ -e /etc/turnkeyfs/token.pin ]] || start_token
                printf '[pkcs11]\nmodule = /usr/lib/softhsm/libsofthsm2.so\nuri = pkcs11:token=TOKEN;object=%s\npin = file:%s\n' \
                        "$name" /etc/turnkeyfs/token.pin >>"$file"
                turnkeyfs key create -c "$file"
                ;;
        esac
}

# volume [PROVIDER]: /srv/encrypted with some data, mounted at /srv/plain: without a configuration, or by
# /etc/turnkeyfs/srv.conf.
volume() {
        local conf=()
        if (($#)); then
                configuration /etc/turnkeyfs/srv.conf "$1"
                conf=(-c /etc/turnkeyfs/srv.conf)
        fi
        mkdir -p /srv/plain
        turnkeyfs init "${conf[@]}" /srv/encrypted
        turnkeyfs mount "${conf[@]}" /srv/encrypted /srv/plain
        fill /srv/plain
}

# fill DIR: data that data_is_there knows again.
fill() {
        mkdir -p "$1/mail"
        head -c 700000 /dev/urandom >"$1/mail/inbox"
        echo 'a line of text' >"$1/notes"
        (cd "$1" && find . -type f -exec sha256sum {} +) >/tmp/sums
}

data_is_there() {
        (cd "$1" && sha256sum --quiet --check /tmp/sums)
}
