/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A PKCS#11 module that forwards to another one, $TK_FAULTY_MODULE, and fails or hangs as it
 * is told: by rules in the file $TK_FAULTY_RULES, which is looked at before every call, or
 * handed over by a test that has loaded it, too. Rules are lines of:
 *
 *   FUNCTION rv NUMBER [FIRST [LAST]]   fails so, from the FIRST call on, up to the LAST
 *   C_Login masks NUMBER                works, but fails so where it would fail otherwise
 *   FUNCTION hang                       does not return as long as the rule stands
 *   FUNCTION hide NUMBER                C_GetMechanismInfo and C_*Init don't know a mechanism
 *   FUNCTION forks SECONDS              works, and leaves a child that lives so long
 *   FUNCTION lacks                      is not in the list, when that is asked for next
 *   FUNCTION says NUMBER [FIRST [LAST]] works, but gives NUMBER for the length or count of what it
 *                                       has put out: without having written that much;
 *                                       C_GetFunctionList: for the major version
 *
 * FUNCTION is a name such as C_Decrypt, or *: any. Calls are counted from when the rules
 * were set.
 */

/* Returns how many calls were made since the last rules: of all functions, or of @function. */
typedef unsigned tk_faulty_set_fn(const char *rules);
typedef unsigned tk_faulty_count_fn(const char *function);

tk_faulty_set_fn tk_faulty_set;
tk_faulty_count_fn tk_faulty_count;
