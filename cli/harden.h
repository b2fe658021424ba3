/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Hardening: what a daemon gives up for good before it has a secret, so that somebody who
 * takes it over has little more than its volume and its network.
 *
 * Four parts: capabilities, new privileges (set-user-id programs), system calls (seccomp),
 * and Landlock. All of them are for threads, and inherited by those to come: called
 * before there are any. Mounting is out of reach afterwards: the guardian does that.
 */

#include "base/fault.h"
#include "conf/conf.h"

/* What of the file system is left to somebody without root. */
enum tk_harden_files {
        TK_HARDEN_FILES_NONE,    /* the kernel has no Landlock: nothing is held back */
        TK_HARDEN_FILES_SOCKETS, /* only sockets are, see harden_files.c */
        TK_HARDEN_FILES_WRITES,  /* and writing is for the volume and the keystore's directory */
};

/* What is in force. */
struct tk_harden {
        bool capabilities;
        bool no_new_privileges;
        bool system_calls;
        enum tk_harden_files files;
};

/*
 * Give everything up that a mount under @conf of the volume in @cipherdir_fd, with its root
 * key at @place, does not need. What this machine does not have is left out, with a warning
 * where it should. Does nothing with [mount] hardening = no.
 */
void tk_harden(const struct tk_conf *conf, int cipherdir_fd, const char *place,
               struct tk_harden *ret_harden);

/* The parts, for tests. 0 or a negative errno. */
TK_MUST_USE int tk_harden_capabilities(void);

struct tk_harden_calls {
        bool programs; /* others may be started */
        bool io_uring;
};
TK_MUST_USE int tk_harden_calls(const struct tk_harden_calls *allowed);

/* Writing below @cipherdir_fd and in the directory of @keystore; -1: everywhere. NULL: none. */
TK_MUST_USE int tk_harden_files(int cipherdir_fd, const char *keystore,
                                enum tk_harden_files *ret_files);

/* The version of the kernel's Landlock; 0: none. */
unsigned tk_harden_landlock(void);

/* "none", "sockets" or "writes". */
const char *tk_harden_files_name(enum tk_harden_files files);
