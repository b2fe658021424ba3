/* SPDX-License-Identifier: Apache-2.0 */

/*
 * When the last escrow was exported.
 *
 * Not where to: paths of other places have no business in the encrypted directory.
 */

#include "fs/escrow_note.h"

#include "base/fdio.h"
#include "base/ini.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOTE_FILE "turnkeyfs.exported"

enum { NOTE_MAX = 1024 };

int tk_escrow_note_write(int dirfd, const struct tk_escrow_note *note)
{
        char text[NOTE_MAX];
        struct stat st;
        int len = snprintf(text, sizeof(text), "[escrow]\nexported = %lld\nkek = %u\n",
                           (long long)note->exported, note->kek);
        int r = tk_fdio_replace(dirfd, NOTE_FILE, text, (size_t)len, 0600);

        if (r < 0)
                return r;
        if (fstat(dirfd, &st) < 0 ||
            fchownat(dirfd, NOTE_FILE, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        return 0;
}

/* Decimal, from 1 on up to @max for @name; anything else is no note. */
static int parse_entry(void *context, const struct tk_ini_entry *entry)
{
        struct tk_escrow_note *note = context;
        char *end = NULL;
        long long number;

        errno = 0;
        number = strtoll(entry->value, &end, 10);
        if (entry->value[0] < '0' || entry->value[0] > '9' || *end || errno)
                return -EBADMSG;
        if (strcmp(entry->name, "exported") == 0)
                note->exported = number;
        else if (strcmp(entry->name, "kek") == 0 && number <= UINT16_MAX)
                note->kek = (uint16_t)number;
        else
                return -EBADMSG;
        return 0;
}

int tk_escrow_note_read(const struct tk_volume *volume, struct tk_escrow_note *ret_note)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        size_t len;
        int line;
        int r;

        memset(ret_note, 0, sizeof(*ret_note));
        r = tk_fdio_read_file(tk_volume_dirfd(volume), NOTE_FILE, NOTE_MAX, &text, &len);
        if (r < 0)
                return r == -ENOENT || r == -EACCES ? r : -EBADMSG;
        if (tk_ini_parse(text, parse_entry, ret_note, &line) < 0 || ret_note->exported == 0)
                return -EBADMSG;
        return 0;
}

bool tk_escrow_note_is_outdated(struct tk_volume *volume, const struct tk_escrow_note *note)
{
        return note->kek > 0 && (note->kek > tk_volume_kek_count(volume) ||
                                 !tk_volume_kek_at(volume, note->kek - 1U).active);
}
