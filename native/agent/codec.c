#include "codec.h"
#include "edgekit.h"
#include <string.h>

uint16_t ek_get16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
uint32_t ek_get32(const uint8_t *p) { return ek_get16(p) | (uint32_t)ek_get16(p + 2) << 16; }
uint64_t ek_get64(const uint8_t *p) { return ek_get32(p) | (uint64_t)ek_get32(p + 4) << 32; }
void ek_put16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)v, p[1] = (uint8_t)(v >> 8); }
void ek_put32(uint8_t *p, uint32_t v) { ek_put16(p, (uint16_t)v), ek_put16(p + 2, (uint16_t)(v >> 16)); }
void ek_put64(uint8_t *p, uint64_t v) { ek_put32(p, (uint32_t)v), ek_put32(p + 4, (uint32_t)(v >> 32)); }

static void get_field(const ek_wire_field *f, void *at, const uint8_t *p)
{
    uint16_t v16;
    uint32_t v32;
    uint64_t v64;
    switch (f->kind) {
    case EK_FIELD_U16: v16 = ek_get16(p), memcpy(at, &v16, 2); break;
    case EK_FIELD_U32: v32 = ek_get32(p), memcpy(at, &v32, 4); break;
    case EK_FIELD_U64: v64 = ek_get64(p), memcpy(at, &v64, 8); break;
    default: memcpy(at, p, f->size);
    }
}

static void put_field(const ek_wire_field *f, const void *at, uint8_t *p)
{
    uint16_t v16;
    uint32_t v32;
    uint64_t v64;
    switch (f->kind) {
    case EK_FIELD_U16: memcpy(&v16, at, 2), ek_put16(p, v16); break;
    case EK_FIELD_U32: memcpy(&v32, at, 4), ek_put32(p, v32); break;
    case EK_FIELD_U64: memcpy(&v64, at, 8), ek_put64(p, v64); break;
    default: memcpy(p, at, f->size);
    }
}

/* A tail is a pointer and its u32 length, which the generator puts right behind it. */
typedef struct tail_ref { const uint8_t *data; uint32_t len; } tail_ref;

int ek_wire_get(const ek_wire_layout *l, void *m, const uint8_t *p, size_t n)
{
    if (n < l->size) return -1;
    for (unsigned i = 0; i < l->count; i++) {
        get_field(&l->fields[i], (uint8_t *)m + l->fields[i].at, p);
        p += l->fields[i].size;
    }
    if (l->tail) {
        tail_ref r = {p, (uint32_t)(n - l->size)};
        if (r.len % l->item) return -1;
        memcpy((uint8_t *)m + l->tail, &r.data, sizeof r.data);
        memcpy((uint8_t *)m + l->tail + offsetof(tail_ref, len), &r.len, sizeof r.len);
    }
    return 0;
}

size_t ek_wire_put(const ek_wire_layout *l, const void *m, uint8_t *p, size_t cap)
{
    tail_ref r = {0, 0};
    if (l->tail) {
        memcpy(&r.data, (const uint8_t *)m + l->tail, sizeof r.data);
        memcpy(&r.len, (const uint8_t *)m + l->tail + offsetof(tail_ref, len), sizeof r.len);
    }
    if (cap < l->size || cap - l->size < r.len) return 0;
    for (unsigned i = 0; i < l->count; i++) {
        put_field(&l->fields[i], (const uint8_t *)m + l->fields[i].at, p);
        p += l->fields[i].size;
    }
    if (r.len && r.data != p) memmove(p, r.data, r.len); /* equal: the tail was made in place */
    return l->size + r.len;
}

size_t ek_frame_seal(uint8_t *p, const ek_frame *f)
{
    p[0] = (uint8_t)(EK_WIRE_VERSION << 4 | f->flags);
    p[1] = f->type;
    ek_put16(p + 2, f->stream);
    ek_put32(p + 4, f->seq);
    ek_put64(p + 8, f->t);
    ek_put32(p + EK_FRAME_HEADER + f->len, ek_crc32(0, p, EK_FRAME_HEADER + f->len));
    return EK_WIRE_OVERHEAD + f->len;
}

int ek_frame_parse(ek_frame *f, const uint8_t *p, size_t n)
{
    if (n < EK_WIRE_OVERHEAD || n > EK_WIRE_OVERHEAD + EK_WIRE_MAX_BODY) return -1;
    if (ek_crc32(0, p, n - 4) != ek_get32(p + n - 4) || p[0] >> 4 != EK_WIRE_VERSION) return -1;
    f->flags = p[0] & 15;
    f->type = p[1];
    f->stream = ek_get16(p + 2);
    f->seq = ek_get32(p + 4);
    f->t = ek_get64(p + 8);
    f->body = p + EK_FRAME_HEADER;
    f->len = (uint32_t)(n - EK_WIRE_OVERHEAD);
    return 0;
}

size_t ek_cobs_block(const uint8_t *src, size_t n, int *zero)
{
    size_t len = 0;
    while (len < n && len < 254 && src[len]) len++;
    *zero = len < n && len < 254; /* a full block of 254 swallows no zero */
    return len;
}

size_t ek_cobs_encode(uint8_t *dst, size_t cap, const uint8_t *src, size_t n)
{
    size_t out = 0;
    int zero = 1;
    while (n || zero) { /* a zero at the end still needs its (empty) block */
        size_t len = ek_cobs_block(src, n, &zero);
        if (cap - out < len + 1) return EK_CODEC_BAD;
        dst[out] = (uint8_t)(len + 1);
        if (len) memcpy(dst + out + 1, src, len);
        out += len + 1;
        src += len + (zero ? 1 : 0);
        n -= len + (zero ? 1 : 0);
    }
    return out;
}

size_t ek_cobs_decode(uint8_t *p, size_t n)
{
    size_t in = 0, out = 0;
    while (in < n) {
        size_t code = p[in];
        if (code == 0 || in + code > n) return EK_CODEC_BAD;
        for (size_t i = 1; i < code; i++) {
            if (p[in + i] == 0) return EK_CODEC_BAD;
            p[out++] = p[in + i];
        }
        in += code;
        if (code < 255 && in < n) p[out++] = 0;
    }
    return out;
}
