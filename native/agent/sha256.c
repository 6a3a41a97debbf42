#include "sha256.h"
#include <string.h>

static const uint32_t k256[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u,
    0xab1c5ed5u, 0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu,
    0x9bdc06a7u, 0xc19bf174u, 0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu,
    0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau, 0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u,
    0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u, 0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu,
    0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u, 0xa2bfe8a1u, 0xa81a664bu,
    0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u, 0x19a4c116u,
    0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u,
    0xc67178f2u};

static uint32_t rotr(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }

static void compress(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[16], v[8]; /* the schedule is kept as a ring: 64 bytes of stack, not 256 */
    for (unsigned i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 |
               p[4 * i + 3];
    memcpy(v, h, sizeof v);
    for (unsigned i = 0; i < 64; i++) {
        if (i >= 16) {
            uint32_t a = w[(i + 1) & 15], b = w[(i + 14) & 15];
            uint32_t s0 = rotr(a, 7) ^ rotr(a, 18) ^ a >> 3, s1 = rotr(b, 17) ^ rotr(b, 19) ^ b >> 10;
            w[i & 15] += s0 + w[(i + 9) & 15] + s1;
        }
        uint32_t e = v[4], a = v[0];
        uint32_t t1 = v[7] + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + ((e & v[5]) ^ (~e & v[6])) +
                      k256[i] + w[i & 15];
        uint32_t t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (unsigned i = 0; i < 8; i++) h[i] += v[i];
}

void ek_sha256_begin(ek_sha256 *s)
{
    static const uint32_t start[8] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                      0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
    memcpy(s->h, start, sizeof start);
    s->bytes = 0;
}

void ek_sha256_add(ek_sha256 *s, const void *data, size_t len)
{
    const uint8_t *p = data;
    while (len) {
        size_t have = (size_t)(s->bytes & 63), n = 64 - have < len ? 64 - have : len;
        if (n == 64) {
            compress(s->h, p);
        } else {
            memcpy(s->block + have, p, n);
            if (have + n == 64) compress(s->h, s->block);
        }
        s->bytes += n;
        p += n;
        len -= n;
    }
}

void ek_sha256_end(ek_sha256 *s, uint8_t out[32])
{
    uint64_t bits = s->bytes * 8;
    uint8_t pad[72] = {0x80};
    size_t n = (size_t)(119 - (s->bytes & 63)) % 64 + 1; /* then 8 more fill a block */
    for (unsigned i = 0; i < 8; i++) pad[n + i] = (uint8_t)(bits >> (56 - 8 * i));
    ek_sha256_add(s, pad, n + 8);
    for (unsigned i = 0; i < 32; i++) out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

void ek_hmac_sha256(uint8_t out[32], const uint8_t *key, size_t key_len, const void *a, size_t a_len,
                    const void *b, size_t b_len)
{
    ek_sha256 s;
    uint8_t pad[64], inner[32];
    memset(pad, 0, sizeof pad);
    if (key_len > 64) {
        ek_sha256_begin(&s);
        ek_sha256_add(&s, key, key_len);
        ek_sha256_end(&s, pad);
    } else if (key_len) {
        memcpy(pad, key, key_len);
    }
    for (unsigned i = 0; i < 64; i++) pad[i] ^= 0x36;
    ek_sha256_begin(&s);
    ek_sha256_add(&s, pad, 64);
    ek_sha256_add(&s, a, a_len);
    ek_sha256_add(&s, b, b_len);
    ek_sha256_end(&s, inner);
    for (unsigned i = 0; i < 64; i++) pad[i] ^= 0x36 ^ 0x5c;
    ek_sha256_begin(&s);
    ek_sha256_add(&s, pad, 64);
    ek_sha256_add(&s, inner, 32);
    ek_sha256_end(&s, out);
}

int ek_same(const uint8_t *a, const uint8_t *b, size_t len)
{
    volatile uint8_t difference = 0; /* volatile: the loop must not be cut short */
    for (size_t i = 0; i < len; i++) difference = (uint8_t)(difference | (a[i] ^ b[i]));
    return difference == 0;
}
