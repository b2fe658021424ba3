/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Faults planted on purpose, one at a time, to see that the crash simulator finds them
 * (tests/crash). Outside its build they are nothing.
 */

#include <stdbool.h>

enum tk_plant {
        TK_PLANT_NONE,
        TK_PLANT_JOURNAL_UNFLUSHED,    /* a commit does not flush the journal */
        TK_PLANT_EARLY_IN_PLACE,       /* overwrites go in place before the journal's flush */
        TK_PLANT_EARLY_SEAL,           /* a seal covers what no flush has made durable yet */
        TK_PLANT_TRUNCATE_UNJOURNALED, /* truncates and punches are no journal entries */
        TK_PLANT_JOURNAL_REUSED,       /* journal space is used again before the files are synced */
        TK_PLANT_FRESH_IN_FSYNC,       /* fsync raises the limit of fresh blocks when it ends */
        TK_PLANT_HOLES_IN_FSYNC,       /* holes are filled in place once a sync has begun, too */
        TK_PLANT_LATE_RECORD,          /* the key record follows the content */
        TK_PLANT_RENAME_UNSYNCED,      /* a file is replaced without a sync of the new one */
        TK_PLANT_HELD_UNKEPT,          /* journal space is used again before held files are kept */
        TK_PLANT_HELD_UNSYNCED,        /* kept entries are dropped before the file is flushed */
        TK_PLANT_COUNT,
};

#ifdef TK_PLANTS
extern enum tk_plant tk_plant_active;
#define TK_PLANT(which) (tk_plant_active == (which))
#else
#define TK_PLANT(which) false
#endif
