/* Depthwise convolution with AVX-512.  Int8 taps go four at a time through VPDPBUSD, 64 channels of a pixel, 32 of two or
 * 16 of four at once: unpacking bytes and words interleaves the taps within 128-bit lanes, and the packing of the results
 * undoes that order.  At stride 1, four columns of a 3x3 window's row serve two neighbouring pixels. */
#if defined(__x86_64__)
#include "avx512.h"
#include "dw.h"
#include "portable.h"

enum { MAX_TAPS = 64 };
enum { PART, FULL, HALF }; /* channels of a block: fewer than 16, 16, 8 (masks cost) */

/* One block of 16 channels: taps in groups of four, [tap group][channel][4] bytes. */
typedef struct block {
    __m512i w[MAX_TAPS / 4], one[MAX_TAPS / 4]; /* one: 1 at every tap that exists, for sum(x + 128) */
    __m512i bias; /* takes off what x + 128 in place of x adds */
    __m512 scale;
} block;

/* four rows of 16 bytes -> 16 channels of 4 bytes */
EK_INLINE EK_AVX512 __m512i interleave(__m128i a, __m128i b, __m128i c, __m128i d)
{
    const __m512i dwords = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    __m512i v = _mm512_inserti32x4(_mm512_castsi128_si512(a), b, 1);
    v = _mm512_inserti32x4(_mm512_inserti32x4(v, c, 2), d, 3);
    return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(dwords, v), bytes);
}

EK_INLINE EK_AVX512 void load_block(const ek_dw *d, const uint8_t *p, uint32_t taps, block *out)
{
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512();
    const uint8_t *w = p + 128;
    for (uint32_t g = 0; g * 4 < taps; g++) {
        __m128i row[4];
        for (uint32_t i = 0; i < 4; i++)
            row[i] = g * 4 + i < taps ? _mm_loadu_si128((const __m128i *)(const void *)(w + (g * 4 + i) * 16u))
                                      : _mm_setzero_si128();
        uint32_t left = taps - g * 4;
        out->w[g] = interleave(row[0], row[1], row[2], row[3]);
        out->one[g] = _mm512_set1_epi32(left >= 4 ? 0x01010101 : (int32_t)(0x01010101u & ((1u << left * 8) - 1)));
        sum = _mm512_dpbusd_epi32(sum, ones, out->w[g]);
    }
    /* sum x (w - z) = sum (x + 128) w - 128 sum w - z sum (x + 128) + 128 z taps */
    __m512i bias = _mm512_sub_epi32(_mm512_loadu_si512(p), _mm512_slli_epi32(sum, 7));
    out->bias = _mm512_add_epi32(bias, _mm512_set1_epi32(128 * d->w_zero * (int32_t)taps));
    out->scale = _mm512_loadu_ps(p + 64);
}

EK_INLINE EK_AVX512 __m128i load_tap(const int8_t *x, __mmask16 mask, int full)
{
    if (full == HALF)
        return _mm_loadl_epi64((const __m128i *)(const void *)x);
    return full ? _mm_loadu_si128((const __m128i *)(const void *)x) : _mm_maskz_loadu_epi8(mask, x);
}

/* all pixels of one block; groups, zero and full are constants where that pays */
EK_INLINE EK_AVX512 void pixels(const ek_dw *d, const block *b, const ptrdiff_t *at, uint32_t c0, const uint32_t groups,
                                const int zero, const int full)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80), wz = _mm512_set1_epi32(d->w_zero);
    const ek_requant512 q = ek_requant512_of(d->lo, d->hi, d->zero);
    uint32_t left = d->channels - c0;
    __mmask16 mask = full ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
    const int8_t *x = (const int8_t *)d->x + c0;
    int8_t *y = (int8_t *)d->y + c0;
    ptrdiff_t jump = d->row_step - (ptrdiff_t)d->count * d->step;
    for (uint32_t n = d->count * d->rows, p = 0; n; n--, x += d->step, y += d->channels, p++) {
        if (p == d->count) {
            x += jump;
            p = 0;
        }
        __m512i acc = b->bias, sum = _mm512_setzero_si512();
        for (uint32_t g = 0; g < groups; g++) {
            const ptrdiff_t *o = at + g * 4;
            __m512i v = interleave(load_tap(x + o[0], mask, full), load_tap(x + o[1], mask, full),
                                   load_tap(x + o[2], mask, full), load_tap(x + o[3], mask, full));
            v = _mm512_xor_si512(v, flip);
            acc = _mm512_dpbusd_epi32(acc, v, b->w[g]);
            if (zero)
                sum = _mm512_dpbusd_epi32(sum, v, b->one[g]);
        }
        if (zero)
            acc = _mm512_sub_epi32(acc, _mm512_mullo_epi32(sum, wz));
        __m128i r = ek_requant512_s8(acc, b->scale, &q);
        if (full)
            _mm_storeu_si128((__m128i *)(void *)y, r);
        else
            _mm_mask_storeu_epi8(y, mask, r);
    }
}

/* Four lanes of 16 channels: a lane is one block of one pixel. */
typedef struct lanes {
    __m512i w[MAX_TAPS / 4][4], next[3][4]; /* [tap group][quarter of the channels]; next: for the pixel one column on */
    __m512i one[MAX_TAPS / 4];              /* 1 at every tap that exists */
    __m512i bias[4];
    __m512 scale[4];
    ptrdiff_t at[MAX_TAPS];                 /* of each tap; groups of 3x3 windows are rows: their fourth tap weighs 0 */
    uint32_t groups;
    int zero; /* the weight zero point is not in the weights */
    int pair; /* two neighbouring pixels at once */
} lanes;

/* 16 bytes of each block: `blocks` of them, `stride` bytes apart, again and again */
EK_INLINE EK_AVX512 __m512i of_blocks(const uint8_t *p, size_t stride, uint32_t blocks)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)p));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 1 % blocks * stride)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 2 % blocks * stride)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 3 % blocks * stride)), 3);
}

/* channels 4 j to 4 j + 3 of every lane, 4 taps each -> out[j] */
EK_INLINE EK_AVX512 void interleave4(const __m512i t[4], __m512i out[4])
{
    __m512i lo01 = _mm512_unpacklo_epi8(t[0], t[1]), hi01 = _mm512_unpackhi_epi8(t[0], t[1]);
    __m512i lo23 = _mm512_unpacklo_epi8(t[2], t[3]), hi23 = _mm512_unpackhi_epi8(t[2], t[3]);
    out[0] = _mm512_unpacklo_epi16(lo01, lo23);
    out[1] = _mm512_unpackhi_epi16(lo01, lo23);
    out[2] = _mm512_unpacklo_epi16(hi01, hi23);
    out[3] = _mm512_unpackhi_epi16(hi01, hi23);
}

/* a weight zero point that can be taken off all weights of these blocks in int8 */
EK_INLINE EK_AVX512 int foldable(const uint8_t *w, size_t stride, uint32_t blocks, uint32_t taps, int32_t w_zero)
{
    const __m512i z = _mm512_set1_epi8((char)w_zero);
    __mmask64 bad = w_zero < -128 || w_zero > 127;
    for (uint32_t i = 0; i < taps; i++) {
        __m512i v = of_blocks(w + i * 16u, stride, blocks);
        bad |= _mm512_cmpneq_epi8_mask(_mm512_subs_epi8(v, z), _mm512_sub_epi8(v, z));
    }
    return !bad;
}

/* the `blocks` blocks from p on, `stride` bytes apart */
static EK_AVX512 void load_lanes(const ek_dw *d, const ptrdiff_t *at, const uint8_t *p, size_t stride, uint32_t blocks, lanes *o)
{
    uint32_t px = 4 / blocks;
    const __m512i ones = _mm512_set1_epi8(1);
    uint32_t taps = d->kh * d->kw, rows3 = d->kh == 3 && d->kw == 3, each = rows3 ? 3 : 4;
    const uint8_t *w = p + 128;
    __m512i sum[4] = { _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512() };
    int fold = d->w_zero && foldable(w, stride, blocks, taps, d->w_zero);
    const __m512i z = _mm512_set1_epi8((char)(fold ? d->w_zero : 0));
    o->zero = d->w_zero && !fold;
    o->groups = (taps + each - 1) / each;
    o->pair = rows3 && d->step == d->dx && d->count >= 2 * px; /* else a fourth column may not exist */
    for (uint32_t g = 0; g < o->groups; g++) {
        uint32_t first = g * each, left = taps - first < each ? taps - first : each;
        __m512i t[4];
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t tap = first + (i < left ? i : left - 1);
            t[i] = i < left ? _mm512_sub_epi8(of_blocks(w + tap * 16u, stride, blocks), z) : _mm512_setzero_si512();
            o->at[g * 4 + i] = at[tap];
        }
        if (o->pair)
            o->at[g * 4 + 3] += d->dx; /* the second pixel's last column */
        interleave4(t, o->w[g]);
        o->one[g] = _mm512_set1_epi32(left >= 4 ? 0x01010101 : (int32_t)(0x01010101u & ((1u << left * 8) - 1)));
        for (uint32_t j = 0; j < 4; j++) {
            sum[j] = _mm512_dpbusd_epi32(sum[j], ones, o->w[g][j]);
            if (o->pair)
                o->next[g][j] = _mm512_slli_epi32(o->w[g][j], 8);
        }
    }
    for (uint32_t j = 0; j < 4; j++) {
        __m512i bias = _mm512_sub_epi32(of_blocks(p + 16 * j, stride, blocks), _mm512_slli_epi32(sum[j], 7));
        o->bias[j] = _mm512_add_epi32(bias, _mm512_set1_epi32(o->zero ? 128 * d->w_zero * (int32_t)taps : 0));
        o->scale[j] = _mm512_castsi512_ps(of_blocks(p + 64 + 16 * j, stride, blocks));
    }
}

/* one tap of px pixels, `apart` elements from each other */
EK_INLINE EK_AVX512 __m512i load_lanes_tap(const int8_t *x, ptrdiff_t apart, __mmask16 mask, const unsigned px, const int full)
{
    if (px == 1)
        return _mm512_loadu_si512(x);
    if (px == 2)
        return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)x)),
                                  _mm256_loadu_si256((const __m256i *)(const void *)(x + apart)), 1);
    __m512i v = _mm512_inserti32x4(_mm512_castsi128_si512(load_tap(x, mask, full)), load_tap(x + apart, mask, full), 1);
    v = _mm512_inserti32x4(v, load_tap(x + 2 * apart, mask, full), 2);
    return _mm512_inserti32x4(v, load_tap(x + 3 * apart, mask, full), 3);
}

EK_INLINE EK_AVX512 void store_lanes(int8_t *y, __m512i v, ptrdiff_t apart, __mmask16 mask, const unsigned px, const int full)
{
    if (px == 1) {
        _mm512_storeu_si512(y, v);
    } else if (px == 2) {
        _mm256_storeu_si256((__m256i *)(void *)y, _mm512_castsi512_si256(v));
        _mm256_storeu_si256((__m256i *)(void *)(y + apart), _mm512_extracti64x4_epi64(v, 1));
    } else {
        __m128i p[4] = { _mm512_castsi512_si128(v), _mm512_extracti32x4_epi32(v, 1), _mm512_extracti32x4_epi32(v, 2),
                         _mm512_extracti32x4_epi32(v, 3) };
        EK_UNROLL for (unsigned i = 0; i < 4; i++) {
            if (full == HALF)
                _mm_storel_epi64((__m128i *)(void *)(y + i * apart), p[i]);
            else if (full)
                _mm_storeu_si128((__m128i *)(void *)(y + i * apart), p[i]);
            else
                _mm_mask_storeu_epi8(y + i * apart, mask, p[i]);
        }
    }
}

/* px pixels, or px pairs of neighbours */
EK_INLINE EK_AVX512 void unit(const ek_dw *d, const lanes *b, const ek_finish512 *f, const int8_t *x, int8_t *y, __mmask16 mask,
                              const uint32_t groups, const int zero, const unsigned np, const unsigned px, const int full)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    __m512i acc[2][4], sum[2][4];
    EK_UNROLL for (unsigned n = 0; n < np; n++)
        EK_UNROLL for (unsigned j = 0; j < 4; j++) {
            acc[n][j] = b->bias[j];
            sum[n][j] = _mm512_setzero_si512();
        }
    for (uint32_t g = 0; g < groups; g++) {
        __m512i t[4], v[4];
        EK_UNROLL for (unsigned i = 0; i < 4; i++)
            t[i] = _mm512_xor_si512(load_lanes_tap(x + b->at[g * 4 + i], (ptrdiff_t)np * d->step, mask, px, full), flip);
        interleave4(t, v);
        EK_UNROLL for (unsigned n = 0; n < np; n++)
            EK_UNROLL for (unsigned j = 0; j < 4; j++) {
                acc[n][j] = _mm512_dpbusd_epi32(acc[n][j], v[j], n ? b->next[g][j] : b->w[g][j]);
                if (zero)
                    sum[n][j] = _mm512_dpbusd_epi32(sum[n][j], v[j], n ? _mm512_slli_epi32(b->one[g], 8) : b->one[g]);
            }
    }
    EK_UNROLL for (unsigned n = 0; n < np; n++) {
        EK_UNROLL for (unsigned j = 0; j < 4; j++) {
            if (zero)
                acc[n][j] = _mm512_sub_epi32(acc[n][j], _mm512_mullo_epi32(sum[n][j], _mm512_set1_epi32(d->w_zero)));
            acc[n][j] = ek_scaled512(f, acc[n][j], b->scale[j]);
        }
        store_lanes(y + n * (size_t)d->channels, ek_narrow512(f, acc[n][0], acc[n][1], acc[n][2], acc[n][3]),
                    (ptrdiff_t)(np * d->channels), mask, px, full);
    }
}

/* all pixels; a row's last unit reaches back over pixels that are done already */
EK_INLINE EK_AVX512 void units(const ek_dw *d, const lanes *b, uint32_t c0, __mmask16 mask, const uint32_t groups, const int zero,
                               const unsigned np, const unsigned px, const int full)
{
    const ek_finish512 f = ek_finish512_of(d->lo, d->hi, d->zero);
    const int8_t *x = (const int8_t *)d->x + c0;
    int8_t *y = (int8_t *)d->y + c0;
    for (uint32_t r = 0; r < d->rows; r++, x += d->row_step, y += (size_t)d->count * d->channels)
        for (uint32_t p = 0; p < d->count; p += np * px) {
            uint32_t q = d->count - p < np * px ? d->count - np * px : p;
            unit(d, b, &f, x + (ptrdiff_t)q * d->step, y + (size_t)q * d->channels, mask, groups, zero, np, px, full);
        }
}

EK_INLINE EK_AVX512 void units_of(const ek_dw *d, const lanes *b, uint32_t c0, __mmask16 mask, const unsigned px, const int full)
{
    if (b->pair) {
        if (b->zero)
            units(d, b, c0, mask, 3, 1, 2, px, full);
        else
            units(d, b, c0, mask, 3, 0, 2, px, full);
    } else if (b->groups == 3 && !b->zero) {
        units(d, b, c0, mask, 3, 0, 1, px, full);
    } else {
        units(d, b, c0, mask, b->groups, b->zero, 1, px, full);
    }
}

static EK_AVX512 void pixels_of(const ek_dw *d, const uint8_t *w, uint32_t taps, const ptrdiff_t *at, uint32_t c0)
{
    block b;
    load_block(d, w, taps, &b);
    if (d->channels - c0 >= 16)
        pixels(d, &b, at, c0, (taps + 3) / 4, d->w_zero != 0, 1);
    else
        pixels(d, &b, at, c0, (taps + 3) / 4, d->w_zero != 0, 0);
}

static EK_AVX512 void dw_s8(const ek_dw *d)
{
    ptrdiff_t at[MAX_TAPS];
    uint32_t taps = ek_dw_taps(d, at, MAX_TAPS), done;
    if (!taps) {
        ek_dw_s8_portable(d);
        return;
    }
    const uint8_t *w = d->w;
    size_t stride = 16 * (8 + (size_t)taps);
    lanes b;
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 16 * done, w += done * stride) {
        uint32_t left = d->channels - c0, px;
        done = left >= 64 ? 4 : left >= 32 && d->count > 1 ? 2 : 1;
        px = 4 / done;
        if (d->count < px) {
            pixels_of(d, w, taps, at, c0);
            continue;
        }
        load_lanes(d, at, w, stride, done, &b);
        if (px == 1)
            units_of(d, &b, c0, 0xffff, 1, FULL);
        else if (px == 2)
            units_of(d, &b, c0, 0xffff, 2, FULL);
        else if (left >= 16)
            units_of(d, &b, c0, 0xffff, 4, FULL);
        else if (left == 8)
            units_of(d, &b, c0, 0xff, 4, HALF);
        else
            units_of(d, &b, c0, (__mmask16)((1u << left) - 1), 4, PART);
    }
}

/* Where a register tile of float pixels reads and writes: rows [i0, i1) of the window exist. */
typedef struct float_tile {
    const float *x; /* row i0 of the window, column 0 of the first pixel: may lie before the image, then masks are 0 */
    float *y;
    const __mmask16 *cols; /* of each column: 0 where it lies outside; NULL: all inside */
    uint32_t i0, i1;
} float_tile;

enum { WIDE = 4, COLUMNS = (WIDE - 1) * 2 + 5 }; /* pixels of a tile; columns of it at most */

/* np pixels of one block of 16 channels, `some` of them there.  kw and sx are constants; columns lie dx = channels apart. */
EK_INLINE EK_AVX512 void tile_f32(const ek_dw *d, const float_tile *t, uint32_t c0, const float *w, __mmask16 some, const unsigned kw,
                                  const unsigned sx, const unsigned np, const int masked)
{
    const size_t ch = d->channels;
    const unsigned cols = (np - 1) * sx + kw;
    const float *x = t->x + c0;
    __m512 acc[WIDE];
    EK_UNROLL for (unsigned p = 0; p < np; p++)
        acc[p] = _mm512_loadu_ps(w);
    w += 16 + (size_t)t->i0 * kw * 16;
    for (uint32_t i = t->i0; i < t->i1; i++, x += d->dy, w += kw * 16) {
        __m512 v[COLUMNS];
        EK_UNROLL for (unsigned q = 0; q < cols; q++)
            v[q] = masked ? _mm512_maskz_loadu_ps(t->cols ? some & t->cols[q] : some, x + q * ch) : _mm512_loadu_ps(x + q * ch);
        EK_UNROLL for (unsigned j = 0; j < kw; j++) {
            __m512 wv = _mm512_loadu_ps(w + j * 16);
            EK_UNROLL for (unsigned p = 0; p < np; p++)
                acc[p] = _mm512_fmadd_ps(v[p * sx + j], wv, acc[p]);
        }
    }
    float *y = t->y + c0;
    EK_UNROLL for (unsigned p = 0; p < np; p++) {
        __m512 r = ek_clamp512(acc[p], d->lo, d->hi);
        if (masked)
            _mm512_mask_storeu_ps(y + p * ch, some, r);
        else
            _mm512_storeu_ps(y + p * ch, r);
    }
}

/* one tile of pixels, all channels: the image is read along its memory */
EK_INLINE EK_AVX512 void channels_f32(const ek_dw *d, const float_tile *t, const unsigned kw, const unsigned sx, const unsigned np)
{
    const float *w = (const float *)(const void *)d->w;
    size_t block = 16 * (1 + (size_t)d->kh * kw);
    uint32_t c0 = 0;
    if (!t->cols)
        for (; c0 + 16 <= d->channels; c0 += 16, w += block)
            tile_f32(d, t, c0, w, 0xffff, kw, sx, np, 0);
    for (; c0 < d->channels; c0 += 16, w += block) {
        uint32_t left = d->channels - c0;
        tile_f32(d, t, c0, w, left < 16 ? (__mmask16)((1u << left) - 1) : (__mmask16)0xffff, kw, sx, np, 1);
    }
}

/* where tap (0, 0) of pixel (0, 0) lies, or would */
EK_INLINE const float *first_f32(const ek_dw *d)
{
    ptrdiff_t top = (int32_t)d->top, left = (ptrdiff_t)d->left;
    return (const float *)d->x - (d->columns ? (top * (ptrdiff_t)d->columns + left) * (ptrdiff_t)d->channels : 0);
}

/* Row r, of two pixels or more; the last tile reaches back over pixels that are done already. */
EK_INLINE EK_AVX512 void row_f32(const ek_dw *d, uint32_t r, uint32_t i0, uint32_t i1, const unsigned kw, const unsigned sx)
{
    float_tile t = { .i0 = i0, .i1 = i1 };
    const float *row = first_f32(d) + (ptrdiff_t)r * d->row_step + (ptrdiff_t)i0 * d->dy;
    __mmask16 masks[COLUMNS];
    for (uint32_t p = 0, np; p < d->count; p += np) {
        uint32_t left = d->count - p;
        np = left >= 3 && d->count >= WIDE ? WIDE : 2;
        p = left < np ? d->count - np : p;
        int64_t first = -(int64_t)d->left + (int64_t)p * sx, past = first + (np - 1) * sx + kw;
        t.x = row + (ptrdiff_t)p * d->step;
        t.y = (float *)d->y + ((size_t)r * d->count + p) * d->channels;
        t.cols = d->columns && (first < 0 || past > d->columns) ? masks : 0;
        for (uint32_t q = 0; t.cols && q < COLUMNS; q++)
            masks[q] = first + q >= 0 && first + q < d->columns ? 0xffff : 0;
        if (np == WIDE)
            channels_f32(d, &t, kw, sx, WIDE);
        else
            channels_f32(d, &t, kw, sx, 2);
    }
}

/* any window: a pixel at a time */
static EK_AVX512 void row_any_f32(const ek_dw *d, uint32_t r, uint32_t i0, uint32_t i1)
{
    ptrdiff_t ch = (ptrdiff_t)d->channels;
    int64_t sx = d->step / ch, dx = d->dx / ch;
    const float *row = first_f32(d) + (ptrdiff_t)r * d->row_step;
    for (uint32_t p = 0; p < d->count; p++) {
        const float *w = (const float *)(const void *)d->w;
        float *y = (float *)d->y + ((size_t)r * d->count + p) * d->channels;
        for (uint32_t c0 = 0; c0 < d->channels; c0 += 16, w += 16 * (1 + (size_t)d->kh * d->kw)) {
            uint32_t left = d->channels - c0;
            __mmask16 some = left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
            __m512 acc = _mm512_loadu_ps(w);
            for (uint32_t i = i0; i < i1; i++) {
                for (uint32_t j = 0; j < d->kw; j++) {
                    int64_t col = (int64_t)p * sx + (int64_t)j * dx - d->left;
                    if (d->columns && (col < 0 || col >= d->columns))
                        continue;
                    const float *x = row + (ptrdiff_t)i * d->dy + (ptrdiff_t)p * d->step + (ptrdiff_t)j * d->dx + c0;
                    acc = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(some, x), _mm512_loadu_ps(w + 16 * (1 + (size_t)i * d->kw + j)), acc);
                }
            }
            _mm512_mask_storeu_ps(y + c0, some, ek_clamp512(acc, d->lo, d->hi));
        }
    }
}

static EK_AVX512 void dw_f32(const ek_dw *d)
{
    ptrdiff_t ch = (ptrdiff_t)d->channels, sx = d->step / ch;
    int64_t lines = d->columns ? d->dy / ((ptrdiff_t)d->columns * ch) : 0;
    int known = d->count > 1 && d->dx == ch && d->step == sx * ch && (sx == 1 || sx == 2) && (d->kw == 3 || d->kw == 5);
    for (uint32_t r = 0; r < d->rows; r++) {
        int64_t top = -(int64_t)(int32_t)d->top + (int64_t)r * d->row_stride;
        uint32_t i0 = 0, i1 = d->kh;
        while (d->columns && i0 < i1 && top + (int64_t)i0 * lines < 0)
            i0++;
        while (d->columns && i1 > i0 && top + (int64_t)(i1 - 1) * lines >= d->h)
            i1--;
        if (known && d->kw == 3 && sx == 1)
            row_f32(d, r, i0, i1, 3, 1);
        else if (known && d->kw == 3)
            row_f32(d, r, i0, i1, 3, 2);
        else if (known && sx == 1)
            row_f32(d, r, i0, i1, 5, 1);
        else if (known)
            row_f32(d, r, i0, i1, 5, 2);
        else
            row_any_f32(d, r, i0, i1);
    }
}

void ek_dw_avx512vnni(ek_kernels *k)
{
    EK_SET(k, dw_s8, DW_S8, dw_s8, EK_ISA_AVX512VNNI);
    EK_SET(k, dw_f32, DW_F32, dw_f32, EK_ISA_AVX512VNNI);
    k->dw_s8_nr = 16;
    k->dw_f32_nr = 16;
    k->dw_rows = 1;
    k->dw_edges = EK_EDGES_F32;
}
#else
typedef int ek_no_dw_avx512vnni; /* a translation unit must not be empty */
#endif
