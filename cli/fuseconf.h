/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What /etc/fuse.conf allows to users other than root. */

#include <stdbool.h>

/* Whether it holds the line user_allow_other. */
bool tk_fuseconf_allows_other(void);
