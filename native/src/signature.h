/* Ed25519 verification (RFC 8032) and SHA-512 (FIPS 180-4), for ek_verify.  Small rather than fast; nothing secret is
 * handled here, so nothing runs in constant time.  EK_NO_SIGNATURE leaves it out: then a key refuses every package. */
#ifndef EK_SIGNATURE_H
#define EK_SIGNATURE_H
#include <stddef.h>
#include <stdint.h>

typedef struct ek_sha512 {
    uint64_t h[8], bytes;
    uint8_t block[128];
} ek_sha512;

void ek_sha512_begin(ek_sha512 *s);
void ek_sha512_add(ek_sha512 *s, const void *data, size_t len);
void ek_sha512_end(ek_sha512 *s, uint8_t out[64]);

/* `hash` has taken the signature's first 32 bytes, the key and the message.  1: the signature is the key's. */
int ek_ed25519_check(const uint8_t signature[64], const uint8_t key[32], ek_sha512 *hash);
#endif
