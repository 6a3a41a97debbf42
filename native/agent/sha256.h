/* SHA-256 (FIPS 180-4) and HMAC-SHA256 (RFC 2104), small rather than fast. */
#ifndef EK_SHA256_H
#define EK_SHA256_H
#include <stddef.h>
#include <stdint.h>

typedef struct ek_sha256 {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t block[64];
} ek_sha256;

void ek_sha256_begin(ek_sha256 *s);
void ek_sha256_add(ek_sha256 *s, const void *data, size_t len);
void ek_sha256_end(ek_sha256 *s, uint8_t out[32]); /* `s` must be begun again */

void ek_hmac_sha256(uint8_t out[32], const uint8_t *key, size_t key_len, const void *a, size_t a_len,
                    const void *b, size_t b_len); /* of a followed by b */
/* 1 if equal; the time does not depend on where they differ. */
int ek_same(const uint8_t *a, const uint8_t *b, size_t len);

#endif
