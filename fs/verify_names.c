/* SPDX-License-Identifier: Apache-2.0 */

/*
 * For verify: the names in one directory.
 *
 * An entry whose name is lost is renamed where it is: its content is then to be had
 * through a mount, and a rotation goes on seeing its key record, which it would not
 * outside of the tree.
 */

#include "fs/verify_names.h"

#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/sibling.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

enum { KEPT_OF_NAME = 60, TRIES = 1000 };

int tk_verify_names_begin(struct tk_fs *fs, int fd, struct tk_verify_names *ret_names)
{
        int r;

        *ret_names = (struct tk_verify_names){.fs = fs, .fd = fd};
        if (!fs->names_encrypted)
                return 0;
        r = tk_dirkey_load_entries(fs, fd, &ret_names->key);
        if (r == -ENODATA)
                return 0;
        return r == TK_DIRKEY_LOST ? -ENODATA : r;
}

void tk_verify_names_end(struct tk_verify_names *names)
{
        names->key = tk_dirkey_put(names->fs, names->key);
}

int tk_verify_names_read(const struct tk_verify_names *names, const char *backing,
                         char ret_name[TK_NAMES_MAX + 1])
{
        struct tk_names_reader reader;
        int r;

        if (!names->key) {
                memcpy(ret_name, backing, strlen(backing) + 1);
                return 0;
        }
        r = tk_names_reader_begin(&reader, names->fs, tk_dirkey_names(names->key));
        if (r == 0)
                r = tk_names_read(&reader, names->fd, backing, ret_name);
        tk_names_reader_end(&reader);
        return r;
}

bool tk_verify_names_is_orphan(const struct tk_verify_names *names, const char *name)
{
        char entry[TK_NAMES_HASHED_LEN + 1];
        struct stat st;

        memcpy(entry, name, TK_NAMES_HASHED_LEN);
        entry[TK_NAMES_HASHED_LEN] = '\0';
        return fstatat(names->fd, entry, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

static int rename_to(const struct tk_verify_names *names, const char *backing, const char *name)
{
        struct tk_name to;
        int r = tk_names_encode(tk_dirkey_names(names->key), name, strlen(name), &to);

        return r < 0 ? r
                     : tk_backing_rename(names->fd, backing, names->fd, to.backing,
                                         RENAME_NOREPLACE);
}

/* What was the entry @backing has another name: its sibling, if it had one, is left over. */
static void remove_sibling(const struct tk_verify_names *names, const char *backing)
{
        struct tk_name gone = {.is_long = tk_names_is_hashed(backing)};

        snprintf(gone.backing, sizeof(gone.backing), "%s", backing);
        tk_sibling_lock(names->fs, &gone, NULL);
        tk_sibling_tidy(names->fd, &gone);
        tk_sibling_unlock(names->fs, &gone, NULL);
}

/* Many may begin alike, on purpose: where a name is taken, one with a number is not, or the next.
 */
int tk_verify_names_recover(struct tk_verify_names *names, const char *backing,
                            char ret_name[TK_NAMES_MAX + 1])
{
        int len =
                snprintf(ret_name, TK_NAMES_MAX + 1, "recovered-%.*s", (int)KEPT_OF_NAME, backing);
        int r = rename_to(names, backing, ret_name);

        names->recovered++;
        for (int i = 0; r == -EEXIST && i < TRIES; i++) {
                snprintf(ret_name + len, TK_NAMES_MAX + 1 - (size_t)len, "-%u", names->recovered);
                r = rename_to(names, backing, ret_name);
                names->recovered += r == -EEXIST;
        }
        if (r == 0)
                remove_sibling(names, backing);
        return r;
}
