/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How far the kernel reads ahead of a sequential reader.
 *
 * FUSE starts with 128 KiB and lets a filesystem ask for less only: more is set where an
 * administrator would, in /sys, which takes root. Where that can't be done, it stays as it is.
 */

#include "base/cleanup.h"

/*
 * Raise it for the mount at @mountpoint. Asks the filesystem nothing, so that it may be called
 * while the session begins, before the reply to FUSE_INIT.
 */
void tk_readahead_raise(const char *mountpoint);
