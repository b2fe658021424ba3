/* SPDX-License-Identifier: Apache-2.0 */

/* A libfuse that doesn't know io_uring. */

#include "fs/uring.h"

void tk_uring_options(char ret_options[TK_URING_OPTIONS])
{
        ret_options[0] = '\0';
}

unsigned tk_uring_capability(void)
{
        return 0;
}
