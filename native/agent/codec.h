/* Bodies, frames and COBS of native/WIRE.md; twin of edgekit/wire_codec.py. */
#ifndef EK_CODEC_H
#define EK_CODEC_H
#include "wire.h"

#define EK_FRAME_HEADER 16u
#define EK_CODEC_BAD ((size_t)-1)

/* Body bytes -> structure `m` of layout `l`.  0: done; -1: too short, or the tail is not whole
 * items.  A tail points into `p`.  Text arrays end in NUL afterwards. */
int ek_wire_get(const ek_wire_layout *l, void *m, const uint8_t *p, size_t n);
/* Structure -> body bytes; their number, or 0 when `cap` is too small. */
size_t ek_wire_put(const ek_wire_layout *l, const void *m, uint8_t *p, size_t cap);

typedef struct ek_frame {
    uint8_t type, flags;
    uint16_t stream;
    uint32_t seq;
    uint64_t t;
    const uint8_t *body;
    uint32_t len;
} ek_frame;

/* Header before and CRC-32 behind the f->len body bytes already at p + EK_FRAME_HEADER; total bytes. */
size_t ek_frame_seal(uint8_t *p, const ek_frame *f);
/* 0: `f` describes the frame in p[0..n); -1: wrong length, CRC or version. */
int ek_frame_parse(ek_frame *f, const uint8_t *p, size_t n);

/* Start of the next block: returns its length (0..254) and whether src[len] is a zero to swallow. */
size_t ek_cobs_block(const uint8_t *src, size_t n, int *zero);
size_t ek_cobs_encode(uint8_t *dst, size_t cap, const uint8_t *src, size_t n); /* without the 0x00 */
size_t ek_cobs_decode(uint8_t *p, size_t n); /* in place; new length or EK_CODEC_BAD */

uint16_t ek_get16(const uint8_t *p);
uint32_t ek_get32(const uint8_t *p);
uint64_t ek_get64(const uint8_t *p);
void ek_put16(uint8_t *p, uint16_t v);
void ek_put32(uint8_t *p, uint32_t v);
void ek_put64(uint8_t *p, uint64_t v);

#endif
