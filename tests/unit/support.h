/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What every unit test uses: cmocka, the check for lost secrets, a directory of its own. */

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include "base/bytes.h"
#include "base/secret.h"
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* cmocka 2 has a check for each signedness, and warns of the only one that cmocka 1 has. */
#ifdef assert_int_in_range
#undef assert_in_range
#define assert_in_range assert_int_in_range
#endif

/* Sanitizers turn mlock(2) into nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TK_TEST_SANITIZED 1
#elif defined(__has_feature)
#define TK_TEST_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define TK_TEST_SANITIZED 0
#endif

enum { TK_TEST_NOBODY = 65534 };

/* Teardown: whatever a test made was freed. */
static inline int tk_test_no_secrets(void **state)
{
        (void)state;
        assert_int_equal(tk_secret_alive(), 0);
        return 0;
}

#define TK_TEST(test) cmocka_unit_test_teardown(test, tk_test_no_secrets)

/* Setup: a new directory under $TMPDIR becomes the working directory. */
static inline int tk_test_dir_enter(void **state)
{
        const char *tmp = getenv("TMPDIR");
        char path[512];

        snprintf(path, sizeof(path), "%s/tk-unit-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(path) || chdir(path) < 0)
                return -1;
        *state = strdup(path);
        return *state ? 0 : -1;
}

static inline int tk_test_dir_remove_one(const char *path, const struct stat *st, int type,
                                         struct FTW *ftw)
{
        (void)st;
        (void)type;
        (void)ftw;
        return remove(path);
}

/* Teardown: remove the directory; no secret was lost. */
static inline int tk_test_dir_leave(void **state)
{
        char *path = *state;
        int r = chdir("/");

        if (nftw(path, tk_test_dir_remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0)
                r = -1;
        free(path);
        return r < 0 ? r : tk_test_no_secrets(state);
}

#define TK_TEST_IN_DIR(test)                                                                       \
        cmocka_unit_test_setup_teardown(test, tk_test_dir_enter, tk_test_dir_leave)

static inline struct tk_secret *tk_test_secret(const void *bytes, size_t len)
{
        struct tk_secret *secret = NULL;

        assert_int_equal(tk_secret_dup_bytes(bytes, len, &secret), 0);
        return secret;
}

/* Bytes of the hexadecimal @hex into @bytes, which holds @max. */
static inline size_t tk_test_unhex(const char *hex, uint8_t *bytes, size_t max)
{
        size_t len = strlen(hex) / 2;

        assert_true(len <= max);
        assert_int_equal(tk_hex_decode(hex, bytes, len), 0);
        return len;
}

static inline struct tk_secret *tk_test_secret_hex(const char *hex)
{
        uint8_t bytes[256];

        return tk_test_secret(bytes, tk_test_unhex(hex, bytes, sizeof(bytes)));
}

static inline void tk_test_flip(uint8_t *bytes, size_t bit)
{
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
}
