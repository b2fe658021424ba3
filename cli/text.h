/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Bytes from a disk, made fit for a terminal and for JSON. */

#include "base/cleanup.h"
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/*
 * Write @text with control characters, backslashes and bytes that are not UTF-8
 * as \xNN: a file's name must not steer the terminal.
 */
void tk_text_print(FILE *out, const char *text);

/* The same as a JSON string; plain UTF-8 goes in as it is. NULL without memory. */
json_t *tk_text_json(const char *text);

/* The bytes of @text as a JSON string of hexadecimal digits. NULL without memory. */
json_t *tk_text_hex_json(const char *text);

/* @text for another process of ours: base64url, or null for NULL. NULL without memory. */
json_t *tk_text_wire(const char *text);

/* The way back; the caller frees it. NULL for null, for what is no such text, without memory. */
char *tk_text_of_wire(const json_t *value);

/* Whether @text is UTF-8, which alone fits JSON. */
bool tk_text_is_utf8(const char *text);

/* "1.5 GiB". @out holds 16 characters. */
const char *tk_text_size(uint64_t bytes, char out[16]);

/* "2026-11-24 08:00:00 UTC". @out holds 32 characters. */
const char *tk_text_time(int64_t unix_seconds, char out[32]);

/*
 * @root as one line of JSON, which the caller frees; json_dumps's is not malloc's. Drops the
 * reference. NULL without memory, or if @root is NULL.
 */
char *tk_text_dump_json(json_t *root);

/* Print @root as one JSON text and a newline, and drop the reference. */
TK_MUST_USE int tk_text_print_json(json_t *root);
