# SPDX-License-Identifier: Apache-2.0
"""
RSA keys without waiting: an RSA-4096 key takes seconds to make.

Two ways. `known`: products of primes that lie in known_primes.json, so that everybody knows the
keys; each product is given out once. `fresh`: real ones, some made ahead by a thread.
"""

import itertools
import json
import pathlib
import queue
import random
import threading

from cryptography.hazmat.primitives.asymmetric import rsa

SIZES = (2048, 3072, 4096)
AHEAD = 3  # of each size


class KnownKeys:
    def __init__(self):
        text = (pathlib.Path(__file__).parent / "known_primes.json").read_text()
        self.lock = threading.Lock()
        self.pairs = {}
        for bits, primes in json.loads(text).items():
            pairs = list(itertools.combinations([int(p, 16) for p in primes], 2))
            random.shuffle(pairs)
            self.pairs[int(bits)] = pairs
        self.given = set()

    def start(self):
        """Nothing to make ahead."""

    def mark_used(self, modulus):
        """A key from an earlier run has it."""
        self.given.add(modulus)

    def take(self, bits, exponent=65537):
        with self.lock:
            while exponent == 65537 and self.pairs[bits]:
                p, q = self.pairs[bits].pop()
                if p * q not in self.given:
                    return _key_of(p, q, exponent)
        return rsa.generate_private_key(exponent, bits)


class FreshKeys:
    def __init__(self):
        self.ready = {bits: queue.Queue(AHEAD) for bits in SIZES}

    def start(self):
        """Begin to make keys ahead."""
        for bits in SIZES:
            threading.Thread(target=self._fill, args=(bits,), daemon=True).start()

    def _fill(self, bits):
        while True:
            self.ready[bits].put(rsa.generate_private_key(65537, bits))

    def mark_used(self, modulus):
        pass

    def take(self, bits, exponent=65537):
        if exponent == 65537:
            try:
                return self.ready[bits].get_nowait()
            except queue.Empty:
                pass
        return rsa.generate_private_key(exponent, bits)


def _key_of(p, q, exponent):
    d = pow(exponent, -1, (p - 1) * (q - 1))
    return rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(exponent, p * q),
    ).private_key()
