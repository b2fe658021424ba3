/* SPDX-License-Identifier: Apache-2.0 */

/* Numbers and data from a seed (splitmix64), the same on every machine. */

#include "tests/model/model.h"
#include <string.h>

uint64_t model_random(uint64_t *state)
{
        uint64_t z = *state += 0x9e3779b97f4a7c15u;

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
}

uint64_t model_random_below(uint64_t *state, uint64_t bound)
{
        return bound ? model_random(state) % bound : 0;
}

/* One seed in sixteen gives zeros: what a filesystem may want to keep as a hole. */
void model_fill(uint64_t seed, void *buf, size_t len)
{
        uint8_t *p = buf;
        uint64_t state = seed;
        bool zeros = model_random(&state) % 16 == 0;

        for (size_t done = 0; done < len; done += sizeof(uint64_t)) {
                uint64_t word = zeros ? 0 : model_random(&state);
                size_t part = len - done < sizeof(word) ? len - done : sizeof(word);

                memcpy(p + done, &word, part);
        }
}
