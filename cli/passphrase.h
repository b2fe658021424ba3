/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The keystore's passphrase, from where the configuration says: never from the
 * command line or the environment.
 */

#include "base/fault.h"
#include "base/secret.h"
#include "conf/conf.h"

enum { TK_PASSPHRASE_MAX = 1024 };

/*
 * Read the passphrase that @conf names the source of. @label says on the
 * terminal what it is for; with @confirm it is asked for twice there. Returns 0
 * and the passphrase, NULL if the source is "none"; or a fault.
 */
TK_MUST_USE int tk_passphrase_get(const struct tk_conf *conf, const char *label, bool confirm,
                                  struct tk_secret **ret_passphrase, struct tk_fault *fault);

/* Whether somebody has to type it, or it can be read only once. */
bool tk_passphrase_is_interactive(const struct tk_conf *conf);

/* The descriptor that it will be read from; -1: another source. */
int tk_passphrase_fd(const struct tk_conf *conf);
