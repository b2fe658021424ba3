/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The comma list of `mount -o`, from the command line or fstab. */

#include "base/fault.h"
#include "conf/conf.h"

struct tk_mountopts {
        char *config;     /* config=PATH; NULL: none */
        char *kernel;     /* what goes on to the kernel's mount, comma-separated; NULL: none */
        bool allow_other; /* given */
        bool read_only;   /* ro was given, and rw not after it */
        bool read_write;  /* rw was given, and ro not after it */
        bool nonempty;
        unsigned threads; /* 0: not given */
};

/* -EINVAL with a usage fault that names the option. Done in any case with tk_mountopts_done. */
TK_MUST_USE int tk_mountopts_parse(const char *list, struct tk_mountopts *ret_opts,
                                   struct tk_fault *fault);

/* What was given wins over @conf. */
void tk_mountopts_apply(const struct tk_mountopts *opts, struct tk_conf *conf);

void tk_mountopts_done(struct tk_mountopts *opts);
