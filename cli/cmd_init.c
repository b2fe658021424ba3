/* SPDX-License-Identifier: Apache-2.0 */

/* `init`: the keystore first, then the volume: no volume without a key that opens it. */

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/open.h"
#include "cli/paths.h"
#include "crypto/random.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Before anything is made: tk_volume_create would refuse only after the keystore is there. */
static int check_place(const char *cipherdir, struct tk_fault *fault)
{
        char volume_file[PATH_MAX];
        char name[NAME_MAX + 1];
        int r = tk_path_first_entry(cipherdir, name);

        snprintf(volume_file, sizeof(volume_file), "%s/turnkeyfs.volume", cipherdir);
        if (access(volume_file, F_OK) == 0)
                return tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, -EEXIST,
                                    "%s is an encrypted directory already; mount it, or choose "
                                    "another directory",
                                    cipherdir);
        if (r == -ENOENT)
                return 0;
        if (r == -ENOTDIR)
                return tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, r, "%s is not a directory",
                                    cipherdir);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r, "cannot read %s: %s", cipherdir,
                                    strerror(-r));
        if (r == 0)
                return 0;
        return tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, -ENOTEMPTY,
                            "%s is not empty (it holds '%s'); choose an empty or a new directory",
                            cipherdir, name);
}

static int make_volume(const char *cipherdir, const struct tk_conf *conf,
                       const struct tk_provider_volume *target,
                       char ret_fingerprint[TK_FINGERPRINT_LEN + 1],
                       struct tk_provider *ret_provider, struct tk_fault *fault)
{
        struct tk_volume_options options = {
                .dek_wrap = conf->volume.dek_wrap_kms ? TK_DEK_WRAP_KMS : TK_DEK_WRAP_KEK,
                .names = conf->volume.names_plain ? TK_NAMES_PLAIN : TK_NAMES_ENCRYPTED,
                .journal_len = (uint64_t)conf->volume.journal_size << 20};
        int r;

        r = tk_provider_make(conf, target, ret_provider, fault);
        if (r < 0)
                return r;
        memcpy(options.id, target->id, TK_VOLUME_ID_LEN);
        r = tk_volume_create(cipherdir, &options, ret_provider->kms, ret_fingerprint, fault);
        if (r == 0 || !ret_provider->made)
                return r;

        tk_fault_set(fault, TK_FAULT_INTERNAL, r, "cannot make a volume in %s: %s", cipherdir,
                     strerror(-r));
        tk_fault_add(fault, "; the new %s %s is left, and may be removed: nothing uses it",
                     ret_provider->place_name, ret_provider->place);
        return r;
}

static void print_result(const struct tk_args *args, const struct tk_provider_volume *target,
                         const struct tk_provider *provider, const char *fingerprint)
{
        char id[2 * TK_VOLUME_ID_LEN + 1];

        tk_hex_encode(target->id, TK_VOLUME_ID_LEN, id);
        printf("Made the encrypted directory %s.\n\n"
               "volume id    %s\n"
               "%-12s %s (%s)\n"
               "fingerprint  %s\n\n",
               target->cipherdir, id, provider->place_name, provider->place,
               provider->made ? "new" : "was there already", fingerprint);
        if (provider->makes_versions)
                printf("Back up the keystore, apart from the data: without it the data is "
                       "lost.\n\n");
        printf("To accept this volume only, put its fingerprint into the configuration:\n"
               "  [volume]\n"
               "  fingerprint = %s\n\n"
               "To mount it:\n"
               "  turnkeyfs mount%s%s %s MOUNTPOINT\n",
               fingerprint, args->config ? " -c " : "", args->config ? args->config : "",
               target->cipherdir);
}

int tk_cmd_init(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        TK_CLEANUP(tk_freep) char *cipherdir = NULL;
        TK_CLEANUP(tk_provider_done) struct tk_provider provider = {0};
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        uint8_t id[TK_VOLUME_ID_LEN];
        struct tk_provider_volume target = {.id = id};
        int r;

        umask(022); /* modes as the volume wants them */
        r = tk_open_conf(args->config, &conf, fault);
        if (r < 0)
                return r;
        r = check_place(args->paths[0], fault);
        if (r < 0)
                return r;
        r = tk_path_resolve(args->paths[0], &cipherdir);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, r, "cannot find %s: %s",
                                    args->paths[0], strerror(-r));
        r = tk_random_bytes(id, sizeof(id));
        if (r < 0)
                return r;
        target.cipherdir = cipherdir;
        r = make_volume(cipherdir, conf, &target, fingerprint, &provider, fault);
        if (r < 0)
                return r;

        if (conf->volume.fingerprint)
                fprintf(stderr,
                        "turnkeyfs: warning: %s names another volume's fingerprint; replace it\n",
                        conf->path);
        print_result(args, &target, &provider, fingerprint);
        return 0;
}
