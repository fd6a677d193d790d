"""The two hashes that an id map may use, on bytes: FarmHash's Fingerprint64 and XXH64. Plain Python: cases are few."""
from __future__ import annotations

import struct

MASK = (1 << 64) - 1
K0, K1, K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F


def _u64(data: bytes, at: int) -> int:
    return struct.unpack_from("<Q", data, at)[0]


def _u32(data: bytes, at: int) -> int:
    return struct.unpack_from("<I", data, at)[0]


def _right(x: int, n: int) -> int:
    """Rotated to the right."""
    return ((x >> n) | (x << (64 - n))) & MASK if n else x


def _left(x: int, n: int) -> int:
    return _right(x, 64 - n)


def _mix(x: int) -> int:
    return x ^ (x >> 47)


def _len16(u: int, v: int, mul: int = 0x9DDFEA08EB382D69) -> int:
    a = _mix(((u ^ v) * mul) & MASK)
    b = _mix(((v ^ a) * mul) & MASK)
    return (b * mul) & MASK


def _farm_up_to_16(s: bytes) -> int:
    n = len(s)
    if n >= 8:
        mul = (K2 + n * 2) & MASK
        a, b = (_u64(s, 0) + K2) & MASK, _u64(s, n - 8)
        c = (_right(b, 37) * mul + a) & MASK
        d = ((_right(a, 25) + b) * mul) & MASK
        return _len16(c, d, mul)
    if n >= 4:
        return _len16((n + (_u32(s, 0) << 3)) & MASK, _u32(s, n - 4), (K2 + n * 2) & MASK)
    if n > 0:
        y, z = s[0] + (s[n >> 1] << 8), n + (s[n - 1] << 2)
        return (_mix(((y * K2) ^ (z * K0)) & MASK) * K2) & MASK
    return K2


def _farm_up_to_32(s: bytes) -> int:
    n = len(s)
    mul = (K2 + n * 2) & MASK
    a, b = (_u64(s, 0) * K1) & MASK, _u64(s, 8)
    c, d = (_u64(s, n - 8) * mul) & MASK, (_u64(s, n - 16) * K2) & MASK
    return _len16(
        (_right((a + b) & MASK, 43) + _right(c, 30) + d) & MASK, (a + _right((b + K2) & MASK, 18) + c) & MASK, mul
    )


def _farm_up_to_64(s: bytes) -> int:
    n = len(s)
    mul = (K2 + n * 2) & MASK
    a, b = (_u64(s, 0) * K2) & MASK, _u64(s, 8)
    c, d = (_u64(s, n - 8) * mul) & MASK, (_u64(s, n - 16) * K2) & MASK
    y = (_right((a + b) & MASK, 43) + _right(c, 30) + d) & MASK
    z = _len16(y, (a + _right((b + K2) & MASK, 18) + c) & MASK, mul)
    e, f = (_u64(s, 16) * mul) & MASK, _u64(s, 24)
    g, h = ((y + _u64(s, n - 32)) * mul) & MASK, ((z + _u64(s, n - 24)) * mul) & MASK
    return _len16(
        (_right((e + f) & MASK, 43) + _right(g, 30) + h) & MASK, (e + _right((f + a) & MASK, 18) + g) & MASK, mul
    )


def _weak32(s: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = struct.unpack_from("<4Q", s, at)
    a = (a + w) & MASK
    b = _right((b + a + z) & MASK, 21)
    c = a
    a = (a + x + y) & MASK
    b = (b + _right(a, 44)) & MASK
    return (a + z) & MASK, (b + c) & MASK


def _farm_long(s: bytes) -> int:
    n, seed = len(s), 81
    x, y = seed, (seed * K1 + 113) & MASK
    z = (_mix((y * K2 + 113) & MASK) * K2) & MASK
    v, w = (0, 0), (0, 0)
    x = (x * K2 + _u64(s, 0)) & MASK
    end, last = ((n - 1) // 64) * 64, n - 64
    for at in range(0, end, 64):
        x = (_right((x + y + v[0] + _u64(s, at + 8)) & MASK, 37) * K1) & MASK
        y = (_right((y + v[1] + _u64(s, at + 48)) & MASK, 42) * K1) & MASK
        x ^= w[1]
        y = (y + v[0] + _u64(s, at + 40)) & MASK
        z = (_right((z + w[0]) & MASK, 33) * K1) & MASK
        v = _weak32(s, at, (v[1] * K1) & MASK, (x + w[0]) & MASK)
        w = _weak32(s, at + 32, (z + w[1]) & MASK, (y + _u64(s, at + 16)) & MASK)
        z, x = x, z
    mul = (K1 + ((z & 0xFF) << 1)) & MASK
    at = last
    w = ((w[0] + ((n - 1) & 63)) & MASK, w[1])
    v = ((v[0] + w[0]) & MASK, v[1])
    w = ((w[0] + v[0]) & MASK, w[1])
    x = (_right((x + y + v[0] + _u64(s, at + 8)) & MASK, 37) * mul) & MASK
    y = (_right((y + v[1] + _u64(s, at + 48)) & MASK, 42) * mul) & MASK
    x ^= (w[1] * 9) & MASK
    y = (y + v[0] * 9 + _u64(s, at + 40)) & MASK
    z = (_right((z + w[0]) & MASK, 33) * mul) & MASK
    v = _weak32(s, at, (v[1] * mul) & MASK, (x + w[0]) & MASK)
    w = _weak32(s, at + 32, (z + w[1]) & MASK, (y + _u64(s, at + 16)) & MASK)
    z, x = x, z
    return _len16((_len16(v[0], w[0], mul) + _mix(y) * K0 + z) & MASK, (_len16(v[1], w[1], mul) + x) & MASK, mul)


def farmhash64(s: bytes) -> int:
    """Fingerprint64: one fixed function, which TensorFlow's string_to_hash_bucket_fast takes."""
    if len(s) <= 16:
        return _farm_up_to_16(s)
    if len(s) <= 32:
        return _farm_up_to_32(s)
    return _farm_up_to_64(s) if len(s) <= 64 else _farm_long(s)


P1, P2, P3, P4, P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def _round(acc: int, lane: int) -> int:
    return (_left((acc + lane * P2) & MASK, 31) * P1) & MASK


def xxh64(s: bytes, seed: int = 0) -> int:
    n, at = len(s), 0
    if n >= 32:
        acc = [(seed + P1 + P2) & MASK, (seed + P2) & MASK, seed, (seed - P1) & MASK]
        while at + 32 <= n:
            acc = [_round(a, _u64(s, at + 8 * i)) for i, a in enumerate(acc)]
            at += 32
        h = sum(_left(a, r) for a, r in zip(acc, (1, 7, 12, 18))) & MASK
        for a in acc:
            h = ((h ^ _round(0, a)) * P1 + P4) & MASK
    else:
        h = (seed + P5) & MASK
    h = (h + n) & MASK
    while at + 8 <= n:
        h = (_left(h ^ _round(0, _u64(s, at)), 27) * P1 + P4) & MASK
        at += 8
    if at + 4 <= n:
        h = (_left(h ^ ((_u32(s, at) * P1) & MASK), 23) * P2 + P3) & MASK
        at += 4
    for byte in s[at:]:
        h = (_left(h ^ ((byte * P5) & MASK), 11) * P1) & MASK
    h = ((h ^ (h >> 33)) * P2) & MASK
    h = ((h ^ (h >> 29)) * P3) & MASK
    return h ^ (h >> 32)
