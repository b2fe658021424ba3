/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any bytes as an escrow: the reader comes to an end, and what it accepts comes out of
 * the writer as the same bytes. Without its checksum nearly nothing gets far, so that is
 * put right first.
 */

#include "base/fdio.h"
#include "crypto/mac.h"
#include "fs/escrow_file.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { LEN_MAX = 64 * 1024 };

static void require(bool holds)
{
        if (!holds)
                abort();
}

static int new_file(const uint8_t *bytes, size_t len)
{
        int fd = memfd_create("escrow", MFD_CLOEXEC);

        require(fd >= 0 && tk_fdio_pwrite(fd, bytes, len, 0) == 0);
        return fd;
}

static void compare(int fd, const uint8_t *bytes, size_t len)
{
        uint8_t written[LEN_MAX + 1];

        require(tk_fdio_pread(fd, written, sizeof(written), 0) == (ssize_t)len);
        require(memcmp(written, bytes, len) == 0);
}

/* Read all of it, and write it again. */
static void copy(struct tk_escrow_reader *reader, const uint8_t *bytes, size_t len)
{
        TK_CLEANUP(tk_escrow_writer_freep) struct tk_escrow_writer *writer = NULL;
        TK_AUTOCLOSE int fd = new_file(bytes, 0);
        const struct tk_escrow_entry *entry = NULL;
        int r;

        require(tk_escrow_writer_new(fd, tk_escrow_reader_id(reader),
                                     tk_escrow_reader_created(reader), &writer) == 0);
        while ((r = tk_escrow_reader_next(reader, &entry)) > 0)
                require(tk_escrow_writer_add(writer, entry) == 0);
        require(r == 0 || r == -EBADMSG);
        if (r < 0)
                return;
        require(tk_escrow_writer_end(writer, tk_escrow_reader_volume_file(reader)) == 0);
        compare(fd, bytes, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        TK_CLEANUP(tk_escrow_reader_freep) struct tk_escrow_reader *reader = NULL;
        uint8_t fixed[LEN_MAX];
        int r;

        if (len > LEN_MAX)
                return 0;
        memcpy(fixed, bytes, len);
        if (len >= TK_MAC_LEN)
                require(tk_mac_sha256(fixed, len - TK_MAC_LEN, fixed + len - TK_MAC_LEN) == 0);
        r = tk_escrow_reader_new(new_file(fixed, len), &reader);
        require(r == 0 || r == -EINVAL || r == -ENOTSUP || r == -EBADMSG);
        if (r == 0)
                copy(reader, fixed, len);
        return 0;
}
