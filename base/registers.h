/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The processor's vector registers, in which memcpy(3) and ciphers leave what they worked on: a
 * thread that sleeps afterwards keeps it there, and a core has it.
 */

/* Zero those that a function may use without restoring them. Does nothing on other machines. */
void tk_registers_wipe(void);
