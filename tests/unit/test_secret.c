/* SPDX-License-Identifier: Apache-2.0 */

/* Secrets: locked, undumpable, wiped, counted. */

#include "tests/unit/support.h"

#include "base/wiping.h"
#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* The VmFlags line of the mapping that holds @address; false if nothing is mapped there. */
static bool vm_flags(const void *address, char *ret_flags, size_t max)
{
        FILE *maps = fopen("/proc/self/smaps", "re");
        bool inside = false;
        bool found = false;
        char line[512];

        assert_non_null(maps);
        while (!found && fgets(line, sizeof(line), maps)) {
                char *dash, *space;
                uintptr_t begin = strtoul(line, &dash, 16);
                uintptr_t end = *dash == '-' ? strtoul(dash + 1, &space, 16) : 0;

                if (end > 0 && *space == ' ')
                        inside = begin <= (uintptr_t)address && (uintptr_t)address < end;
                else if (inside && strncmp(line, "VmFlags:", 8) == 0)
                        found = true;
        }
        fclose(maps);
        if (found)
                snprintf(ret_flags, max, "%s", line);
        return found;
}

static void assert_protected(const struct tk_secret *secret)
{
        size_t len = tk_secret_len(secret);
        char flags[512];

        assert_true(vm_flags(tk_secret_bytes(secret), flags, sizeof(flags)));
        assert_non_null(strstr(flags, " dd")); /* in no core dump */
        assert_non_null(strstr(flags, " wf")); /* zeros in a child */
        if (!TK_TEST_SANITIZED)
                assert_non_null(strstr(flags, " lo")); /* never swapped */
        assert_true(vm_flags(tk_secret_bytes(secret) + len - 1, flags, sizeof(flags)));
        assert_non_null(strstr(flags, " dd"));
}

static void test_secret_new__protected(void **state)
{
        static const size_t lens[] = {1,    TK_KEY_LEN, TK_SECRET_SLOT, TK_SECRET_SLOT + 1,
                                      4096, 4097,       100000};

        if (!tk_secret_all_locked())
                skip();
        for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
                TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;

                assert_int_equal(tk_secret_new(lens[i], &secret), 0);
                assert_int_equal(tk_secret_len(secret), lens[i]);
                assert_true(tk_bytes_are_zero(tk_secret_bytes(secret), lens[i]));
                assert_protected(secret);
        }
        assert_true(tk_secret_all_locked());
}

static void test_secret_new__empty(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *a = tk_test_secret("", 0);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *b = tk_test_secret("", 0);

        assert_int_equal(tk_secret_len(a), 0);
        assert_true(tk_secret_equal(a, b));
}

static void test_secret_free__counts_and_takes_null(void **state)
{
        struct tk_secret *small = tk_test_secret("key", 3);
        struct tk_secret *large;

        assert_int_equal(tk_secret_alive(), 1);
        assert_int_equal(tk_secret_new(10000, &large), 0);
        assert_int_equal(tk_secret_alive(), 2);
        assert_null(tk_secret_free(small));
        assert_int_equal(tk_secret_alive(), 1);
        assert_null(tk_secret_free(large));
        assert_null(tk_secret_free(NULL));
        assert_int_equal(tk_secret_alive(), 0);
}

/* The slot's page stays mapped while its neighbour lives: look into it. */
static void test_secret_free__wipes_a_slot(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *neighbour = tk_test_secret("n", 1);
        uint8_t key[TK_SECRET_SLOT];
        struct tk_secret *secret;
        const uint8_t *bytes;

        memset(key, 0xa5, sizeof(key));
        secret = tk_test_secret(key, sizeof(key));
        bytes = tk_secret_bytes(secret);
        assert_memory_equal(bytes, key, sizeof(key));
        tk_secret_free(secret);
        assert_true(tk_bytes_are_zero(bytes, sizeof(key)));
        assert_memory_equal(tk_secret_bytes(neighbour), "n", 1);
}

static void test_secret_free__unmaps_large_ones(void **state)
{
        struct tk_secret *secret;
        const uint8_t *bytes;
        char flags[512];

        assert_int_equal(tk_secret_new(1 << 20, &secret), 0);
        bytes = tk_secret_bytes(secret);
        assert_true(vm_flags(bytes, flags, sizeof(flags)));
        tk_secret_free(secret);
        assert_false(vm_flags(bytes, flags, sizeof(flags)) && strstr(flags, " dd"));
}

static void test_secret_truncate__wipes_the_rest(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = tk_test_secret("0123456789", 10);

        tk_secret_truncate(secret, 4);
        assert_int_equal(tk_secret_len(secret), 4);
        assert_memory_equal(tk_secret_bytes(secret), "0123", 4);
        assert_true(tk_bytes_are_zero(tk_secret_bytes(secret) + 4, 6));
        tk_secret_truncate(secret, 4);
        tk_secret_truncate(secret, 0);
        assert_true(tk_bytes_are_zero(tk_secret_bytes(secret), 10));
}

static void test_secret_equal__every_bit_counts(void **state)
{
        static const uint8_t key[TK_KEY_LEN] = "an example key of 32 bytes.....";
        TK_CLEANUP(tk_secret_freep) struct tk_secret *a = tk_test_secret(key, sizeof(key));
        TK_CLEANUP(tk_secret_freep) struct tk_secret *b = tk_test_secret(key, sizeof(key));
        TK_CLEANUP(tk_secret_freep) struct tk_secret *shorter = tk_test_secret(key, 31);

        assert_true(tk_secret_equal(a, b));
        assert_false(tk_secret_equal(a, shorter));
        for (size_t bit = 0; bit < sizeof(key) * 8; bit++) {
                tk_test_flip(tk_secret_bytes_mutable(b), bit);
                assert_false(tk_secret_equal(a, b));
                tk_test_flip(tk_secret_bytes_mutable(b), bit);
        }
        assert_true(tk_secret_equal(a, b));
}

static void test_wipe__all_bytes(void **state)
{
        uint8_t bytes[] = {1, 2, 3, 4};

        tk_wipe(bytes + 1, 2);
        assert_memory_equal(bytes, "\x01\x00\x00\x04", 4);
        tk_wipe(NULL, 0);
}

enum { MANY = 5000 };

static void fill(struct tk_secret *secret, size_t number)
{
        for (size_t i = 0; i < TK_SECRET_SLOT; i++)
                tk_secret_bytes_mutable(secret)[i] = (uint8_t)(number * 31 + i + 1);
}

static void assert_filled(const struct tk_secret *secret, size_t number)
{
        for (size_t i = 0; i < TK_SECRET_SLOT; i++)
                assert_int_equal(tk_secret_bytes(secret)[i], (uint8_t)(number * 31 + i + 1));
}

/* Several chunks, freed in a mixed order and used again: no two secrets share a byte. */
static void test_secret_new__many_slots(void **state)
{
        static struct tk_secret *secrets[MANY];

        for (size_t i = 0; i < MANY; i++) {
                assert_int_equal(tk_secret_new(TK_SECRET_SLOT, &secrets[i]), 0);
                fill(secrets[i], i);
        }
        assert_int_equal(tk_secret_alive(), MANY);
        for (size_t i = 0; i < MANY; i += 3)
                secrets[i] = tk_secret_free(secrets[i]);
        for (size_t i = 0; i < MANY; i += 3) {
                assert_int_equal(tk_secret_new(TK_SECRET_SLOT, &secrets[i]), 0);
                assert_true(tk_bytes_are_zero(tk_secret_bytes(secrets[i]), TK_SECRET_SLOT));
                fill(secrets[i], i);
        }
        for (size_t i = 0; i < MANY; i++)
                assert_filled(secrets[i], i);
        for (size_t i = MANY; i-- > 0;)
                tk_secret_free(secrets[i]);
}

/* Returns NULL if every new slot was clean and stayed its thread's own. */
static void *churn(void *context)
{
        for (size_t round = 0; round < 3000; round++) {
                struct tk_secret *secret;

                if (tk_secret_new(TK_SECRET_SLOT, &secret) < 0)
                        return context;
                if (!tk_bytes_are_zero(tk_secret_bytes(secret), TK_SECRET_SLOT))
                        return context;
                fill(secret, (size_t)context);
                for (size_t i = 0; i < TK_SECRET_SLOT; i++)
                        if (tk_secret_bytes(secret)[i] != (uint8_t)((size_t)context * 31 + i + 1))
                                return context;
                tk_secret_free(secret);
        }
        return NULL;
}

static void test_secret_new__threads(void **state)
{
        pthread_t threads[4];

        for (size_t i = 0; i < 4; i++)
                assert_int_equal(
                        pthread_create(&threads[i], NULL, churn, (void *)(uintptr_t)(i + 1)), 0);
        for (size_t i = 0; i < 4; i++) {
                void *result;

                assert_int_equal(pthread_join(threads[i], &result), 0);
                assert_null(result);
        }
}

/* In a child, without the right to lock memory. Returns the step that went wrong. */
static int refuse_without_lock(void)
{
        struct rlimit none = {0, 0};
        struct tk_secret *secret;

        if (setrlimit(RLIMIT_MEMLOCK, &none) < 0)
                return 1;
        if (geteuid() == 0 && setuid(TK_TEST_NOBODY) < 0)
                return 2;
        tk_secret_require_lock(true);
        if (tk_secret_new(4096, &secret) != -EPERM)
                return 3;
        if (tk_secret_new(TK_KEY_LEN, &secret) != -EPERM)
                return 4;
        if (tk_secret_alive() != 0 || tk_secret_all_locked())
                return 5;
        tk_secret_require_lock(false);
        if (tk_secret_new(4096, &secret) != 0 || tk_secret_all_locked())
                return 6;
        tk_secret_free(secret);
        return tk_secret_alive() == 0 ? 0 : 7;
}

/* Runs first: no chunk has been locked yet. */
static void test_secret_require_lock__refuses(void **state)
{
        int status;
        pid_t pid;

        if (TK_TEST_SANITIZED)
                skip();
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
                _exit(refuse_without_lock());
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
}

/* Blocks of libraries: in no core dump, wiped when freed, and from the heap when there are no more.
 */
static void test_hidden__protected_and_wiped(void **state)
{
        static const size_t lens[] = {0, 1, 48, 49, 1000, 16384, 200000};
        char flags[512];

        for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
                uint8_t *block = tk_hidden_malloc(lens[i]);

                assert_non_null(block);
                assert_int_equal((uintptr_t)block % 16, 0);
                assert_true(vm_flags(block, flags, sizeof(flags)));
                assert_non_null(strstr(flags, " dd"));
                memset(block, 'x', lens[i]);
                tk_wiping_free(block);
                for (size_t k = sizeof(void *); k < lens[i]; k++) /* the next free one is noted */
                        assert_int_equal(block[k], 0);
                assert_ptr_equal(tk_hidden_malloc(lens[i]), block);
                tk_wiping_free(block);
        }
}

static void test_hidden__grows(void **state)
{
        char *text = tk_hidden_strdup("text");
        uint8_t *zeros;

        for (size_t len = 10; len < 1000000; len *= 3) {
                text = tk_hidden_realloc(text, len);
                assert_non_null(text);
                assert_string_equal(text, "text");
                memset(text + 5, 'x', len - 5);
        }
        tk_wiping_free(text);
        zeros = tk_hidden_calloc(10, 100);
        for (size_t i = 0; i < 1000; i++)
                assert_int_equal(zeros[i], 0);
        tk_wiping_free(zeros);
        assert_null(tk_hidden_calloc(SIZE_MAX / 2, 3));
        tk_wiping_free(NULL);
}

enum { HIDDEN_MANY = 100 };

static void test_hidden__more_than_there_are(void **state)
{
        uint8_t *blocks[HIDDEN_MANY];

        for (int i = 0; i < HIDDEN_MANY; i++) {
                blocks[i] = tk_hidden_malloc(150000);
                assert_non_null(blocks[i]);
                memset(blocks[i], i, 150000);
        }
        for (int i = 0; i < HIDDEN_MANY; i++) {
                assert_int_equal(blocks[i][0], i);
                assert_int_equal(blocks[i][149999], i);
                tk_wiping_free(blocks[i]);
        }
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_secret_require_lock__refuses),
                TK_TEST(test_secret_new__protected),
                TK_TEST(test_secret_new__empty),
                TK_TEST(test_secret_free__counts_and_takes_null),
                TK_TEST(test_secret_free__wipes_a_slot),
                TK_TEST(test_secret_free__unmaps_large_ones),
                TK_TEST(test_secret_truncate__wipes_the_rest),
                TK_TEST(test_secret_equal__every_bit_counts),
                TK_TEST(test_wipe__all_bytes),
                TK_TEST(test_hidden__protected_and_wiped),
                TK_TEST(test_hidden__grows),
                TK_TEST(test_hidden__more_than_there_are),
                TK_TEST(test_secret_new__many_slots),
                TK_TEST(test_secret_new__threads),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
