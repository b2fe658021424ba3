/* SPDX-License-Identifier: Apache-2.0 */

/* Random bytes from the kernel. */

#include "crypto/random.h"

#include <errno.h>
#include <sys/random.h>

int tk_random_bytes(void *buf, size_t len)
{
        uint8_t *at = buf;

        while (len > 0) {
                ssize_t n = getrandom(at, len, 0);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                at += n;
                len -= (size_t)n;
        }
        return 0;
}

int tk_random_secret(size_t len, struct tk_secret **ret_secret)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;
        int r;

        r = tk_secret_new(len, &secret);
        if (r < 0)
                return r;
        r = tk_random_bytes(tk_secret_bytes_mutable(secret), len);
        if (r < 0)
                return r;
        *ret_secret = TK_TAKE(secret);
        return 0;
}
