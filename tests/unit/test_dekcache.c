/* SPDX-License-Identifier: Apache-2.0 */

/* DEK cache: what was put in comes out while its lease lasts, and nothing else does. */

#include "support.h"

#include "fs/dekcache.h"
#include <errno.h>
#include <string.h>
#include <time.h>

/* A record that ends with @number, which is all that the cache looks at. */
static struct tk_record record_of(uint32_t number)
{
        struct tk_record record = {{0}};
        uint8_t *mac;

        record.bytes[0] = 2;
        record.bytes[5] = 32; /* of 32 bytes of wrapped key */
        mac = record.bytes + tk_record_len(&record) - TK_MAC_LEN;
        memcpy(mac, &number, sizeof(number));
        return record;
}

static void put(struct tk_dekcache *cache, uint32_t number)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct tk_record record = record_of(number);
        uint8_t bytes[TK_KEY_LEN] = {0};

        memcpy(bytes, &number, sizeof(number));
        dek = tk_test_secret(bytes, sizeof(bytes));
        tk_dekcache_put(cache, &record, dek);
}

/* Whether it is there; what comes out must be what went in. */
static bool has(struct tk_dekcache *cache, uint32_t number)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct tk_record record = record_of(number);
        int r = tk_dekcache_get(cache, &record, &dek);

        if (r < 0) {
                assert_int_equal(r, -ENOENT);
                return false;
        }
        assert_int_equal(tk_secret_len(dek), TK_KEY_LEN);
        assert_memory_equal(tk_secret_bytes(dek), &number, sizeof(number));
        return true;
}

static void test_get__what_was_put(void **state)
{
        TK_CLEANUP(tk_dekcache_freep) struct tk_dekcache *cache = NULL;

        assert_int_equal(tk_dekcache_new(10, 60000, &cache), 0);
        assert_false(has(cache, 1));
        put(cache, 1);
        put(cache, 1);
        put(cache, 0x10001); /* the same chain */
        assert_true(has(cache, 1));
        assert_true(has(cache, 0x10001));
        assert_false(has(cache, 2));
}

static void test_put__the_oldest_makes_room(void **state)
{
        TK_CLEANUP(tk_dekcache_freep) struct tk_dekcache *cache = NULL;

        assert_int_equal(tk_dekcache_new(10, 60000, &cache), 0);
        for (uint32_t i = 1; i <= 15; i++)
                put(cache, i);
        for (uint32_t i = 1; i <= 15; i++)
                assert_int_equal(has(cache, i), i > 5);
}

static void test_get__not_after_the_lease(void **state)
{
        TK_CLEANUP(tk_dekcache_freep) struct tk_dekcache *cache = NULL;
        struct timespec pause = {.tv_nsec = 60000000};

        assert_int_equal(tk_dekcache_new(10, 30, &cache), 0);
        put(cache, 1);
        nanosleep(&pause, NULL);
        assert_false(has(cache, 1));
}

static void test_clear__nothing_is_left(void **state)
{
        TK_CLEANUP(tk_dekcache_freep) struct tk_dekcache *cache = NULL;

        assert_int_equal(tk_dekcache_new(100, 60000, &cache), 0);
        for (uint32_t i = 1; i <= 50; i++)
                put(cache, i);
        tk_dekcache_clear(cache);
        for (uint32_t i = 1; i <= 50; i++)
                assert_false(has(cache, i));
        put(cache, 7);
        assert_true(has(cache, 7));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_get__what_was_put),
                cmocka_unit_test(test_put__the_oldest_makes_room),
                cmocka_unit_test(test_get__not_after_the_lease),
                cmocka_unit_test(test_clear__nothing_is_left),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
