/* Int8 depthwise convolution with AVX-512.  Taps go four at a time through VPDPBUSD, 64 channels of a pixel, 32 of two or
 * 16 of four at once: unpacking bytes and words interleaves the taps within 128-bit lanes, and the packing of the results
 * undoes that order.  Usual windows of 3x3 and 5x5 go column by column: the taps that lie over each other are interleaved
 * once for all windows they are part of.  Others take the taps of each pixel in order. */
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
    __m512i w[MAX_TAPS / 4][4];             /* [tap group][quarter of the channels] */
    __m512i one[MAX_TAPS / 4];              /* 1 at every tap that exists */
    __m512i bias[4];
    __m512 scale[4];
    uint32_t groups;
    int zero; /* the weight zero point is not in the weights */
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
static EK_AVX512 void load_lanes(const ek_dw *d, const uint8_t *p, size_t stride, uint32_t blocks, lanes *o)
{
    const __m512i ones = _mm512_set1_epi8(1);
    uint32_t taps = d->kh * d->kw;
    const uint8_t *w = p + 128;
    __m512i sum[4] = { _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512() };
    int fold = d->w_zero && foldable(w, stride, blocks, taps, d->w_zero);
    const __m512i z = _mm512_set1_epi8((char)(fold ? d->w_zero : 0));
    o->zero = d->w_zero && !fold;
    o->groups = (taps + 3) / 4;
    for (uint32_t g = 0; g < o->groups; g++) {
        uint32_t left = taps - g * 4;
        __m512i t[4];
        for (uint32_t i = 0; i < 4; i++)
            t[i] = i < left ? _mm512_sub_epi8(of_blocks(w + (g * 4 + i) * 16u, stride, blocks), z) : _mm512_setzero_si512();
        interleave4(t, o->w[g]);
        o->one[g] = _mm512_set1_epi32(left >= 4 ? 0x01010101 : (int32_t)(0x01010101u & ((1u << left * 8) - 1)));
        for (uint32_t j = 0; j < 4; j++)
            sum[j] = _mm512_dpbusd_epi32(sum[j], ones, o->w[g][j]);
    }
    for (uint32_t j = 0; j < 4; j++) {
        __m512i bias = _mm512_sub_epi32(of_blocks(p + 16 * j, stride, blocks), _mm512_slli_epi32(sum[j], 7));
        o->bias[j] = _mm512_add_epi32(bias, _mm512_set1_epi32(o->zero ? 128 * d->w_zero * (int32_t)taps : 0));
        o->scale[j] = _mm512_castsi512_ps(of_blocks(p + 64 + 16 * j, stride, blocks));
    }
}

/* the same element of px pixels */
EK_INLINE EK_AVX512 __m512i load_pixels(const int8_t *const x[4], ptrdiff_t at, __mmask16 mask, const unsigned px, const int full)
{
    if (px == 1)
        return _mm512_loadu_si512(x[0] + at);
    if (px == 2)
        return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)(x[0] + at))),
                                  _mm256_loadu_si256((const __m256i *)(const void *)(x[1] + at)), 1);
    __m512i v = _mm512_inserti32x4(_mm512_castsi128_si512(load_tap(x[0] + at, mask, full)), load_tap(x[1] + at, mask, full), 1);
    v = _mm512_inserti32x4(v, load_tap(x[2] + at, mask, full), 2);
    return _mm512_inserti32x4(v, load_tap(x[3] + at, mask, full), 3);
}

EK_INLINE EK_AVX512 void store_pixels(int8_t *const y[4], size_t at, __m512i v, __mmask16 mask, const unsigned px, const int full)
{
    if (px == 1) {
        _mm512_storeu_si512(y[0] + at, v);
    } else if (px == 2) {
        _mm256_storeu_si256((__m256i *)(void *)(y[0] + at), _mm512_castsi512_si256(v));
        _mm256_storeu_si256((__m256i *)(void *)(y[1] + at), _mm512_extracti64x4_epi64(v, 1));
    } else {
        __m128i p[4] = { _mm512_castsi512_si128(v), _mm512_extracti32x4_epi32(v, 1), _mm512_extracti32x4_epi32(v, 2),
                         _mm512_extracti32x4_epi32(v, 3) };
        EK_UNROLL for (unsigned i = 0; i < 4; i++) {
            if (full == HALF)
                _mm_storel_epi64((__m128i *)(void *)(y[i] + at), p[i]);
            else if (full)
                _mm_storeu_si128((__m128i *)(void *)(y[i] + at), p[i]);
            else
                _mm_mask_storeu_epi8(y[i] + at, mask, p[i]);
        }
    }
}

/* px neighbouring pixels */
EK_INLINE EK_AVX512 void unit(const ek_dw *d, const lanes *b, const ptrdiff_t *at, const ek_finish512 *f, const int8_t *x, int8_t *y,
                              __mmask16 mask, const int zero, const unsigned px, const int full)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    const int8_t *const from[4] = { x, x + d->step, x + 2 * d->step, x + 3 * d->step };
    int8_t *const to[4] = { y, y + d->channels, y + 2 * (size_t)d->channels, y + 3 * (size_t)d->channels };
    __m512i acc[4], sum[4];
    EK_UNROLL for (unsigned j = 0; j < 4; j++) {
        acc[j] = b->bias[j];
        sum[j] = _mm512_setzero_si512();
    }
    for (uint32_t g = 0; g < b->groups; g++) {
        __m512i t[4], v[4];
        EK_UNROLL for (unsigned i = 0; i < 4; i++)
            t[i] = _mm512_xor_si512(load_pixels(from, at[g * 4 + i], mask, px, full), flip);
        interleave4(t, v);
        EK_UNROLL for (unsigned j = 0; j < 4; j++) {
            acc[j] = _mm512_dpbusd_epi32(acc[j], v[j], b->w[g][j]);
            if (zero)
                sum[j] = _mm512_dpbusd_epi32(sum[j], v[j], b->one[g]);
        }
    }
    EK_UNROLL for (unsigned j = 0; j < 4; j++) {
        if (zero)
            acc[j] = _mm512_sub_epi32(acc[j], _mm512_mullo_epi32(sum[j], _mm512_set1_epi32(d->w_zero)));
        acc[j] = ek_scaled512(f, acc[j], b->scale[j]);
    }
    store_pixels(to, 0, ek_narrow512(f, acc[0], acc[1], acc[2], acc[3]), mask, px, full);
}

/* all pixels; a row's last unit reaches back over pixels that are done already */
EK_INLINE EK_AVX512 void units(const ek_dw *d, const lanes *b, const ptrdiff_t *at, uint32_t c0, __mmask16 mask, const unsigned px,
                               const int full)
{
    const ek_finish512 f = ek_finish512_of(d->lo, d->hi, d->zero);
    const int8_t *x = (const int8_t *)d->x + c0;
    int8_t *y = (int8_t *)d->y + c0;
    for (uint32_t r = 0; r < d->rows; r++, x += d->row_step, y += (size_t)d->count * d->channels)
        for (uint32_t p = 0; p < d->count; p += px) {
            uint32_t q = d->count - p < px ? d->count - px : p;
            const int8_t *from = x + (ptrdiff_t)q * d->step;
            int8_t *to = y + (size_t)q * d->channels;
            if (b->zero)
                unit(d, b, at, &f, from, to, mask, 1, px, full);
            else
                unit(d, b, at, &f, from, to, mask, 0, px, full);
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

/* The window of px output rows, a row of each lane. */
typedef struct columns {
    __m512i w[5][2][4];      /* [column][rows 0 to 3, row 4][quarter of the channels] */
    __m512i bias[4];
    __m512 scale[4];
    int large;               /* a scale from 1 on: results may exceed 32 bits */
    const int8_t *outside;   /* the zero point, 64 times */
    const int8_t *x[5][4];   /* [row of the window][lane], column 0 of the image; `outside` where there is none */
    ptrdiff_t step[5][4];    /* from column to column */
    int8_t *y[4];
    ptrdiff_t lines;         /* of the image, between rows of the window */
} columns;

/* weights of the `blocks` blocks from p on, `stride` bytes apart; asks for the `next` bytes behind them */
EK_INLINE EK_AVX512 void load_columns(const uint8_t *p, size_t stride, uint32_t blocks, size_t next, columns *o, const unsigned k)
{
    const __m512i ones = _mm512_set1_epi8(1), none = _mm512_setzero_si512();
    __m512i sum[4] = { none, none, none, none };
    for (unsigned j = 0; j < k; j++) {
        __m512i t[5];
        EK_UNROLL for (unsigned i = 0; i < k; i++)
            t[i] = of_blocks(p + 128 + (i * k + j) * 16u, stride, blocks);
        interleave4((__m512i[4]){ t[0], t[1], t[2], k == 3 ? none : t[3] }, o->w[j][0]);
        if (k == 5)
            interleave4((__m512i[4]){ t[4], none, none, none }, o->w[j][1]);
        EK_UNROLL for (unsigned i = 0; i < 4; i++) {
            sum[i] = _mm512_dpbusd_epi32(sum[i], ones, o->w[j][0][i]);
            if (k == 5)
                sum[i] = _mm512_dpbusd_epi32(sum[i], ones, o->w[j][1][i]);
        }
    }
    for (unsigned j = 0; j < 4; j++) { /* sum x w = sum (x + 128) w - 128 sum w */
        o->bias[j] = _mm512_sub_epi32(of_blocks(p + 16 * j, stride, blocks), _mm512_slli_epi32(sum[j], 7));
        o->scale[j] = _mm512_castsi512_ps(of_blocks(p + 64 + 16 * j, stride, blocks));
    }
    o->large = 0;
    for (unsigned j = 0; j < 4; j++)
        o->large |= _mm512_cmp_ps_mask(o->scale[j], _mm512_set1_ps(1.0f), _CMP_NLT_UQ);
    for (size_t i = 0; i < next; i += 64)
        _mm_prefetch((const char *)p + blocks * stride + i, _MM_HINT_T0);
}

/* where the windows of output rows r to r + px - 1 lie; behind the last row, the last one again */
EK_INLINE void place_columns(const ek_dw *d, uint32_t c0, uint32_t r, columns *o, const unsigned k, const unsigned px)
{
    const int8_t *x = (const int8_t *)d->x + c0;
    for (unsigned n = 0; n < px; n++) {
        uint32_t row = r + n < d->rows ? r + n : d->rows - 1;
        int64_t line = (int64_t)row * d->row_stride - (int32_t)d->top;
        ptrdiff_t at = d->columns ? (ptrdiff_t)line * (ptrdiff_t)d->columns * d->dx : (ptrdiff_t)row * d->row_step;
        o->y[n] = (int8_t *)d->y + c0 + (size_t)row * d->count * d->channels;
        for (unsigned i = 0; i < k; i++, line += o->lines, at += d->dy) {
            int there = !d->columns || (line >= 0 && line < d->h);
            o->x[i][n] = there ? x + at : o->outside;
            o->step[i][n] = there ? d->dx : 0;
        }
    }
}

/* taps that lie over each other in one column of the image */
EK_INLINE EK_AVX512 void load_column(const columns *o, ptrdiff_t col, __mmask16 mask, __m512i v[2][4], const unsigned k, const unsigned px,
                                     const int full)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    __m512i t[5];
    EK_UNROLL for (unsigned i = 0; i < k; i++) {
        const int8_t *x[4];
        EK_UNROLL for (unsigned n = 0; n < px; n++)
            x[n] = o->x[i][n] + col * o->step[i][n];
        t[i] = _mm512_xor_si512(load_pixels(x, 0, mask, px, full), flip);
    }
    interleave4((__m512i[4]){ t[0], t[1], t[2], t[k == 3 ? 2 : 3] }, v[0]);
    if (k == 5)
        interleave4((__m512i[4]){ t[4], t[4], t[4], t[4] }, v[1]);
}

/* px rows: each column adds to all windows that it is part of; acc[n] is that of pixel p + n.  k, sx, px and full are constants. */
EK_INLINE EK_AVX512 void row_columns(const ek_dw *d, const columns *o, const ek_finish512 *f, __mmask16 mask, const unsigned k,
                                     const unsigned sx, const unsigned px, const int full)
{
    enum { MOST = 5 };
    const unsigned live = (k + sx - 1) / sx;
    const int64_t count = d->count, columns = d->columns ? d->columns : INT64_MAX;
    const __m512i outside = _mm512_xor_si512(_mm512_loadu_si512(o->outside), _mm512_set1_epi8((char)0x80));
    const __m512i most = _mm512_set1_epi8((char)((int)d->hi + d->zero)); /* within int8: ek_ends_ok */
    __m512i acc[MOST][4];
    EK_UNROLL for (unsigned n = 0; n < live; n++)
        EK_UNROLL for (unsigned i = 0; i < 4; i++)
            acc[n][i] = _mm512_setzero_si512();
    for (int64_t p = 1 - (int64_t)live; p < count; p++) {
        EK_UNROLL for (unsigned e = 0; e < sx; e++) {
            const unsigned last = k - sx + e; /* the column's place in the window of pixel p */
            int64_t col = p * sx + last - (d->columns ? d->left : 0);
            __m512i v[2][4];
            EK_UNROLL for (unsigned i = 0; i < 4; i++)
                v[0][i] = v[1][i] = outside;
            if (col >= 0 && col < columns)
                load_column(o, (ptrdiff_t)col, mask, v, k, px, full);
            EK_UNROLL for (unsigned n = 0; n * sx <= last; n++) {
                const unsigned j = last - n * sx;
                if (k == 5 && (p + n < 0 || p + n >= count)) /* many of a small image: worth a look */
                    continue;
                EK_UNROLL for (unsigned i = 0; i < 4; i++) {
                    acc[n][i] = _mm512_dpbusd_epi32(j ? acc[n][i] : o->bias[i], v[0][i], o->w[j][0][i]);
                    if (k == 5)
                        acc[n][i] = _mm512_dpbusd_epi32(acc[n][i], v[1][i], o->w[j][1][i]);
                }
            }
        }
        if (p >= 0) {
            __m512i r[4];
            __m512 v[4];
            EK_UNROLL for (unsigned i = 0; i < 4; i++)
                v[i] = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[0][i]), o->scale[i]);
            if (o->large)
                EK_UNROLL for (unsigned i = 0; i < 4; i++)
                    v[i] = _mm512_min_ps(f->hi, v[i]);
            EK_UNROLL for (unsigned i = 0; i < 4; i++)
                r[i] = _mm512_cvt_roundps_epi32(v[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
            store_pixels(o->y, (size_t)p * d->channels, _mm512_min_epi8(ek_narrow512(f, r[0], r[1], r[2], r[3]), most), mask, px, full);
        }
        EK_UNROLL for (unsigned n = 0; n + 1 < live; n++)
            EK_UNROLL for (unsigned i = 0; i < 4; i++)
                acc[n][i] = acc[n + 1][i];
    }
}

EK_INLINE EK_AVX512 void all_columns(const ek_dw *d, columns *o, uint32_t c0, __mmask16 mask, const unsigned k, const unsigned px,
                                     const int full)
{
    const ek_finish512 f = ek_finish512_of(d->lo, d->hi, d->zero);
    for (uint32_t r = 0; r < d->rows; r += px) {
        place_columns(d, c0, r, o, k, px);
        if (d->step == d->dx)
            row_columns(d, o, &f, mask, k, 1, px, full);
        else
            row_columns(d, o, &f, mask, k, 2, px, full);
    }
}

/* channels in one go: 64, or 32 of two rows, or up to 16 of four */
static uint32_t blocks_of(uint32_t left, int two) { return left >= 64 ? 4 : left >= 32 && two ? 2 : 1; }

EK_INLINE EK_AVX512 void by_columns(const ek_dw *d, const unsigned k)
{
    columns o;
    const size_t stride = 16 * (8 + (size_t)k * k);
    const uint8_t *w = d->w;
    int8_t outside[64];
    _mm512_storeu_si512(outside, _mm512_set1_epi8((char)d->fill));
    o.outside = outside;
    o.lines = d->columns ? d->dy / ((ptrdiff_t)d->columns * d->dx) : 0;
    for (uint32_t c0 = 0, done; c0 < d->channels; c0 += 16 * done, w += done * stride) {
        uint32_t left = d->channels - c0;
        done = blocks_of(left, 1);
        load_columns(w, stride, done, left > 16 * done ? blocks_of(left - 16 * done, 1) * stride : 0, &o, k);
        if (done == 4)
            all_columns(d, &o, c0, 0xffff, k, 1, FULL);
        else if (done == 2)
            all_columns(d, &o, c0, 0xffff, k, 2, FULL);
        else if (left >= 16)
            all_columns(d, &o, c0, 0xffff, k, 4, FULL);
        else if (left == 8)
            all_columns(d, &o, c0, 0xff, k, 4, HALF);
        else
            all_columns(d, &o, c0, (__mmask16)((1u << left) - 1), k, 4, PART);
    }
}

/* apart: their frames are large */
static EK_AVX512 __attribute__((noinline)) void by_columns_3(const ek_dw *d) { by_columns(d, 3); }
static EK_AVX512 __attribute__((noinline)) void by_columns_5(const ek_dw *d) { by_columns(d, 5); }

/* each pixel by itself, its taps in order */
static EK_AVX512 __attribute__((noinline)) void by_taps(const ek_dw *d)
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
        done = blocks_of(left, d->count > 1);
        px = 4 / done;
        if (d->count < px) {
            pixels_of(d, w, taps, at, c0);
            continue;
        }
        load_lanes(d, w, stride, done, &b);
        if (px == 1)
            units(d, &b, at, c0, 0xffff, 1, FULL);
        else if (px == 2)
            units(d, &b, at, c0, 0xffff, 2, FULL);
        else if (left >= 16)
            units(d, &b, at, c0, 0xffff, 4, FULL);
        else if (left == 8)
            units(d, &b, at, c0, 0xff, 4, HALF);
        else
            units(d, &b, at, c0, (__mmask16)((1u << left) - 1), 4, PART);
    }
}

static EK_AVX512 void dw_s8(const ek_dw *d)
{
    ptrdiff_t channels = (ptrdiff_t)d->channels;
    int usual = !d->w_zero && d->kh == d->kw && d->dx == channels && (d->step == channels || d->step == 2 * channels);
    if (usual && d->kh == 3)
        by_columns_3(d);
    else if (usual && d->kh == 5)
        by_columns_5(d);
    else
        by_taps(d);
}

void ek_dw_avx512vnni(ek_kernels *k)
{
    ek_dw_f32_avx512vnni(k);
    EK_SET(k, dw_s8, DW_S8, dw_s8, EK_ISA_AVX512VNNI);
    k->dw_s8_nr = 16;
    k->dw_rows = 1;
    k->dw_edges |= EK_EDGES_S8;
}
#else
typedef int ek_no_dw_avx512vnni; /* a translation unit must not be empty */
#endif
