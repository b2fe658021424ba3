/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What OpenSSL leaves behind in ordinary memory.
 *
 * Keys in our own hands lie in secrets (base/secret.h); OpenSSL copies some of them, and the
 * records of a TLS connection hold tokens and unwrapped keys.
 */

#include "base/cleanup.h"

/* From now on OpenSSL wipes what it frees. -EBUSY if it was in use before. */
TK_MUST_USE int tk_openssl_wipe_memory(void);

/* Connections of @ssl_context, an SSL_CTX, free the buffer of a record once it was read. */
void tk_openssl_keep_no_records(void *ssl_context);
