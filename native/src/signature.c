#include <string.h>
#include "kernels.h"
#include "signature.h"

#ifndef EK_NO_SIGNATURE
/* ---- SHA-512 ----------------------------------------------------------------------------------- */
static const uint64_t round_k[80] = {
    0x428a2f98d728ae22u, 0x7137449123ef65cdu, 0xb5c0fbcfec4d3b2fu, 0xe9b5dba58189dbbcu,
    0x3956c25bf348b538u, 0x59f111f1b605d019u, 0x923f82a4af194f9bu, 0xab1c5ed5da6d8118u,
    0xd807aa98a3030242u, 0x12835b0145706fbeu, 0x243185be4ee4b28cu, 0x550c7dc3d5ffb4e2u,
    0x72be5d74f27b896fu, 0x80deb1fe3b1696b1u, 0x9bdc06a725c71235u, 0xc19bf174cf692694u,
    0xe49b69c19ef14ad2u, 0xefbe4786384f25e3u, 0x0fc19dc68b8cd5b5u, 0x240ca1cc77ac9c65u,
    0x2de92c6f592b0275u, 0x4a7484aa6ea6e483u, 0x5cb0a9dcbd41fbd4u, 0x76f988da831153b5u,
    0x983e5152ee66dfabu, 0xa831c66d2db43210u, 0xb00327c898fb213fu, 0xbf597fc7beef0ee4u,
    0xc6e00bf33da88fc2u, 0xd5a79147930aa725u, 0x06ca6351e003826fu, 0x142929670a0e6e70u,
    0x27b70a8546d22ffcu, 0x2e1b21385c26c926u, 0x4d2c6dfc5ac42aedu, 0x53380d139d95b3dfu,
    0x650a73548baf63deu, 0x766a0abb3c77b2a8u, 0x81c2c92e47edaee6u, 0x92722c851482353bu,
    0xa2bfe8a14cf10364u, 0xa81a664bbc423001u, 0xc24b8b70d0f89791u, 0xc76c51a30654be30u,
    0xd192e819d6ef5218u, 0xd69906245565a910u, 0xf40e35855771202au, 0x106aa07032bbd1b8u,
    0x19a4c116b8d2d0c8u, 0x1e376c085141ab53u, 0x2748774cdf8eeb99u, 0x34b0bcb5e19b48a8u,
    0x391c0cb3c5c95a63u, 0x4ed8aa4ae3418acbu, 0x5b9cca4f7763e373u, 0x682e6ff3d6b2b8a3u,
    0x748f82ee5defb2fcu, 0x78a5636f43172f60u, 0x84c87814a1f0ab72u, 0x8cc702081a6439ecu,
    0x90befffa23631e28u, 0xa4506cebde82bde9u, 0xbef9a3f7b2c67915u, 0xc67178f2e372532bu,
    0xca273eceea26619cu, 0xd186b8c721c0c207u, 0xeada7dd6cde0eb1eu, 0xf57d4f7fee6ed178u,
    0x06f067aa72176fbau, 0x0a637dc5a2c898a6u, 0x113f9804bef90daeu, 0x1b710b35131c471bu,
    0x28db77f523047d84u, 0x32caab7b40c72493u, 0x3c9ebe0a15c9bebcu, 0x431d67c49c100d4cu,
    0x4cc5d4becb3e42b6u, 0x597f299cfc657e2au, 0x5fcb6fab3ad6faecu, 0x6c44198c4a475817u,
};

static uint64_t ror(uint64_t x, unsigned n) { return x >> n | x << (64 - n); }

static void compress(ek_sha512 *s)
{
    uint64_t w[16], v[8];
    for (unsigned i = 0; i < 16; i++) {
        w[i] = 0;
        for (unsigned j = 0; j < 8; j++)
            w[i] = w[i] << 8 | s->block[8 * i + j];
    }
    memcpy(v, s->h, sizeof v);
    for (unsigned i = 0; i < 80; i++) {
        uint64_t x = w[(i + 1) & 15], y = w[(i + 14) & 15], a = v[0], e = v[4];
        uint64_t t = v[7] + (ror(e, 14) ^ ror(e, 18) ^ ror(e, 41)) + ((e & v[5]) ^ (~e & v[6])) + round_k[i] + w[i & 15];
        w[i & 15] += (ror(x, 1) ^ ror(x, 8) ^ x >> 7) + w[(i + 9) & 15] + (ror(y, 19) ^ ror(y, 61) ^ y >> 6);
        uint64_t u = (ror(a, 28) ^ ror(a, 34) ^ ror(a, 39)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        for (unsigned j = 7; j > 0; j--)
            v[j] = v[j - 1];
        v[4] += t;
        v[0] = t + u;
    }
    for (unsigned i = 0; i < 8; i++)
        s->h[i] += v[i];
}

void ek_sha512_begin(ek_sha512 *s)
{
    static const uint64_t first[8] = {
        0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
        0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u,
    };
    memcpy(s->h, first, sizeof first);
    s->bytes = 0;
}

void ek_sha512_add(ek_sha512 *s, const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    while (len) {
        size_t at = (size_t)(s->bytes & 127u), n = 128 - at < len ? 128 - at : len;
        memcpy(s->block + at, p, n);
        s->bytes += n;
        p += n;
        len -= n;
        if (at + n == 128)
            compress(s);
    }
}

void ek_sha512_end(ek_sha512 *s, uint8_t out[64])
{
    static const uint8_t one = 0x80, zero[8] = { 0 };
    uint64_t bits = s->bytes * 8;
    ek_sha512_add(s, &one, 1);
    while ((s->bytes & 127u) != 112)
        ek_sha512_add(s, zero, 1);
    ek_sha512_add(s, zero, 8); /* lengths of 2^64 bits and more do not occur */
    for (unsigned i = 0; i < 8; i++)
        s->block[120 + i] = (uint8_t)(bits >> (56 - 8 * i));
    compress(s);
    for (unsigned i = 0; i < 64; i++)
        out[i] = (uint8_t)(s->h[i / 8] >> (56 - 8 * (i & 7u)));
}

/* ---- numbers modulo p = 2^255 - 19: eight words, any value below 2^256 -------------------------- */
typedef struct fe { uint32_t w[8]; } fe;
typedef struct point { fe x, y, z, t; } point; /* x = X/Z, y = Y/Z, x * y = T/Z */

static const fe curve_d = { { 0x135978a3, 0x75eb4dca, 0x4141d8ab, 0x00700a4d, 0x7779e898, 0x8cc74079, 0x2b6ffe73, 0x52036cee } };
static const fe curve_2d = { { 0x26b2f159, 0xebd69b94, 0x8283b156, 0x00e0149a, 0xeef3d130, 0x198e80f2, 0x56dffce7, 0x2406d9dc } };
static const fe root_m1 = { { 0x4a0ea0b0, 0xc4ee1b27, 0xad2fe478, 0x2f431806, 0x3dfbd7a7, 0x2b4d0099, 0x4fc1df0b, 0x2b832480 } };
static const point base = {
    { { 0x8f25d51a, 0xc9562d60, 0x9525a7b2, 0x692cc760, 0xfdd6dc5c, 0xc0a4e231, 0xcd6e53fe, 0x216936d3 } },
    { { 0x66666658, 0x66666666, 0x66666666, 0x66666666, 0x66666666, 0x66666666, 0x66666666, 0x66666666 } },
    { { 1, 0, 0, 0, 0, 0, 0, 0 } },
    { { 0xa5b7dda3, 0x6dde8ab3, 0x775152f5, 0x20f09f80, 0x64abe37d, 0x66ea4e8e, 0xd78b7665, 0x67875f0f } },
};
static const uint32_t order[8] = { 0x5cf5d3ed, 0x5812631a, 0xa2f79cd6, 0x14def9de, 0, 0, 0, 0x10000000 };

/* adds carry * 2^256 = carry * 38; a second wrap leaves a value so small that it cannot wrap again */
static void fold(fe *r, uint64_t carry)
{
    while (carry) {
        carry *= 38;
        for (unsigned i = 0; i < 8; i++) {
            carry += r->w[i];
            r->w[i] = (uint32_t)carry;
            carry >>= 32;
        }
    }
}

static fe add(const fe *a, const fe *b)
{
    fe r;
    uint64_t c = 0;
    for (unsigned i = 0; i < 8; i++) {
        c += (uint64_t)a->w[i] + b->w[i];
        r.w[i] = (uint32_t)c;
        c >>= 32;
    }
    fold(&r, c);
    return r;
}

/* r = a - b over eight words; 1: a was less */
static uint32_t subtract(uint32_t *r, const uint32_t *a, const uint32_t *b)
{
    uint64_t c = 0;
    for (unsigned i = 0; i < 8; i++) {
        c = (uint64_t)a[i] - b[i] - c;
        r[i] = (uint32_t)c;
        c = c >> 63;
    }
    return (uint32_t)c;
}

static fe sub(const fe *a, const fe *b)
{
    static const uint32_t wrap[8] = { 38 };
    fe r;
    uint32_t less = subtract(r.w, a->w, b->w);
    while (less) /* 2^256 too much: take 38 away */
        less = subtract(r.w, r.w, wrap);
    return r;
}

static fe mul(const fe *a, const fe *b)
{
    uint32_t t[16] = { 0 };
    fe r;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t c = 0;
        for (unsigned j = 0; j < 8; j++) {
            c += (uint64_t)a->w[i] * b->w[j] + t[i + j];
            t[i + j] = (uint32_t)c;
            c >>= 32;
        }
        t[i + 8] = (uint32_t)c;
    }
    uint64_t c = 0;
    for (unsigned i = 0; i < 8; i++) {
        c += (uint64_t)t[i + 8] * 38 + t[i];
        r.w[i] = (uint32_t)c;
        c >>= 32;
    }
    fold(&r, c);
    return r;
}

/* x^e for e = 2^bits - 1 - holes */
static fe power(const fe *x, unsigned bits, uint32_t holes)
{
    fe r = *x;
    for (unsigned i = bits - 1; i-- > 0;) {
        r = mul(&r, &r);
        if (i >= 32 || !(holes >> i & 1u))
            r = mul(&r, x);
    }
    return r;
}

/* the one value below p */
static void pack(uint8_t out[32], const fe *a)
{
    static const uint32_t p[8] = { 0xffffffed, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x7fffffff };
    fe r = *a, less;
    while (!subtract(less.w, r.w, p))
        r = less;
    for (unsigned i = 0; i < 32; i++)
        out[i] = (uint8_t)(r.w[i / 4] >> (8 * (i & 3u)));
}

static fe load(const uint8_t in[32])
{
    fe r;
    for (unsigned i = 0; i < 8; i++)
        r.w[i] = in[4 * i] | (uint32_t)in[4 * i + 1] << 8 | (uint32_t)in[4 * i + 2] << 16 | (uint32_t)in[4 * i + 3] << 24;
    return r;
}

static int equal(const fe *a, const fe *b)
{
    uint8_t p[32], q[32];
    pack(p, a);
    pack(q, b);
    return memcmp(p, q, 32) == 0;
}

/* complete addition (Hisil, Wong, Carter, Dawson 2008, a = -1): also doubles */
static point plus(const point *p, const point *q)
{
    fe m = sub(&p->y, &p->x), n = sub(&q->y, &q->x), a = mul(&m, &n);
    m = add(&p->y, &p->x);
    n = add(&q->y, &q->x);
    fe b = mul(&m, &n), c = mul(&p->t, &q->t), d = mul(&p->z, &q->z);
    c = mul(&c, &curve_2d);
    d = add(&d, &d);
    fe e = sub(&b, &a), f = sub(&d, &c), g = add(&d, &c), h = add(&b, &a);
    point r = { mul(&e, &f), mul(&g, &h), mul(&f, &g), mul(&e, &h) };
    return r;
}

/* the negative of the point that 32 bytes stand for; 0: they stand for none (RFC 8032, 5.1.3) */
static int unpack_negative(point *r, const uint8_t in[32])
{
    static const fe zero = { { 0 } }, one = { { 1 } };
    uint8_t canonical[32];
    r->y = load(in);
    r->y.w[7] &= 0x7fffffffu;
    pack(canonical, &r->y);
    if (memcmp(canonical, in, 31) != 0 || canonical[31] != (in[31] & 0x7f))
        return 0;
    fe yy = mul(&r->y, &r->y), u = sub(&yy, &one), v = mul(&yy, &curve_d);
    v = add(&v, &one);
    fe v2 = mul(&v, &v), v3 = mul(&v2, &v), v7 = mul(&v3, &v3), t;
    v7 = mul(&v7, &v);
    t = mul(&u, &v7);
    t = power(&t, 252, 2); /* (p - 5) / 8 = 2^252 - 3 */
    t = mul(&t, &v3);
    r->x = mul(&t, &u);
    t = mul(&r->x, &r->x);
    t = mul(&t, &v);
    if (!equal(&t, &u)) {
        r->x = mul(&r->x, &root_m1);
        t = mul(&r->x, &r->x);
        t = mul(&t, &v);
        if (!equal(&t, &u))
            return 0;
    }
    pack(canonical, &r->x);
    unsigned odd = canonical[0] & 1u, sign = in[31] >> 7;
    if (sign && equal(&r->x, &zero))
        return 0;
    if (odd == sign)
        r->x = sub(&zero, &r->x);
    r->z = one;
    r->t = mul(&r->x, &r->y);
    return 1;
}

/* 512 bits modulo the order of the base point */
static void reduce(uint32_t r[8], const uint8_t hash[64])
{
    memset(r, 0, 32);
    for (unsigned i = 512; i-- > 0;) {
        uint32_t carry = hash[i / 8] >> (i & 7u) & 1u, less[8];
        for (unsigned j = 0; j < 8; j++) {
            uint32_t top = r[j] >> 31;
            r[j] = r[j] << 1 | carry;
            carry = top;
        }
        if (!subtract(less, r, order))
            memcpy(r, less, 32);
    }
}

int ek_ed25519_check(const uint8_t signature[64], const uint8_t key[32], ek_sha512 *hash)
{
    point negative, both, sum = { { { 0 } }, { { 1 } }, { { 1 } }, { { 0 } } };
    uint8_t digest[64], made[32], x[32];
    uint32_t h[8], rest[8];
    fe s = load(signature + 32);
    if (!subtract(rest, s.w, order) || !unpack_negative(&negative, key))
        return 0;
    ek_sha512_end(hash, digest);
    reduce(h, digest);
    both = plus(&base, &negative);
    for (unsigned i = 256; i-- > 0;) { /* s * base - h * key */
        unsigned which = (s.w[i / 32] >> (i & 31u) & 1u) | (h[i / 32] >> (i & 31u) & 1u) << 1;
        sum = plus(&sum, &sum);
        if (which)
            sum = plus(&sum, which == 1 ? &base : which == 2 ? &negative : &both);
    }
    fe z = power(&sum.z, 255, 20), y; /* p - 2 = 2^255 - 1 - 20 */
    sum.x = mul(&sum.x, &z);
    y = mul(&sum.y, &z);
    pack(made, &y);
    pack(x, &sum.x);
    made[31] |= (uint8_t)((x[0] & 1u) << 7);
    return memcmp(made, signature, 32) == 0;
}
#else
typedef int ek_no_signature; /* a translation unit must not be empty */
#endif
