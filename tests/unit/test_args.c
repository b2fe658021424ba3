/* SPDX-License-Identifier: Apache-2.0 */

/* The command line of one command. */

#include "cli/args.h"
#include "tests/unit/support.h"
#include <errno.h>

static const struct tk_command command = {.name = "verb",
                                          .synopsis = "SYNOPSIS",
                                          .options = "c:fo:YT4",
                                          .min_paths = 1,
                                          .max_paths = 2};

enum { WORDS_MAX = 12 };

/* Parse "verb" and the words of @line, which is changed. */
static int parse(char *line, struct tk_args *args, struct tk_fault *fault)
{
        static char verb[] = "verb";
        static char *argv[WORDS_MAX + 2]; /* what is parsed points into it */
        int argc = 1;
        char *word;

        memset(argv, 0, sizeof(argv));
        argv[0] = verb;
        while (argc <= WORDS_MAX && (word = strsep(&line, "|")))
                argv[argc++] = word;
        memset(fault, 0, sizeof(*fault));
        return tk_args_parse(&command, argc, argv, args, fault);
}

static void test_args_parse__any_order(void **state)
{
        char line[] = "a|-o|x,y|-f|b|--config=c|-oz";
        struct tk_args args;
        struct tk_fault fault;

        assert_int_equal(parse(line, &args, &fault), 0);
        assert_int_equal(args.path_count, 2);
        assert_string_equal(args.paths[0], "a");
        assert_string_equal(args.paths[1], "b");
        assert_string_equal(args.mount_options, "x,y,z");
        assert_string_equal(args.config, "c");
        assert_true(args.foreground);
        assert_false(args.json || args.help);
        tk_args_done(&args);
}

/* What stands for a long option alone: a capital or a digit. */
static void test_args_parse__long_options(void **state)
{
        char line[] = "a|--to|conf|--yes|--rotate-after=90";
        struct tk_args args;
        struct tk_fault fault;

        assert_int_equal(parse(line, &args, &fault), 0);
        assert_true(args.yes);
        assert_string_equal(args.to, "conf");
        assert_string_equal(args.days[0], "90");
        assert_null(args.days[1]);
        tk_args_done(&args);
}

static void test_args_parse__end_of_options(void **state)
{
        char line[] = "--|-f";
        struct tk_args args;
        struct tk_fault fault;

        assert_int_equal(parse(line, &args, &fault), 0);
        assert_string_equal(args.paths[0], "-f");
        assert_false(args.foreground);
        tk_args_done(&args);
}

static void test_args_parse__help_needs_nothing_else(void **state)
{
        char line[] = "--help";
        struct tk_args args;
        struct tk_fault fault;

        assert_int_equal(parse(line, &args, &fault), 0);
        assert_true(args.help);
        tk_args_done(&args);
}

static void test_args_parse__refused(void **state)
{
        static const struct {
                const char *line;
                const char *why;
        } cases[] = {
                {"-f", "a word is missing"},
                {"a|b|c", "one word too many: c"},
                {"a|-x", "unknown option -x"},
                {"a|--bogus", "unknown option --bogus"},
                {"a|-j", "unknown option -j"},
                {"a|--json", "unknown option --json"},
                {"a|-c", "missing after -c"},
                {"a|--config", "missing after --config"},
                {"a|-Y", "unknown option -Y"},
                {"a|-T|x", "unknown option -T"},
                {"a|-4", "unknown option -4"},
                {"a|--to", "missing after --to"},
                {"a|--wait", "unknown option --wait"},
                {"a|--expiry=1", "unknown option"},
                {"a|", "a path is empty"},
                {"a|--foreground=1", "unknown option"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                char line[64];
                struct tk_args args;
                struct tk_fault fault;

                snprintf(line, sizeof(line), "%s", cases[i].line);
                assert_int_equal(parse(line, &args, &fault), -EINVAL);
                assert_int_equal(fault.kind, TK_FAULT_USAGE);
                if (!strstr(fault.text, cases[i].why))
                        fail_msg("'%s': %s", cases[i].line, fault.text);
                assert_non_null(strstr(fault.text, "turnkeyfs verb SYNOPSIS"));
                tk_args_done(&args);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_args_parse__any_order),
                cmocka_unit_test(test_args_parse__long_options),
                cmocka_unit_test(test_args_parse__end_of_options),
                cmocka_unit_test(test_args_parse__help_needs_nothing_else),
                cmocka_unit_test(test_args_parse__refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
